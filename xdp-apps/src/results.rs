//! Samples summed up, and the document that says so: every program's `--json`.
//!
//! The words are the same everywhere and their meaning is in [`SCHEMA`], which has a version: [`VERSION`] changes when a word goes or
//! changes its meaning, not when one is added. Times are in microseconds where their name ends in `_us`.
//!
//! Quantiles are those of the samples there are: with fewer than 299 samples p99 says little more than the maximum does, with
//! fewer than 2,995 so does p99.9. A reader has to expect `null` there; a later version will withhold them.
#![forbid(unsafe_code)]

use crate::samples::Sample;
use crate::stages::PingCounts;
use core::fmt::Write;
use hdrhistogram::Histogram;
use serde::Serialize;
use xdp_core::uapi::Statistics;
use xdp_core::{Clock, Counters, Granted, Mode, Pages, RingSizes, Umem, cpu};

/// The document's version, its field `schema`.
pub const VERSION: &str = "xdp-apps/1";
/// The document's JSON schema (draft 2020-12).
pub const SCHEMA: &str = include_str!("../schema/document.json");

/// The longest round trip told apart, in nanoseconds; longer ones count as this long in quantiles (their maximum and mean
/// are exact all the same).
const LONGEST_NS: u64 = 60_000_000_000;

/// Round trips, in nanoseconds: quantiles to three significant digits; number, minimum, maximum and mean exact.
///
/// ```
/// use xdp_apps::results::Rtt;
/// let rtt: Rtt = (1..=1000).map(|us| us * 1000).collect();
/// let us = rtt.us().unwrap();
/// assert_eq!((us.min, us.max, us.mean), (1.0, 1000.0, 500.5));
/// assert!((us.p99 - 990.0).abs() <= 0.001 * 990.0);
/// ```
#[derive(Clone, Debug)]
pub struct Rtt {
    histogram: Histogram<u64>,
    sum: u128,
    min: u64,
    max: u64,
}

/// A distribution of round trips, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RttUs {
    /// The shortest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten are no longer.
    pub p90: f64,
    /// 99 of a hundred are no longer.
    pub p99: f64,
    /// 999 of a thousand are no longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// Their sum by their number.
    pub mean: f64,
}

/// What a program prints with `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Document {
    /// [`VERSION`].
    pub schema: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// The machine.
    pub host: Host,
    /// What was run, one after the other or side by side.
    pub rows: Vec<Row>,
    /// What to compare it with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
}

/// The machine a result is from. `None` or empty where the system does not tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// Cores switched on.
    pub cores: usize,
    /// Where the kernel takes its time from.
    pub clock_source: String,
    /// Of the counter that stamps are read from, in Hz.
    pub clock_hz: u64,
    /// Whether that counter runs at one speed whatever the core does.
    pub tsc_invariant: bool,
    /// Whether a hypervisor says that it is there.
    pub virtualised: bool,
    /// What governs core 0's frequency.
    pub governor: Option<String>,
    /// Cores kept free of other tasks.
    pub isolated: Vec<usize>,
    /// Reserved huge pages, by size.
    pub huge_pages: Vec<HugePagesRow>,
    /// What ran where.
    pub placement: Vec<Placement>,
}

/// Reserved huge pages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HugePagesRow {
    /// Of one page, in bytes.
    pub size: usize,
    /// In the pool.
    pub total: u64,
    /// Of these, free.
    pub free: u64,
}

/// What runs on a core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// What it is.
    pub what: String,
    /// The core it is pinned to, if it is.
    pub cpu: Option<usize>,
}

/// One path, and how packets fared on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// From where to where: `"A-B"`, or an interface and its queues.
    pub path: String,
    /// How the XDP program was attached; none in memory.
    pub mode: Option<ModeName>,
    /// What carried the packets.
    pub transport: Transport,
    /// What the socket got; none in memory.
    pub granted: Option<GrantedRow>,
    /// Packets sent.
    pub sent: u64,
    /// Packets received; of a pinger, replies, each counted once.
    pub received: u64,
    /// What a pinger has to say besides.
    #[serde(flatten)]
    pub ping: Option<PingRow>,
    /// Packets a second: of a pinger, replies.
    pub rate_pps: f64,
    /// System calls a packet, or a round trip, at this end: none without packets.
    pub syscalls_per_packet: Option<f64>,
    /// As much at the far end, where that is ours too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub far_syscalls_per_packet: Option<f64>,
    /// The workers, where there is more to say of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerRow>,
}

