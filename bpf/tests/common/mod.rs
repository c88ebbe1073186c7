//! What the tests that enter the kernel share.

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
