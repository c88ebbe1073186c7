//! `ping`: probes on a schedule, and how long each takes to come back.
#![forbid(unsafe_code)]

use super::args::Ping;
use super::conduct::{self, App, Context, Progress, Tend};
use super::failure::{Code, Failure};
use super::packet;
use super::plan::{Plan, Wish};
use super::report;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use xdp_apps::samples::{self, Reader, Sample, Writer};
use xdp_apps::stages::{PingOptions, Pinger};
use xdp_core::{Clock, Counters, Ports, Rule, Rules, cpu, ticks};

/// Between two probes where nothing was typed.
const INTERVAL: Duration = Duration::from_millis(1);
/// Ports that probes may come from: those of processes differ.
const SRC_PORTS: u16 = 49_152;
const PROCESSES: u32 = 16_000;
/// Samples a ring holds that is emptied while it fills: 32 MiB, a second of a million probes.
const RING: u64 = 1 << 20;
/// Samples kept at most, a worker: 512 MiB. Further ones are counted as lost, and in no quantile.
const SAMPLES: u64 = 1 << 24;

pub(crate) fn run(args: &Ping) -> Result<Code, Failure> {
    let packet_size = args.packet.packet_size;
    let wish = Wish { command: "ping", rules: Some(Rules::all()), ports: 1, packet_size: Some(packet_size) };
    let mut plan = Plan::new(&wish, &args.device, &args.run)?;
    let workers = plan.setup.seats.len();
    let src_port = SRC_PORTS + (std::process::id() % PROCESSES) as u16;
    if args.device.rules.is_none() {
        let replies = Rule::all().udp_port(Ports::between(src_port, src_port + workers as u16 - 1));
        plan.setup.program = Some((args.device.mode, Rules::any_of([replies])));
    }
    let options = options(args, &plan, src_port)?;
    if args.run.dry_run {
        conduct::show(&plan, &args.run)?;
        return Ok(Code::Done);
    }
    conduct::preface(&plan, &args.run)?;

    let mut record = Record::new(&plan, &options);
    let mut writers = record.writers().into_iter();
    let app = App {
        stage: |worker: usize, clock: &Clock| {
            let writer = writers.next().expect("one was made for each worker");
            let interval_ticks = packet::interval_ticks(&args.pace, INTERVAL, workers, clock);
            let options = PingOptions { interval_ticks, ..options[worker] };
            Pinger::new(options, *clock, writer).map_err(|error| Failure::usage(error.to_string()))
        },
        goal: |pinger: &mut Pinger, _: &Counters, context: &Context<'_>| {
            if context.is_over() {
                pinger.stop();
            }
            pinger.is_done(ticks())
        },
        keep: |pinger: &mut Pinger| (pinger.counts(), pinger.samples_lost()),
        progress: Progress::Received,
    };
    let interval = record.interval;
    let mut spare = plan.cores.spare;
    let mut drain = || {
        // What can wait is done where nobody else works; not before the workers have their cores, for threads inherit.
        if let Some(core) = spare.take() {
            let _ = cpu::pin(core); // else wherever the scheduler puts us
        }
        record.drain();
    };
    let tend = interval.map(|interval| Tend { interval, job: &mut drain });
    let mut outcome = conduct::run::<_, _, _, _, _, 1>(&plan, &args.run, app, tend)?;
    record.drain();

    let mut lost = 0;
    for (i, (counts, samples_lost)) in outcome.stages.iter().enumerate() {
        let samples_lost = samples_lost + record.dropped[i];
        let row = outcome.rows[i].clone().ping(counts, &record.samples[i], samples_lost, &outcome.clock);
        outcome.rows[i] = row;
        lost += counts.lost;
    }
    report::print(&plan, &args.run, &outcome)?;
    outcome.code(lost > 0)
}

/// What each worker's pinger is told, but for its interval, which needs a clock.
fn options(args: &Ping, plan: &Plan, src_port: u16) -> Result<Vec<PingOptions>, Failure> {
    let workers = plan.setup.seats.len();
    let ring = u64::from(plan.setup.xsk.rings.tx);
    let is_closed = args.pace.interval == Some(Duration::ZERO);
    let in_flight = args.in_flight.unwrap_or(if is_closed { 1 } else { ring / 2 });
    if in_flight >= ring {
        return Err(Failure::usage(format!(
            "--in-flight {in_flight}: rings of {ring} would overflow; take fewer, or a larger --ring-size at both ends"
        )));
    }
    let session = RandomState::new().hash_one(std::process::id()) as u32;
    let options = (0..workers).map(|worker| {
        let options = PingOptions {
            template: packet::template(
                plan,
                worker,
                &args.addresses,
                packet_size(args),
                src_port + worker as u16,
            )?,
            count: plan.limits.count.map(|count| packet::share(count, workers, worker)),
            warm_up: packet::share(args.warm_up, workers, worker),
            in_flight: in_flight as u32,
            session: session.wrapping_add(worker as u32),
            ..PingOptions::default()
        };
        // Whether they describe a probe is known before anything is touched.
        let (writer, _) = samples::channel(1);
        let tried = Pinger::new(options, Clock::with_frequency(1_000_000_000), writer);
        tried.map_err(|error| Failure::usage(format!("--packet-size: {error}")))?;
        Ok(options)
    });
    options.collect()
}

fn packet_size(args: &Ping) -> u32 {
    args.packet.packet_size
}

/// Where samples go: rings that are emptied while they fill where there is a core to do so on, else as large as the run.
struct Record {
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    samples: Vec<Vec<Sample>>,
    /// Samples of each worker that were too many to keep.
    dropped: Vec<u64>,
    /// How often to empty the rings; only at the end, if not said.
    interval: Option<Duration>,
}

impl Record {
    fn new(plan: &Plan, options: &[PingOptions]) -> Self {
        let most = options.iter().map(|options| options.count.unwrap_or(u64::MAX)).max().unwrap_or(0);
        let at_the_end = plan.cores.spare.is_none() && most <= SAMPLES;
        let (capacity, interval) = match (at_the_end, plan.cores.spare) {
            (true, _) => (most, None),
            (false, Some(_)) => (most.min(RING), Some(Duration::from_millis(100))),
            (false, None) => (most.min(RING), Some(Duration::from_secs(1))),
        };
        let (writers, readers) = options.iter().map(|_| samples::channel(capacity as usize)).unzip();
        let kept = if at_the_end { 0 } else { most.min(SAMPLES).min(RING) as usize };
        Self {
            writers,
            readers,
            samples: options.iter().map(|_| Vec::with_capacity(kept)).collect(),
            dropped: vec![0; options.len()],
            interval,
        }
    }

    /// The ends the pingers write to; once.
    fn writers(&mut self) -> Vec<Writer> {
        std::mem::take(&mut self.writers)
    }

    fn drain(&mut self) {
        for ((reader, samples), dropped) in
            self.readers.iter_mut().zip(&mut self.samples).zip(&mut self.dropped)
        {
            reader.drain_into(samples);
            let kept = SAMPLES as usize;
            if samples.len() > kept {
                *dropped += (samples.len() - kept) as u64;
                samples.truncate(kept);
            }
        }
    }
}
