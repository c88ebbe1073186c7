//! Network functions on AF_XDP, as stages to run and to build on, and what it takes to say how fast they were.
//!
//! - [`stages`]: reflector, forwarder, sink, generator, pinger, filter, and what counts and burdens between them.
//! - [`samples`]: round trips out of the hot loop, four stamps each.
//! - `results` (feature `results`): samples summed up, and the document every program prints with `--json`.
//!
//! Without its default feature `cli` this library needs `xdp-core`, `rtrb` and `libc`, nothing else.
//!
//! ```
//! use xdp_apps::stages::{Count, Reflector};
//! use xdp_core::{Layout, Stage, Umem, Worker, sim};
//!
//! let umem = Umem::heap(Layout::new(2048, 512)?);
//! let (port, mut wire) = sim::link(&umem); // for a real one: Registration::bind
//! let stage = Count::default().then(Reflector::default());
//! let mut worker = Worker::new([port], stage, umem.take_frames().unwrap());
//! worker.turn(); // lends frames to receive into
//! wire.inject(b"to B..from A88 hello");
//! worker.turn();
//! assert_eq!(wire.collect(), [b"from Ato B..88 hello"]);
//! assert_eq!(worker.stage().0.counts().packets, 1);
//! # Ok::<(), xdp_core::LayoutError>(())
//! ```
#![deny(unsafe_code)]
extern crate alloc;

#[cfg(feature = "results")]
pub mod results;
pub mod samples;
pub mod stages;
#[cfg(feature = "cli")]
pub mod testbed;

/// The README's programs compile, and the one that can runs.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../../README.md")]
pub struct Readme;
