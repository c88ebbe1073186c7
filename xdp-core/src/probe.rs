//! Probe: what a driver really does with AF_XDP, found out on the very interface.
//!
//! Three times in the last years a kernel shipped with busy polling that polled nothing, and on two drivers a socket option
//! stops zero-copy sending without an error. So a port is not trusted because its options were accepted:
//! [`probe`] binds sockets to one queue for a second or two and writes down, as a [`Contract`], what came of it; and
//! [`Contract::adapt`] refuses or works round what is known not to work there.
#![deny(unsafe_code)] // `sys` below is the exception, which forbid would not let be

#[allow(unsafe_code)]
mod sys;

use crate::netdev::facts::Facts;
use crate::netdev::genl::XdpFeatures;
use crate::netdev::{Interface, Mac, Setting};
use crate::xsk::{BusyPoll, Place, XskConfig, ZeroCopy};
use crate::{Desc, Error, RingSizes, cpu, uapi};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;
use std::time::Instant;
use sys::RawPort;
use xdp_bpf::{AttachOptions, Attachment, Mode, Rule, Rules};
use xdp_umem::Errno;

/// What the probes' own packets have for an ethertype: the one IEEE keeps for local experiments.
pub const ETHER_TYPE: u16 = 0x88b5;

/// Whoever makes a packet arrive at the interface: given its bytes, it says whether it sent them.
pub type Traffic<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// How to probe.
pub struct ProbeOptions<'a> {
    /// Which queue.
    pub queue: u32,
    /// Where the program of the receiving probes runs.
    pub mode: Mode,
    /// Who sends packets for the receiving probes; without, they are left out. From the same machine, its own sending may cost
    /// softirqs on our core, which are then counted too.
    pub traffic: Option<Traffic<'a>>,
    /// Probe an interface that the host or the user hangs on, or that has addresses, too: its traffic stops for moments.
    pub insist: bool,
}

impl Default for ProbeOptions<'_> {
    fn default() -> Self {
        Self { queue: 0, mode: Mode::Native, traffic: None, insist: false }
    }
}

impl fmt::Debug for ProbeOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, mode, traffic, insist } = self;
        let mut shown = f.debug_struct("ProbeOptions");
        shown.field("queue", queue).field("mode", mode).field("insist", insist);
        shown.field("traffic", &traffic.is_some()).finish()
    }
}

/// What one queue of one interface was seen to do. What was not probed has a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contract {
    /// The interface's name.
    pub interface: String,
    /// Its driver, if it has a name.
    pub driver: Option<String>,
    /// The kernel's release.
    pub kernel: String,
    /// The queue.
    pub queue: u32,
    /// Whether a socket that prefers zero-copy got it.
    pub zero_copy: bool,
    /// How long binding took.
    pub binding: Binding,
    /// Whether a kick transmits.
    pub kick: Setting<Kick>,
    /// What the wake-up flag of the tx ring is worth.
    pub need_wakeup: Setting<NeedWakeup>,
    /// Whether a system call of ours polls the device.
    pub busy_poll: Setting<BusyPolling>,
    /// What `SO_PREFER_BUSY_POLL` does to zero-copy sending.
    pub prefer_busy_poll: Setting<PreferBusyPoll>,
    /// What becomes of a descriptor that the kernel refuses.
    pub invalid_descriptor: Setting<InvalidDescriptor>,
    /// Whether packets arrive at a socket that was just bound.
    pub receiving: Setting<Receiving>,
    /// Whether the longest packet arrives in one piece in small chunks.
    pub splitting: Setting<Splitting>,
}

/// How long binding took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binding {
    /// Of a queue that nobody had.
    pub first_us: u64,
    /// Of the same one right after its socket was closed: the kernel lets go of a queue only later.
    pub again_us: u64,
}

/// What a kick (a `sendto` of nothing) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kick {
    /// Whether the packet left its ring without a kick, within 5 ms.
    pub unasked: bool,
    /// Whether it left.
    pub sent: bool,
    /// How many kicks it took.
    pub kicks: u32,
    /// Whether its completion came, and how long after the first kick, or, where none was needed, after it was published, in
    /// microseconds.
    pub completed_us: Option<u64>,
}

/// What the wake-up flag of the tx ring is worth, over some dozens of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NeedWakeup {
    /// Seen set and seen clear: the driver uses it.
    Honoured,
    /// Always set: it says nothing, as in copy mode.
    Constant,
    /// Never set.
    Never,
}

/// What busy polling did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusyPolling {
    /// The NAPI instance that a call polls; `None`: none is linked to the socket, and it polls nothing.
    pub napi_id: Option<u32>,
    /// Packets received while only our calls asked for them; `None` without traffic to receive.
    pub received: Option<u64>,
    /// Network softirqs that ran on our core meanwhile, which busy polling is to do without; `None` if the thread could not stay on one core.
    pub softirqs: Option<u64>,
}

