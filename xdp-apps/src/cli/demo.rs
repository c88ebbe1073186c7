//! `demo`: three hosts on one machine, their round trips over AF_XDP, and the kernel's own beside them.
#![forbid(unsafe_code)]

use super::failure::{Code, Failure};
use super::{out, restore};
use crate::session::{
    self, Crank, Crew, Gauge, Interrupts, Place, Ran, Seat, Setup, WorkerReport, XskWorker,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write;
use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xdp_apps::results::{
    Baseline, Document, GrantedRow, Host, Row, Rtt, Transport, WorkerRow, syscalls_per_packet,
};
use xdp_apps::samples::{self, Sample};
use xdp_apps::stages::{Forwarder, ForwarderOptions, PingOptions, Pinger, Reflector};
use xdp_apps::testbed::hosts::{Card, Hosts};
use xdp_core::cpu::{self, Cap};
use xdp_core::netdev::{Namespace, icmp};
use xdp_core::wire::UdpTemplate;
use xdp_core::{
    Clock, Counters, Idle, Layout, Mode, RegionOptions, RingSizes, Rule, Rules, Stage, Stop, Umem, Worker,
    XskConfig, sim, ticks,
};

/// The probes' port: the echo service's.
const PORT: u16 = 7;
/// Frames of a port: what its rings may hold, twice over.
const CHUNKS: u32 = 4096;
const RINGS: RingSizes = RingSizes { fill: 1024, rx: 1024, tx: 1024, completion: 1024 };
/// Probes on their way at once, at most: far fewer than the veth ring's 256.
const IN_FLIGHT: u32 = 64;
const PINGS: u16 = 500;

/// Make three hosts on this machine, measure round trips between them over AF_XDP, and remove them.
///
/// A - B - C are network namespaces joined by veth pairs. A pings B, and C through a forwarder on B, in native and in skb mode; the
/// kernel's own ping is measured beside them. Without privilege the same stages run over simulated rings in memory, and it says so.
/// Exits with 4 if a probe was lost.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  xdp-apps demo                          four paths, two seconds each
  xdp-apps demo --json | jq '.rows[].rtt_us'
  xdp-apps demo --count 100000 --rate 50000")]
pub(crate) struct Demo {
    /// Round trips to measure on each path
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    count: u32,
    /// Round trips a second
    #[arg(long, value_name = "PPS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=200_000))]
    rate: u32,
    /// Only this XDP mode
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,
    /// One JSON document in place of the tables
    #[arg(long)]
    json: bool,
    /// No progress bar, no notes
    #[arg(short, long)]
    quiet: bool,
    /// Put back, unasked, what killed runs left changed on this host (see restore)
    #[arg(long)]
    yes: bool,
}

/// What every path is measured with.
struct Lab<'l> {
    args: &'l Demo,
    clock: Clock,
    interrupts: &'l Interrupts,
    bar: ProgressBar,
    /// A's core, and B's and C's.
    cores: [usize; 3],
}

pub(crate) fn run(args: &Demo) -> Result<Code, Failure> {
    restore::at_start(args.yes, args.quiet)?;
    let interrupts = Interrupts::catch()
        .map_err(|error| Failure::new(Code::Runtime, format!("catch signals: {error}; run again")))?;
    let clock = Clock::calibrated();
    let allowed = cpu::allowed()?;
    let core = |n: usize| allowed[n.min(allowed.len() - 1)];
    let bar = bar(args);
    let lab = Lab { args, clock, interrupts: &interrupts, bar, cores: [core(0), core(1), core(2)] };
    let missing = cpu::missing(&[Cap::NetRaw, Cap::NetAdmin, Cap::Bpf, Cap::SysAdmin])?;
    let (document, sights) = if missing.is_empty() {
        lab.over_af_xdp()?
    } else {
        let names: Vec<_> = missing.iter().map(|cap| cap.name()).collect();
        eprintln!(
            "demo: missing {}: run as root for AF_XDP sockets (sudo); what follows is the same stages over SIMULATED rings in memory",
            names.join(", ")
        );
        lab.in_memory()?
    };
    lab.bar.finish_and_clear();
    if args.json {
        out::print(document.to_json())?;
    } else {
        out::print(text(&document, &sights))?;
    }
    if interrupts.came() {
        return Ok(Code::Interrupted);
    }
    let whole = document.rows.iter().all(|row| row.ping.as_ref().is_some_and(|ping| ping.lost == 0));
    Ok(if whole { Code::Done } else { Code::Incomplete })
}

