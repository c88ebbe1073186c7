//! AF_XDP rings, sockets, ports and a run-to-completion loop.
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod wire;
