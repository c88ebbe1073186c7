//! The raw system calls, one thin function each. What must hold for memory safety is in each function's
//! contract; everything else the kernel checks, and says so with an [`Errno`].

use crate::Errno;
use core::ffi::{CStr, c_int, c_void};
use core::mem::{MaybeUninit, size_of};
use core::ptr::NonNull;

/// An open file descriptor, closed when dropped.
#[derive(Debug)]
pub struct Fd(c_int);

impl Fd {
    /// Takes charge of `raw`.
    ///
    /// # Safety
    /// `raw` is open, and nobody else will close it.
    pub const unsafe fn from_raw(raw: c_int) -> Self {
        Self(raw)
    }

    /// The number, for as long as `self` lives.
    pub const fn raw(&self) -> c_int {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: open and ours alone (`from_raw`).
        unsafe { libc::close(self.0) };
    }
}

#[cfg(feature = "std")]
impl std::os::fd::AsFd for Fd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: open for as long as `self` is borrowed.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) }
    }
}

#[cfg(feature = "std")]
impl From<std::os::fd::OwnedFd> for Fd {
    fn from(fd: std::os::fd::OwnedFd) -> Self {
        Self(std::os::fd::IntoRawFd::into_raw_fd(fd))
    }
}

/// A type that may be handed to the kernel and back as bytes.
///
/// # Safety
/// No padding, no pointers that Rust would follow, and every bit pattern is a value.
pub unsafe trait Plain: Copy {}
// SAFETY: integers and arrays of them.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The kernel's -1 as an [`Errno`].
fn check(returned: c_int) -> Result<c_int, Errno> {
    if returned < 0 { Err(Errno::last()) } else { Ok(returned) }
}

/// The size of a base page, in bytes.
pub fn page_size() -> usize {
    // SAFETY: no memory is passed.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// `mmap` of fresh zeroed memory, readable and writable; `flags` are added to `MAP_ANONYMOUS`.
pub fn mmap_anonymous(len: usize, flags: c_int) -> Result<NonNull<u8>, Errno> {
    mmap(len, flags | libc::MAP_ANONYMOUS, -1, 0)
}

/// `mmap` of a file, a device or a socket's ring, shared, readable and writable; `flags` are added.
pub fn mmap_shared(fd: &Fd, len: usize, offset: u64, flags: c_int) -> Result<NonNull<u8>, Errno> {
    mmap(len, flags | libc::MAP_SHARED, fd.0, offset)
}

fn mmap(len: usize, flags: c_int, fd: c_int, offset: u64) -> Result<NonNull<u8>, Errno> {
    // SAFETY: without MAP_FIXED the kernel chooses an address range that nothing uses.
    let base = unsafe {
        libc::mmap(
            core::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            fd,
            offset as libc::off_t,
        )
    };
    if base == libc::MAP_FAILED { Err(Errno::last()) } else { NonNull::new(base.cast()).ok_or(Errno::ENOMEM) }
}

/// `munmap`.
///
/// # Safety
/// The range is one mapping made by this module, and nobody touches it again.
pub unsafe fn munmap(base: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise. The call can only fail on a range that was never mapped.
    unsafe { libc::munmap(base.as_ptr().cast(), len) };
}

/// `madvise`, for advice that keeps the contents.
///
/// # Safety
/// The range is one mapping made by this module, and `advice` does not discard its contents.
pub unsafe fn madvise(base: NonNull<u8>, len: usize, advice: c_int) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    check(unsafe { libc::madvise(base.as_ptr().cast(), len, advice) }).map(drop)
}

/// `mbind` of a range not yet touched to one NUMA node, strictly (`MPOL_BIND`). Nodes 0 to 63.
///
/// # Safety
/// The range is one mapping made by this module.
pub unsafe fn mbind(base: NonNull<u8>, len: usize, node: u32) -> Result<(), Errno> {
    const MPOL_BIND: c_int = 2;
    if node >= 64 {
        return Err(Errno::EINVAL);
    }
    let mask = 1u64 << node;
    // SAFETY: the mask is a live u64, whose 64 bits are what `maxnode` names (the kernel counts one less).
    let returned = unsafe {
        libc::syscall(libc::SYS_mbind, base.as_ptr(), len, MPOL_BIND, &raw const mask, 65usize, 0usize)
    };
    check(returned as c_int).map(drop)
}

