//! Packet: frames sent through the kernel as they are, for whoever needs something to arrive.
#![forbid(unsafe_code)]

use super::{Error, Interface, sys};
use xdp_umem::{Errno, Fd};

/// A packet socket (AF_PACKET) that sends whole Ethernet frames out of one interface. It receives nothing.
///
/// For tests and probes: each frame is a system call and a copy. It needs CAP_NET_RAW.
#[derive(Debug)]
pub struct PacketSender {
    socket: Fd,
    name: alloc::string::String,
}

impl PacketSender {
    /// One on that interface. Two system calls.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW.
    pub fn on(interface: &Interface) -> Result<Self, Error> {
        interface.must_be_here("send on")?;
        let failed = |errno| Error::new("send on", &interface.name, errno);
        // protocol 0: the socket itself is given no packet
        let socket = xdp_umem::sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(failed)?;
        let mut address = [0u8; 20]; // struct sockaddr_ll
        address[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
        address[4..8].copy_from_slice(&interface.index.to_ne_bytes());
        xdp_umem::sys::bind(&socket, &address).map_err(failed)?;
        Ok(Self { socket, name: interface.name.clone() })
    }

    /// Sends a frame, without its checksum. A system call.
    ///
    /// # Errors
    /// `EMSGSIZE` if it is longer than the MTU allows, `ENETDOWN`, `ENOBUFS` if the queue is full.
    pub fn send(&self, frame: &[u8]) -> Result<(), Error> {
        match sys::send(&self.socket, frame) {
            Ok(len) if len == frame.len() => Ok(()),
            Ok(_) => Err(Error::new("send on", &self.name, Errno::EPROTO).saying("only part of it went")),
            Err(errno) => Err(Error::new("send on", &self.name, errno)),
        }
    }
}
