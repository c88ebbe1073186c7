//! Restore: puts back what killed runs left changed.
#![forbid(unsafe_code)]

use super::args::Restore;
use super::failure::{Code, Failure};
use std::io::{IsTerminal, stdin};
use xdp_core::netdev::journal::Journal;

/// Lists what there is, asks, restores.
pub(crate) fn run(args: &Restore) -> Result<Code, Failure> {
    let leftovers = Journal::leftovers()?;
    if leftovers.is_empty() {
        println!("nothing to restore: no killed run left anything changed");
        return Ok(Code::Done);
    }
    for leftover in &leftovers {
        println!("process {}:", leftover.pid());
        leftover.steps().for_each(|step| println!("  to undo: {step}"));
    }
    if args.dry_run {
        return Ok(Code::Done);
    }
    if !args.yes && !agreed()? {
        println!("nothing was changed");
        return Ok(Code::Incomplete);
    }
    let mut complete = true;
    for leftover in leftovers {
        println!("process {}:", leftover.pid());
        let report = leftover.restore();
        report.to_string().lines().for_each(|line| println!("  {line}"));
        complete &= report.is_complete();
    }
    if complete {
        return Ok(Code::Done);
    }
    Err(Failure::new(
        Code::Incomplete,
        "restore: some steps failed and stay recorded; put right what their lines say, then run it again",
    ))
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