fn bar(args: &Demo) -> ProgressBar {
    let rows = if args.mode.is_some() { 2 } else { 4 };
    let bar = ProgressBar::with_draw_target(
        Some(rows * u64::from(args.count)),
        if args.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() },
    );
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What a row's document does not say: its round trips, for the histogram, and what each socket was granted.
#[derive(Debug)]
struct Seen {
    rtt: Rtt,
    /// Hosts whose sockets got the same, and what that is.
    granted: Vec<(String, GrantedRow)>,
}

/// One for each row of the document.
type Sights = Vec<Seen>;

impl Lab<'_> {
    /// The real thing: namespaces, sockets, and the kernel's ping.
    fn over_af_xdp(&self) -> Result<(Document, Sights), Failure> {
        self.bar.set_message("making three hosts");
        let hosts = Hosts::new(1)?;
        let mut document = Document::new(Host::read(&self.clock));
        let [a, b, c] = self.cores;
        document.host.place("A: pinger", Some(a));
        document.host.place("B: reflector, forwarder", Some(b));
        document.host.place("C: reflector", Some(c));
        let mut sights = Vec::new();
        let modes = self.args.mode.map_or(vec![Mode::Native, Mode::Skb], |mode| vec![mode]);
        for mode in modes {
            for far in [false, true] {
                if self.interrupts.came() {
                    break;
                }
                let path = if far { "A-B-C" } else { "A-B" };
                self.bar.set_message(format!("{path}, {mode}"));
                let (row, seen) = if far { self.through(&hosts, mode) } else { self.across(&hosts, mode) }?;
                sights.push(seen);
                document.rows.push(row);
            }
        }
        if !self.interrupts.came() {
            self.bar.set_message("the kernel's own ping");
            document.baseline = Some(self.baseline(&hosts)?);
        }
        let report = hosts.remove();
        if !report.is_complete() {
            let line =
                report.lines.iter().find_map(|(undo, done)| done.as_ref().err().map(|error| (undo, error)));
            let why = line.map_or_else(String::new, |(undo, error)| format!("{undo:?}: {error}"));
            return Err(Failure::new(
                Code::Incomplete,
                format!("demo: {why}; `xdp-apps restore` tries again"),
            ));
        }
        Ok((document, sights))
    }

    /// A against the reflector on B.
    fn across(&self, hosts: &Hosts, mode: Mode) -> Result<(Row, Seen), Failure> {
        let a = self.setup(&hosts.a, mode, self.cores[0], &[&hosts.a_to_b])?;
        let b = self.setup(&hosts.b, mode, self.cores[1], &[&hosts.b_to_a])?;
        let (umem_a, umem_b) = (a.memory()?, b.memory()?);
        let (mut from_a, mut from_b) = (a.registration(&umem_a), b.registration(&umem_b));
        let (port_a, port_b) = (a.bind::<1>(&mut from_a)?, b.bind::<1>(&mut from_b)?);
        let (pinger, reader) = self.pinger(&hosts.a_to_b, &hosts.b_to_a)?;
        let mut pinger = Some(pinger);
        let mut near = a.workers(&umem_a, port_a, &self.clock, |_| pinger.take().expect("one worker"));
        let mut far = b.workers(&umem_b, port_b, &self.clock, |_| Reflector::default());
        let done = Stop::new();
        let cranks =
            vec![self.asking(&mut near[0], &done), self.answering(&mut far[0], self.cores[1], &done)];
        self.turn(cranks)?;
        let told = [self.tell("A", &near[0], &umem_a, 0), self.tell("B", &far[0], &umem_b, 1)];
        self.row("A-B", mode, &told, near[0].stage(), reader)
    }

    /// A against the reflector on C, through the forwarder on B.
    fn through(&self, hosts: &Hosts, mode: Mode) -> Result<(Row, Seen), Failure> {
        let a = self.setup(&hosts.a, mode, self.cores[0], &[&hosts.a_to_b])?;
        let b = self.setup(&hosts.b, mode, self.cores[1], &[&hosts.b_to_a, &hosts.b_to_c])?;
        let c = self.setup(&hosts.c, mode, self.cores[2], &[&hosts.c_to_b])?;
        let (umem_a, umem_b, umem_c) = (a.memory()?, b.memory()?, c.memory()?);
        let (mut from_a, mut from_b, mut from_c) =
            (a.registration(&umem_a), b.registration(&umem_b), c.registration(&umem_c));
        let port_a = a.bind::<1>(&mut from_a)?;
        let ports_b = b.bind::<2>(&mut from_b)?;
        let port_c = c.bind::<1>(&mut from_c)?;
        let (pinger, reader) = self.pinger(&hosts.a_to_b, &hosts.c_to_b)?;
        let mut pinger = Some(pinger);
        let forwarder = ForwarderOptions { dst_mac: None, src_mac: None, finish_checksums: true };
        let mut near = a.workers(&umem_a, port_a, &self.clock, |_| pinger.take().expect("one worker"));
        let mut middle = b.workers(&umem_b, ports_b, &self.clock, |_| Forwarder::new(forwarder));
        let mut far = c.workers(&umem_c, port_c, &self.clock, |_| Reflector::default());
        let done = Stop::new();
        let cranks = vec![
            self.asking(&mut near[0], &done),
            self.answering(&mut middle[0], self.cores[1], &done),
            self.answering(&mut far[0], self.cores[2], &done),
        ];
        self.turn(cranks)?;
        let told = [
            self.tell("A", &near[0], &umem_a, 0),
            self.tell("B", &middle[0], &umem_b, 1),
            self.tell("C", &far[0], &umem_c, 2),
        ];
        self.row("A-B-C", mode, &told, near[0].stage(), reader)
    }

    fn setup(
        &self,
        namespace: &Namespace,
        mode: Mode,
        core: usize,
        cards: &[&Card],
    ) -> Result<Setup, Failure> {
        let ports = cards.iter().map(|card| (card.name.clone(), 0)).collect();
        Ok(Setup {
            namespace: Some(Namespace::named(namespace.name().unwrap_or_default())?),
            program: Some((mode, Rules::any_of([Rule::all().udp_port(PORT)]))),
            layout: Layout::new(2048, CHUNKS * cards.len() as u32)?,
            region: RegionOptions::default(),
            xsk: XskConfig { rings: RINGS, ..XskConfig::default() },
            burst: 64,
            idle: Idle::Spin,
            seats: vec![Place { core: Some(core), ports }],
        })
    }

    fn pinger(&self, from: &Card, to: &Card) -> Result<(Pinger, samples::Reader), Failure> {
        let template = UdpTemplate {
            source_mac: from.mac,
            destination_mac: to.mac,
            source: SocketAddrV4::new(from.ip, PORT),
            destination: SocketAddrV4::new(to.ip, PORT),
            ..UdpTemplate::default()
        };
        self.pinger_of(template)
    }

    fn pinger_of(&self, template: UdpTemplate) -> Result<(Pinger, samples::Reader), Failure> {
        // No core is to spare for a recorder on two: the samples are kept and read after the window.
        let (writer, reader) = samples::channel(self.args.count as usize);
        let options = PingOptions {
            template,
            count: Some(self.args.count.into()),
            warm_up: u64::from(self.args.rate / 10),
            interval_ticks: self.clock.to_ticks(1_000_000_000 / u64::from(self.args.rate)),
            in_flight: IN_FLIGHT,
            session: std::process::id(),
            ..PingOptions::default()
        };
        let pinger = Pinger::new(options, self.clock, writer)
            .map_err(|error| Failure::usage(format!("demo: {error}")))?;
        Ok((pinger, reader))
    }

    /// The pinger's worker; when it is done, or somebody pressed Ctrl-C, so are the others.
    fn asking<'w>(
        &'w self,
        worker: &'w mut XskWorker<'_, Pinger, 1>,
        done: &'w Stop,
    ) -> (Option<usize>, Box<dyn Crank + 'w>) {
        let goal = move |pinger: &mut Pinger, _: &Counters| {
            if self.interrupts.came() {
                pinger.stop();
            }
            let over = pinger.is_done(ticks());
            if over {
                done.set();
            }
            over
        };
        (Some(self.cores[0]), Box::new(Seat::new(worker, Arc::<Gauge>::default(), Idle::Spin, goal)))
    }

    fn answering<'w, S: Stage + Send, const N: usize>(
        &'w self,
        worker: &'w mut XskWorker<'_, S, N>,
        core: usize,
        done: &'w Stop,
    ) -> (Option<usize>, Box<dyn Crank + 'w>) {
        let goal = move |_: &mut S, _: &Counters| done.is_set();
        (Some(core), Box::new(Seat::new(worker, Arc::<Gauge>::default(), Idle::Spin, goal)))
    }

    fn turn(&self, cranks: Vec<(Option<usize>, Box<dyn Crank + '_>)>) -> Result<(), Failure> {
        let (began, from) = (Instant::now(), self.bar.position());
        let ran = session::run(Crew::muster(cranks), &Stop::new(), Duration::from_millis(100), || {
            let passed = began.elapsed().as_millis() as u64 * u64::from(self.args.rate) / 1000;
            self.bar.set_position(from + passed.min(self.args.count.into()));
            ControlFlow::Continue(())
        });
        self.bar.set_position(from + u64::from(self.args.count));
        match ran {
            Ran::Ended(session::End::Gone) => {
                Err(Failure::new(Code::Runtime, "demo: an interface went away; run again"))
            }
            Ran::Ended(_) => Ok(()),
            Ran::NotPinned(error) => Err(error.into()),
            Ran::Panicked(words) => Err(Failure::new(
                Code::Runtime,
                format!("demo: a worker panicked: {words}; please report this bug"),
            )),
        }
    }

    fn tell<'u, S: Stage, const N: usize>(
        &self,
        host: &'static str,
        worker: &XskWorker<'u, S, N>,
        umem: &'u Umem,
        core: usize,
    ) -> Told<'u> {
        Told { host, umem, report: WorkerReport::of(worker, Some(self.cores[core])) }
    }

    /// A path's row, of what its workers have to tell, the pinger's first.
    fn row(
        &self,
        path: &str,
        mode: Mode,
        told: &[Told<'_>],
        pinger: &Pinger,
        mut reader: samples::Reader,
    ) -> Result<(Row, Seen), Failure> {
        if let Some(lost) = told.iter().find(|told| !told.report.conserved) {
            let text =
                format!("demo: the worker of {} lost or doubled a frame; please report this bug", lost.host);
            return Err(Failure::new(Code::Runtime, text));
        }
        let mut samples = Vec::new();
        reader.drain_into(&mut samples);
        let (near, far) = (&told[0], &told[1..]);
        let mut row = Row::new(path, Transport::AfXdp)
            .granted(&near.report.ports[0].granted, Some(mode), near.umem)
            .ping(&pinger.counts(), &samples, pinger.samples_lost(), &self.clock);
        // Probes to warm up made system calls too, so they count as packets here.
        let packets = near.report.counters.originated;
        row.syscalls_per_packet = syscalls_per_packet(&near.report.counters, packets);
        let far_calls: u64 = far.iter().map(|told| told.report.counters.system_calls()).sum();
        row.far_syscalls_per_packet = (packets > 0).then(|| far_calls as f64 / packets as f64);
        let row = told.iter().fold(row, |row, told| row.worker(worker_row(&told.report)));

        let mut granted: Vec<(String, GrantedRow)> = Vec::new();
        for told in told {
            let got = GrantedRow::new(&told.report.ports[0].granted, Some(mode), told.umem);
            match granted.iter_mut().find(|(_, known)| *known == got) {
                Some((hosts, _)) => *hosts += told.host,
                None => granted.push((told.host.into(), got)),
            }
        }
        Ok((row, Seen { rtt: Rtt::from_intended(&samples, &self.clock), granted }))
    }

    fn baseline(&self, hosts: &Hosts) -> Result<Baseline, Failure> {
        let to = hosts.b_to_a.ip;
        let core = self.cores[0];
        let ping = move || {
            cpu::pin(core)?;
            icmp::ping(to, PINGS, Duration::from_millis(1), Duration::from_millis(500))
        };
        let round_trips = hosts.a.run(ping)??;
        let rtt: Rtt = round_trips.into_iter().flatten().collect();
        if rtt.count() == 0 {
            let text = format!("demo: the kernel answered none of {PINGS} pings to {to}; is ICMP filtered?");
            return Err(Failure::new(Code::Runtime, text));
        }
        Ok(Baseline { icmp_rtt_us: rtt.us() })
    }

    /// The same stages without privilege, over the simulated kernel, turned by one thread.
    fn in_memory(&self) -> Result<(Document, Sights), Failure> {
        let mut document = Document::new(Host::read(&self.clock));
        document.host.place("A, B, C: one thread", None);
        let mut sights = Vec::new();
        for far in [false, true] {
            let path = if far { "A-B-C" } else { "A-B" };
            self.bar.set_message(format!("{path}, in memory"));
            let (row, samples) = self.simulated(path, far)?;
            sights.push(Seen { rtt: Rtt::from_intended(&samples, &self.clock), granted: Vec::new() });
            document.rows.push(row);
        }
        Ok((document, sights))
    }

    fn simulated(&self, path: &str, far: bool) -> Result<(Row, Vec<Sample>), Failure> {
        let layout = Layout::new(2048, 1024)?;
        let umems = [Umem::heap(layout), Umem::heap(layout), Umem::heap(layout)];
        let [a, b, c] = &umems;
        let (pinger, mut reader) = self.pinger_of(UdpTemplate::default())?;
        let ((port_a, mut wire_a), (left, mut wire_left)) = (sim::link(a), sim::link(b));
        let ((right, mut wire_right), (port_c, mut wire_c)) = (sim::link(b), sim::link(c));
        let mut near = Worker::new([port_a], pinger, a.take_frames().expect("taken once"));
        let forward = ForwarderOptions { dst_mac: None, src_mac: None, finish_checksums: true };
        let middle = Middle { far, forwarder: Forwarder::new(forward), reflector: Reflector::default() };
        let mut middle = Worker::new([left, right], middle, b.take_frames().expect("taken once"));
        let mut last = Worker::new([port_c], Reflector::default(), c.take_frames().expect("taken once"));
        let start = Instant::now();
        while !near.stage_mut().is_done(ticks()) {
            if self.interrupts.came() {
                near.stage_mut().stop();
            }
            near.turn();
            wire_a.collect().iter().for_each(|packet| wire_left.inject(packet));
            middle.turn();
            wire_right.collect().iter().for_each(|packet| wire_c.inject(packet));
            last.turn();
            wire_c.collect().iter().for_each(|packet| wire_right.inject(packet));
            middle.turn();
            wire_left.collect().iter().for_each(|packet| wire_a.inject(packet));
            if near.counters().turns % 4096 == 0 {
                let passed = start.elapsed().as_millis() as u64 * u64::from(self.args.rate) / 1000;
                self.bar.set_position(passed);
            }
        }
        let mut samples = Vec::new();
        reader.drain_into(&mut samples);
        let (counts, lost) = (near.stage().counts(), near.stage().samples_lost());
        let row = Row::new(path, Transport::Memory).ping(&counts, &samples, lost, &self.clock);
        Ok((row.worker(WorkerRow::new(None, near.is_conserved(), near.counters())), samples))
    }
}

