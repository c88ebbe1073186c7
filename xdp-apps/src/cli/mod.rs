//! The command line: [`args`] is what was typed, [`plan`] what will be done, [`conduct`] does it; each command is a file.
#![forbid(unsafe_code)]

pub(crate) mod args;
mod conduct;
pub(crate) mod contract;
mod cores;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod drop;
pub(crate) mod failure;
pub(crate) mod forward;
pub(crate) mod generate;
mod live;
mod out;
mod packet;
pub(crate) mod ping;
mod plan;
pub(crate) mod reflect;
mod report;
pub(crate) mod restore;
pub(crate) mod shell;
pub(crate) mod testbed;
mod units;

use clap::Parser;
use clap::error::ErrorKind;
use failure::{Code, Failure};

/// Reads the command line. Help and version are printed, and are an end of their own.
pub(crate) fn parse() -> Result<args::Cli, Failure> {
    args::Cli::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Failure::new(Code::Done, "")
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Failure::new(Code::Usage, "")
        }
        _ => Failure::usage(one_line(&error.to_string())),
    })
}

/// What clap says in a paragraph, in a line.
fn one_line(text: &str) -> String {
    let told = text.split("\n\nUsage:").next().unwrap_or(text);
    let told = told.split("\n\nFor more information").next().unwrap_or(told);
    let words: Vec<_> = told.split_whitespace().collect();
    let told = words.join(" ").trim_start_matches("error: ").replace(" tip: ", "; ");
    format!("{told}; see xdp-apps COMMAND --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        args::Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let error =
            args::Cli::try_parse_from(["xdp-apps", "drop", "--ring-size", "2x", "--iface", "a"]).unwrap_err();
        assert_eq!(
            one_line(&error.to_string()),
            "invalid value '2x' for '--ring-size <ENTRIES>': `2x` is no size: write it as 2048, 2k or 4k; \
             see xdp-apps COMMAND --help"
        );
        let error = args::Cli::try_parse_from(["xdp-apps", "drop"]).unwrap_err();
        assert_eq!(
            one_line(&error.to_string()),
            "the following required arguments were not provided: --iface <IFACE[:QUEUES]>; see xdp-apps COMMAND --help"
        );
    }
}