impl BusyPolling {
    /// Whether it works: `None` if that cannot be told without traffic.
    pub fn is_effective(&self) -> Option<bool> {
        match (self.napi_id, self.received, self.softirqs) {
            (None, ..) => Some(false),
            (_, Some(0), _) => Some(false),
            (_, Some(received), Some(softirqs)) => Some(softirqs < received),
            _ => None,
        }
    }
}

/// What `SO_PREFER_BUSY_POLL` does to zero-copy sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreferBusyPoll {
    /// Whether sending stood still although it was kicked.
    pub stalls: bool,
    /// Whether poll(2) got it going.
    pub poll_helps: Option<bool>,
    /// Whether taking the option away got it going.
    pub without_helps: Option<bool>,
}

/// What becomes of a descriptor that the kernel refuses: here, one that lies outside the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidDescriptor {
    /// Whether its address came back as if it had been sent.
    pub comes_back: bool,
    /// Whether the socket's statistics count it.
    pub counted: bool,
    /// Whether a good packet behind it was sent.
    pub next_is_sent: bool,
}

/// Whether packets arrive at a socket whose fill ring was empty when it was bound, as it always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receiving {
    /// Whether they do, with a wake-up where the fill ring asks for one. The drivers igb and igc, where receiving has an
    /// interrupt of its own, wake only the sending side (until 7.0), and never see the chunks.
    pub arrives: bool,
    /// If not: whether one busy poll got it going.
    pub busy_poll_helps: Option<bool>,
}

/// How the longest packet of the interface's MTU arrived in chunks of 2048 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Splitting {
    /// Its length, in bytes.
    pub len: u32,
    /// Whether packets of several chunks were allowed.
    pub multi_buffer: bool,
    /// The length of each piece; empty if it did not arrive.
    pub pieces: Vec<u32>,
}

impl Splitting {
    /// Whether it came in one piece.
    pub fn is_whole(&self) -> bool {
        self.pieces == [self.len]
    }
}

/// How long what should happen is waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the link may take to come back after a driver took it down.
const LINK: Duration = Duration::from_secs(5);
const MILLISECOND: Duration = Duration::from_millis(1);
const ROUNDS: u32 = 64;

