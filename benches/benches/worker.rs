//! What the loop costs a packet, without a kernel, in time-stamp ticks.
//!
//! Over a port to nowhere (`null-`), over four warm rings on the heap (`rings-`), over four rings with more chunks circulating
//! than the nearest caches hold (`cold-`); a turn is timed whole, with both stamps, which are some 25 ticks of it. What comes after the slash
//! is the burst.

use benches::loops;
use benches::measure::{Table, criterion};

fn main() {
    let other = loops::Other::new();
    let mut criterion = criterion();
    let mut table = Table::new();
    table.measure(&mut criterion, "worker", loops::rows());
    match &other {
        Some(other) => {
            table.measure(&mut criterion, "worker", [1, 8, 64].map(|burst| loops::hand_off(other, burst)))
        }
        None => println!("skipped: hand-off: it takes two cores"),
    }
    criterion.final_summary();
    table.print();
}