/// What carried packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transport {
    /// Sockets.
    AfXdp,
    /// The simulated kernel.
    Memory,
}

/// How an XDP program is attached: [`Mode`], as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeName {
    /// In the driver.
    Native,
    /// In the network core.
    Skb,
}

/// What a pinger counts: see [`PingCounts`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PingRow {
    /// Packets not back in time.
    pub lost: u64,
    /// Replies that came once more.
    pub duplicated: u64,
    /// Replies that came after one to a later packet.
    pub reordered: u64,
    /// Packets sent late.
    pub late: u64,
    /// Packets that were no reply.
    pub foreign: u64,
    /// Replies that were damaged.
    pub damaged: u64,
    /// Replies that came after they were counted as lost.
    pub overdue: u64,
    /// Replies whose sample was lost: they are in no quantile.
    pub samples_lost: u64,
    /// Round trips, from when each packet was to be sent; none if nothing came back.
    pub rtt_us: Option<RttUs>,
    /// Round trips, from when each packet was sent.
    pub rtt_from_sent_us: Option<RttUs>,
}

/// What a socket got.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GrantedRow {
    /// How the program was attached; none for a socket that only sends.
    pub mode: Option<ModeName>,
    /// Whether packets pass without a copy.
    pub zero_copy: bool,
    /// Whether the driver's wake-up flags mean anything.
    pub need_wakeup: bool,
    /// Busy polling.
    pub busy_poll: BusyPollRow,
    /// Packets a send call moves in copy mode; none in zero-copy mode and where the kernel has no such option (32 there).
    pub tx_budget: Option<u32>,
    /// Bytes that may be on their way out in copy mode.
    pub send_buffer: u32,
    /// Entries of the rings.
    pub rings: RingsRow,
    /// The memory.
    pub umem: UmemRow,
}

/// Whether busy polling works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BusyPollRow {
    /// Whether it does.
    pub effective: bool,
    /// Why not.
    pub why: Option<String>,
    /// The NAPI instance that is polled.
    pub napi_id: Option<u32>,
}

/// Entries of a socket's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RingsRow {
    /// Of the fill ring.
    pub fill: u32,
    /// Of the rx ring.
    pub rx: u32,
    /// Of the tx ring.
    pub tx: u32,
    /// Of the completion ring.
    pub completion: u32,
}

/// A UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UmemRow {
    /// Of a chunk, in bytes.
    pub chunk_size: u32,
    /// How many.
    pub chunks: u32,
    /// `"huge"` (reserved), `"transparent"` (the kernel was asked for huge ones), `"base"`, or `"heap"`.
    pub pages: &'static str,
}

/// A worker, at its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WorkerRow {
    /// The core it was pinned to.
    pub cpu: Option<usize>,
    /// Whether every frame was accounted for.
    pub conserved: bool,
    /// What it counted.
    pub counters: CountersRow,
    /// What the kernel counted, socket by socket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<SocketRow>,
}

/// [`Counters`], by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each is documented where it is counted")]
#[non_exhaustive]
pub struct CountersRow {
    pub turns: u64,
    pub turns_idle: u64,
    pub received: u64,
    pub forwarded: u64,
    pub dropped: u64,
    pub tx_full: u64,
    pub no_such_port: u64,
    pub originated: u64,
    pub refused: u64,
    pub finished: u64,
    pub kicks: u64,
    pub kicks_again: u64,
    pub kicks_dropped: u64,
    pub kicks_down: u64,
    pub kicks_failed: u64,
    pub sleeps: u64,
    pub sampled: CyclesRow,
}

/// [`Cycles`](xdp_core::Cycles): where the ticks of the sampled turns went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each is documented where it is counted")]
#[non_exhaustive]
pub struct CyclesRow {
    pub turns: u64,
    pub packets: u64,
    pub busy_ticks: u64,
    pub idle_ticks: u64,
    pub kick_ticks: u64,
}

/// What the kernel counted of a socket: `XDP_STATISTICS`, by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each is documented where it is read")]
#[non_exhaustive]
pub struct SocketRow {
    pub rx_dropped: u64,
    pub rx_invalid_descs: u64,
    pub tx_invalid_descs: u64,
    pub rx_ring_full: u64,
    pub rx_fill_ring_empty_descs: u64,
    pub tx_ring_empty_descs: u64,
}

