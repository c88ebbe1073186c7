//! Watcher: looks at a ring whose ends belong to others.

use super::{RingMemory, RingParts};
use crate::uapi::XDP_RING_NEED_WAKEUP;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Reads a ring's indices and flags, and writes nothing: what a kick decides by.
#[derive(Debug)]
pub(crate) struct Watcher<M> {
    parts: RingParts,
    /// Keeps what the parts point to where it is.
    _memory: M,
}

// SAFETY: the pointers are into `_memory`, which may be sent, and are only loaded through, atomically.
unsafe impl<M: Send> Send for Watcher<M> {}

impl<M: RingMemory> Watcher<M> {
    pub(crate) fn new(memory: M) -> Self {
        Self { parts: memory.parts(), _memory: memory }
    }

    #[inline]
    fn load(&self, word: NonNull<AtomicU32>) -> u32 {
        // SAFETY: the word lives as long as `_memory`.
        unsafe { word.as_ref() }.load(Relaxed)
    }

    /// Entries published and not yet taken.
    #[inline]
    pub(crate) fn pending(&self) -> u32 {
        self.load(self.parts.producer).wrapping_sub(self.taken())
    }

    /// The consumer's index.
    #[inline]
    pub(crate) fn taken(&self) -> u32 {
        self.load(self.parts.consumer)
    }

    /// Whether the consumer asks to be woken (K3).
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.load(self.parts.flags) & XDP_RING_NEED_WAKEUP != 0
    }
}