/// Finds out what one queue of an interface of this thread's namespace does. Sends under a hundred packets of 64 bytes to the
/// interface's own address, which no switch forwards; meanwhile a program is attached, unless there is one, that redirects
/// ethertype [`ETHER_TYPE`] alone. Changes no setting. Takes a second or two, where the driver resets the link for it some more.
///
/// Busy polling does without interrupts only once [`set_napi`](crate::netdev::tune::set_napi) has deferred them; until then
/// the softirqs that are counted are those of interrupts that each poll turned on again.
///
/// # Errors
/// `EPERM` for an interface that the host hangs on, without [`ProbeOptions::insist`], and without the privilege; `ENETDOWN`
/// if it is down; `EBUSY` if somebody has the queue; `EINVAL` if there is no such queue.
pub fn probe(interface: &Interface, options: ProbeOptions<'_>) -> Result<Contract, Error> {
    let facts = Facts::read(interface);
    check(&facts, &options)?;
    let ProbeOptions { queue, mode, mut traffic, .. } = options;
    let mac = interface.mac.unwrap_or(Mac([2, 0, 0, 0, 0, 1]));
    // Intel's drivers send nothing without a copy while there is no program, and receiving needs one anyway
    let attached = attach(&facts, queue, mode);
    let attachment = attached.as_ref().ok();
    let open = |config: &XskConfig, chunk_size| {
        let attachment = attachment.map(|attachment| (attachment, queue));
        let place = Place { ifindex: interface.index, name: &interface.name, queue, attachment };
        let started = Instant::now();
        let port = RawPort::open(place, config, chunk_size)?;
        let us = micros(started);
        // some drivers take the link down for a moment when a queue changes hands
        if facts.interface.carrier {
            let _ = interface.wait_operational(LINK);
        }
        Ok::<_, Error>((port, us))
    };
    let zero_copy = if mode == Mode::Skb { ZeroCopy::Off } else { ZeroCopy::Prefer };
    let quiet = XskConfig { rings: RINGS, zero_copy, bind_timeout_ms: 5000, ..XskConfig::default() };

    let (mut port, first_us) = open(&quiet, 4096)?;
    let zero_copy = port.ends.xsk.is_zero_copy();
    let (mut kick, mut need_wakeup, mut invalid) = (None, None, None);
    let not_sent = if interface.refresh()?.carrier {
        let found = probe_kick(&mut port, mac);
        kick = Some(found);
        if found.completed_us.is_some() {
            need_wakeup = Some(probe_need_wakeup(&mut port, mac));
            invalid = Some(probe_invalid(&mut port, mac));
        }
        "a kick does not transmit"
    } else {
        "no carrier: nothing can be sent"
    };
    drop(port);

    let polling = BusyPoll { budget: 64, time_us: 20, prefer: false };
    let preferring = BusyPoll { prefer: true, ..polling };
    let polling = XskConfig { busy_poll: Some(polling), ..quiet };
    let preferring = XskConfig { busy_poll: Some(preferring), ..quiet };
    let again = open(&polling, 4096);
    let again_us = again.as_ref().map_or(0, |(_, us)| *us);
    let napi = again.map_err(|error| error.to_string()).map(|(port, _)| port.ends.xsk.granted().busy_poll);

    let prefer = match &napi {
        _ if !zero_copy => Setting::Unsupported("it is about zero-copy, which was not granted".to_string()),
        _ if kick.is_none_or(|kick| kick.completed_us.is_none()) => {
            Setting::Unsupported(not_sent.to_string())
        }
        Ok(Ok(_)) => match open(&preferring, 4096) {
            Ok((mut port, _)) => Setting::Value(probe_prefer(&mut port, mac)),
            Err(error) => Setting::Unsupported(error.to_string()),
        },
        Ok(Err(reason)) | Err(reason) => Setting::Unsupported(reason.clone()),
    };

    let (mut received, mut receiving) = (None, None);
    let splitting = match (&mut traffic, &attached) {
        (None, _) => Setting::Unsupported("nobody sends packets to receive".to_string()),
        (_, Err(reason)) => Setting::Unsupported(reason.clone()),
        (Some(traffic), Ok(_)) => {
            if let Ok((mut port, _)) = open(&quiet, 4096) {
                receiving = Some(probe_receive(&mut port, mac, traffic));
            }
            if let (Ok(Ok(_)), Ok((mut port, _))) = (&napi, open(&preferring, 4096)) {
                received = Some(probe_receiving(&mut port, mac, traffic));
            }
            let multi_buffer = takes_pieces(&facts, zero_copy);
            // preferred only, a driver that cannot with such chunks would be probed in copy mode, where it has no say
            let zero_copy = if zero_copy { ZeroCopy::Require } else { quiet.zero_copy };
            match open(&XskConfig { multi_buffer, zero_copy, ..polling }, 2048) {
                Ok((mut port, _)) => {
                    Setting::Value(probe_splitting(&mut port, interface.mtu + 14, multi_buffer, mac, traffic))
                }
                Err(error) => Setting::Unsupported(error.to_string()),
            }
        }
    };
    let busy_poll = match napi {
        Ok(napi) => Setting::Value(BusyPolling {
            napi_id: napi.ok(),
            received: received.map(|(received, _)| received),
            softirqs: received.and_then(|(_, softirqs)| softirqs),
        }),
        Err(reason) => Setting::Unsupported(reason),
    };
    Ok(Contract {
        interface: interface.name.clone(),
        driver: facts.driver.value().map(|driver| driver.name),
        kernel: cpu::kernel_release(),
        queue,
        zero_copy,
        binding: Binding { first_us, again_us },
        kick: Setting::or(kick, not_sent),
        need_wakeup: Setting::or(need_wakeup, not_sent),
        busy_poll,
        prefer_busy_poll: prefer,
        invalid_descriptor: Setting::or(invalid, not_sent),
        receiving: Setting::or(receiving, splitting.reason().unwrap_or("no socket to receive with")),
        splitting,
    })
}

impl Contract {
    /// Whether sending is known to stand still with `SO_PREFER_BUSY_POLL` in zero-copy mode.
    pub fn prefer_stalls(&self) -> bool {
        self.prefer_busy_poll.as_value().is_some_and(|found| found.stalls)
    }

