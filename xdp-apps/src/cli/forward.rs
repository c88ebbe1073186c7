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
        conduct::show(&plan, &args.run);
        return Ok(Code::Done);
    }
    conduct::preface(&plan, &args.run);
    let options = ForwarderOptions {
        dst_mac: args.dst_mac.map(|mac| mac.0.into()),
        src_mac: args.src_mac.map(|mac| mac.0.into()),
        finish_checksums: args.fix_checksums == FixChecksums::Auto,
    };
    let app = App {
        stage: |_, _: &_| Ok(Forwarder::new(options)),
        goal: |_: &mut Forwarder, _: &Counters, context: &Context<'_>| context.is_over() || context.is_received(),
        keep: |forwarder: &mut Forwarder| forwarder.counts(),
        progress: Progress::Received,
    };
    let outcome = conduct::run::<_, _, _, _, _, 2>(&plan, &args.run, app, || ())?;
    let finished = outcome.stages.iter().map(|counts| counts.checksums_finished).sum();
    let short = outcome.stages.iter().map(|counts| counts.too_short).sum();
    report::print(&plan, &args.run, &outcome, &[("checksums_finished", finished), ("too_short", short)]);
    outcome.code(false)
}