/// What to compare results with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Baseline {
    /// The kernel's own ICMP echo between the same ends; none if nothing came back.
    pub icmp_rtt_us: Option<RttUs>,
}

impl Default for Rtt {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds that hdrhistogram takes");
        Self { histogram, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl FromIterator<u64> for Rtt {
    /// From round trips in nanoseconds.
    fn from_iter<I: IntoIterator<Item = u64>>(round_trips_ns: I) -> Self {
        let mut rtt = Self::default();
        round_trips_ns.into_iter().for_each(|ns| rtt.record(ns));
        rtt
    }
}

impl Rtt {
    /// From when each packet was to be sent.
    pub fn from_intended(samples: &[Sample], clock: &Clock) -> Self {
        samples.iter().map(|sample| clock.to_ns(sample.from_intended())).collect()
    }

    /// From when each packet was sent.
    pub fn from_sent(samples: &[Sample], clock: &Clock) -> Self {
        samples.iter().map(|sample| clock.to_ns(sample.from_sent())).collect()
    }

    /// Adds one, in nanoseconds.
    pub fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns);
        self.sum += u128::from(ns);
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// So large a part of them, 0 to 1, is no longer than this, in nanoseconds. `None` without any.
    pub fn quantile_ns(&self, part: f64) -> Option<u64> {
        // The histogram answers with the upper end of a bucket, which may lie beyond any sample.
        (self.count() > 0).then(|| self.histogram.value_at_quantile(part).clamp(self.min, self.max))
    }

    /// Summed up, in microseconds. `None` without any.
    pub fn us(&self) -> Option<RttUs> {
        let us = |ns: u64| ns as f64 / 1e3;
        let quantile = |part| self.quantile_ns(part).map(us);
        Some(RttUs {
            min: us(self.min),
            p50: quantile(0.5)?,
            p90: quantile(0.9)?,
            p99: quantile(0.99)?,
            p999: quantile(0.999)?,
            max: us(self.max),
            mean: (self.sum as f64 / self.count() as f64).round() / 1e3,
        })
    }

    /// How many fall into each of `n` classes from the shortest to the longest, each class longer than the one before by the same
    /// factor, with each class's lower bound in nanoseconds. None without any.
    pub fn classes(&self, n: usize) -> Vec<(f64, u64)> {
        if self.count() == 0 || n == 0 {
            return Vec::new();
        }
        let (min, max) = (self.min.max(1) as f64, self.max.max(1) as f64);
        let span = (max / min).ln();
        let mut classes: Vec<_> =
            (0..n).map(|class| (min * (span * class as f64 / n as f64).exp(), 0)).collect();
        for step in self.histogram.iter_recorded() {
            let ns = (step.value_iterated_to() as f64).clamp(min, max);
            let class = if span > 0.0 { ((ns / min).ln() / span * n as f64) as usize } else { 0 };
            classes[class.min(n - 1)].1 += step.count_at_value();
        }
        classes
    }

    /// The shape in one line of `n` characters, from the shortest to the longest on a logarithmic scale: a class with
    /// anything in it shows.
    pub fn sparkline(&self, n: usize) -> String {
        const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let classes = self.classes(n);
        let most = classes.iter().map(|class| class.1).max().unwrap_or(0).max(1);
        let level = |count: u64| match count {
            0 => ' ',
            count => LEVELS[((count * 8).div_ceil(most) - 1) as usize],
        };
        classes.iter().map(|class| level(class.1)).collect()
    }

    /// The shape in `lines` lines, from the shortest to the longest on a logarithmic scale: each class's lower bound in
    /// microseconds, a bar of up to `width` characters, and how many. A class with anything in it shows.
    pub fn bars(&self, lines: usize, width: usize) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let classes = self.classes(lines);
        let most = classes.iter().map(|class| class.1).max().unwrap_or(0).max(1);
        let mut text = String::new();
        for (bound, count) in classes {
            let eighths = (count as u128 * width as u128 * 8).div_ceil(u128::from(most)) as usize;
            let bar = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
            let line = format!("{:>10.1} us |{bar:width$} {count}", bound / 1e3);
            let _ = writeln!(text, "{}", line.trim_end()); // a String takes everything
        }
        text
    }
}

