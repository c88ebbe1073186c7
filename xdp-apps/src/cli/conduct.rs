//! Conduct: the one way in which every command runs its stages, from a plan to what became of it.
#![forbid(unsafe_code)]

use super::args::Run;
use super::failure::{Code, Failure};
use super::live::Live;
use super::out;
use super::plan::Plan;
use super::restore;
use crate::session::{self, Crank, Crew, End, Gauge, Interrupts, Ran, Seat, WorkerReport};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xdp_apps::results::{Host, Row, Transport, WorkerRow, syscalls_per_packet};
use xdp_core::{Clock, Counters, Stage, Stop, Umem, ticks};

/// What a worker's goal is told beside its own stage.
pub(crate) struct Context<'c> {
    /// When the run's time is over, in ticks.
    deadline: Option<u64>,
    interrupted: &'c Stop,
    gauges: &'c [Arc<Gauge>],
    count: Option<u64>,
}

impl Context<'_> {
    /// Whether the time is over, or somebody pressed Ctrl-C.
    pub(crate) fn is_over(&self) -> bool {
        self.interrupted.is_set() || self.deadline.is_some_and(|end| ticks().wrapping_sub(end) as i64 >= 0)
    }

    /// Whether all workers together received as many packets as they were to.
    pub(crate) fn is_received(&self) -> bool {
        self.count.is_some_and(|count| Gauge::sum(self.gauges).received >= count)
    }
}

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    pub(crate) workers: Vec<WorkerReport>,
    /// What was kept of each worker's stage.
    pub(crate) stages: Vec<T>,
    /// What is said of each worker.
    pub(crate) rows: Vec<Row>,
    /// What this command alone counts, by name, of each worker.
    pub(crate) extras: Vec<Vec<(&'static str, u64)>>,
    pub(crate) host: Host,
    pub(crate) elapsed: Duration,
    pub(crate) clock: Clock,
    pub(crate) interrupted: bool,
    /// Why it did not end as it should have: told after the report.
    pub(crate) failure: Option<Failure>,
}

/// The parts of a command that differ.
pub(crate) struct App<M, G, K> {
    /// Makes each worker's stage.
    pub(crate) stage: M,
    /// Whether a worker is done.
    pub(crate) goal: G,
    /// What is kept of its stage.
    pub(crate) keep: K,
    /// How far a progress bar goes, and of what: received or sent.
    pub(crate) progress: Progress,
}

/// What the calling thread does while the workers work, and how often.
pub(crate) struct Tend<'t> {
    pub(crate) interval: Duration,
    pub(crate) job: &'t mut dyn FnMut(),
}

/// What a command counts towards its `--count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Received,
    Sent,
}

/// Says what a user should know before a run, and sees to what dead runs left.
pub(crate) fn preface(plan: &Plan, run: &Run) -> Result<(), Failure> {
    if !run.quiet {
        if run.verbose {
            eprint!("{plan}");
        }
        for note in plan.notes() {
            eprintln!("note: {note}");
        }
    }
    restore::at_start(run.yes, run.quiet)
}

/// Prints the plan, for `--dry-run`.
pub(crate) fn show(plan: &Plan, run: &Run) -> Result<(), Failure> {
    if run.json {
        return out::print(format!("{:#}", plan.to_json()));
    }
    let notes: String = plan.notes().iter().map(|note| format!("note: {note}\n")).collect();
    out::print(format!("{plan}{notes}"))
}

