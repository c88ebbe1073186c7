//! Forwarder: a wire with two ends.

use xdp_core::wire::{Ethernet, Finished, Mac, finish_checksum};
use xdp_core::{Frame, Stage, Verdict};

/// Sends what comes in by one port of a pair out by the other: 0 and 1, 2 and 3, and so on, whether they are queues of one
/// interface or of two. The frame moves; no byte of the packet is copied.
///
/// With an odd number of ports the last has no other; what comes in by it is counted as
/// [`no_such_port`](xdp_core::Counters::no_such_port).
#[derive(Clone, Copy, Debug)]
pub struct Forwarder {
    options: ForwarderOptions,
    counts: ForwardCounts,
}

/// What a forwarder changes on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwarderOptions {
    /// The receiver's address on every packet, in place of its own.
    pub dst_mac: Option<Mac>,
    /// The sender's address on every packet, in place of its own.
    pub src_mac: Option<Mac>,
    /// Whether checksums that a veth or virtio sender left to its card are finished. Off where packets come off a real wire: there
    /// a damaged checksum may look unfinished, once in 65,535.
    pub finish_checksums: bool,
}

impl Default for ForwarderOptions {
    /// Addresses stay, checksums are finished.
    fn default() -> Self {
        Self { dst_mac: None, src_mac: None, finish_checksums: true }
    }
}

/// What a forwarder counts. How many packets it sent on, [`Counters::forwarded`](xdp_core::Counters::forwarded) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForwardCounts {
    /// Unfinished checksums finished.
    pub checksums_finished: u64,
    /// Packets shorter than an Ethernet header, dropped.
    pub too_short: u64,
}

impl Forwarder {
    /// One that changes what `options` say.
    pub fn new(options: ForwarderOptions) -> Self {
        Self { options, counts: ForwardCounts::default() }
    }

    /// What was counted so far.
    pub const fn counts(&self) -> ForwardCounts {
        self.counts
    }
}

impl Stage for Forwarder {
    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        let other = frame.port() ^ 1;
        let packet: &mut [u8] = frame;
        if self.options.finish_checksums && finish_checksum(packet) == Finished::Done {
            self.counts.checksums_finished += 1;
        }
        let Some(mut ethernet) = Ethernet::parse(packet) else {
            self.counts.too_short += 1;
            return Verdict::Drop;
        };
        if let Some(mac) = self.options.dst_mac {
            ethernet.set_destination(mac);
        }
        if let Some(mac) = self.options.src_mac {
            ethernet.set_source(mac);
        }
        Verdict::Redirect(other)
    }
}
