//! Whole network functions, each a [`Stage`](xdp_core::Stage): to run as they are, to chain, and to copy from.

#![forbid(unsafe_code)]

mod bypass;
mod count;
mod filter;
mod forwarder;
mod generator;
mod pinger;
mod reflector;
mod until;

pub use bypass::Bypass;
pub use count::{Count, Sink, Traffic};
pub use filter::{Filter, Predicate};
pub use forwarder::{ForwardCounts, Forwarder, ForwarderOptions};
pub use generator::{Generator, GeneratorOptions, Pace};
pub use pinger::{LATE_NS, PingCounts, PingOptions, Pinger, TIMEOUT_INTERVALS, TIMEOUT_NS};
pub use reflector::{ReflectCounts, Reflector};
pub use until::{Finite, Until};

use core::fmt;
use xdp_core::wire::{TemplateError, UdpTemplate};

/// Why a stage cannot be made of its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionError {
    /// The template describes no packet.
    Packet(TemplateError),
    /// The packet has no room for the probe.
    TooSmall {
        /// The packet's size, in bytes.
        packet_size: usize,
        /// The smallest that has room, in bytes.
        min: usize,
    },
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(error) => error.fmt(f),
            Self::TooSmall { packet_size, min } => {
                write!(f, "packet size {packet_size} has no room for a probe: choose {min} bytes or more")
            }
        }
    }
}

impl core::error::Error for OptionError {}

/// The packet that `template` describes.
fn build(template: &UdpTemplate) -> Result<Box<[u8]>, OptionError> {
    let max = xdp_core::wire::ethernet::LEN + xdp_core::wire::vlan::LEN + usize::from(u16::MAX);
    // A size beyond any packet's is refused by the template, in its words.
    let mut packet = vec![0; template.packet_size.min(max)];
    template.write(&mut packet).map_err(OptionError::Packet)?;
    Ok(packet.into())
}
