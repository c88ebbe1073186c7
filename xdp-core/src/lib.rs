//! AF_XDP rings, sockets, ports and a run-to-completion loop.
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
pub mod cpu;
#[cfg(feature = "std")]
pub mod netdev;
pub mod wire;
