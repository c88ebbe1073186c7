//! The XDP program of an AF_XDP dataplane: assembled here, loaded, and attached by raw `bpf(2)` calls. No clang, no ELF, no libbpf.
//!
//! A packet that arrives on an interface meets the program of its [`Attachment`]. One that the [`Rules`] match is
//! redirected to the AF_XDP socket in the [`XskMap`] at its queue's index; every other one, and one whose slot holds
//! no socket, is left to the kernel (`XDP_PASS`), so that the host keeps its traffic. The program hangs on a [`Link`],
//! which goes with the process that holds it, `SIGKILL` included.
//!
//! ```
//! use xdp_bpf::Rules;
//!
//! let rules: Rules = "udp port 5000-5010 or ether 0x88b5".parse()?;
//! assert_eq!(rules.to_string(), "udp port 5000-5010 or ether 0x88b5");
//! assert!(!rules.matches(&[0; 60]));
//! # Ok::<(), xdp_bpf::RuleError>(())
//! ```
//!
//! What must happen as root, once for an interface (names are resolved by the layer above):
//!
//! ```no_run
//! use xdp_bpf::{AttachOptions, Attachment, Mode, Rules};
//!
//! let options = AttachOptions { interface: "veth0".into(), queues: 4, ..AttachOptions::default() };
//! let attachment = Attachment::new(7, Mode::Native, &Rules::all(), &options)?;
//! let socket = xdp_umem::sys::socket(44 /* AF_XDP */, 3 /* SOCK_RAW */, 0)?;
//! attachment.map().set(0, &socket)?;
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! Needs Linux 6.1 or newer, with `CAP_BPF` and `CAP_NET_ADMIN` in the initial user namespace to create the map and to load the program.
#![no_std]
extern crate alloc;

#[cfg(not(target_os = "linux"))]
compile_error!("AF_XDP is Linux only: build for a Linux target");

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod attachment;
mod error;
pub mod insn;
mod link;
mod map;
mod program;
mod query;
mod rules;
mod sys;

pub use attachment::{AttachOptions, Attachment};
pub use error::AttachError;
pub use link::{Link, Mode, ModeError};
pub use map::XskMap;
pub use program::{LoadOptions, Program, TestRun, Verdict};
pub use query::{Attached, Holder, attached};
pub use rules::{Ports, Rule, RuleError, Rules};
