//! What a shell and `man` know of this program.
#![forbid(unsafe_code)]

use super::args::{Cli, Completions, Man};
use super::failure::{Code, Failure};
use super::out;
use clap::CommandFactory;

/// Prints a shell's completions.
pub(crate) fn completions(args: &Completions) -> Result<Code, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "xdp-apps", &mut text);
    out::print(String::from_utf8_lossy(&text))?;
    Ok(Code::Done)
}

/// Prints a manual page.
pub(crate) fn man(args: &Man) -> Result<Code, Failure> {
    let mut command = Cli::command();
    command.build();
    let page = match &args.command {
        None => command,
        Some(name) => {
            let known: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_string()).collect();
            let found = command.find_subcommand(name).cloned();
            found.ok_or_else(|| {
                Failure::usage(format!("man {name}: no such command; there are: {}", known.join(", ")))
            })?
        }
    };
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(page).render(&mut text);
    rendered.map_err(|error| Failure::new(Code::Runtime, format!("write the page: {error}")))?;
    out::print(String::from_utf8_lossy(&text))?;
    Ok(Code::Done)
}