/// Replies a second, from when the first was to be sent to when the last came. 0 for fewer than two.
pub fn rate_pps(samples: &[Sample], clock: &Clock) -> f64 {
    let first = samples.iter().map(|sample| sample.intended).min().unwrap_or(0);
    let last = samples.iter().map(|sample| sample.received).max().unwrap_or(0);
    match clock.to_ns(last.wrapping_sub(first)) {
        0 => 0.0,
        _ if samples.len() < 2 => 0.0,
        ns => samples.len() as f64 * 1e9 / ns as f64,
    }
}

/// System calls a packet; `None` without packets.
pub fn syscalls_per_packet(counters: &Counters, packets: u64) -> Option<f64> {
    (packets > 0).then(|| counters.system_calls() as f64 / packets as f64)
}

impl Document {
    /// A document without rows.
    pub fn new(host: Host) -> Self {
        Self { schema: VERSION, version: env!("CARGO_PKG_VERSION"), host, rows: Vec::new(), baseline: None }
    }

    /// As JSON, indented, without a line end.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("words, numbers and lists of them")
    }
}

impl Host {
    /// Reads it off this machine. `clock` is the one stamps are turned into times by.
    ///
    /// # Cost
    /// A dozen files read: not for the data path.
    pub fn read(clock: &Clock) -> Self {
        let machine = cpu::Machine::read();
        Self {
            kernel: machine.kernel,
            cpu: machine.cpu_model,
            cores: machine.cores_online,
            clock_source: machine.clocksource,
            clock_hz: clock.frequency(),
            tsc_invariant: machine.tsc_invariant,
            virtualised: machine.virtualised,
            governor: machine.governor,
            isolated: machine.isolated,
            huge_pages: cpu::huge_pages()
                .iter()
                .map(|pages| HugePagesRow { size: pages.size, total: pages.total, free: pages.free })
                .collect(),
            placement: Vec::new(),
        }
    }

    /// Says that `what` ran on core `cpu`, or on any.
    pub fn place(&mut self, what: impl Into<String>, cpu: Option<usize>) {
        self.placement.push(Placement { what: what.into(), cpu });
    }
}

impl Row {
    /// A path on which nothing has happened yet.
    pub fn new(path: impl Into<String>, transport: Transport) -> Self {
        Self {
            path: path.into(),
            mode: None,
            transport,
            granted: None,
            sent: 0,
            received: 0,
            ping: None,
            rate_pps: 0.0,
            syscalls_per_packet: None,
            far_syscalls_per_packet: None,
            workers: Vec::new(),
        }
    }

    /// Says what the path's socket got, and how its program was attached, if there is one.
    pub fn granted(mut self, granted: &Granted, mode: Option<Mode>, umem: &Umem) -> Self {
        self.mode = mode.map(ModeName::from);
        self.granted = Some(GrantedRow::new(granted, mode, umem));
        self
    }

    /// Says how a pinger fared: counts, distributions and rate.
    pub fn ping(mut self, counts: &PingCounts, samples: &[Sample], samples_lost: u64, clock: &Clock) -> Self {
        self.sent = counts.sent;
        self.received = counts.received;
        self.rate_pps = rate_pps(samples, clock);
        self.ping = Some(PingRow {
            lost: counts.lost,
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            late: counts.late,
            foreign: counts.foreign,
            damaged: counts.damaged,
            overdue: counts.overdue,
            samples_lost,
            rtt_us: Rtt::from_intended(samples, clock).us(),
            rtt_from_sent_us: Rtt::from_sent(samples, clock).us(),
        });
        self
    }

    /// Says how a worker fared, and adds what it sent and received to the path's packets unless a pinger counted them.
    pub fn worker(mut self, worker: WorkerRow) -> Self {
        if self.ping.is_none() {
            self.sent += worker.counters.forwarded + worker.counters.originated;
            self.received += worker.counters.received;
        }
        self.workers.push(worker);
        self
    }
}

impl WorkerRow {
    /// A worker that was pinned to `cpu`, if to any.
    pub fn new(cpu: Option<usize>, conserved: bool, counters: &Counters) -> Self {
        Self { cpu, conserved, counters: counters.into(), sockets: Vec::new() }
    }

