//! Round trips between two cards over AF_XDP, both ends ours: what the machine's cards can do, asked of the kernel and
//! then seen.
#![forbid(unsafe_code)]

use super::{EMULATED, FAR, NEAR, VARIABLE};
use core::fmt;
use core::time::Duration;
use serde_json::{Value, json};
use xdp_core::cpu;
use xdp_core::netdev::{Interface, Mac, Namespace};
use xdp_core::{
    Clock, Counters, Frame, Granted, Idle, Layout, Mode, Outbox, RegionOptions, Registration, Stage, Stop,
    Transmit, Umem, Verdict, Worker, XskConfig, XskPort, ticks,
};

/// For experiments on a wire of one's own (IEEE 802, "local experimental EtherType 1").
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
/// Addresses, type, and the number of the probe.
const HEADER: usize = 18;
/// What both drivers get to take their first chunks, before the first probe.
const SETTLE_NS: u64 = 200_000_000;
/// How long a probe may take.
const LOST_NS: u64 = 1_000_000_000;

/// Two cards and how to use them.
#[derive(Clone, Debug)]
pub struct Ping {
    /// The card that pings.
    pub near: String,
    /// Its namespace; the process's own if not said.
    pub near_netns: Option<String>,
    /// The card that answers.
    pub far: String,
    /// Its namespace.
    pub far_netns: Option<String>,
    /// The queue of both.
    pub queue: u32,
    /// Where the program runs.
    pub mode: Mode,
    /// How the sockets are bound.
    pub config: XskConfig,
    /// What a thread does when nothing has come.
    pub idle: Idle,
    /// Of the UMEMs, in bytes.
    pub chunk_size: u32,
    /// Of the probes on the wire, in bytes, without the checksum.
    pub packet_size: u32,
    /// How many probes.
    pub count: u32,
    /// From one probe to the next, at least.
    pub interval: Duration,
    /// After so many lost in a row, a second each, nobody is there.
    pub give_up: u32,
}

impl Default for Ping {
    /// From `near` to `far` in the namespace `far`, as they are in the machine.
    fn default() -> Self {
        Self {
            near: NEAR.to_string(),
            near_netns: None,
            far: FAR.to_string(),
            far_netns: Some(FAR.to_string()),
            queue: 0,
            mode: Mode::Native,
            config: XskConfig::default(),
            idle: Idle::Spin,
            chunk_size: 4096,
            packet_size: 64,
            count: 100,
            interval: Duration::ZERO,
            give_up: 3,
        }
    }
}

/// One of the two ends, afterwards.
#[derive(Clone, Debug)]
pub struct End {
    /// Its card.
    pub interface: String,
    /// The card's driver.
    pub driver: String,
    /// What the kernel granted, and had not taken back at the end.
    pub granted: Granted,
    /// What its worker counted.
    pub counters: Counters,
    /// Whether it has all its frames.
    pub conserved: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The pinging end, and the answering one.
    pub ends: [End; 2],
    /// Probes sent.
    pub sent: u32,
    /// Each round trip in nanoseconds, shortest first.
    pub round_trips_ns: Vec<u64>,
    /// Answers with other bytes than those sent, or of another length.
    pub altered: u32,
}

impl Report {
    /// Whether every probe came back as it was sent.
    pub fn is_complete(&self) -> bool {
        self.sent > 0 && self.round_trips_ns.len() == self.sent as usize && self.altered == 0
    }

    /// As one JSON document.
    pub fn to_json(&self, mode: Mode) -> Value {
        let end = |end: &End| {
            let granted = &end.granted;
            json!({
                "interface": end.interface,
                "driver": end.driver,
                "granted": {
                    "zero_copy": granted.zero_copy,
                    "need_wakeup": granted.need_wakeup,
                    "busy_poll_napi": granted.busy_poll.as_ref().ok(),
                    "prefers_busy_poll": granted.prefers_busy_poll,
                    "no_busy_poll": granted.busy_poll.as_ref().err(),
                },
                "received": end.counters.received,
                "system_calls": end.counters.system_calls(),
                "conserved": end.conserved,
            })
        };
        let [min, p50, p99, max] =
            [0.0, 0.5, 0.99, 1.0].map(|share| quantile_ns(&self.round_trips_ns, share));
        json!({
            "command": "ping-demo",
            "schema": 1,
            "kernel": cpu::kernel_release(),
            "note": std::env::var_os(VARIABLE).map(|_| EMULATED),
            "mode": mode_name(mode),
            "sent": self.sent,
            "returned": self.round_trips_ns.len(),
            "altered": self.altered,
            "round_trip_ns": { "min": min, "p50": p50, "p99": p99, "max": max },
            "ends": [end(&self.ends[0]), end(&self.ends[1])],
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let returned = self.round_trips_ns.len();
        let [min, p50, max] = [0.0, 0.5, 1.0].map(|share| quantile_ns(&self.round_trips_ns, share));
        writeln!(
            f,
            "{returned} of {} returned, {} altered; {min} / {p50} / {max} ns (min / p50 / max)",
            self.sent, self.altered
        )?;
        for end in &self.ends {
            let granted = &end.granted;
            let copies = if granted.zero_copy { "zero-copy" } else { "copy" };
            let calls = end.counters.system_calls();
            writeln!(
                f,
                "{} ({}): {copies}, need_wakeup {}, {calls} system calls",
                end.interface, end.driver, granted.need_wakeup
            )?;
        }
        match std::env::var_os(VARIABLE) {
            Some(_) => f.write_str(EMULATED),
            None => Ok(()),
        }
    }
}

/// The round trip that this share of all took at most, in nanoseconds, of those sorted; 0 without any.
fn quantile_ns(sorted_ns: &[u64], share: f64) -> u64 {
    let last = sorted_ns.len().saturating_sub(1);
    let at = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
    sorted_ns.get(at).copied().unwrap_or(0)
}

/// How a mode is spelled on the command line.
fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        _ => "skb",
    }
}

