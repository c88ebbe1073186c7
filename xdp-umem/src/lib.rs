//! UMEM.
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod errno;
mod layout;
mod region;
pub mod sys;

pub use errno::Errno;
pub use layout::{Layout, LayoutError, PACKET_HEADROOM};
pub use region::{HugePages, Pages, Region, RegionOptions};
pub use sys::Fd;