    /// Adds what the kernel counted of one of its sockets.
    pub fn socket(mut self, statistics: &Statistics) -> Self {
        self.sockets.push(statistics.into());
        self
    }
}

impl GrantedRow {
    /// What a socket on `umem` got, and how its program was attached, if there is one.
    pub fn new(granted: &Granted, mode: Option<Mode>, umem: &Umem) -> Self {
        Self {
            mode: mode.map(ModeName::from),
            zero_copy: granted.zero_copy,
            need_wakeup: granted.need_wakeup,
            busy_poll: (&granted.busy_poll).into(),
            tx_budget: granted.tx_budget,
            send_buffer: granted.send_buffer,
            rings: granted.rings.into(),
            umem: umem.into(),
        }
    }
}

impl From<Mode> for ModeName {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Native,
            Mode::Skb => Self::Skb,
        }
    }
}

impl From<&Result<u32, String>> for BusyPollRow {
    fn from(busy_poll: &Result<u32, String>) -> Self {
        let (napi_id, why) = (busy_poll.as_ref().ok().copied(), busy_poll.as_ref().err().cloned());
        Self { effective: busy_poll.is_ok(), why, napi_id }
    }
}

impl From<RingSizes> for RingsRow {
    fn from(rings: RingSizes) -> Self {
        Self { fill: rings.fill, rx: rings.rx, tx: rings.tx, completion: rings.completion }
    }
}

impl From<&Umem> for UmemRow {
    fn from(umem: &Umem) -> Self {
        Self {
            chunk_size: umem.layout().chunk_size(),
            chunks: umem.layout().chunks(),
            pages: match umem.region().pages() {
                Pages::Huge => "huge",
                Pages::Transparent if is_on_huge_pages(umem) => "transparent",
                Pages::Transparent | Pages::Base => "base",
                Pages::Heap => "heap",
            },
        }
    }
}

/// Whether the kernel did as it was asked: nine tenths of the memory on transparent huge pages.
fn is_on_huge_pages(umem: &Umem) -> bool {
    let backing = xdp_core::cpu::backing(umem.region().base().as_ptr() as usize);
    backing.is_some_and(|backing| backing.transparent_huge * 10 >= backing.resident * 9)
}

impl From<&Counters> for CountersRow {
    fn from(counters: &Counters) -> Self {
        Self {
            turns: counters.turns,
            turns_idle: counters.turns_idle,
            received: counters.received,
            forwarded: counters.forwarded(),
            dropped: counters.dropped,
            tx_full: counters.tx_full,
            no_such_port: counters.no_such_port,
            originated: counters.originated,
            refused: counters.refused,
            finished: counters.finished,
            kicks: counters.kicks,
            kicks_again: counters.kicks_again,
            kicks_dropped: counters.kicks_dropped,
            kicks_down: counters.kicks_down,
            kicks_failed: counters.kicks_failed,
            sleeps: counters.sleeps,
            sampled: CyclesRow {
                turns: counters.cycles.turns,
                packets: counters.cycles.packets,
                busy_ticks: counters.cycles.busy,
                idle_ticks: counters.cycles.idle,
                kick_ticks: counters.cycles.kick,
            },
        }
    }
}

impl From<&Statistics> for SocketRow {
    fn from(statistics: &Statistics) -> Self {
        Self {
            rx_dropped: statistics.rx_dropped,
            rx_invalid_descs: statistics.rx_invalid_descs,
            tx_invalid_descs: statistics.tx_invalid_descs,
            rx_ring_full: statistics.rx_ring_full,
            rx_fill_ring_empty_descs: statistics.rx_fill_ring_empty_descs,
            tx_ring_empty_descs: statistics.tx_ring_empty_descs,
        }
    }
}

#[cfg(test)]
#[path = "../tests/schema/mod.rs"]
mod schema;

#[cfg(test)]
mod tests {
    use super::schema::check;
    use super::*;
    use serde_json::{Value, json};
    use xdp_core::{Layout, RegionOptions};

    #[test]
    fn extremes_and_mean_are_exact_and_quantiles_within_a_thousandth() {
        // 100,000 round trips of 10.001, 10.002, … us.
        let rtt: Rtt = (1..=100_000).map(|n| 10_000 + n).collect();
        let us = rtt.us().unwrap();
        assert_eq!((rtt.count(), us.min, us.max), (100_000, 10.001, 110.0));
        assert_eq!(us.mean, 60.001, "60.0005, to the nanosecond");
        for (found, right) in [(us.p50, 60.0), (us.p90, 100.0), (us.p99, 109.0), (us.p999, 109.9)] {
            assert!((found / right - 1.0).abs() < 0.001, "{found} is not {right}");
        }
    }

