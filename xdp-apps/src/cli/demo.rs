//! `demo`: three hosts on one machine, their round trips over AF_XDP, and the kernel's own beside them.
#![forbid(unsafe_code)]

use super::failure::{Code, Failure};
use crate::session::{self, Crank, Crew, Gauge, Interrupts, Place, Ran, Seat, Setup, WorkerReport, XskWorker};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xdp_apps::results::{Baseline, Document, Host, Row, Rtt, Transport, WorkerRow, syscalls_per_packet};
use xdp_apps::samples::{self, Sample};
use xdp_apps::stages::{Forwarder, ForwarderOptions, PingOptions, Pinger, Reflector};
use xdp_apps::testbed::hosts::{Card, Hosts};
use xdp_core::cpu::{self, Cap};
use xdp_core::netdev::{Namespace, icmp};
use xdp_core::wire::{Mac, UdpTemplate};
use xdp_core::{
    Clock, Counters, Idle, Layout, Mode, RegionOptions, RingSizes, Rule, Rules, Stage, Stop, Umem, Worker, XskConfig, sim,
    ticks,
};

/// The probes' port: the echo service's.
const PORT: u16 = 7;
/// Frames of a port: what its rings may hold, twice over.
const CHUNKS: u32 = 4096;
const RINGS: RingSizes = RingSizes { fill: 1024, rx: 1024, tx: 1024, completion: 1024 };
/// Probes on their way at once, at most: far fewer than the veth ring's 256.
const IN_FLIGHT: u32 = 64;
const PINGS: u16 = 500;

