//! The XSKMAP: which AF_XDP socket a redirected packet goes to.

#![forbid(unsafe_code)]

use crate::AttachError;
use crate::sys::{self, MapFd};
use alloc::format;
use xdp_umem::{Errno, Fd};

/// A map from an index, a queue's number by default, to an AF_XDP socket. Mirrors `kernel/bpf`'s `BPF_MAP_TYPE_XSKMAP` (`net/xdp/xskmap.c`).
///
/// A socket leaves the map when it is closed; clear its slot first all the same, so that a packet in flight passes to the kernel.
#[derive(Debug)]
pub struct XskMap {
    fd: MapFd,
    max_entries: u32,
}

impl XskMap {
    /// A map with slots 0 to `max_entries` - 1, all empty. One system call.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN` (and `CAP_BPF`); `EINVAL` for no slots; `ENOMEM`, `E2BIG` for too many.
    pub fn new(max_entries: u32) -> Result<Self, AttachError> {
        const NAME: &str = "xdp_sockets";
        MapFd::create(sys::name(NAME), max_entries).map(|fd| Self { fd, max_entries }).map_err(|errno| {
            let remedy = match errno {
                Errno::EINVAL => "a map needs a slot for each queue, at least one; give the number of queues",
                _ => "ask for as many slots as there are queues",
            };
            AttachError::system("create", format!("XSKMAP {NAME} of {max_entries} slots"), errno, remedy)
        })
    }

    /// Puts a socket into a slot, in place of one that may be there. The socket may be bound later. One system call.
    ///
    /// # Errors
    /// `E2BIG` for an index outside the map; `EOPNOTSUPP` or `ENOTSOCK` for what is no AF_XDP socket.
    pub fn set(&self, index: u32, socket: &Fd) -> Result<(), AttachError> {
        self.fd.update(index, socket).map_err(|errno| {
            let remedy = match errno {
                Errno::E2BIG => "the map has no such slot; create it with more, or use a smaller index",
                Errno::EOPNOTSUPP | Errno::ENOTSOCK | Errno::EBADF => "that is no AF_XDP socket; give one",
                _ => "close other sockets and try again",
            };
            self.error("put socket into", index, errno, remedy)
        })
    }

    /// Empties a slot: its packets pass to the kernel. One system call.
    ///
    /// # Errors
    /// `EINVAL` for an index outside the map.
    pub fn clear(&self, index: u32) -> Result<(), AttachError> {
        self.fd.delete(index).map_err(|errno| {
            self.error("clear", index, errno, "the map has no such slot; use a smaller index")
        })
    }

    /// How many slots it has.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// Its descriptor, to hand to a less privileged process: it is all that [`set`](Self::set) needs.
    pub fn fd(&self) -> &Fd {
        self.fd.fd()
    }

    fn error(&self, operation: &'static str, index: u32, errno: Errno, remedy: &'static str) -> AttachError {
        AttachError::system(operation, format!("XSKMAP slot {index} of {}", self.max_entries), errno, remedy)
    }
}