/// `memfd_create`, close-on-exec; `flags` are added. Since Linux 3.17, with huge pages since 4.14.
pub fn memfd_create(name: &CStr, flags: u32) -> Result<Fd, Errno> {
    // SAFETY: the name is a live C string.
    check(unsafe { libc::memfd_create(name.as_ptr(), flags | libc::MFD_CLOEXEC) }).map(Fd)
}

/// `ftruncate`.
pub fn ftruncate(fd: &Fd, len: u64) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::ftruncate(fd.0, len as libc::off_t) }).map(drop)
}

/// `socket`, close-on-exec.
pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Result<Fd, Errno> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) }).map(Fd)
}

/// `if_nametoindex`: an interface's index in the thread's network namespace; ENODEV if there is none.
pub fn if_nametoindex(name: &CStr) -> Result<u32, Errno> {
    // SAFETY: the name is a live C string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(Errno::last()),
        index => Ok(index),
    }
}

/// `bind` to an address of any family.
pub fn bind<T: Plain>(fd: &Fd, address: &T) -> Result<(), Errno> {
    // SAFETY: the address is live for its size, without padding (`Plain`).
    check(unsafe { libc::bind(fd.0, (&raw const *address).cast(), size_of::<T>() as u32) }).map(drop)
}

/// `setsockopt`.
pub fn setsockopt<T: Plain>(fd: &Fd, level: c_int, name: c_int, value: &T) -> Result<(), Errno> {
    let value = (&raw const *value).cast::<c_void>();
    // SAFETY: the value is live for its size, without padding (`Plain`).
    check(unsafe { libc::setsockopt(fd.0, level, name, value, size_of::<T>() as u32) }).map(drop)
}

/// `getsockopt`: the value, zero where the kernel wrote nothing, and how many bytes it wrote.
pub fn getsockopt<T: Plain>(fd: &Fd, level: c_int, name: c_int) -> Result<(T, usize), Errno> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as u32;
    // SAFETY: room for `len` bytes, which is what the kernel writes at most.
    check(unsafe { libc::getsockopt(fd.0, level, name, value.as_mut_ptr().cast(), &raw mut len) })?;
    // SAFETY: zeroed before, so initialised whatever the kernel left out, and every pattern is a value (`Plain`).
    Ok((unsafe { value.assume_init() }, len as usize))
}

/// Wakes an AF_XDP socket's sender: `sendto` of nothing, `MSG_DONTWAIT`. One system call.
///
/// Mirrors `__xsk_sendmsg` in `net/xdp/xsk.c`.
#[inline]
pub fn send_nothing(fd: &Fd) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    let sent = unsafe { libc::sendto(fd.0, core::ptr::null(), 0, libc::MSG_DONTWAIT, core::ptr::null(), 0) };
    if sent < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Wakes an AF_XDP socket's receiver: `recvfrom` of nothing, `MSG_DONTWAIT`. One system call.
///
/// Mirrors `__xsk_recvmsg` in `net/xdp/xsk.c`.
#[inline]
pub fn receive_nothing(fd: &Fd) -> Result<(), Errno> {
    let null = core::ptr::null_mut();
    // SAFETY: a buffer of no bytes is never written.
    let received = unsafe { libc::recv(fd.0, null, 0, libc::MSG_DONTWAIT) };
    if received < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// What [`poll`] waits for and saw: `struct pollfd`.
pub use libc::pollfd as PollFd;

/// `poll`. Returns how many entries have events; 0 when `timeout_ms` passed first (-1: never).
pub fn poll(fds: &mut [PollFd], timeout_ms: c_int) -> Result<u32, Errno> {
    // SAFETY: the slice is live and as long as said.
    check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) }).map(|n| n as u32)
}

/// `ppoll` without a signal mask: as [`poll`], with a timeout in nanoseconds.
pub fn ppoll(fds: &mut [PollFd], timeout_ns: u64) -> Result<u32, Errno> {
    let timeout = libc::timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the slice is live and as long as said, the timeout is live, and no mask is passed.
    check(unsafe {
        libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &raw const timeout, core::ptr::null())
    })
    .map(|n| n as u32)
}

/// `nanosleep`; a signal ends it early.
pub fn sleep_ns(ns: u64) {
    let time = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the time is live, and no remainder is asked for.
    unsafe { libc::nanosleep(&raw const time, core::ptr::null_mut()) };
}
