//! The few system calls that only tests make.

use std::os::fd::AsFd;
use xdp_core::netdev::Interface;
use xdp_umem::Errno;
use xdp_umem::sys::{self, Plain};

/// `struct sockaddr_ll`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SockaddrLl {
    family: u16,
    protocol: u16,
    ifindex: u32,
    kind: u16,
    packet: u8,
    len: u8,
    address: [u8; 8],
}

// SAFETY: integers without padding.
unsafe impl Plain for SockaddrLl {}

/// A packet socket on an interface of this thread's namespace: reads and writes whole Ethernet frames of one ethertype,
/// as the kernel's stack has them. It does not block.
pub(crate) fn packet_socket(interface: &Interface, ethertype: [u8; 2]) -> std::fs::File {
    let protocol = u16::from_ne_bytes(ethertype);
    let fd = sys::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0).unwrap();
    let address = SockaddrLl {
        family: libc::AF_PACKET as u16,
        protocol,
        ifindex: interface.index,
        kind: 0,
        packet: 0,
        len: 0,
        address: [0; 8],
    };
    sys::bind(&fd, &address).unwrap();
    fd.as_fd().try_clone_to_owned().unwrap().into()
}

/// Takes one capability from this thread, for good.
pub(crate) fn drop_capability(number: u32) {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0]; // this thread
    let mut data = [[0u32; 3]; 2]; // effective, permitted, inheritable; low and high 32 bits
    // SAFETY: both are live, and laid out as `struct __user_cap_header_struct` and two `struct __user_cap_data_struct`.
    let read = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    assert_eq!(read, 0, "capget: {:#}", Errno::last());
    data[number as usize / 32].iter_mut().for_each(|set| *set &= !(1 << (number % 32)));
    // SAFETY: as above.
    let written = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(written, 0, "capset: {:#}", Errno::last());
}

/// Limits how much memory this process may lock.
pub(crate) fn limit_memlock(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the limit is live.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
    assert_eq!(set, 0, "setrlimit: {:#}", Errno::last());
}

/// The clock that the kernel stamps sent packets by, in nanoseconds.
pub(crate) fn tai_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the time.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_TAI, &raw mut now) };
    assert_eq!(read, 0, "clock_gettime: {:#}", Errno::last());
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