    /// Adapts a socket's configuration to what was found: what is known not to work is left out, with a sentence that
    /// says so for each; the rest is as it was asked for.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for what cannot be worked round: zero-copy required where it is not granted, a device that does not send.
    pub fn adapt(&self, config: &XskConfig) -> Result<(XskConfig, Vec<String>), Error> {
        let at = format!("{} queue {}", self.interface, self.queue);
        let refused = |reason: &str, remedy: &str| {
            Err(Error::new("bind", format!("{at} ({reason})"), Errno::EOPNOTSUPP, remedy))
        };
        if config.zero_copy == ZeroCopy::Require && !self.zero_copy {
            return refused("probed: no zero-copy", "take --zero-copy=prefer or --copy");
        }
        if let Setting::Value(Kick { completed_us: None, .. }) = self.kick {
            return refused(
                "probed: kicks transmit nothing",
                "set the link up, or take --mode skb or another interface",
            );
        }
        let (mut config, mut notes) = (*config, Vec::new());
        let zero_copy = self.zero_copy && config.zero_copy != ZeroCopy::Off;
        if let (Some(busy_poll), Setting::Value(found)) = (config.busy_poll, &self.busy_poll) {
            if found.napi_id.is_none() {
                notes.push(format!(
                    "busy polling left out: {at} is linked to no NAPI instance, so a call would poll nothing"
                ));
                config.busy_poll = None;
            } else if busy_poll.prefer && zero_copy && self.prefer_stalls() {
                notes.push(format!(
                    "SO_PREFER_BUSY_POLL left out: on {at} it stops zero-copy sending; SO_BUSY_POLL stays"
                ));
                config.busy_poll = Some(BusyPoll { prefer: false, ..busy_poll });
            }
        }
        if config.need_wakeup && zero_copy && self.need_wakeup == Setting::Value(NeedWakeup::Never) {
            notes.push(format!(
                "need_wakeup left out: on {at} the flag is never set, so kicks cannot go by it"
            ));
            config.need_wakeup = false;
        }
        let enough_ms = u32::try_from(self.binding.again_us / 250).unwrap_or(u32::MAX);
        if config.bind_timeout_ms > 0 && config.bind_timeout_ms < enough_ms {
            notes.push(format!(
                "waiting up to {enough_ms} ms for the queue: binding it again took {} us here",
                self.binding.again_us
            ));
            config.bind_timeout_ms = enough_ms;
        }
        if let Setting::Value(Receiving { arrives: false, busy_poll_helps }) = self.receiving {
            notes.push(match busy_poll_helps {
                Some(true) => {
                    format!("on {at} the driver sees chunks to receive into only after a busy poll")
                }
                _ => format!("on {at} nothing arrives"),
            });
        }
        if let Setting::Value(found) = &self.splitting {
            if !found.is_whole() && !config.multi_buffer {
                notes.push(format!(
                    "in chunks of 2048 bytes a packet of {} bytes arrives {} on {at}: take chunks of 4096",
                    found.len,
                    if found.pieces.is_empty() { "not at all" } else { "cut" }
                ));
            }
        }
        Ok((config, notes))
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, queue, kernel, binding, .. } = self;
        let driver = self.driver.as_deref().unwrap_or("unknown driver");
        writeln!(f, "{interface} queue {queue}, {driver}, Linux {kernel}")?;
        writeln!(
            f,
            "  zero-copy            {}",
            if self.zero_copy { "granted" } else { "not granted: copy mode" }
        )?;
        writeln!(f, "  bind                 {} us, again {} us", binding.first_us, binding.again_us)?;
        line(f, "kick", &self.kick, |kick, f| match (kick.completed_us, kick.unasked) {
            (None, _) => write!(f, "transmits nothing ({} kicks)", kick.kicks),
            (Some(us), true) => write!(f, "not needed, completed after {us} us"),
            (Some(us), false) => write!(f, "transmits ({} kicks, completed after {us} us)", kick.kicks),
        })?;
        line(f, "need_wakeup", &self.need_wakeup, |found, f| {
            f.write_str(match found {
                NeedWakeup::Honoured => "honoured: set and cleared by the driver",
                NeedWakeup::Constant => "constant: always set, says nothing",
                NeedWakeup::Never => "never set",
            })
        })?;
        line(f, "busy polling", &self.busy_poll, |found, f| match (found.napi_id, found.is_effective()) {
            (None, _) => f.write_str("not effective: no NAPI instance is linked to the socket (id 0)"),
            (Some(id), None) => write!(f, "NAPI instance {id}; without traffic not seen at work"),
            (Some(id), Some(works)) => write!(
                f,
                "{}effective: NAPI instance {id}, {} packets, {} softirqs on this core{}",
                if works { "" } else { "not " },
                found.received.unwrap_or(0),
                found.softirqs.unwrap_or(0),
                if works { "" } else { "; are interrupts deferred?" },
            ),
        })?;
        line(f, "prefer busy poll", &self.prefer_busy_poll, |found, f| match found.stalls {
            false => f.write_str("sends"),
            true => write!(
                f,
                "STALLS zero-copy sending; {} gets it going",
                match (found.without_helps, found.poll_helps) {
                    (Some(true), _) => "leaving it out",
                    (_, Some(true)) => "poll(2)",
                    _ => "nothing tried",
                }
            ),
        })?;
        line(f, "invalid descriptor", &self.invalid_descriptor, |found, f| {
            write!(
                f,
                "its address {}, {}, the next packet {}",
                if found.comes_back { "comes back" } else { "is lost" },
                if found.counted { "counted" } else { "not counted" },
                if found.next_is_sent { "is sent" } else { "is NOT sent" },
            )
        })?;
        line(f, "receiving", &self.receiving, |found, f| {
            f.write_str(match (found.arrives, found.busy_poll_helps) {
                (true, _) => "packets arrive at a socket just bound",
                (false, Some(true)) => {
                    "nothing arrives until a busy poll: the driver misses the fill ring's wake-up"
                }
                (false, _) => "NOTHING arrives",
            })
        })?;
        line(f, "2048-byte chunks", &self.splitting, |found, f| match &found.pieces[..] {
            [] => write!(f, "{} bytes do not arrive", found.len),
            [_] if found.is_whole() => write!(f, "{} bytes arrive in one piece", found.len),
            pieces => write!(f, "{} bytes arrive cut, in {} piece(s): {pieces:?}", found.len, pieces.len()),
        })
    }
}

fn line<T>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    found: &Setting<T>,
    show: impl FnOnce(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    write!(f, "  {name:<20} ")?;
    match found {
        Setting::Value(found) => show(found, f)?,
        Setting::Unsupported(reason) => write!(f, "not probed: {reason}")?,
    }
    writeln!(f)
}

