//! `reflect`: every packet goes back to where it came from.
#![forbid(unsafe_code)]

use super::args::Reflect;
use super::conduct::{self, App, Context, Progress};
use super::failure::{Code, Failure};
use super::plan::{Plan, Wish};
use super::report;
use xdp_apps::stages::Reflector;
use xdp_core::{Counters, Rules};

pub(crate) fn run(args: &Reflect) -> Result<Code, Failure> {
    let wish = Wish { command: "reflect", rules: Some(Rules::all()), ports: 1, packet_size: None };
    let plan = Plan::new(&wish, &args.device, &args.run)?;
    if args.run.dry_run {
        conduct::show(&plan, &args.run)?;
        return Ok(Code::Done);
    }
    conduct::preface(&plan, &args.run)?;
    let app = App {
        stage: |_, _: &_| Ok(Reflector::default()),
        goal: |_: &mut Reflector, _: &Counters, context: &Context<'_>| {
            context.is_over() || context.is_received()
        },
        keep: |_: &mut Reflector| (),
        progress: Progress::Received,
    };
    let outcome = conduct::run::<_, _, _, _, _, 1>(&plan, &args.run, app, None)?;
    report::print(&plan, &args.run, &outcome)?;
    outcome.code(false)
}
