//! AF_XDP rings, sockets, ports and a run-to-completion loop.
//!
//! > A **port** moves frames, a **stage** judges packets, a **worker** turns the crank, and the **UMEM** says who owns
//! > which bytes.
//!
//! ```text
//!                ┌────────────────────────── Worker ──────────────────────────┐
//!  wire ─▶ rx ─▶ │ Port.rx ──▶ Stage ──▶ Stage ──▶ Verdict ──▶ any Port.tx    │ ─▶ tx ─▶ wire
//!                │    ▲         Next: on │ Tx: back │ Redirect │ Drop    │    │
//!  wire ◀─ fill ◀│────┴──────────────── Pool ◀──────────────────────────┴─────│ ◀─ completion
//!                └──────────── Far: one wake-up a turn, if any ───────────────┘
//! ```
//!
//! A frame is only ever a value on its way from an rx slot to a tx slot: nothing is queued, copied or allocated in
//! between. Chains of stages are types and compile to one loop.
//!
//! ```
//! use xdp_core::{Layout, Stage, Umem, Verdict, Worker, sim, wire::Ethernet};
//!
//! let mut seen = 0;
//! let count = |_: &mut xdp_core::Frame<'_>| { seen += 1; Verdict::Next };
//! let reflect = |frame: &mut xdp_core::Frame<'_>| {
//!     let Some(mut ethernet) = Ethernet::parse(frame) else { return Verdict::Drop };
//!     ethernet.swap_addresses();
//!     Verdict::Tx
//! };
//! let umem = Umem::heap(Layout::new(2048, 512)?);
//! let (port, mut wire) = sim::link(&umem); // over a NIC: Registration::new(&umem).bind("eth1", 0, &config)?
//! let mut worker = Worker::new([port], count.then(reflect), umem.take_frames().unwrap());
//! worker.turn();
//! wire.inject(&[1; 60]);
//! worker.turn();
//! assert_eq!(wire.collect().len(), 1);
//! drop(worker);
//! assert_eq!(seen, 1);
//! # Ok::<(), xdp_core::LayoutError>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | crate root | [`Worker`], [`Stage`], [`Port`] and its halves [`Receive`] and [`Transmit`], [`Registration`] and [`Xsk`] |
//! | [`ring`] | the four rings as two types, and what must hold of them (R1 to R4, K1 to K3) |
//! | [`wire`] | packet headers, read and changed in place |
//! | `sim` (feature) | the kernel's half of a port, simulated by seed |
//! | [`netdev`], [`cpu`] (feature `std`) | the host: read, set, verified, put back |
//! | [`probe`] (feature `std`) | what a driver really does, found out on the very interface |
//! | [`uapi`] | `if_xdp.h` in Rust |
//!
//! Without the default feature `std` the crate is `no_std` (it needs `alloc` and libc): rings, sockets, ports, the
//! loop, wire headers and the simulated kernel are there; threads, pinning and the host's settings are not.
#![no_std]
#[cfg(not(target_os = "linux"))]
compile_error!("AF_XDP is a Linux socket family: this crate needs target_os = \"linux\"");

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod clock;
#[cfg(feature = "std")]
pub mod cpu;
mod error;
mod far;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(feature = "std")]
pub mod netdev;
mod port;
#[cfg(feature = "std")]
pub mod probe;
mod registration;
pub mod ring;
#[cfg(feature = "sim")]
pub mod sim;
mod stage;
pub mod uapi;
pub mod wire;
mod worker;
mod xsk;

pub use clock::{Clock, ticks};
pub use error::Error;
pub use far::{Far, Kicked, Outcome, State, Want};
pub use port::{Burst, Port, Receive, RingReceiver, RingTransmitter, Transmit};
pub use registration::{Registration, XskPort};
pub use ring::RingSizes;
pub use stage::{Outbox, Stage, Then, Verdict};
pub use worker::{Counters, Cycles, Ended, Idle, Overload, Stop, Worker};
pub use xdp_bpf::{AttachError, Attachment, Mode, Ports, Rule, RuleError, Rules};
pub use xdp_umem::{
    Desc, Errno, Frame, Frames, HugePages, Layout, LayoutError, PACKET_HEADROOM, Pages, Pool, Region,
    RegionOptions, Umem,
};
pub use xsk::{BusyPoll, Granted, Xsk, XskConfig, XskFar, ZeroCopy};
