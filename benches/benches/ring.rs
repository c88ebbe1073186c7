//! What a ring operation costs an entry, ours beside others', in time-stamp ticks.
//!
//! `ring` moves descriptors as integers; `ring+ownership` moves packets as each library's own owner of them does, free list
//! included. The kernel is the same for all, and publishes a burst with one store within the timed section. Ours is there over plain memory
//! (`ours`) and over the rings of an unbound AF_XDP socket (`ours-socket`), as the peers' that make sockets of their own.

use benches::kernel::{self, Kernel};
use benches::measure::{Table, criterion};
use benches::rings::{self, Ours};
use std::os::fd::AsFd;

fn main() {
    let mut criterion = criterion();
    let mut table = Table::new();

    let mut bare = rings::bare("ours", |first| {
        let rings = kernel::plain(first);
        Some((Ours::new(rings), Kernel::new(rings)))
    });
    let mut owning = rings::owning("ours", || {
        let rings = kernel::plain(0);
        (rings::our_port(rings::umem(), rings), Kernel::new(rings))
    });
    match kernel::unbound(rings::shared_umem()) {
        Err(errno) => println!("skipped: rings of a socket: {errno} (CAP_NET_RAW makes one)"),
        Ok(_) => {
            bare.extend(rings::bare("ours-socket", |first| {
                let socket = kernel::unbound(rings::shared_umem()).ok()?;
                let (near, far) =
                    (kernel::map(socket.as_fd(), first).ok()?, kernel::map(socket.as_fd(), 0).ok()?);
                Some((Ours::new(near), Kernel::new(far)))
            }));
            owning.extend(rings::owning("ours-socket", || {
                let umem = rings::umem();
                let socket = kernel::unbound(&umem).expect("one could be made before");
                let [near, far] = [(); 2].map(|()| kernel::map(socket.as_fd(), 0).expect("its rings"));
                (rings::our_port(umem, near), Kernel::new(far))
            }));
            #[cfg(feature = "peer-xdpilone")]
            {
                use benches::peers::xdpilone;
                bare.extend(rings::bare("xdpilone", |first| xdpilone::open(first).ok()));
                owning.extend(rings::owning("xdpilone+list", || {
                    let (queues, kernel) = xdpilone::open(0).expect("a socket");
                    (xdpilone::WithFreeList::new(queues), kernel)
                }));
            }
            #[cfg(feature = "peer-xdp")]
            owning.extend(rings::owning("xdp", || benches::peers::xdp::open(64).expect("a socket")));
        }
    }
    #[cfg(feature = "peer-s2n")]
    bare.extend(rings::bare("s2n", |first| {
        let rings = kernel::plain(first);
        (first == 0).then(|| (benches::peers::s2n::Cursors::new(rings), Kernel::new(rings)))
    }));

    // One operation's rows together, whoever does it.
    for rows in [&mut bare, &mut owning] {
        let mut order = Vec::new();
        for row in rows.iter() {
            let operation = row.name.rsplit_once('/').map_or("", |(operation, _)| operation).to_string();
            if !order.contains(&operation) {
                order.push(operation);
            }
        }
        rows.sort_by_key(|row| {
            order
                .iter()
                .position(|operation| row.name.rsplit_once('/').is_some_and(|(name, _)| name == operation))
        });
    }
    table.measure(&mut criterion, "ring", bare);
    table.measure(&mut criterion, "ring+ownership", owning);
    criterion.final_summary();
    table.print();
}
