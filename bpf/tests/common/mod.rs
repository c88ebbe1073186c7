//! What the tests that enter the kernel share.

#![allow(dead_code)] // not every test binary uses all of it

use xdp_bpf::Program;
use xdp_umem::{Errno, Fd};

/// Whether programs may be loaded here; says why not.
pub(crate) fn privileged() -> bool {
    match Program::pass() {
        Ok(_) => true,
        Err(error) if matches!(error.errno(), Some(Errno::EPERM | Errno::ENOSYS)) => {
            println!("skipped: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// An AF_XDP socket, not bound.
pub(crate) fn xdp_socket() -> Fd {
    xdp_umem::sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0).expect("an AF_XDP socket")
}

/// Leaves this thread no capability but those that the documentation asks for: `CAP_BPF`, `CAP_NET_ADMIN`, and `CAP_NET_RAW` for the sockets.
pub(crate) fn keep_documented_capabilities() {
    const CAPABILITIES: [u32; 3] = [12, 13, 39]; // NET_ADMIN, NET_RAW, BPF
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0]; // this thread
    let mut data = [[0u32; 3]; 2]; // effective, permitted, inheritable; low and high 32 bits
    for capability in CAPABILITIES {
        let set = &mut data[capability as usize / 32];
        set[0] |= 1 << (capability % 32);
        set[1] |= 1 << (capability % 32);
    }
    // SAFETY: both are live, and laid out as `struct __user_cap_header_struct` and two `struct __user_cap_data_struct`.
    let returned = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(returned, 0, "capset: {:#}", Errno::last());
}
