//! Where to measure without a second machine: [`hosts`] in namespaces of this one, or a virtual machine.
//!
//! The virtual machine has two network cards back to back, for what no pair of virtual interfaces of this host can show.
//! Zero-copy, above all: QEMU's virtio and igb cards have it, without KVM and without root.
//!
//! | Module | Does |
//! |---|---|
//! | [`hosts`] | hosts in network namespaces, with veth pairs between them |
//! | [`fetch`] | QEMU and a Debian kernel, out of the system's package mirrors into a cache |
//! | [`initramfs`] | the machine's whole file system: our own binary, modules, what is to be run |
//! | [`vm`] | boots it, streams what it says, bounds it in time, collects files |
//! | [`guest`] | the other side: process 1 of the machine |
//! | [`channel`] | what the two say to each other over a serial line |
//! | [`ping`] | round trips between the two cards over AF_XDP |
//!
//! ```no_run
//! use xdp_apps::testbed::vm::{Nic, Vm};
//! let outcome = Vm::new().nic(Nic::Igb).queues(2).run(&["ping-demo", "--json"])?;
//! assert!(outcome.passed(), "{outcome}");
//! # Ok::<(), xdp_apps::testbed::Error>(())
//! ```
//!
//! In the machine the cards are `near`, in the first network namespace, and `far`, in the namespace `far`; names that
//! no card of a host has, so that a command typed for the machine does nothing on the host.

pub mod channel;
pub mod fetch;
pub mod guest;
pub mod hosts;
pub mod initramfs;
pub mod ping;
mod sys;
pub mod vm;

use core::fmt;

/// What every number measured in the machine must carry with it.
pub const EMULATED: &str = "emulated hardware: mechanism, not microseconds";

/// The card of the machine's first namespace.
pub const NEAR: &str = "near";
/// The card at the other end, and the namespace it is in.
pub const FAR: &str = "far";

/// The variable that tells a command that it runs in the machine, and with which kind of card.
pub const VARIABLE: &str = "XDP_TESTBED";

/// Why there is no answer from the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Something the bed needs is not on this machine.
    Missing {
        /// What is not there.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The bed itself broke: nothing is known about the command.
    Broken {
        /// What happened.
        what: String,
        /// The last lines of whoever said something.
        said: String,
    },
    /// Time was up, and the machine was stopped.
    TimedOut {
        /// How long it had, in seconds.
        after_s: u64,
        /// The last lines of the command, else of the machine's console.
        said: String,
    },
}

impl Error {
    fn missing(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Missing { what: what.into(), remedy: remedy.into() }
    }

    fn broken(what: impl Into<String>, said: impl AsRef<str>) -> Self {
        Self::Broken { what: what.into(), said: tail(said.as_ref()) }
    }

    /// From an error of the standard library.
    fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::broken(format!("{what}: {error}"), "")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { what, remedy } => write!(f, "{what}; {remedy}"),
            Self::Broken { what, said } if said.is_empty() => f.write_str(what),
            Self::Broken { what, said } => write!(f, "{what}; it said last:\n{said}"),
            Self::TimedOut { after_s, said } => {
                write!(f, "stopped after {after_s} s; give it longer with --timeout; it said last:\n{said}")
            }
        }
    }
}

impl core::error::Error for Error {}

/// The last dozen lines.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_or_what_was_said_last() {
        let missing = Error::missing("no QEMU here", "run `xdp-apps testbed vm fetch`");
        assert_eq!(missing.to_string(), "no QEMU here; run `xdp-apps testbed vm fetch`");
        let said: String = (0..40).map(|n| format!("line {n}\n\n")).collect();
        let broken = Error::broken("the machine went down", said).to_string();
        assert!(broken.starts_with("the machine went down; it said last:\nline 28\n"), "{broken}");
        assert!(broken.ends_with("line 39"), "{broken}");
        assert_eq!(Error::broken("gone", "").to_string(), "gone");
    }
}
