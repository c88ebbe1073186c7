//! mlock(2), which xdp-umem does not need.

use xdp_core::Errno;

/// Locks the pages of `len` bytes at the address `start` in memory.
pub(super) fn lock(start: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: mlock(2) reads and writes none of the memory, and answers ENOMEM where there is none.
    if unsafe { libc::mlock(start as *const _, len) } == 0 { Ok(()) } else { Err(Errno::last()) }
}

/// Undoes it.
pub(super) fn unlock(start: usize, len: usize) {
    // SAFETY: as above. It fails only where there is no such memory.
    unsafe { libc::munlock(start as *const _, len) };
}
