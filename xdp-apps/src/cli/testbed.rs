//! `testbed vm` and `ping-demo`: what was typed, and its doing.
#![forbid(unsafe_code)]

use super::failure::{Code, Failure};
use super::out;
use clap::{Args, Subcommand, ValueEnum};
use core::time::Duration;
use std::io::{self, Write};
use std::path::PathBuf;
use xdp_apps::testbed::Error;
use xdp_apps::testbed::fetch::Cache;
use xdp_apps::testbed::ping::Ping;
use xdp_apps::testbed::vm::{Accelerator, Nic, Stream, Vm};
use xdp_core::{BusyPoll, Idle, Mode, XskConfig, ZeroCopy};

/// Hosts to try things on.
#[derive(Debug, Subcommand)]
pub(crate) enum Testbed {
    /// Run a command in a virtual machine with two zero-copy cards back to back.
    ///
    /// In the machine the cards are `near` and, in the network namespace `far`, `far`. COMMAND is one of this program, or
    /// a program of this host if its first word has a slash in it; without one the machine only boots. What is measured is
    /// the mechanism, not microseconds: everything is emulated.
    Vm(VmCommand),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct VmCommand {
    #[command(subcommand)]
    fetch: Option<Fetch>,
    #[command(flatten)]
    parts: Parts,
    /// Queues of each card.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    queues: u32,
    /// Processors of the machine.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Write what passes between the cards to this file.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Stop the machine after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// What runs the machine; a probe takes KVM where it works.
    #[arg(long, default_value = "probe")]
    accelerator: AcceleratorArg,
    /// Take a file of this host along: HOST:GUEST, both paths.
    #[arg(long, value_name = "HOST:GUEST")]
    file: Vec<String>,
    /// Bring a file of the machine back: GUEST:HOST, both paths.
    #[arg(long, value_name = "GUEST:HOST")]
    collect: Vec<String>,
    /// Set a variable of the command's environment.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Do not fail because the machine's kernel warned.
    #[arg(long)]
    allow_warnings: bool,
    /// Do not fetch what is missing.
    #[arg(long)]
    offline: bool,
    /// Show the console of the machine's kernel at the end.
    #[arg(long, short)]
    verbose: bool,
    /// What to run in the machine.
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Fetch {
    /// Fetch QEMU and a kernel into the cache, and check what is there.
    Fetch(Parts),
}

/// Which machine.
#[derive(Debug, Args)]
struct Parts {
    /// The kind of both cards.
    #[arg(long, default_value = "virtio")]
    nic: NicArg,
    /// The kernel: a version, or the beginning of one, such as 6.18.
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// Fetch from this Debian mirror, not from the system's own.
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
}

impl Parts {
    fn vm(&self) -> Vm {
        let cache = match &self.mirror {
            Some(uri) => Cache::user().mirror(uri),
            None => Cache::user(),
        };
        let vm = Vm::new().nic(self.nic.into()).cache(cache);
        match &self.kernel {
            Some(version) => vm.kernel(version),
            None => vm,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NicArg {
    Virtio,
    Igb,
    E1000e,
    Vmxnet3,
}

impl From<NicArg> for Nic {
    fn from(nic: NicArg) -> Self {
        match nic {
            NicArg::Virtio => Self::Virtio,
            NicArg::Igb => Self::Igb,
            NicArg::E1000e => Self::E1000e,
            NicArg::Vmxnet3 => Self::Vmxnet3,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AcceleratorArg {
    Probe,
    Kvm,
    Tcg,
}

impl From<AcceleratorArg> for Accelerator {
    fn from(accelerator: AcceleratorArg) -> Self {
        match accelerator {
            AcceleratorArg::Probe => Self::Probe,
            AcceleratorArg::Kvm => Self::Kvm,
            AcceleratorArg::Tcg => Self::Tcg,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Missing { .. } => Code::Environment,
            _ => Code::Runtime,
        };
        Self::new(code, error.to_string())
    }
}

/// Fetches or boots. Where a command ran in the machine and failed, ends this process with its very status.
pub(crate) fn run(testbed: &Testbed) -> Result<Code, Failure> {
    let Testbed::Vm(command) = testbed;
    match &command.fetch {
        Some(Fetch::Fetch(parts)) => fetch(parts),
        None => command.boot(),
    }
}

fn fetch(parts: &Parts) -> Result<Code, Failure> {
    let (qemu, kernel) = parts.vm().fetch(&mut |news| say(news))?;
    let cache = Cache::user();
    let files = cache.verify()?;
    let whose = if qemu.is_cached() { "in the cache" } else { "the system's own" };
    say(&format!(
        "QEMU {}.{} ({whose}), Linux {}; {files} files in {} are as they were fetched",
        qemu.version.0,
        qemu.version.1,
        kernel.release,
        cache.directory().display()
    ));
    Ok(Code::Done)
}

impl VmCommand {
    fn boot(&self) -> Result<Code, Failure> {
        let mut vm = self.parts.vm().queues(self.queues).cpus(self.cpus).accelerator(self.accelerator.into());
        vm = vm.timeout(Duration::from_secs(self.timeout));
        if let Some(file) = &self.pcap {
            vm = vm.pcap(file);
        }
        for pair in &self.file {
            let (host, guest) = halves(pair, ':')?;
            vm = vm.file(host, guest);
        }
        for pair in &self.collect {
            vm = vm.collect(halves(pair, ':')?.0);
        }
        for pair in &self.variables {
            let (name, value) = halves(pair, '=')?;
            vm = vm.variable(name, value);
        }
        if self.allow_warnings {
            vm = vm.allow_warnings();
        }
        if !self.offline {
            vm.fetch(&mut |news| say(news))?;
        }
        let outcome = vm.run_with(&self.command, &mut show)?;
        if self.verbose {
            eprint!("{}", outcome.console);
        }
        for pair in &self.collect {
            let (guest, host) = halves(pair, ':')?;
            match outcome.files.get(guest) {
                Some(contents) => std::fs::write(host, contents).map_err(|error| {
                    Failure::new(Code::Runtime, format!("write {host}: {error}; check the path"))
                })?,
                None => say(&format!("there is no {guest} in the machine")),
            }
        }
        say(&outcome.to_string());
        match outcome.status {
            0 if outcome.passed() => Ok(Code::Done),
            0 => Ok(Code::Runtime), // the outcome said why
            status => std::process::exit(status),
        }
    }
}

/// What the command writes, passed on; where nobody reads us any more, nobody misses it.
fn show(stream: Stream, bytes: &[u8]) {
    let _ = match stream {
        Stream::Stdout => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        Stream::Stderr => io::stderr().write_all(bytes),
    };
}

fn say(news: &str) {
    eprintln!("testbed: {news}");
}

fn halves(pair: &str, at: char) -> Result<(&str, &str), Failure> {
    pair.split_once(at)
        .ok_or_else(|| Failure::usage(format!("no `{at}` in {pair:?}; see xdp-apps testbed vm --help")))
}

/// Round trips between two given cards over AF_XDP, both ends ours.
///
/// Says what the kernel granted each end. The defaults are the cards of the virtual machine.
#[derive(Debug, Args)]
pub(crate) struct PingDemo {
    /// The card that pings.
    #[arg(long, default_value = "near")]
    iface: String,
    /// Its network namespace; this one, if not given.
    #[arg(long)]
    netns: Option<String>,
    /// The card that answers.
    #[arg(long, default_value = "far")]
    peer: String,
    /// Its network namespace.
    #[arg(long, default_value = "far")]
    peer_netns: String,
    /// The queue of both.
    #[arg(long, default_value_t = 0)]
    queue: u32,
    /// Where the XDP program runs.
    #[arg(long, default_value = "native")]
    mode: ModeArg,
    /// Whether packets pass without a copy.
    #[arg(long, default_value = "prefer", conflicts_with = "copy")]
    zero_copy: ZeroCopyArg,
    /// Never without a copy.
    #[arg(long)]
    copy: bool,
    /// Whether the driver may say when it needs waking.
    #[arg(long, default_value = "on")]
    need_wakeup: Switch,
    /// Busy polling, of so many packets a call.
    #[arg(long, value_name = "BUDGET")]
    busy_poll: Option<u32>,
    /// With the device's interrupts held off between polls.
    #[arg(long, requires = "busy_poll")]
    prefer_busy_poll: bool,
    /// What a thread does when nothing has come.
    #[arg(long, default_value = "spin")]
    idle: IdleArg,
    /// Bytes of a chunk of the UMEM.
    #[arg(long, default_value_t = 4096)]
    chunk_size: u32,
    /// Bytes of a probe, without the checksum.
    #[arg(long, default_value_t = 64)]
    packet_size: u32,
    /// Probes.
    #[arg(long, default_value_t = 100)]
    count: u32,
    /// From one probe to the next at least, in milliseconds.
    #[arg(long, default_value_t = 0)]
    interval: u64,
    /// Give up after so many lost in a row, a second each.
    #[arg(long, default_value_t = 3)]
    give_up: u32,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    Native,
    Skb,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ZeroCopyArg {
    Require,
    Prefer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IdleArg {
    Spin,
    Pause,
    Poll,
    Adaptive,
}

impl PingDemo {
    fn ping(&self) -> Ping {
        let config = XskConfig {
            zero_copy: match (self.copy, self.zero_copy) {
                (true, _) => ZeroCopy::Off,
                (false, ZeroCopyArg::Require) => ZeroCopy::Require,
                (false, ZeroCopyArg::Prefer) => ZeroCopy::Prefer,
            },
            need_wakeup: self.need_wakeup == Switch::On,
            busy_poll: self.busy_poll.map(|budget| BusyPoll {
                budget,
                time_us: 20,
                prefer: self.prefer_busy_poll,
            }),
            ..XskConfig::default()
        };
        Ping {
            near: self.iface.clone(),
            near_netns: self.netns.clone(),
            far: self.peer.clone(),
            far_netns: Some(self.peer_netns.clone()),
            queue: self.queue,
            mode: match self.mode {
                ModeArg::Native => Mode::Native,
                ModeArg::Skb => Mode::Skb,
            },
            config,
            idle: match self.idle {
                IdleArg::Spin => Idle::Spin,
                IdleArg::Pause => Idle::Pause,
                IdleArg::Poll => Idle::Poll,
                IdleArg::Adaptive => Idle::Adaptive,
            },
            chunk_size: self.chunk_size,
            packet_size: self.packet_size,
            count: self.count,
            interval: Duration::from_millis(self.interval),
            give_up: self.give_up,
        }
    }
}

/// Pings, and prints what came of it.
pub(crate) fn ping(args: &PingDemo) -> Result<Code, Failure> {
    let ping = args.ping();
    let report = ping.run().map_err(|why| Failure::new(Code::Runtime, why))?;
    if args.json {
        out::print(format!("{:#}", report.to_json(ping.mode)))?;
    } else {
        out::print(&report)?;
    }
    Ok(if report.is_complete() { Code::Done } else { Code::Incomplete })
}
