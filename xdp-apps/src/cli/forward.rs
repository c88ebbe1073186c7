//! `forward`: carries packets between two interfaces, or two queues.
#![forbid(unsafe_code)]

use super::args::{FixChecksums, Forward};
use super::conduct::{self, App, Context, Progress};
use super::failure::{Code, Failure};
use super::plan::{Plan, Wish};
use super::report;
use xdp_apps::stages::{Forwarder, ForwarderOptions};
use xdp_core::{Counters, Rules};

pub(crate) fn run(args: &Forward) -> Result<Code, Failure> {
    let wish = Wish { command: "forward", rules: Some(Rules::all()), ports: 2, packet_size: None };
    let plan = Plan::new(&wish, &args.device, &args.run)?;
    if args.run.dry_run {
        conduct::show(&plan, &args.run)?;
        return Ok(Code::Done);
    }
    conduct::preface(&plan, &args.run)?;
    let options = ForwarderOptions {
        dst_mac: args.dst_mac,
        src_mac: args.src_mac,
        finish_checksums: args.fix_checksums == FixChecksums::Auto,
    };
    let app = App {
        stage: |_, _: &_| Ok(Forwarder::new(options)),
        goal: |_: &mut Forwarder, _: &Counters, context: &Context<'_>| {
            context.is_over() || context.is_received()
        },
        keep: |forwarder: &mut Forwarder| forwarder.counts(),
        progress: Progress::Received,
    };
    let mut outcome = conduct::run::<_, _, _, _, _, 2>(&plan, &args.run, app, None)?;
    for (extras, counts) in outcome.extras.iter_mut().zip(&outcome.stages) {
        extras.push(("checksums_finished", counts.checksums_finished));
        extras.push(("too_short", counts.too_short));
    }
    report::print(&plan, &args.run, &outcome)?;
    outcome.code(false)
}