    #[test]
    fn one_sample_is_its_own_distribution() {
        let us = Rtt::from_iter([12_345]).us().unwrap();
        let all = [us.min, us.p50, us.p90, us.p99, us.p999, us.max, us.mean];
        assert_eq!(all, [12.345; 7], "no quantile beyond the maximum");
    }

    #[test]
    fn without_samples_there_is_no_distribution_and_no_picture() {
        let rtt = Rtt::default();
        assert_eq!((rtt.us(), rtt.quantile_ns(0.5), rtt.count()), (None, None, 0));
        assert_eq!((rtt.sparkline(10), rtt.bars(4, 10)), (String::new(), String::new()));
    }

    #[test]
    fn a_round_trip_beyond_a_minute_keeps_the_maximum_exact() {
        let rtt = Rtt::from_iter([1_000, 100_000_000_000]);
        assert_eq!(rtt.us().unwrap().max, 100_000_000.0);
        assert_eq!(rtt.us().unwrap().mean, 50_000_000.5);
    }

    #[test]
    fn classes_grow_by_a_factor_and_lose_nobody() {
        let rtt = Rtt::from_iter([1_000, 1_500, 2_500, 5_000, 9_000, 15_000, 16_000]);
        let classes = rtt.classes(4); // from 1, 2, 4, 8 to 16 us
        for ((bound, _), right) in classes.iter().zip([1e3, 2e3, 4e3, 8e3]) {
            assert!((bound / right - 1.0).abs() < 1e-9, "{bound}");
        }
        assert_eq!(classes.iter().map(|class| class.1).collect::<Vec<_>>(), [2, 1, 1, 3]);
    }

    #[test]
    fn the_bars_are_drawn_to_scale_and_a_lone_outlier_shows() {
        let mut rtt: Rtt = core::iter::repeat_n(10_000, 1000).collect();
        (0..500).for_each(|_| rtt.record(30_000));
        rtt.record(160_000);
        assert_eq!(
            rtt.bars(4, 8),
            "      10.0 us |████████ 1000\n      20.0 us |████     500\n      40.0 us |         0\n      80.0 us |▏        1\n"
        );
        assert_eq!(rtt.sparkline(4), "█▄ ▁");
    }

    #[test]
    fn equal_round_trips_fall_into_one_class() {
        let rtt = Rtt::from_iter([7_000; 3]);
        assert_eq!(rtt.classes(3).iter().map(|class| class.1).collect::<Vec<_>>(), [3, 0, 0]);
        assert_eq!(rtt.sparkline(3), "█  ");
    }

    #[test]
    fn the_rate_counts_replies_over_the_whole_time() {
        let clock = Clock::with_frequency(1_000_000_000);
        let sample = |n| Sample { sequence: n, intended: n * 1000, sent: n * 1000, received: n * 1000 + 100 };
        let samples: Vec<_> = (0..1000).map(sample).collect();
        assert_eq!(rate_pps(&samples, &clock).round(), (1000.0 * 1e9 / 999_100.0_f64).round());
        assert_eq!(rate_pps(&samples[..1], &clock), 0.0);
        assert_eq!(rate_pps(&[], &clock), 0.0);
    }

