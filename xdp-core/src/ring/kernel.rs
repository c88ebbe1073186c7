//! A ring mapped from a socket.

use super::{RingMemory, RingParts, Sealed};
use crate::uapi::RingOffset;
use crate::xsk::Xsk;
use alloc::sync::Arc;
use core::ptr::NonNull;
use xdp_umem::{Errno, Fd, sys};

/// How many entries each ring of a socket has. Powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Of the fill ring.
    pub fill: u32,
    /// Of the rx ring.
    pub rx: u32,
    /// Of the tx ring.
    pub tx: u32,
    /// Of the completion ring: at least the tx ring's, or sending stops with nobody told.
    pub completion: u32,
}

/// One ring's mapping, unmapped when dropped. A mapped ring keeps its socket alive, so [`Xsk`] drops these first.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    parts: RingParts,
}

// SAFETY: only memory and where things are in it; who reads and writes which is up to the ends (R4).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the ring at `page_offset` of `fd`: `capacity` entries of `entry_size` bytes. A fork's child does not get it.
    pub(crate) fn new(
        fd: &Fd,
        page_offset: u64,
        offset: &RingOffset,
        capacity: u32,
        entry_size: usize,
    ) -> Result<Self, Errno> {
        let slots_len = capacity as usize * entry_size;
        let len = offset.desc as usize + slots_len;
        let words = [offset.producer, offset.consumer, offset.flags];
        if words.iter().any(|&word| word % 4 != 0 || word as usize + 4 > len) || offset.desc % 8 != 0 {
            return Err(Errno::EPROTO);
        }
        let base = sys::mmap_shared(fd, len, page_offset, libc::MAP_POPULATE)?;
        // SAFETY: our own mapping; this advice keeps its contents.
        let _ = unsafe { sys::madvise(base, len, libc::MADV_DONTFORK) };
        // SAFETY: every offset was checked to lie inside the mapping.
        let at = |offset: u64| unsafe { base.add(offset as usize) };
        let parts = RingParts {
            producer: at(offset.producer).cast(),
            consumer: at(offset.consumer).cast(),
            flags: at(offset.flags).cast(),
            slots: at(offset.desc),
            capacity,
        };
        Ok(Self { base, len, parts })
    }

    pub(crate) fn parts(&self) -> RingParts {
        self.parts
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the ends that point into it hold the `Arc<Xsk>` that owns us, so they are gone.
        unsafe { sys::munmap(self.base, self.len) };
    }
}

/// One of a socket's rings. It keeps the socket, which owns the mapping.
#[derive(Debug)]
pub struct KernelRing {
    parts: RingParts,
    _xsk: Arc<Xsk>,
}

// SAFETY: the mapping is the socket's, which is Send and Sync; R4 is kept by the ends.
unsafe impl Send for KernelRing {}

impl KernelRing {
    pub(crate) fn new(parts: RingParts, xsk: Arc<Xsk>) -> Self {
        Self { parts, _xsk: xsk }
    }
}

impl Sealed for KernelRing {}

// SAFETY: the mapping lives as long as the socket, which `_xsk` keeps; the kernel made it with this capacity, which it
// takes only as a power of two, and entries of the kind that lives at this page offset.
unsafe impl RingMemory for KernelRing {
    fn parts(&self) -> RingParts {
        self.parts
    }
}
