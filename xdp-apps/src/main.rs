//! `xdp-apps`: one program, a command for each thing to do with packets.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout)] // it panics where the reader is gone: see cli::out
#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a program, which has std; its library may go without"
)]

mod cli;
mod session;

use cli::args::Command;
use cli::failure::{Code, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    xdp_apps::testbed::guest::enter();
    match run() {
        Ok(code) => code.into(),
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                eprintln!("xdp-apps: {text}");
            }
            failure.code.into()
        }
    }
}

fn run() -> Result<Code, Failure> {
    match cli::parse()?.command {
        Command::Ping(args) => cli::ping::run(&args),
        Command::Reflect(args) => cli::reflect::run(&args),
        Command::Forward(args) => cli::forward::run(&args),
        Command::Drop(args) => cli::drop::run(&args),
        Command::Generate(args) => cli::generate::run(&args),
        Command::Demo(args) => cli::demo::run(&args),
        Command::Contract(args) => cli::contract::run(&args),
        Command::Doctor(args) => cli::doctor::run(&args),
        Command::Restore(args) => cli::restore::run(&args),
        Command::Testbed(args) => cli::testbed::run(&args),
        Command::PingDemo(args) => cli::testbed::ping(&args),
        Command::Completions(args) => cli::shell::completions(&args),
        Command::Man(args) => cli::shell::man(&args),
    }
}