/// B in memory: it reflects, or passes on to C.
#[derive(Debug)]
struct Middle {
    far: bool,
    forwarder: Forwarder,
    reflector: Reflector,
}

impl Stage for Middle {
    fn process(&mut self, frame: &mut xdp_core::Frame<'_>) -> xdp_core::Verdict {
        if self.far { self.forwarder.process(frame) } else { self.reflector.process(frame) }
    }
}

/// What a worker has to tell of a path.
struct Told<'u> {
    host: &'static str,
    umem: &'u Umem,
    report: WorkerReport,
}

fn worker_row(report: &WorkerReport) -> WorkerRow {
    let row = WorkerRow::new(report.core, report.conserved, &report.counters);
    report.ports.iter().fold(row, |row, port| row.socket(&port.statistics))
}

fn text(document: &Document, sights: &Sights) -> String {
    let mut text = String::new();
    let host = &document.host;
    let _ = writeln!(
        text,
        "host     {}; Linux {}, {} core(s), TSC {}",
        host.cpu,
        host.kernel,
        host.cores,
        invariance(host)
    );
    let places = host.placement.iter().map(|place| match place.cpu {
        Some(core) => format!("{} on core {core}", place.what),
        None => place.what.clone(),
    });
    let _ = writeln!(text, "placed   {}\n", places.collect::<Vec<_>>().join("; "));

    let mut granted = Table::new([
        "path",
        "mode",
        "hosts",
        "transport",
        "zero-copy",
        "need_wakeup",
        "busy poll",
        "rings",
        "UMEM",
    ]);
    for (row, seen) in document.rows.iter().zip(sights) {
        if seen.granted.is_empty() {
            let memory = ["", "ABC", "SIMULATED, in memory", "-", "-", "-", "-", "-"];
            granted.row([&[row.path.as_str()][..], &memory].concat());
        }
        for (hosts, got) in &seen.granted {
            granted.row([
                row.path.clone(),
                mode_of(row),
                hosts.clone(),
                "AF_XDP".into(),
                if got.zero_copy { "yes" } else { "no: copy" }.into(),
                if got.need_wakeup { "honoured" } else { "no effect in copy mode" }.into(),
                if got.busy_poll.effective { "effective" } else { "not effective" }.into(),
                format!("{}/{}/{}/{}", got.rings.fill, got.rings.rx, got.rings.tx, got.rings.completion),
                format!("{} x {} B, {}", got.umem.chunks, got.umem.chunk_size, got.umem.pages),
            ]);
        }
    }
    let _ = writeln!(text, "granted (rings: fill/rx/tx/completion)\n{granted}");
    let why =
        document.rows.iter().find_map(|row| row.granted.as_ref().and_then(|got| got.busy_poll.why.as_ref()));
    if let Some(why) = why {
        let _ = writeln!(text, "busy poll: {why}\n");
    }

    let mut table = Table::new([
        "path",
        "mode",
        "sent",
        "received",
        "lost",
        "dup",
        "reord",
        "late",
        "min",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "pps",
        "calls/pkt",
        "far",
    ]);
    for row in &document.rows {
        let Some(ping) = &row.ping else { continue };
        let us = |of: fn(&xdp_apps::results::RttUs) -> f64| {
            ping.rtt_us.map_or("-".into(), |rtt| format!("{:.2}", of(&rtt)))
        };
        let calls = |calls: Option<f64>| calls.map_or("-".to_string(), |calls| format!("{calls:.2}"));
        table.row([
            row.path.clone(),
            mode_of(row),
            row.sent.to_string(),
            row.received.to_string(),
            ping.lost.to_string(),
            ping.duplicated.to_string(),
            ping.reordered.to_string(),
            ping.late.to_string(),
            us(|rtt| rtt.min),
            us(|rtt| rtt.p50),
            us(|rtt| rtt.p90),
            us(|rtt| rtt.p99),
            us(|rtt| rtt.p999),
            us(|rtt| rtt.max),
            format!("{:.0}", row.rate_pps),
            calls(row.syscalls_per_packet),
            calls(row.far_syscalls_per_packet),
        ]);
    }
    if let Some(rtt) = document.baseline.as_ref().and_then(|baseline| baseline.icmp_rtt_us) {
        let us = |us: f64| format!("{us:.2}");
        let dash = || "-".to_string();
        table.row([
            "A-B".into(),
            "kernel ping".into(),
            PINGS.to_string(),
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
            us(rtt.min),
            us(rtt.p50),
            us(rtt.p90),
            us(rtt.p99),
            us(rtt.p999),
            us(rtt.max),
            dash(),
            dash(),
            dash(),
        ]);
    }
    let _ = writeln!(text, "round trips, in microseconds from when each packet was to be sent\n{table}");

    let held_up = |row: &&Row| row.ping.as_ref().is_some_and(|ping| ping.late * 20 > row.sent);
    if let Some(row) = document.rows.iter().find(held_up) {
        let from_sent = row.ping.as_ref().and_then(|ping| ping.rtt_from_sent_us);
        let _ = writeln!(
            text,
            "this machine is busy: the pinger was kept from its core and sent late. From when it really sent, {} {} has p50 {}\n",
            row.path,
            mode_of(row),
            from_sent.map_or("-".into(), |rtt| format!("{:.2}, p99 {:.2}", rtt.p50, rtt.p99)),
        );
    }

    let _ = writeln!(text, "how they spread (each line from its shortest to its longest, logarithmic)");
    for (row, seen) in document.rows.iter().zip(sights) {
        let _ = writeln!(text, "  {:6} {:7} {}", row.path, mode_of(row), seen.rtt.sparkline(60));
    }
    if document.baseline.is_some() {
        let _ = writeln!(
            text,
            "\nOn veth the far side's receive runs inside the sender's system call, and the kernel's ping never leaves one core:\n\
             read these as what the machinery costs, not as what a NIC would show."
        );
    }
    text
}

fn invariance(host: &Host) -> &'static str {
    if host.tsc_invariant { "invariant" } else { "NOT invariant: do not trust the times" }
}

fn mode_of(row: &Row) -> String {
    row.granted
        .as_ref()
        .and_then(|got| got.mode)
        .map_or(String::new(), |mode| format!("{mode:?}").to_lowercase())
}

/// Columns, as wide as they need be; the first two to the left, numbers to the right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_string).to_vec()] }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
        let widths: Vec<_> = (0..columns)
            .map(|column| self.rows.iter().map(|row| cell(row, column)).max().unwrap_or(0))
            .collect();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (text, width) in row.iter().zip(&widths) {
                let number = text.starts_with(|first: char| first.is_ascii_digit()) && !text.contains(' ');
                line += &if number { format!(" {text:>width$} ") } else { format!(" {text:<width$} ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