const RINGS: RingSizes = RingSizes { fill: 256, rx: 256, tx: 256, completion: 256 };

/// Whether it may be probed at all.
fn check(facts: &Facts, options: &ProbeOptions<'_>) -> Result<(), Error> {
    let Interface { name, up, .. } = &facts.interface;
    let refused =
        |errno, reason: String, remedy| Err(Error::new("probe", format!("{name} ({reason})"), errno, remedy));
    if !options.insist {
        const INSIST: &str = "probing stops its traffic for moments: insist (--force) if that may be";
        match &facts.lock_out {
            Setting::Value(None) => {}
            Setting::Value(Some(why)) => return refused(Errno::EPERM, why.to_string(), INSIST),
            Setting::Unsupported(reason) => return refused(Errno::EPERM, reason.clone(), INSIST),
        }
        let addresses = facts.interface.addresses()?;
        let global = addresses.iter().find(|(ip, _)| match ip {
            core::net::IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
            core::net::IpAddr::V6(ip) => ip.segments()[0] != 0xfe80 && !ip.is_loopback(),
        });
        if let Some((ip, _)) = global {
            return refused(Errno::EPERM, format!("has address {ip}"), INSIST);
        }
    }
    if !up {
        return refused(Errno::ENETDOWN, "down".to_string(), "bring it up first");
    }
    // with a program, virtio_net shows its spare queues as real ones, and a zero-copy bind to one of them crashes 6.18
    let combined =
        facts.channels.as_value().and_then(|channels| channels.combined).filter(|count| *count > 0);
    let count = combined.or_else(|| facts.queues.as_value().map(|queues| queues.rx.min(queues.tx)));
    if count.is_some_and(|count| options.queue >= count) {
        let count = count.unwrap_or(0);
        return refused(Errno::EINVAL, format!("{count} queues"), "queues are numbered from 0");
    }
    Ok(())
}

/// Puts a program on the interface that takes the probes' own packets alone; the reason, if there is none to be had.
fn attach(facts: &Facts, queue: u32, mode: Mode) -> Result<Arc<Attachment>, String> {
    if let Some(program) = facts.program.as_value().and_then(Option::as_ref) {
        return Err(format!("{} is attached already", program.attached));
    }
    let Interface { name, index, .. } = &facts.interface;
    let rules = Rules::any_of([Rule::all().ether_type(ETHER_TYPE)]);
    let options = |frags| AttachOptions {
        interface: name.clone(),
        frags,
        queues: queue + 1,
        ..AttachOptions::default()
    };
    let zero_copy = facts.xdp.as_value().is_some_and(|xdp| xdp.has(XdpFeatures::ZERO_COPY));
    let frags = takes_pieces(facts, zero_copy && mode == Mode::Native);
    let attached = Attachment::new(*index, mode, &rules, &options(frags));
    let attached = attached.map_err(|error| error.to_string()).map(Arc::new)?;
    // many drivers take the link down and up for it
    if facts.interface.carrier {
        let _ = facts.interface.wait_operational(LINK);
    }
    Ok(attached)
}

/// Whether a packet may come in several chunks.
fn takes_pieces(facts: &Facts, zero_copy: bool) -> bool {
    let segments = facts.xdp.as_value().and_then(|xdp| xdp.zero_copy_segments_max);
    !zero_copy || segments.is_some_and(|most| most > 1)
}

/// A packet of ours to the interface's own address: 64 bytes or more.
fn packet(mac: Mac, len: usize) -> Vec<u8> {
    let mut packet = alloc::vec![0; len.max(64)];
    packet[..6].copy_from_slice(&mac.0);
    packet[6..12].copy_from_slice(&mac.0);
    packet[12..14].copy_from_slice(&ETHER_TYPE.to_be_bytes());
    packet
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Waits for something; whether it came in time.
fn within(limit: Duration, mut came: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if came() {
            return true;
        }
        if started.elapsed() >= limit {
            return false;
        }
        core::hint::spin_loop();
    }
}

impl RawPort {
    /// Publishes one packet.
    fn queue(&mut self, chunk: u32, mac: Mac) {
        let desc = self.write(chunk, &packet(mac, 64));
        // never full: every probe waits for its packets, and those that stall are few
        if self.ends.tx.push(desc).is_ok() {
            self.ends.tx.commit();
            fence(Ordering::SeqCst); // published before the flag is looked at
        }
    }

    /// One `sendto` of nothing; what it says shows in the rings.
    fn kick(&self) {
        let _ = xdp_umem::sys::send_nothing(self.fd());
    }

    /// Takes completions; how many, and whether `wanted` was among them.
    fn completed(&mut self, wanted: u64) -> (u32, bool) {
        let mut seen = false;
        let count = self.ends.completion.consume(u32::MAX, |addr| seen |= addr == wanted);
        (count, seen)
    }

