//! Count and sink: what passed, and what ended here.

use xdp_core::{Frame, Stage, Verdict};

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on, without the check sequence.
    pub bytes: u64,
}

impl Traffic {
    /// Adds one packet, of however many chunks.
    #[inline]
    pub fn add(&mut self, frame: &Frame<'_>) {
        self.packets += 1;
        self.bytes += if frame.has_more() { frame.packet_len() } else { frame.len() } as u64;
    }
}

/// Counts what passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    counts: Traffic,
}

/// Drops everything, and counts it: how fast packets come in, and nothing else (`rxdrop`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sink {
    counts: Traffic,
}

impl Count {
    /// What passed so far.
    pub const fn counts(&self) -> Traffic {
        self.counts
    }
}

impl Sink {
    /// What came so far.
    pub const fn counts(&self) -> Traffic {
        self.counts
    }
}

impl Stage for Count {
    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.counts.add(frame);
        Verdict::Next
    }
}

impl Stage for Sink {
    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.counts.add(frame);
        Verdict::Drop
    }
}
