//! The far ends of rings, for fuzz targets that play a kernel which keeps to no contract.
//!
//! Everywhere else they are sealed, as whoever has one can forge a frame (ARCHITECTURE, section 5). The constructors here are unsafe for
//! that reason; the simulated kernel in [`sim`](crate::sim) is the safe one, within its contract.

use crate::port::{RingReceiver, RingTransmitter};
use crate::ring::{Consumer, Entry, HeapRing, Producer};
use alloc::sync::Arc;
use xdp_umem::{Desc, Umem};

/// The indices of a ring, to be set to anything.
#[derive(Clone, Debug)]
pub struct Indices(Arc<HeapRing>);

impl Indices {
    /// Moves the producer's index, whatever its owner thinks.
    pub fn set_producer(&self, index: u32) {
        self.0.set_producer(index);
    }

    /// Moves the consumer's index, whatever its owner thinks.
    pub fn set_consumer(&self, index: u32) {
        self.0.set_consumer(index);
    }

    /// Published entries not yet taken, as the indices have it.
    pub fn pending(&self) -> u32 {
        self.0.pending()
    }
}

/// Both ends of a ring on the heap, and its indices.
pub type Ends<T> = (Producer<T, Arc<HeapRing>>, Consumer<T, Arc<HeapRing>>, Indices);

/// Both ends of a ring of `capacity` slots, a power of two, whose indices begin at `first`, and its indices.
///
/// # Safety
/// After an index was moved, what is read may be an entry that was read before: it must not be taken for a chunk's only name.
pub unsafe fn ring<T: Entry>(capacity: u32, first: u32) -> Ends<T> {
    let memory = Arc::new(HeapRing::new(capacity, first));
    // SAFETY: R4, one end of each kind over fresh memory.
    let (producer, consumer) = unsafe { (Producer::new(memory.clone()), Consumer::new(memory.clone())) };
    (producer, consumer, Indices(memory))
}

/// The far ends of a port's four rings, and the indices of those that the far side moves.
#[derive(Debug)]
pub struct FarEnds {
    /// Takes what was lent to receive into.
    pub fill: Consumer<u64, Arc<HeapRing>>,
    /// Hands received packets over.
    pub rx: Producer<Desc, Arc<HeapRing>>,
    /// Takes what is to be sent.
    pub tx: Consumer<Desc, Arc<HeapRing>>,
    /// Hands finished chunks back.
    pub completion: Producer<u64, Arc<HeapRing>>,
    /// Of the fill, rx, tx and completion ring.
    pub indices: [Indices; 4],
}

/// The halves of a port, and the far ends of its rings.
pub type Halves<'u> = (RingReceiver<'u, Arc<HeapRing>>, RingTransmitter<'u, Arc<HeapRing>>, FarEnds);

/// The halves of a port over rings of `capacity` slots, whose indices begin at `first`, and the far ends.
///
/// # Safety
/// K1 and K2: an address goes back only once for each time it was lent. With the feature `ledger` nothing need hold: what
/// was not lent is refused.
pub unsafe fn port(umem: &Umem, capacity: u32, first: u32) -> Halves<'_> {
    // SAFETY: the entries become frames only in the halves below, which rely on K1 as our caller promised.
    let (our_fill, fill, fills) = unsafe { ring(capacity, first) };
    // SAFETY: as above.
    let (rx, our_rx, rxs) = unsafe { ring(capacity, first) };
    // SAFETY: as above.
    let (our_tx, tx, txs) = unsafe { ring(capacity, first) };
    // SAFETY: as above.
    let (completion, our_completion, completions) = unsafe { ring(capacity, first) };
    // SAFETY: K1 is our caller's promise.
    let receiver = unsafe { RingReceiver::new(umem, our_fill, [our_rx]) };
    // SAFETY: as above.
    let transmitter = unsafe { RingTransmitter::new(umem, [our_tx], our_completion) };
    let indices = [fills, rxs, txs, completions];
    (receiver, transmitter, FarEnds { fill, rx, tx, completion, indices })
}