    /// Kicks until nothing waits in the tx ring and `count` completions came; how many kicks, and how many came.
    fn drain(&mut self, count: u32, limit: Duration) -> (u32, u32) {
        let (started, mut kicks, mut done) = (Instant::now(), 0, 0);
        while done < count && started.elapsed() < limit {
            if self.ends.tx.pending() > 0 || self.ends.tx.needs_wakeup() {
                self.kick();
                kicks += 1;
            }
            within(MILLISECOND, || {
                done += self.ends.completion.consume(u32::MAX, drop);
                done >= count
            });
        }
        (kicks, done)
    }
}

fn probe_kick(port: &mut RawPort, mac: Mac) -> Kick {
    let mut since = Instant::now();
    port.queue(0, mac);
    let unasked = within(5 * MILLISECOND, || port.ends.tx.pending() == 0);
    let (mut kicks, mut completed_us) = (0, None);
    if !unasked {
        since = Instant::now();
    }
    let deadline = Instant::now() + PATIENCE;
    while completed_us.is_none() && Instant::now() < deadline {
        if !unasked && (kicks == 0 || port.ends.tx.pending() > 0) {
            port.kick();
            kicks += 1;
        }
        if within(MILLISECOND, || port.completed(0).0 > 0) {
            completed_us = Some(micros(since));
        }
    }
    Kick { unasked, sent: port.ends.tx.pending() == 0, kicks, completed_us }
}

fn probe_need_wakeup(port: &mut RawPort, mac: Mac) -> NeedWakeup {
    let (mut set, mut clear) = (false, false);
    for round in 0..ROUNDS {
        port.queue(round, mac);
        let mut look = |port: &RawPort| {
            let flag = port.ends.tx.needs_wakeup();
            set |= flag;
            clear |= !flag;
            flag
        };
        look(port);
        port.kick();
        let deadline = Instant::now() + 20 * MILLISECOND;
        while port.completed(0).0 == 0 && Instant::now() < deadline {
            look(port);
            if port.ends.tx.pending() > 0 {
                port.kick();
            }
        }
    }
    match (set, clear) {
        (true, true) => NeedWakeup::Honoured,
        (true, false) => NeedWakeup::Constant,
        (false, _) => NeedWakeup::Never,
    }
}

fn probe_invalid(port: &mut RawPort, mac: Mac) -> InvalidDescriptor {
    let counted = |port: &RawPort| port.ends.xsk.statistics().map_or(0, |found| found.tx_invalid_descs);
    while port.completed(0).0 > 0 {} // nothing of the packets before
    let before = counted(port);
    let outside = port.region().len() as u64 + 4096;
    let good = port.write(1, &packet(mac, 64));
    for desc in [Desc { addr: outside, len: 64, options: 0 }, good] {
        let _ = port.ends.tx.push(desc);
    }
    port.ends.tx.commit();
    fence(Ordering::SeqCst);
    let (mut comes_back, mut next_is_sent) = (false, false);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && !next_is_sent {
        port.kick();
        within(MILLISECOND, || {
            port.ends.completion.consume(u32::MAX, |addr| {
                comes_back |= addr == outside;
                next_is_sent |= addr == good.addr;
            });
            next_is_sent
        });
    }
    InvalidDescriptor { comes_back, counted: counted(port) > before, next_is_sent }
}

/// Sends in the mode that stalls some drivers; then tries what helps.
fn probe_prefer(port: &mut RawPort, mac: Mac) -> PreferBusyPoll {
    const PACKETS: u32 = 8;
    const SO_PREFER_BUSY_POLL: i32 = 69;
    for chunk in 0..PACKETS {
        port.queue(chunk, mac);
    }
    let (_, mut done) = port.drain(PACKETS, 2 * PATIENCE);
    if done == PACKETS {
        return PreferBusyPoll { stalls: false, poll_helps: None, without_helps: None };
    }
    let poll_helps = within(PATIENCE, || {
        let mut fds = [xdp_umem::sys::PollFd { fd: port.fd().raw(), events: libc::POLLOUT, revents: 0 }];
        let _ = xdp_umem::sys::poll(&mut fds, 0);
        done += port.completed(0).0;
        done >= PACKETS
    });
    let off = xdp_umem::sys::setsockopt(port.fd(), libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &0u32);
    port.queue(PACKETS, mac);
    let (_, more) = port.drain(PACKETS + 1 - done.min(PACKETS), 2 * PATIENCE);
    let all = done + more > PACKETS;
    PreferBusyPoll { stalls: true, poll_helps: Some(poll_helps), without_helps: off.is_ok().then_some(all) }
}

