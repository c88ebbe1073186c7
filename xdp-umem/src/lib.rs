//! UMEM: the memory that user space and the kernel pass packets in, and who owns which bytes of it.
//!
//! AF_XDP moves packets through a region of user memory, the [`Umem`], cut in *chunks* of one size. A chunk has
//! one owner at a time: us, or the kernel. Four rings pass it between the two by *address*, an offset in the
//! region: we lend free chunks on the *fill* ring, the kernel hands them back with packets in them on *rx*; we hand
//! packets over on *tx*, the kernel hands their chunks back on *completion*. The kernel checks none of this for us:
//! a chunk lent twice is two packets in the same bytes.
//!
//! So here ownership is the API. A [`Frame`] is a chunk, owned: it can be read and written while it is ours, and
//! putting it in a ring ([`Frame::into_desc`]) gives it up, as `Box::into_raw` does. It cannot be copied, made up,
//! or used after it was given up: none of these compile. Free frames wait in a [`Pool`].
//!
//! ```
//! use xdp_umem::{Layout, Pool, Umem};
//! let umem = Umem::heap(Layout::new(2048, 1024)?); // Umem::new maps one that the kernel can use
//! let mut pool = Pool::new(umem.take_frames().expect("taken once"));
//! let mut frame = pool.take().expect("1024 are free");
//! frame.write(b"packet");
//! assert_eq!(frame.len(), 6);
//! frame.adjust_head(-14); // room for a header before it
//! assert_eq!(frame.len(), 20);
//! let desc = frame.into_desc(&umem); // gone: what a tx ring would carry now
//! assert_eq!(desc.len, 20);
//! # Ok::<(), xdp_umem::LayoutError>(())
//! ```
//!
//! # What keeps it sound
//!
//! - A chunk's first frame comes from [`Umem::take_frames`], which hands each out once. All others come from
//!   [`Frame::from_desc`], which is unsafe and checks that the descriptor lies in one chunk of the UMEM (K2).
//! - That the kernel hands an address back once for each time it was lent (K1) is trusted in a release build; with
//!   the feature `ledger` it is checked, at one byte a chunk.
//! - A frame holds its UMEM's lifetime, and giving it to a ring of another UMEM panics.
//! - A frame that is dropped is a chunk lost until [`Umem::recover`], never a chunk owned twice.
#![no_std]
#[cfg(not(target_os = "linux"))]
compile_error!("AF_XDP is a Linux socket family: this crate needs target_os = \"linux\"");

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod errno;
mod frame;
mod layout;
mod pool;
mod region;
pub mod sys;
mod umem;

pub use errno::Errno;
pub use frame::{Desc, Frame};
pub use layout::{Layout, LayoutError, PACKET_HEADROOM};
pub use pool::Pool;
pub use region::{HugePages, Pages, Region, RegionOptions};
pub use sys::Fd;
pub use umem::{Frames, Registered, Short, Umem};
