//! The binary.
#[path = "cli/testbed.rs"]
mod testbed;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// AF_XDP programs.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(subcommand)]
    Testbed(testbed::Testbed),
    PingDemo(testbed::PingDemo),
}

fn main() -> ExitCode {
    xdp_apps::testbed::guest::enter();
    let code = match Arguments::parse().command {
        Verb::Testbed(testbed) => testbed.run(),
        Verb::PingDemo(ping) => ping.run(),
    };
    ExitCode::from(code)
}