/// Receives while only our own calls poll: how many packets came, and how many softirqs ran on this core meanwhile.
fn probe_receiving(port: &mut RawPort, mac: Mac, traffic: &mut Traffic<'_>) -> (u64, Option<u64>) {
    let allowed = cpu::allowed().unwrap_or_default();
    let core = cpu::current().ok().filter(|core| cpu::pin(*core).is_ok());
    let count = || core.and_then(net_rx);
    let (mut received, mut softirqs) = (0, Some(0));
    for _ in 0..ROUNDS {
        if !traffic(&packet(mac, 64)) {
            continue;
        }
        let before = count();
        within(10 * MILLISECOND, || {
            let _ = xdp_umem::sys::receive_nothing(port.fd());
            let arrived = take_arrived(port, 64, &mut 0).len();
            received += arrived as u64;
            arrived > 0
        });
        let ran = before.zip(count()).map(|(before, after)| after.saturating_sub(before));
        softirqs = softirqs.zip(ran).map(|(sum, ran)| sum + ran);
    }
    if core.is_some() {
        // these were its cores a moment ago
        let _ = crate::netdev::sys::set_affinity(0, &allowed);
    }
    (received, softirqs)
}

fn probe_splitting(
    port: &mut RawPort,
    len: u32,
    multi_buffer: bool,
    mac: Mac,
    traffic: &mut Traffic<'_>,
) -> Splitting {
    let mut pieces = Vec::new();
    for _ in 0..3 {
        if !traffic(&packet(mac, len as usize)) {
            continue;
        }
        let mut missing = 0;
        let whole = within(PATIENCE, || {
            let _ = xdp_umem::sys::receive_nothing(port.fd());
            pieces.extend(take_arrived(port, len, &mut missing).iter().map(|desc| desc.len));
            !pieces.is_empty() && missing == 0
        });
        if whole || !pieces.is_empty() {
            break;
        }
    }
    Splitting { len, multi_buffer, pieces }
}

/// Receives as a socket does that was just bound: its fill ring was empty then. If nothing comes, one busy poll may help.
fn probe_receive(port: &mut RawPort, mac: Mac, traffic: &mut Traffic<'_>) -> Receiving {
    const SO_BUSY_POLL: i32 = 46;
    let mut arrives = |port: &mut RawPort, call_anyway: bool| {
        (0..3).any(|_| {
            traffic(&packet(mac, 64))
                && within(PATIENCE, || {
                    if call_anyway || port.ends.fill.needs_wakeup() {
                        let _ = xdp_umem::sys::receive_nothing(port.fd());
                    }
                    !take_arrived(port, 64, &mut 0).is_empty()
                })
        })
    };
    if arrives(port, false) {
        return Receiving { arrives: true, busy_poll_helps: None };
    }
    let set = xdp_umem::sys::setsockopt(port.fd(), libc::SOL_SOCKET, SO_BUSY_POLL, &20u32);
    Receiving { arrives: false, busy_poll_helps: set.is_ok().then(|| arrives(port, true)) }
}

/// Takes what arrived of the probes' own packets of `len` bytes, and lends the chunks again. A piece after the first has no
/// header to know it by, and not every driver marks it, so what follows a first piece counts until the packet is whole:
/// `missing` bytes are still to come.
fn take_arrived(port: &mut RawPort, len: u32, missing: &mut u32) -> Vec<Desc> {
    let mut all = Vec::new();
    port.ends.rx.consume(u32::MAX, |desc| all.push(desc));
    let mut arrived = Vec::new();
    for desc in all {
        if *missing == 0 {
            let packet = port.read(desc).unwrap_or_default();
            let ours = packet.get(12..14) == Some(&ETHER_TYPE.to_be_bytes()[..]);
            *missing = if ours { len } else { 0 };
        }
        if *missing > 0 {
            *missing = missing.saturating_sub(desc.len);
            arrived.push(desc);
        }
        port.recycle(desc);
    }
    port.ends.fill.commit();
    arrived
}

/// How many network softirqs ran on a core since boot.
fn net_rx(core: usize) -> Option<u64> {
    parse_net_rx(&std::fs::read_to_string("/proc/softirqs").ok()?, core)
}

fn parse_net_rx(table: &str, core: usize) -> Option<u64> {
    let mut lines = table.lines();
    let name = format!("CPU{core}");
    let column = lines.next()?.split_ascii_whitespace().position(|one| one == name)?;
    let row = lines.find_map(|line| line.trim_start().strip_prefix("NET_RX:"))?;
    row.split_ascii_whitespace().nth(column)?.parse().ok()
}