impl Ping {
    /// Binds both ends, waits for the link, sends the probes one at a time, and returns what came of it.
    ///
    /// # Errors
    /// What the world said no to, with the likely remedy. A probe lost is no error.
    pub fn run(&self) -> Result<Report, String> {
        if (self.packet_size as usize) < HEADER.max(60) {
            return Err(format!("a probe of {} bytes is shorter than Ethernet's 60", self.packet_size));
        }
        let layout = Layout::new(self.chunk_size, 4 * self.config.rings.tx.max(self.config.rings.fill));
        let layout = layout.map_err(|error| error.to_string())?;
        if self.packet_size > layout.packet_max() {
            return Err(format!(
                "a probe of {} bytes does not fit a chunk of {}",
                self.packet_size, self.chunk_size
            ));
        }
        let umem =
            || Umem::new(layout, &RegionOptions::default()).map_err(|errno| format!("map a UMEM: {errno}"));
        let (near_umem, far_umem) = (umem()?, umem()?);
        let namespace = |name: &Option<String>| match name {
            Some(name) => Namespace::named(name),
            None => Namespace::current(),
        };
        let said = |error: xdp_core::netdev::Error| error.to_string();
        let near_home = namespace(&self.near_netns).map_err(said)?;
        let far_home = namespace(&self.far_netns).map_err(said)?;
        // the registrations hold the programs: they go after the sockets
        let mut near_registration = Registration::new(&near_umem).mode(self.mode);
        let mut far_registration = Registration::new(&far_umem).mode(self.mode);
        let (far_port, far_card) = self.bind(&far_home, &mut far_registration, &self.far)?;
        let (near_port, near_card) = self.bind(&near_home, &mut near_registration, &self.near)?;
        let both = [(&near_home, &self.near), (&far_home, &self.far)];
        for (home, name) in both {
            // an attach resets the link of some cards: two seconds without a carrier
            let wait = || Interface::named(name)?.wait_operational(Duration::from_secs(20));
            home.run(wait).map_err(said)?.map_err(said)?;
        }
        let macs = [mac_of(&near_card)?, mac_of(&far_card)?];
        let drivers = [driver_of(&near_home, &near_card)?, driver_of(&far_home, &far_card)?];

        let clock = Clock::calibrated();
        let stop = Stop::new();
        let near_frames = near_umem.take_frames().ok_or("the frames are taken")?;
        let far_frames = far_umem.take_frames().ok_or("the frames are taken")?;
        let pinger = Pinger::new(self, macs, &clock, &stop);
        let (near, far) = std::thread::scope(|scope| {
            let far = scope.spawn(|| {
                let mut worker = Worker::new([far_port], Reflector, far_frames).idle(self.idle, &clock);
                worker.run(&stop);
                worker.drain(1000);
                (*worker.counters(), worker.is_conserved(), worker.far()[0].xsk().granted())
            });
            let mut worker = Worker::new([near_port], pinger, near_frames).idle(self.idle, &clock);
            worker.run(&stop);
            stop.set(); // also where the card is gone
            worker.drain(1000);
            let pinger = worker.stage_mut();
            let found = (pinger.sent, core::mem::take(&mut pinger.round_trips), pinger.altered);
            let granted = worker.far()[0].xsk().granted();
            ((found, *worker.counters(), worker.is_conserved(), granted), far.join())
        });
        let ((sent, round_trips, altered), near_counters, near_conserved, near_granted) = near;
        let (far_counters, far_conserved, far_granted) = far.map_err(|_| "the answering end panicked")?;
        let mut round_trips_ns: Vec<_> = round_trips.iter().map(|ticks| clock.to_ns(*ticks)).collect();
        round_trips_ns.sort_unstable();
        let [near_driver, far_driver] = drivers;
        let end = |interface: &str, driver, granted, counters, conserved| End {
            interface: interface.to_string(),
            driver,
            granted,
            counters,
            conserved,
        };
        Ok(Report {
            ends: [
                end(&self.near, near_driver, near_granted, near_counters, near_conserved),
                end(&self.far, far_driver, far_granted, far_counters, far_conserved),
            ],
            sent,
            round_trips_ns,
            altered,
        })
    }

