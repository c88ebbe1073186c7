//! Restore: puts back what killed runs left changed.
#![forbid(unsafe_code)]

use super::args::Restore;
use super::failure::{Code, Failure};
use super::out;
use std::io::{IsTerminal, stdin};
use xdp_core::netdev::journal::Journal;

/// Lists what there is, asks, restores.
pub(crate) fn run(args: &Restore) -> Result<Code, Failure> {
    let leftovers = Journal::leftovers()?;
    if leftovers.is_empty() {
        out::print("nothing to restore: no killed run left anything changed")?;
        return Ok(Code::Done);
    }
    for leftover in &leftovers {
        let steps: String = leftover.steps().map(|step| format!("\n  to undo: {step}")).collect();
        out::print(format!("process {}:{steps}", leftover.pid()))?;
    }
    if args.dry_run {
        return Ok(Code::Done);
    }
    if !args.yes && !agreed()? {
        out::print("nothing was changed")?;
        return Ok(Code::Incomplete);
    }
    let (mut complete, mut told) = (true, Ok(()));
    for leftover in leftovers {
        let pid = leftover.pid();
        let report = leftover.restore();
        complete &= report.is_complete();
        let lines: String = report.to_string().lines().map(|line| format!("\n  {line}")).collect();
        told = told.and(out::print(format!("process {pid}:{lines}"))); // what cannot be told is put back all the same
    }
    if complete {
        return told.map(|()| Code::Done);
    }
    Err(Failure::new(
        Code::Incomplete,
        "restore: some steps failed and stay recorded; put right what their lines say, then run it again",
    ))
}

/// What every command does about killed runs before it starts: puts back what they left if told to (`--yes`) or if whoever sits at
/// the terminal agrees; else says how.
pub(crate) fn at_start(yes: bool, quiet: bool) -> Result<(), Failure> {
    let leftovers = Journal::leftovers().unwrap_or_default();
    if leftovers.is_empty() {
        return Ok(());
    }
    let n = leftovers.len();
    let asks = !yes && !quiet && stdin().is_terminal() && std::io::stderr().is_terminal();
    if asks {
        eprintln!("{n} run(s) that were killed left this changed on this host:");
        leftovers
            .iter()
            .flat_map(|leftover| leftover.steps())
            .for_each(|step| eprintln!("  to undo: {step}"));
    }
    if !(yes || asks && agreed()?) {
        if !quiet {
            eprintln!(
                "note: {n} run(s) that were killed left something changed on this host; `xdp-apps restore` puts it back"
            );
        }
        return Ok(());
    }
    for leftover in leftovers {
        let report = leftover.restore();
        if !report.is_complete() {
            let text = format!(
                "put back what a killed run left: {report}; put right what it says, then run `xdp-apps restore`"
            );
            return Err(Failure::new(
                Code::Incomplete,
                text.split_whitespace().collect::<Vec<_>>().join(" "),
            ));
        }
    }
    if !quiet {
        eprintln!("note: put back what {n} killed run(s) had left changed on this host");
    }
    Ok(())
}

fn agreed() -> Result<bool, Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::usage("restore: there is no terminal to ask on; say --yes"));
    }
    eprint!("undo all of it? [y/N] ");
    let mut answer = String::new();
    let read = stdin().read_line(&mut answer);
    read.map_err(|error| Failure::new(Code::Runtime, format!("read the answer: {error}; say --yes")))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
