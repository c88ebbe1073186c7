//! A ring on the heap, laid out as the kernel lays out its own.

use super::{RingMemory, RingParts, Sealed};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

/// A cache line to itself, and the next one, which is fetched along.
#[repr(align(128))]
#[derive(Debug)]
struct Line(AtomicU32);

/// A ring on the heap: what simulation, tests and benches run on. Each index has its cache lines to itself, as in the kernel's.
#[derive(Debug)]
pub struct HeapRing {
    producer: Line,
    consumer: Line,
    flags: Line,
    slots: Box<[UnsafeCell<[u64; 2]>]>,
}

// SAFETY: the indices are atomics; a slot is touched by one end at a time (R2, R3), and only ends touch it.
unsafe impl Sync for HeapRing {}

impl HeapRing {
    /// Room for `capacity` entries, a power of two, with both indices at `first`. Panics on any other capacity.
    pub fn new(capacity: u32, first: u32) -> Self {
        assert!(capacity.is_power_of_two(), "a ring's capacity is a power of two, not {capacity}");
        Self {
            producer: Line(AtomicU32::new(first)),
            consumer: Line(AtomicU32::new(first)),
            flags: Line(AtomicU32::new(0)),
            slots: (0..capacity).map(|_| UnsafeCell::new([0; 2])).collect(),
        }
    }

    /// Published entries not yet taken.
    pub fn pending(&self) -> u32 {
        let produced = self.producer.0.load(Ordering::Relaxed);
        produced.wrapping_sub(self.consumer.0.load(Ordering::Relaxed))
    }

    #[cfg(feature = "sim")]
    pub(crate) fn flags(&self) -> &AtomicU32 {
        &self.flags.0
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn set_producer(&self, index: u32) {
        self.producer.0.store(index, Ordering::Release);
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn set_consumer(&self, index: u32) {
        self.consumer.0.store(index, Ordering::Release);
    }
}

impl Sealed for Arc<HeapRing> {}

// SAFETY: the ring stays in the Arc's allocation; the capacity is a power of two, and a slot of two words, aligned as
// one, holds an entry of either kind (an address ring uses the first half of the slots' bytes).
unsafe impl RingMemory for Arc<HeapRing> {
    fn parts(&self) -> RingParts {
        RingParts {
            producer: NonNull::from(&self.producer.0),
            consumer: NonNull::from(&self.consumer.0),
            flags: NonNull::from(&self.flags.0),
            slots: NonNull::from(&*self.slots).cast(),
            capacity: self.slots.len() as u32,
        }
    }
}