const _: () = assert!(Desc::CONTINUED == 1 && uapi::SOL_XDP == 283);

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> Contract {
        Contract {
            interface: "eth1".to_string(),
            driver: Some("igb".to_string()),
            kernel: "6.18.0".to_string(),
            queue: 0,
            zero_copy: true,
            binding: Binding { first_us: 300, again_us: 20_000 },
            kick: Setting::Value(Kick { unasked: false, sent: true, kicks: 1, completed_us: Some(30) }),
            need_wakeup: Setting::Value(NeedWakeup::Honoured),
            busy_poll: Setting::Value(BusyPolling { napi_id: Some(8193), received: None, softirqs: None }),
            prefer_busy_poll: Setting::Value(PreferBusyPoll {
                stalls: true,
                poll_helps: Some(false),
                without_helps: Some(true),
            }),
            invalid_descriptor: Setting::Value(InvalidDescriptor {
                comes_back: false,
                counted: true,
                next_is_sent: true,
            }),
            receiving: Setting::Unsupported("nobody sends".to_string()),
            splitting: Setting::Unsupported("nobody sends".to_string()),
        }
    }

    const POLLING: XskConfig = XskConfig {
        rings: RINGS,
        zero_copy: ZeroCopy::Prefer,
        need_wakeup: true,
        multi_buffer: false,
        busy_poll: Some(BusyPoll { budget: 64, time_us: 20, prefer: true }),
        tx_budget: None,
        send_buffer: None,
        bind_timeout_ms: 2000,
    };

    #[test]
    fn a_known_stall_is_worked_round_and_said_so() {
        let (adapted, notes) = POLLING.under(&contract()).unwrap();
        assert_eq!(adapted.busy_poll, Some(BusyPoll { budget: 64, time_us: 20, prefer: false }));
        assert!(notes.len() == 1 && notes[0].contains("SO_PREFER_BUSY_POLL left out"), "{notes:?}");
        // in copy mode it does no harm
        let copy = XskConfig { zero_copy: ZeroCopy::Off, ..POLLING };
        assert_eq!(copy.under(&contract()).unwrap(), (copy, Vec::new()));
        // and a contract without the stall asks for nothing
        let prefer_busy_poll = Setting::Unsupported("not probed".to_string());
        let good = Contract { prefer_busy_poll, ..contract() };
        assert_eq!(POLLING.under(&good).unwrap(), (POLLING, Vec::new()));
    }

    #[test]
    fn busy_polling_that_polls_nothing_is_left_out() {
        let busy_poll = Setting::Value(BusyPolling { napi_id: None, received: None, softirqs: None });
        let (adapted, notes) = Contract { busy_poll, ..contract() }.adapt(&POLLING).unwrap();
        assert_eq!(adapted, XskConfig { busy_poll: None, ..POLLING });
        assert!(notes[0].contains("linked to no NAPI instance"), "{notes:?}");
    }

    #[test]
    fn what_cannot_be_worked_round_is_refused_with_the_reason() {
        let copy = Contract { zero_copy: false, ..contract() };
        let required = XskConfig { zero_copy: ZeroCopy::Require, ..POLLING };
        let error = copy.adapt(&required).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP));
        assert!(error.to_string().contains("no zero-copy"), "{error}");
        let kick = Setting::Value(Kick { unasked: false, sent: false, kicks: 99, completed_us: None });
        let error = Contract { kick, ..contract() }.adapt(&POLLING).unwrap_err();
        assert!(error.to_string().contains("transmit nothing"), "{error}");
    }

    #[test]
    fn a_slow_queue_is_waited_for_and_small_chunks_are_warned_of() {
        let slow = Contract {
            binding: Binding { first_us: 300, again_us: 900_000 },
            splitting: Setting::Value(Splitting {
                len: 1514,
                multi_buffer: false,
                pieces: alloc::vec![1024, 490],
            }),
            need_wakeup: Setting::Value(NeedWakeup::Never),
            receiving: Setting::Value(Receiving { arrives: false, busy_poll_helps: Some(true) }),
            ..contract()
        };
        let (adapted, notes) = slow.adapt(&XskConfig { busy_poll: None, ..POLLING }).unwrap();
        assert_eq!((adapted.bind_timeout_ms, adapted.need_wakeup, notes.len()), (3600, false, 4));
        assert!(notes[2].contains("only after a busy poll"), "{notes:?}");
        assert!(notes[3].contains("arrives cut on eth1"), "{notes:?}");
    }

    #[test]
    fn effective_is_what_received_with_fewer_softirqs_than_packets() {
        let of = |napi_id, received, softirqs| BusyPolling { napi_id, received, softirqs }.is_effective();
        assert_eq!(of(None, Some(9), Some(0)), Some(false));
        assert_eq!(of(Some(1), None, None), None);
        assert_eq!(of(Some(1), Some(64), None), None);
        assert_eq!(of(Some(1), Some(64), Some(0)), Some(true));
        assert_eq!(of(Some(1), Some(64), Some(64)), Some(false));
        assert_eq!(of(Some(1), Some(0), Some(0)), Some(false));
    }

    #[test]
    fn a_row_of_softirqs_is_read_by_the_name_of_its_column() {
        let table = "      CPU0  CPU2\n  NET_TX: 1 2\n  NET_RX: 30 40\n";
        assert_eq!(
            (parse_net_rx(table, 2), parse_net_rx(table, 1), parse_net_rx("", 0)),
            (Some(40), None, None)
        );
    }

    #[test]
    fn a_contract_reads_as_lines() {
        let text = contract().to_string();
        assert!(text.starts_with("eth1 queue 0, igb, Linux 6.18.0\n"), "{text}");
        assert!(text.contains("STALLS zero-copy sending; leaving it out gets it going"), "{text}");
        assert!(text.contains("not probed: nobody sends"), "{text}");
        assert_eq!(text.lines().count(), 10);
    }
}
