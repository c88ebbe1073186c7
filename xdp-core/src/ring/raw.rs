//! A ring over memory of the caller's.

use super::{RingMemory, RingParts, Sealed};
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;

/// A ring at a place the caller vouches for: how a benchmark lays our ends over the same memory as a peer's.
#[derive(Clone, Copy, Debug)]
pub struct RawRing(RingParts);

impl RawRing {
    /// Where the indices, the flags and the slots are, and how many slots.
    ///
    /// # Safety
    /// The memory outlives every end made over it; `capacity` is a power of two, and `slots` has room for so many entries,
    /// aligned to 8 bytes. It is written by ring ends only, one of each kind (R4).
    pub const unsafe fn new(
        producer: NonNull<AtomicU32>,
        consumer: NonNull<AtomicU32>,
        flags: NonNull<AtomicU32>,
        slots: NonNull<u8>,
        capacity: u32,
    ) -> Self {
        Self(RingParts { producer, consumer, flags, slots, capacity })
    }
}

impl Sealed for RawRing {}

// SAFETY: the promise of `new`.
unsafe impl RingMemory for RawRing {
    fn parts(&self) -> RingParts {
        self.0
    }
}
