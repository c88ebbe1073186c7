//! A ring answers as a queue does, whatever is done to it in whatever order, from any index; and whatever the far side
//! makes of its index, we read and write no more than the ring.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;
use xdp_core::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes)); // too few bytes: the end of this input
});

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let capacity = 1u32 << input.int_in_range(0..=6)?;
    let first = input.arbitrary()?;
    // SAFETY: the entries are numbers, and name no chunk.
    let (mut producer, mut consumer, indices) = unsafe { fuzzing::ring::<u64>(capacity, first) };
    let (mut committed, mut pushed) = (VecDeque::new(), VecDeque::new());
    let mut next = 0u64;
    let mut honest = true;
    while !input.is_empty() {
        let room = if honest { capacity as usize - committed.len() - pushed.len() } else { 0 };
        match input.int_in_range(0..=7)? {
            0 | 1 => {
                let pushed_it = producer.push(next).is_ok();
                if honest {
                    assert_eq!(pushed_it, room > 0);
                    if pushed_it {
                        pushed.push_back(next);
                    }
                }
                next += 1;
            }
            2 => {
                let count = producer.commit();
                assert!(count <= capacity);
                if honest {
                    assert_eq!(count as usize, pushed.len());
                    committed.append(&mut pushed);
                    assert_eq!(producer.pending() as usize, committed.len());
                    assert_eq!(indices.pending() as usize, committed.len());
                }
            }
            3 => {
                let wanted = input.arbitrary()?;
                let free = producer.free(wanted);
                assert!(free <= capacity);
                if honest {
                    assert!(free as usize <= room, "never more than there is");
                    assert!(free >= wanted || free as usize == room, "all there is, if it is too little");
                }
            }
            4 => {
                let wanted = input.arbitrary()?;
                let available = consumer.available(wanted);
                assert!(available <= capacity);
                if honest {
                    assert!(available as usize <= committed.len());
                    assert!(available >= wanted || available as usize == committed.len());
                }
            }
            5 | 6 => {
                let n = input.arbitrary::<u8>()?.into();
                let (mut seen, mut peeked) = (vec![], std::cell::RefCell::new(vec![]));
                let count = if n % 2 == 0 {
                    consumer.consume(n, |entry| seen.push(entry))
                } else {
                    consumer.consume_ahead::<3>(
                        n,
                        |entry| peeked.borrow_mut().push(entry),
                        |entry| seen.push(entry),
                    )
                };
                assert!(count <= n.min(capacity));
                assert_eq!(seen.len(), count as usize);
                assert!(n % 2 == 0 || *peeked.get_mut() == seen, "each is shown ahead once");
                if honest {
                    // It may know of fewer than there are, but of some if there are any.
                    assert!(count > 0 || n == 0 || committed.is_empty());
                    assert!(committed.drain(..count as usize).eq(seen));
                }
            }
            _ => {
                honest = false;
                let index = input.arbitrary()?;
                if input.arbitrary()? { indices.set_producer(index) } else { indices.set_consumer(index) }
            }
        }
    }
    Ok(())
}
