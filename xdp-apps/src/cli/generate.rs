//! `generate`: sends packets, as fast as they go or at a pace.
#![forbid(unsafe_code)]

use super::args::Generate;
use super::conduct::{self, App, Context, Progress};
use super::failure::{Code, Failure};
use super::packet;
use super::plan::{Plan, Wish};
use super::report;
use std::time::Duration;
use xdp_apps::stages::{Generator, GeneratorOptions, Pace};
use xdp_core::{Clock, Counters};

/// The port packets come from; the worker's number is added, so that a card spreads them.
const SRC_PORT: u16 = 49_152;

pub(crate) fn run(args: &Generate) -> Result<Code, Failure> {
    let packet_size = args.packet.packet_size;
    let wish = Wish { command: "generate", rules: None, ports: 1, packet_size: Some(packet_size) };
    let plan = Plan::new(&wish, &args.device, &args.run)?;
    let workers = plan.setup.seats.len();
    let options = (0..workers).map(|worker| {
        let template =
            packet::template(&plan, worker, &args.addresses, packet_size, SRC_PORT + worker as u16)?;
        let count = plan.limits.count.map(|count| packet::share(count, workers, worker));
        let options =
            GeneratorOptions { template, count, burst: plan.setup.burst, ..GeneratorOptions::default() };
        Generator::new(options).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(options)
    });
    let options = options.collect::<Result<Vec<_>, Failure>>()?;
    if args.run.dry_run {
        conduct::show(&plan, &args.run)?;
        return Ok(Code::Done);
    }
    conduct::preface(&plan, &args.run)?;
    let app = App {
        stage: |worker: usize, clock: &Clock| {
            let pace = match packet::interval_ticks(&args.pace, Duration::ZERO, workers, clock) {
                0 => Pace::Max,
                ticks => Pace::Interval(ticks),
            };
            let options = GeneratorOptions { pace, ..options[worker] };
            Generator::new(options).map_err(|error| Failure::usage(error.to_string()))
        },
        goal: |generator: &mut Generator, _: &Counters, context: &Context<'_>| {
            if context.is_over() {
                generator.stop();
            }
            generator.is_done()
        },
        keep: |generator: &mut Generator| generator.sent(),
        progress: Progress::Sent,
    };
    let outcome = conduct::run::<_, _, _, _, _, 1>(&plan, &args.run, app, None)?;
    let sent = outcome.stages.iter().sum::<u64>();
    report::print(&plan, &args.run, &outcome)?;
    outcome.code(plan.limits.count.is_some_and(|count| sent < count && plan.limits.duration.is_none()))
}