    fn bind<'u>(
        &self,
        home: &Namespace,
        registration: &mut Registration<'u>,
        name: &str,
    ) -> Result<(XskPort<'u>, Interface), String> {
        let bound = home.run(|| {
            let port =
                registration.bind(name, self.queue, &self.config).map_err(|error| error.to_string())?;
            let card = Interface::named(name).map_err(|error| error.to_string())?;
            Ok((port, card))
        });
        bound.map_err(|error| error.to_string())?
    }
}

fn mac_of(card: &Interface) -> Result<Mac, String> {
    card.mac.ok_or_else(|| format!("{} has no Ethernet address", card.name))
}

fn driver_of(home: &Namespace, card: &Interface) -> Result<String, String> {
    let driver = home.run(|| card.driver()).map_err(|error| error.to_string())?;
    let driver = driver.map_err(|error| error.to_string())?;
    Ok(driver.value().map_or_else(|| "unknown".to_string(), |driver| driver.name))
}

/// Sends one probe, waits for it, sends the next.
struct Pinger<'s> {
    packet: Vec<u8>,
    count: u32,
    sent: u32,
    /// When the probe on its way was sent.
    waiting: Option<u64>,
    /// When the next may be.
    next: u64,
    interval: u64,
    lost_after: u64,
    give_up: u32,
    lost_in_a_row: u32,
    altered: u32,
    round_trips: Vec<u64>,
    stop: &'s Stop,
}

impl<'s> Pinger<'s> {
    fn new(ping: &Ping, [near, far]: [Mac; 2], clock: &Clock, stop: &'s Stop) -> Self {
        let mut packet: Vec<u8> = (0..ping.packet_size).map(|n| n as u8).collect();
        packet[..6].copy_from_slice(&far.0);
        packet[6..12].copy_from_slice(&near.0);
        packet[12..14].copy_from_slice(&ETHER_TYPE);
        Self {
            packet,
            count: ping.count,
            sent: 0,
            waiting: None,
            next: ticks().wrapping_add(clock.to_ticks(SETTLE_NS)),
            interval: clock.to_ticks(ping.interval.as_nanos() as u64),
            lost_after: clock.to_ticks(LOST_NS),
            give_up: ping.give_up,
            lost_in_a_row: 0,
            altered: 0,
            round_trips: Vec::with_capacity(ping.count as usize),
            stop,
        }
    }

    fn number(&mut self) {
        self.packet[14..HEADER].copy_from_slice(&self.sent.to_be_bytes());
    }
}

impl Stage for Pinger<'_> {
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        if frame.len() < HEADER || frame[12..14] != ETHER_TYPE || frame[14..HEADER] != self.packet[14..HEADER]
        {
            return Verdict::Drop; // another's, or one given up
        }
        let Some(sent_at) = self.waiting.take() else { return Verdict::Drop };
        self.round_trips.push(ticks().wrapping_sub(sent_at));
        self.lost_in_a_row = 0;
        let answered = frame[..6] == self.packet[6..12] && frame[6..12] == self.packet[..6];
        if !answered || frame[12..] != self.packet[12..] {
            self.altered += 1;
        }
        Verdict::Drop
    }

    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        let now = ticks();
        if let Some(sent_at) = self.waiting {
            if now.wrapping_sub(sent_at) < self.lost_after {
                return;
            }
            self.waiting = None;
            self.lost_in_a_row += 1;
        }
        if self.sent == self.count || self.lost_in_a_row == self.give_up {
            self.stop.set();
            return;
        }
        if (now.wrapping_sub(self.next) as i64) < 0 {
            return;
        }
        self.number();
        let sent_at = ticks();
        if out.copy(0, &self.packet) {
            self.waiting = Some(sent_at);
            self.next = sent_at.wrapping_add(self.interval);
            self.sent += 1;
        }
    }

    fn due(&self) -> Option<u64> {
        Some(self.waiting.map_or(self.next, |sent_at| sent_at.wrapping_add(self.lost_after)))
    }
}

/// Sends probes back where they came from.
struct Reflector;

impl Stage for Reflector {
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        if frame.len() < HEADER || frame[12..14] != ETHER_TYPE {
            return Verdict::Drop;
        }
        let (destination, rest) = frame.split_at_mut(6);
        destination.swap_with_slice(&mut rest[..6]);
        Verdict::Tx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_round_trips() {
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile_ns(&[1, 2, 9], share)), [1, 2, 9, 9]);
        assert_eq!(quantile_ns(&[], 0.5), 0);
    }

    #[test]
    fn a_probe_that_cannot_be_is_refused_before_anything_is_touched() {
        let short = Ping { packet_size: 20, ..Ping::default() };
        assert!(short.run().unwrap_err().contains("60"));
        let long = Ping { packet_size: 2000, chunk_size: 2048, ..Ping::default() };
        assert!(long.run().unwrap_err().contains("does not fit"));
    }
}
