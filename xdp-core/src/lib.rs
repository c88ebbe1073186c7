//! AF_XDP rings, sockets, ports and a run-to-completion loop.
#![no_std]
#[cfg(not(target_os = "linux"))]
compile_error!("AF_XDP is a Linux socket family: this crate needs target_os = \"linux\"");

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

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
pub use port::{Port, Receive, RingReceiver, RingTransmitter, Transmit};
pub use registration::{Registration, XskPort};
pub use ring::RingSizes;
pub use stage::{Outbox, Stage, Then, Verdict};
pub use worker::{Counters, Cycles, Ended, Idle, Overload, Stop, Worker};
pub use xdp_bpf::{Attachment, Mode, Rule, Rules};
pub use xdp_umem::{
    Desc, Errno, Frame, Frames, HugePages, Layout, LayoutError, PACKET_HEADROOM, Pages, Pool, Region,
    RegionOptions, Umem,
};
pub use xsk::{BusyPoll, Granted, Xsk, XskConfig, XskFar, ZeroCopy};