/// What the command line says of it.
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
    let interrupts = Interrupts::catch()
        .map_err(|error| Failure::new(Code::Runtime, format!("catch signals: {error}; run again")))?;
    let clock = Clock::calibrated();
    let allowed = cpu::allowed()?;
    let core = |n: usize| allowed[n.min(allowed.len() - 1)];
    let bar = bar(args);
    let lab = Lab { args, clock, interrupts: &interrupts, bar, cores: [core(0), core(1), core(2)] };
    let missing = cpu::missing(&[Cap::NetRaw, Cap::NetAdmin, Cap::Bpf, Cap::SysAdmin])?;
    let (document, rtts) = if missing.is_empty() {
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
        println!("{}", document.to_json());
    } else {
        print(&document, &rtts);
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

/// A row's round trips, for its histogram.
type Rtts = Vec<(String, Rtt)>;

impl Lab<'_> {
    /// The real thing: namespaces, sockets, and the kernel's ping.
    fn over_af_xdp(&self) -> Result<(Document, Rtts), Failure> {
        self.bar.set_message("making three hosts");
        let hosts = Hosts::new(1)?;
        let mut document = Document::new(Host::read(&self.clock));
        let [a, b, c] = self.cores;
        document.host.place("A: pinger", Some(a));
        document.host.place("B: reflector, forwarder", Some(b));
        document.host.place("C: reflector", Some(c));
        let mut rtts = Vec::new();
        let modes = self.args.mode.map_or(vec![Mode::Native, Mode::Skb], |mode| vec![mode]);
        for mode in modes {
            for far in [false, true] {
                if self.interrupts.came() {
                    break;
                }
                let path = if far { "A-B-C" } else { "A-B" };
                self.bar.set_message(format!("{path}, {mode}"));
                let (row, samples) = if far { self.through(&hosts, mode) } else { self.across(&hosts, mode) }?;
                rtts.push((format!("{path} {mode}"), Rtt::from_intended(&samples, &self.clock)));
                document.rows.push(row);
            }
        }
        if !self.interrupts.came() {
            self.bar.set_message("the kernel's own ping");
            document.baseline = Some(self.baseline(&hosts)?);
        }
        let report = hosts.remove();
        if !report.is_complete() {
            let line = report.lines.iter().find_map(|(undo, done)| done.as_ref().err().map(|error| (undo, error)));
            let why = line.map_or_else(String::new, |(undo, error)| format!("{undo:?}: {error}"));
            return Err(Failure::new(Code::Incomplete, format!("demo: {why}; `xdp-apps restore` tries again")));
        }
        Ok((document, rtts))
    }

    /// A against the reflector on B.
    fn across(&self, hosts: &Hosts, mode: Mode) -> Result<(Row, Vec<Sample>), Failure> {
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
        let cranks = vec![self.asking(&mut near[0], &done), self.answering(&mut far[0], self.cores[1], &done)];
        self.turn(cranks)?;
        self.row("A-B", mode, &umem_a, &near[0], vec![self.far_row(&far[0], self.cores[1])], reader)
    }

    /// A against the reflector on C, through the forwarder on B.
    fn through(&self, hosts: &Hosts, mode: Mode) -> Result<(Row, Vec<Sample>), Failure> {
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
        let others = vec![self.far_row(&middle[0], self.cores[1]), self.far_row(&far[0], self.cores[2])];
        self.row("A-B-C", mode, &umem_a, &near[0], others, reader)
    }

    fn setup(&self, namespace: &Namespace, mode: Mode, core: usize, cards: &[&Card]) -> Result<Setup, Failure> {
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
            source_mac: Mac(from.mac.0),
            destination_mac: Mac(to.mac.0),
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
        let pinger = Pinger::new(options, self.clock, writer).map_err(|error| Failure::usage(format!("demo: {error}")))?;
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
            Ran::Ended(session::End::Gone) => Err(Failure::new(Code::Runtime, "demo: an interface went away; run again")),
            Ran::Ended(_) => Ok(()),
            Ran::NotPinned(error) => Err(error.into()),
            Ran::Panicked(words) => {
                Err(Failure::new(Code::Runtime, format!("demo: a worker panicked: {words}; please report this bug")))
            }
        }
    }

    fn far_row<S: Stage, const N: usize>(&self, worker: &XskWorker<'_, S, N>, core: usize) -> WorkerRow {
        worker_row(&WorkerReport::of(worker, Some(core)))
    }

    fn row(
        &self,
        path: &str,
        mode: Mode,
        umem: &Umem,
        near: &XskWorker<'_, Pinger, 1>,
        others: Vec<WorkerRow>,
        mut reader: samples::Reader,
    ) -> Result<(Row, Vec<Sample>), Failure> {
        let report = WorkerReport::of(near, Some(self.cores[0]));
        let mut samples = Vec::new();
        reader.drain_into(&mut samples);
        let (counts, lost) = (near.stage().counts(), near.stage().samples_lost());
        let mut row = Row::new(path, Transport::AfXdp)
            .granted(&report.ports[0].granted, Some(mode), umem)
            .ping(&counts, &samples, lost, &self.clock);
        // Warm-up packets are in the counters, so they are in the divisor.
        let packets = report.counters.originated;
        row.syscalls_per_packet = syscalls_per_packet(&report.counters, packets);
        let far_calls: u64 = others.iter().map(|worker| worker.counters.kicks + worker.counters.sleeps).sum();
        row.far_syscalls_per_packet = (packets > 0).then(|| far_calls as f64 / packets as f64);
        let mut row = row.worker(worker_row(&report));
        for other in others {
            row = row.worker(other);
        }
        if let Some(worker) = row.workers.iter().find(|worker| !worker.conserved) {
            let cpu = worker.cpu.unwrap_or_default();
            return Err(Failure::new(
                Code::Runtime,
                format!("demo: the worker on core {cpu} lost or doubled a frame; please report this bug"),
            ));
        }
        Ok((row, samples))
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
        let us = rtt.us().ok_or_else(|| {
            Failure::new(Code::Runtime, format!("demo: the kernel answered none of {PINGS} pings to {to}; is ICMP filtered?"))
        })?;
        Ok(Baseline { icmp_rtt_us: us })
    }

    /// The same stages without privilege, over the simulated kernel, turned by one thread.
    fn in_memory(&self) -> Result<(Document, Rtts), Failure> {
        let mut document = Document::new(Host::read(&self.clock));
        document.host.place("A, B, C: one thread", None);
        let mut rtts = Vec::new();
        for far in [false, true] {
            let path = if far { "A-B-C" } else { "A-B" };
            self.bar.set_message(format!("{path}, in memory"));
            let (row, samples) = self.simulated(path, far)?;
            rtts.push((format!("{path} in memory"), Rtt::from_intended(&samples, &self.clock)));
            document.rows.push(row);
        }
        Ok((document, rtts))
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

fn worker_row(report: &WorkerReport) -> WorkerRow {
    let row = WorkerRow::new(report.core, report.conserved, &report.counters);
    report.ports.iter().fold(row, |row, port| row.socket(&port.statistics))
}

fn print(document: &Document, rtts: &Rtts) {
    let host = &document.host;
    println!("host     {}; Linux {}, {} core(s), TSC {}", host.cpu, host.kernel, host.cores, invariance(host));
    let places = host.placement.iter().map(|place| match place.cpu {
        Some(core) => format!("{} on core {core}", place.what),
        None => place.what.clone(),
    });
    println!("placed   {}\n", places.collect::<Vec<_>>().join("; "));

    let mut granted = Table::new(["path", "mode", "transport", "zero-copy", "need_wakeup", "busy poll", "rings", "UMEM"]);
    for row in &document.rows {
        let Some(got) = &row.granted else {
            let memory = ["", "SIMULATED, in memory", "-", "-", "-", "-", "-"];
            granted.row([&[row.path.as_str()][..], &memory].concat());
            continue;
        };
        let busy_poll = match &got.busy_poll.why {
            Some(why) => format!("no: {why}"),
            None => "effective".to_string(),
        };
        granted.row([
            row.path.clone(),
            mode_of(row),
            "AF_XDP".into(),
            if got.zero_copy { "yes" } else { "no: copy" }.into(),
            if got.need_wakeup { "honoured" } else { "no effect in copy mode" }.into(),
            busy_poll,
            format!("{}/{}/{}/{}", got.rings.fill, got.rings.rx, got.rings.tx, got.rings.completion),
            format!("{} x {} B, {}", got.umem.chunks, got.umem.chunk_size, got.umem.pages),
        ]);
    }
    println!("granted (rings: fill/rx/tx/completion)\n{granted}");

    let mut table = Table::new([
        "path", "mode", "sent", "received", "lost", "dup", "reord", "late", "min", "p50", "p90", "p99", "p99.9", "max", "pps",
        "calls/pkt", "far",
    ]);
    for row in &document.rows {
        let Some(ping) = &row.ping else { continue };
        let us = |of: fn(&xdp_apps::results::RttUs) -> f64| ping.rtt_us.map_or("-".into(), |rtt| format!("{:.2}", of(&rtt)));
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
    if let Some(baseline) = &document.baseline {
        let rtt = &baseline.icmp_rtt_us;
        let us = |us: f64| format!("{us:.2}");
        let dash = || "-".to_string();
        table.row([
            "A-B".into(), "kernel ping".into(), PINGS.to_string(), dash(), dash(), dash(), dash(), dash(), us(rtt.min), us(rtt.p50),
            us(rtt.p90), us(rtt.p99), us(rtt.p999), us(rtt.max), dash(), dash(), dash(),
        ]);
    }
    println!("round trips, in microseconds from when each packet was to be sent\n{table}");

    println!("how they spread (each line from its shortest to its longest, logarithmic)");
    for (what, rtt) in rtts {
        println!("  {what:14} {}", rtt.sparkline(60));
    }
    if document.baseline.is_some() {
        println!(
            "\nOn veth the far side's receive runs inside the sender's system call, and the kernel's ping never leaves one core:\n\
             read these as what the machinery costs, not as what a NIC would show."
        );
    }
}

fn invariance(host: &Host) -> &'static str {
    if host.tsc_invariant { "invariant" } else { "NOT invariant: do not trust the times" }
}

fn mode_of(row: &Row) -> String {
    row.granted.as_ref().and_then(|got| got.mode).map_or(String::new(), |mode| format!("{mode:?}").to_lowercase())
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
        let widths: Vec<_> =
            (0..columns).map(|column| self.rows.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect();
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