/// Runs a command's stages: memory, sockets, workers on their cores, until each is done; then everything in reverse.
pub(crate) fn run<S, T, M, G, K, const N: usize>(
    plan: &Plan,
    run: &Run,
    app: App<M, G, K>,
    mut tend: Option<Tend<'_>>,
) -> Result<Outcome<T>, Failure>
where
    S: Stage + Send,
    M: FnMut(usize, &Clock) -> Result<S, Failure>,
    G: Fn(&mut S, &Counters, &Context<'_>) -> bool + Sync,
    K: Fn(&mut S) -> T,
{
    let App { mut stage, goal, keep, progress } = app;
    let setup = &plan.setup;
    let clock = Clock::calibrated();
    let stages = (0..setup.seats.len()).map(|i| stage(i, &clock)).collect::<Result<Vec<_>, _>>()?;
    let failed = |error: std::io::Error| Failure::new(Code::Runtime, format!("catch signals: {error}"));
    let interrupts = Interrupts::catch().map_err(failed)?;
    let umem = setup.memory()?;
    let mut registration = setup.registration(&umem);
    let ports = setup.bind::<N>(&mut registration)?;
    let mut stages = stages.into_iter();
    let mut workers =
        setup.workers(&umem, ports, &clock, |_| stages.next().expect("one was made for each worker"));

    let gauges: Vec<Arc<Gauge>> = workers.iter().map(|_| Arc::default()).collect();
    let start = ticks();
    let context = Context {
        deadline: plan.limits.duration.map(|span| start.wrapping_add(clock.to_ticks(span.as_nanos() as u64))),
        interrupted: interrupts.stop(),
        gauges: &gauges,
        count: plan.limits.count,
    };
    let (context, goal) = (&context, &goal);
    let cranks = workers.iter_mut().zip(&gauges).zip(&setup.seats).map(|((worker, gauge), seat)| {
        let goal = move |stage: &mut S, counters: &Counters| goal(stage, counters, context);
        let crank: Box<dyn Crank> = Box::new(Seat::new(worker, gauge.clone(), setup.idle, goal));
        (seat.core, crank)
    });
    let crews = Crew::muster(cranks);
    if run.verbose {
        eprintln!("running"); // sockets are bound: what comes from now on is received
    }
    let mut live = Live::new(run, plan.limits, progress);
    let began = Instant::now();
    let interval = tend.as_ref().map_or(live.interval(), |tend| tend.interval.min(live.interval()));
    let ran = session::run(crews, &Stop::new(), interval, || {
        if let Some(tend) = &mut tend {
            (tend.job)();
        }
        live.show(Gauge::sum(&gauges), began.elapsed());
        ControlFlow::Continue(())
    });
    let elapsed = began.elapsed();
    live.finish();

    let failure = match ran {
        Ran::Ended(End::Done | End::Stopped) => None,
        Ran::Ended(End::Gone) => Some(Failure::new(
            Code::Runtime,
            format!("{}: the interface is gone; make it again, and run again", plan.command),
        )),
        Ran::NotPinned(error) => Some(error.into()),
        Ran::Panicked(words) => Some(Failure::new(
            Code::Runtime,
            format!("{}: a worker panicked: {words}; this is a bug, please report it", plan.command),
        )),
    };
    let reports: Vec<_> =
        workers.iter().zip(&setup.seats).map(|(worker, seat)| WorkerReport::of(worker, seat.core)).collect();
    let stages = workers.iter_mut().map(|worker| keep(worker.stage_mut())).collect();
    let mut host = Host::read(&clock);
    for seat in &setup.seats {
        host.place(format!("{} {}", plan.command, path(&seat.ports)), seat.core);
    }
    Ok(Outcome {
        rows: reports.iter().map(|report| row(plan, report, &umem, elapsed)).collect(),
        extras: vec![Vec::new(); reports.len()],
        workers: reports,
        stages,
        host,
        elapsed,
        clock,
        interrupted: interrupts.came(),
        failure,
    })
}

/// What is said of a worker by every command; it has a row for itself, for what it was granted may differ from the others'.
fn row(plan: &Plan, report: &WorkerReport, umem: &Umem, elapsed: Duration) -> Row {
    let mode = plan.setup.program.as_ref().map(|(mode, _)| *mode);
    let names: Vec<_> = report.ports.iter().map(|port| (port.interface.clone(), port.queue)).collect();
    let mut worker = WorkerRow::new(report.core, report.conserved, &report.counters);
    for port in &report.ports {
        worker = worker.socket(&port.statistics);
    }
    let granted = &report.ports[0].granted;
    let mut row = Row::new(path(&names), Transport::AfXdp).granted(granted, mode, umem).worker(worker);
    let packets = row.sent.max(row.received);
    row.rate_pps = packets as f64 / elapsed.as_secs_f64().max(1e-9);
    row.syscalls_per_packet = syscalls_per_packet(&report.counters, packets);
    row
}

/// "eth1:0", or "eth1:0-eth2:0".
fn path(ports: &[(String, u32)]) -> String {
    let ports: Vec<_> = ports.iter().map(|(interface, queue)| format!("{interface}:{queue}")).collect();
    ports.join("-")
}

impl<T> Outcome<T> {
    /// The code to exit with, once the report is out; `incomplete` where the command did not reach all it was to.
    pub(crate) fn code(&self, incomplete: bool) -> Result<Code, Failure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if let Some(worker) = self.workers.iter().find(|worker| !worker.conserved) {
            let core = worker.core.unwrap_or_default();
            return Err(Failure::new(
                Code::Runtime,
                format!(
                    "the worker on core {core} lost or doubled a frame: {:?}; this is a bug, please report it",
                    worker.counters
                ),
            ));
        }
        Ok(match (self.interrupted, incomplete) {
            (true, _) => Code::Interrupted,
            (false, true) => Code::Incomplete,
            (false, false) => Code::Done,
        })
    }
}
