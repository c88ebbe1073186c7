//! Generator: sends one packet over and over.

use super::{Finite, OptionError, build};
use xdp_core::wire::UdpTemplate;
use xdp_core::{Frame, Outbox, Stage, Transmit, Verdict, ticks};

/// Sends a template's packet, as fast as the ports take it or at a pace (`txonly`). What comes in passes.
///
/// Each packet is copied from the template: a frame from the pool may have been received into since it was last written, and
/// a stage has no sound way to know.
///
/// ```
/// use xdp_apps::stages::{Generator, GeneratorOptions};
/// use xdp_core::{Layout, Umem, Worker, sim};
/// let options = GeneratorOptions { count: Some(3), ..GeneratorOptions::default() };
/// let umem = Umem::heap(Layout::new(2048, 512)?);
/// let (port, mut wire) = sim::link(&umem);
/// let mut worker = Worker::new([port], Generator::new(options)?, umem.take_frames().unwrap());
/// while !worker.stage().is_done() {
///     worker.turn();
/// }
/// assert_eq!(wire.collect().len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Generator {
    packet: Box<[u8]>,
    port: u8,
    ports: u8,
    pace: Pace,
    burst: u32,
    left: u64,
    sent: u64,
    /// Which of the ports is next.
    turn: u8,
    /// When the first packet was to be sent; none before the first turn.
    start: Option<u64>,
}

/// How fast to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the ports take packets.
    #[default]
    Max,
    /// A packet every so many [`ticks`], on a schedule fixed at the first: what could not be sent on time is sent as soon as it
    /// can be.
    Interval(u64),
}

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// The packet, no longer than [`Layout::packet_max`](xdp_core::Layout::packet_max); a longer one is refused over and over.
    pub template: UdpTemplate,
    /// The first of the worker's ports to send by.
    pub port: u8,
    /// How many ports to send by, the packets dealt out in turn. At least 1.
    pub ports: u8,
    /// How fast.
    pub pace: Pace,
    /// How many packets in all; no end, if not given.
    pub count: Option<u64>,
    /// Packets a turn, at most. At least 1.
    pub burst: u32,
}

impl Default for GeneratorOptions {
    /// The default template, by port 0, as fast as it goes, without end, in bursts of 64.
    fn default() -> Self {
        Self { template: UdpTemplate::default(), port: 0, ports: 1, pace: Pace::Max, count: None, burst: 64 }
    }
}

impl Generator {
    /// One that sends what `options` say.
    ///
    /// # Errors
    /// A template that describes no packet.
    pub fn new(options: GeneratorOptions) -> Result<Self, OptionError> {
        Ok(Self {
            packet: build(&options.template)?,
            port: options.port,
            ports: options.ports.max(1),
            pace: options.pace,
            burst: options.burst.max(1),
            left: options.count.unwrap_or(u64::MAX),
            sent: 0,
            turn: 0,
            start: None,
        })
    }

    /// Packets queued so far.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether all of them are queued. [`Worker::drain`](xdp_core::Worker::drain) sees them out.
    pub const fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Sends no more.
    pub fn stop(&mut self) {
        self.left = 0;
    }

    /// Packets the pace allows by `now` that were not sent yet.
    #[inline]
    fn allowed(&self, now: u64) -> u64 {
        match (self.pace, self.start) {
            (Pace::Max, _) | (Pace::Interval(0), _) => u64::MAX,
            (Pace::Interval(_), None) => 1,
            (Pace::Interval(interval), Some(start)) => {
                let scheduled = now.wrapping_sub(start) / interval + 1;
                scheduled.saturating_sub(self.sent)
            }
        }
    }
}

impl Stage for Generator {
    #[inline]
    fn process(&mut self, _: &mut Frame<'_>) -> Verdict {
        Verdict::Next
    }

    #[inline]
    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        if self.left == 0 {
            return;
        }
        let now = if self.pace == Pace::Max { 0 } else { ticks() };
        self.start.get_or_insert(now);
        let mut wanted = self.allowed(now).min(self.left).min(self.burst.into()) as u32;
        // One that has no room does not keep the others from sending.
        let share = wanted.div_ceil(self.ports.into());
        for _ in 0..self.ports {
            if wanted == 0 {
                break;
            }
            let port = self.port.wrapping_add(self.turn);
            let room = out.room(port, share.min(wanted));
            let sent = (0..room).take_while(|_| out.copy(port, &self.packet)).count() as u32;
            wanted -= sent;
            self.sent += u64::from(sent);
            self.left -= u64::from(sent);
            self.turn = if self.turn + 1 == self.ports { 0 } else { self.turn + 1 };
        }
    }

    fn due(&self) -> Option<u64> {
        match (self.left, self.pace, self.start) {
            (0, ..) => None,
            (_, Pace::Interval(interval), Some(start)) => {
                Some(start.wrapping_add(interval.wrapping_mul(self.sent)))
            }
            _ => Some(ticks()),
        }
    }
}

impl Finite for Generator {
    #[inline]
    fn is_done(&mut self, _: u64) -> bool {
        Self::is_done(self)
    }
}