    /// A document with everything in it: a pinger over a socket, one in memory to which nothing came back, and a forwarder.
    fn document() -> Document {
        let clock = Clock::with_frequency(1_000_000_000);
        let mut host = Host::read(&clock);
        host.place("pinger", Some(0));
        host.place("reflector", None);
        let mut document = Document::new(host);

        let umem = Umem::new(Layout::new(2048, 64).unwrap(), &RegionOptions::default()).unwrap();
        let counts = PingCounts::default();
        let sample = |n| Sample { sequence: n, intended: n, sent: n + 1, received: n + 1000 };
        let samples: Vec<_> = (0..10).map(sample).collect();
        let mut row = Row::new("A-B", Transport::AfXdp).ping(&counts, &samples, 0, &clock);
        row.mode = Some(ModeName::Native);
        row.granted = Some(GrantedRow {
            mode: Some(ModeName::Native),
            zero_copy: false,
            need_wakeup: false,
            busy_poll: (&Err("not asked for".to_string())).into(),
            tx_budget: Some(2048),
            send_buffer: 212_992,
            rings: RingSizes { fill: 2048, rx: 2048, tx: 2048, completion: 2048 }.into(),
            umem: (&umem).into(),
        });
        row.syscalls_per_packet = Some(1.5);
        row.far_syscalls_per_packet = Some(2.0);
        document.rows.push(row);

        document.rows.push(Row::new("A-B", Transport::Memory).ping(&counts, &[], 0, &clock));

        let mut counters = Counters::default();
        (counters.received, counters.dropped, counters.kicks) = (10, 1, 4);
        let worker = WorkerRow::new(Some(1), true, &counters).socket(&Statistics::default());
        let mut row = Row::new("eth1-eth2", Transport::AfXdp).worker(worker);
        row.syscalls_per_packet = syscalls_per_packet(&counters, row.received);
        document.rows.push(row);

        document.baseline = Some(Baseline { icmp_rtt_us: Rtt::from_iter([20_000, 30_000]).us() });
        document
    }

    fn parsed(document: &Document) -> Value {
        serde_json::from_str(&document.to_json()).unwrap()
    }

    #[test]
    fn the_words_are_those_agreed_on() {
        let document = parsed(&document());
        assert_eq!(document["schema"], "xdp-apps/1");
        let row = &document["rows"][0];
        assert_eq!((&row["mode"], &row["transport"]), (&json!("native"), &json!("af_xdp")));
        assert_eq!(
            row["granted"]["busy_poll"],
            json!({"effective": false, "why": "not asked for", "napi_id": null})
        );
        for word in
            ["sent", "received", "lost", "duplicated", "reordered", "late", "rate_pps", "syscalls_per_packet"]
        {
            assert!(row[word].is_number(), "{word}");
        }
        for word in ["min", "p50", "p90", "p99", "p999", "max", "mean"] {
            assert_eq!(row["rtt_us"][word].as_f64().map(|us| (us * 1e3).round()), Some(1000.0), "{word}");
            assert!(document["baseline"]["icmp_rtt_us"][word].is_number(), "{word}");
        }
        assert_eq!(row["rtt_from_sent_us"]["p50"], 0.999);
        assert_eq!(document["rows"][1]["transport"], "memory");
        assert!(document["rows"][1]["rtt_us"].is_null());
        let forwarder = &document["rows"][2];
        assert_eq!((&forwarder["received"], &forwarder["sent"]), (&json!(10), &json!(9)));
        assert_eq!(forwarder["syscalls_per_packet"], 0.4);
        assert!(forwarder.get("rtt_us").is_none(), "a forwarder takes no times");
    }

    #[test]
    fn every_document_fits_the_schema() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let fits = |document: &Value| check(&schema, &schema, document, "");
        let document = parsed(&document());
        assert_eq!(fits(&document), Ok(()));
        let empty = Document::new(Host::read(&Clock::with_frequency(1_000_000_000)));
        assert_eq!(fits(&parsed(&empty)), Ok(()));

        // And the check can fail: no word may go, none be added, none change its type.
        let broken = |change: &dyn Fn(&mut Value)| {
            let mut changed = document.clone();
            change(&mut changed);
            fits(&changed).unwrap_err()
        };
        for word in document["rows"][0].as_object().unwrap().keys() {
            let error = broken(&|document| document["rows"][0][word] = json!([["?"]]));
            assert!(error.starts_with("/rows/0"), "{error}");
            if word != "far_syscalls_per_packet" {
                broken(&|document| drop(document["rows"][0].as_object_mut().unwrap().remove(word)));
            }
        }
        assert_eq!(
            broken(&|document| document["schema"] = json!("xdp-apps/0")),
            "/schema: not \"xdp-apps/1\""
        );
        assert_eq!(
            broken(&|document| document["host"]["color"] = json!(1)),
            "/host: color is not a word of it"
        );
        assert!(broken(&|document| document["rows"][0]["sent"] = json!(-1)).contains("/rows/0/sent"));
        assert!(broken(&|document| document["rows"][0]["mode"] = json!("driver")).contains("/rows/0/mode"));
    }
}
