//! `drop`: receives packets, counts them, and drops them.
#![forbid(unsafe_code)]

use super::args::Drop;
use super::conduct::{self, App, Context, Progress};
use super::failure::{Code, Failure};
use super::plan::{Plan, Wish};
use super::report;
use xdp_apps::stages::Sink;
use xdp_core::{Counters, Rules};

pub(crate) fn run(args: &Drop) -> Result<Code, Failure> {
    let wish = Wish { command: "drop", rules: Some(Rules::all()), ports: 1, packet_size: None };
    let plan = Plan::new(&wish, &args.device, &args.run)?;
    if args.run.dry_run {
        conduct::show(&plan, &args.run)?;
        return Ok(Code::Done);
    }
    conduct::preface(&plan, &args.run)?;
    let app = App {
        stage: |_, _: &_| Ok(Sink::default()),
        goal: |_: &mut Sink, _: &Counters, context: &Context<'_>| context.is_over() || context.is_received(),
        keep: |sink: &mut Sink| sink.counts(),
        progress: Progress::Received,
    };
    let mut outcome = conduct::run::<_, _, _, _, _, 1>(&plan, &args.run, app, None)?;
    for (extras, counts) in outcome.extras.iter_mut().zip(&outcome.stages) {
        extras.push(("bytes", counts.bytes));
    }
    report::print(&plan, &args.run, &outcome)?;
    outcome.code(false)
}
