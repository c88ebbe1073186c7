//! Our ends of rings in memory of the caller's, for benchmarks that play the kernel the same way to us and to others.
//!
//! Everywhere else ends are made with their memory, as whoever holds a far end can forge a frame (ARCHITECTURE, section 5). Hence each
//! constructor here is unsafe.

use crate::port::{RingReceiver, RingTransmitter};
pub use crate::ring::RawRing;
use crate::ring::{Consumer, Entry, Producer};
use xdp_umem::Umem;

/// The producing end of `ring`, which goes on where its index stands.
///
/// # Safety
/// R4: no other producing end is made of it. Its slots are of `T`.
pub unsafe fn producer<T: Entry>(ring: RawRing) -> Producer<T, RawRing> {
    // SAFETY: the caller's promise.
    unsafe { Producer::new(ring) }
}

/// The consuming end of `ring`, which goes on where its index stands.
///
/// # Safety
/// R4: no other consuming end is made of it. Its slots are of `T`.
pub unsafe fn consumer<T: Entry>(ring: RawRing) -> Consumer<T, RawRing> {
    // SAFETY: the caller's promise.
    unsafe { Consumer::new(ring) }
}

/// The halves of a port over a fill, an rx, a tx and a completion ring.
///
/// # Safety
/// As for [`producer`] and [`consumer`]; and K1: an address comes back on rx once for each time it went out on fill, on
/// completion once for each time it went out on tx.
pub unsafe fn halves(
    umem: &Umem,
    [fill, rx, tx, completion]: [RawRing; 4],
) -> (RingReceiver<'_, RawRing>, RingTransmitter<'_, RawRing>) {
    // SAFETY: the caller's promise.
    unsafe {
        (
            RingReceiver::new(umem, producer(fill), [consumer(rx)]),
            RingTransmitter::new(umem, [producer(tx)], consumer(completion)),
        )
    }
}
