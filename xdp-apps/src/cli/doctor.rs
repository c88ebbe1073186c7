//! Doctor: what this machine and these interfaces can and cannot do for a dataplane, a line for each thing, each with the
//! command that puts it right.
//!
//! It reads; it spins on one core for a while; and it binds sockets to the interfaces it is given, unless the host hangs on
//! them. It changes no setting.
#![forbid(unsafe_code)]

use super::contract::{ContractRow, open_namespace};
use super::failure::{Code, Failure};
use super::out;
use super::units;
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::time::Duration;
use xdp_core::Errno;
use xdp_core::cpu::{self, Cap, Host, Noise};
use xdp_core::netdev::ethtool;
use xdp_core::netdev::facts::{BusyPollDefaults, Facts};
use xdp_core::netdev::genl::XdpFeatures;
use xdp_core::netdev::journal::Journal;
use xdp_core::netdev::{Interface, Setting};
use xdp_core::probe::{self, Contract, NeedWakeup, ProbeOptions};

/// The version of the JSON, its field `schema`; described by `schema/doctor.json`.
const SCHEMA: &str = "xdp-apps-doctor/1";

/// Say what this machine, a core and interfaces can and cannot do, and how to put it right.
///
/// Changes no setting. Interfaces that are named are probed with sockets and a program of their own, for a second or two; one
/// that carries the default route or your own connection, or has an address, is only read, unless --force. Exits with 3 if something fails.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdp-apps doctor                           the machine, and the noise on its last core
  xdp-apps doctor --iface eth1 --cpu 3      and what eth1 can do
  xdp-apps doctor --noise 0 --json          without the noise, for a script")]
pub(crate) struct DoctorArgs {
    /// An interface to look at and to probe; may be given several times
    #[arg(long = "iface", value_name = "IFACE", env = "XDP_APPS_IFACE", value_delimiter = ' ')]
    pub(crate) interfaces: Vec<String>,

    /// The queue to probe
    #[arg(long, value_name = "QUEUE", env = "XDP_APPS_QUEUES", default_value = "0")]
    pub(crate) queue: u32,

    /// The network namespace the interfaces are in: a name (ip netns), or a process id
    #[arg(long, value_name = "NAME", env = "XDP_APPS_NETNS")]
    pub(crate) netns: Option<String>,

    /// The core whose noise is measured [default: the last one that is allowed]
    #[arg(long, value_name = "CORE", env = "XDP_APPS_CPU")]
    pub(crate) cpu: Option<usize>,

    /// How long to spin on it; 0 does not
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "5s")]
    pub(crate) noise: Duration,

    /// Only read the interfaces
    #[arg(long)]
    pub(crate) no_probe: bool,

    /// Probe an interface that the host hangs on, or that has an address, too: its traffic stops for moments
    #[arg(long, conflicts_with = "no_probe")]
    pub(crate) force: bool,

    /// Let warnings fail, too
    #[arg(long)]
    pub(crate) strict: bool,

    /// Print one JSON document on stdout
    #[arg(long, env = "XDP_APPS_JSON")]
    pub(crate) json: bool,
}

/// Looks at everything and prints it.
pub(crate) fn run(args: &DoctorArgs) -> Result<Code, Failure> {
    if let Some(name) = &args.netns {
        open_namespace(name)?.enter()?;
    }
    let allowed = cpu::allowed()?;
    let core = args.cpu.or(allowed.last().copied()).unwrap_or(0);
    let interfaces: Vec<_> =
        args.interfaces.iter().map(|name| Interface::named(name)).collect::<Result<_, _>>()?;
    let noise = match args.noise.is_zero() {
        true => None,
        false => Some(Noise::measure(core, args.noise)?),
    };
    let mut report = Report::new(core, noise.as_ref());
    let host = Host::read();
    report.machine(&host);
    report.core(&host, &allowed, noise.as_ref());
    for interface in &interfaces {
        report.interface(interface, &host, args);
    }
    report.conclude(&host, noise.as_ref());
    let failed = report.worst(args.strict) == Verdict::Fail;
    if args.json {
        let text = serde_json::to_string_pretty(&report);
        out::print(text.map_err(|error| Failure::new(Code::Runtime, format!("write JSON: {error}")))?)?;
    } else {
        out::print(&report)?;
    }
    Ok(if failed { Code::Environment } else { Code::Done })
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
struct Check {
    /// `machine`, `core 3`, `eth1`.
    area: String,
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// A command, or what else would help.
    remedy: Option<String>,
}

/// The noise of a core, for the document.
#[derive(Clone, Debug, Serialize)]
struct NoiseRow {
    spun_s: f64,
    gaps_1us: u64,
    gaps_5us: u64,
    gaps_50us: u64,
    lost_share: f64,
    longest_us: Vec<f64>,
    interrupts: Vec<(String, u64)>,
    preempted: Option<u64>,
    stolen_ms: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
struct Report {
    schema: &'static str,
    version: &'static str,
    kernel: String,
    core: usize,
    verdict: Verdict,
    checks: Vec<Check>,
    noise: Option<NoiseRow>,
    contracts: Vec<ContractRow>,
    can: Vec<String>,
    cannot: Vec<String>,
    #[serde(skip)]
    probed: Vec<Contract>,
}

/// Adds lines of one area.
struct Area<'r> {
    report: &'r mut Report,
    name: String,
}

impl Area<'_> {
    fn add(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: Option<String>,
    ) {
        let check = Check { area: self.name.clone(), name, verdict, found: found.into(), remedy };
        self.report.checks.push(check);
    }

    fn ok(&mut self, name: &'static str, found: impl Into<String>) {
        self.add(name, Verdict::Ok, found, None);
    }

    fn warn(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, Verdict::Warn, found, Some(remedy.into()));
    }

    fn fail(&mut self, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(name, Verdict::Fail, found, Some(remedy.into()));
    }
}

impl Report {
    fn new(core: usize, noise: Option<&Noise>) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kernel: cpu::kernel_release(),
            core,
            verdict: Verdict::Ok,
            checks: Vec::new(),
            noise: noise.map(NoiseRow::of),
            can: Vec::new(),
            cannot: Vec::new(),
            contracts: Vec::new(),
            probed: Vec::new(),
        }
    }

    fn area(&mut self, name: impl Into<String>) -> Area<'_> {
        Area { report: self, name: name.into() }
    }

    fn worst(&self, strict: bool) -> Verdict {
        match self.verdict {
            Verdict::Warn if strict => Verdict::Fail,
            verdict => verdict,
        }
    }

    fn machine(&mut self, host: &Host) {
        let machine = &host.machine;
        let mut area = self.area("machine");
        match cpu::kernel_version() {
            version if version < (6, 1) => {
                area.fail("kernel", &machine.kernel, "boot Linux 6.1 or newer");
            }
            version if version < (6, 13) => area.warn(
                "kernel",
                format!("{}: NAPI settings of one queue need 6.13", machine.kernel),
                "boot Linux 6.13 or newer",
            ),
            _ => area.ok("kernel", &machine.kernel),
        }
        let protocols = std::fs::read_to_string("/proc/net/protocols").unwrap_or_default();
        match protocols.lines().any(|line| line.starts_with("XDP ")) {
            true => area.ok("AF_XDP", "the kernel has the sockets"),
            false => area.fail("AF_XDP", "no such sockets", "boot a kernel with CONFIG_XDP_SOCKETS=y"),
        }
        const NEEDED: [Cap; 4] = [Cap::NetRaw, Cap::NetAdmin, Cap::Bpf, Cap::SysAdmin];
        match cpu::missing(&NEEDED) {
            Ok(missing) if missing.is_empty() => area.ok("privileges", "all that AF_XDP and namespaces need"),
            Ok(missing) => {
                let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
                area.fail("privileges", format!("without {}", names.join(", ")), "run it with sudo");
            }
            Err(error) => area.warn("privileges", error.to_string(), "mount /proc"),
        }
        let locked_anyway = cpu::missing(&[Cap::IpcLock]).is_ok_and(|missing| missing.is_empty());
        match &host.memlock {
            Setting::Value(limit) if limit.soft == u64::MAX => area.ok("locked memory", "no limit"),
            Setting::Value(limit) if locked_anyway || limit.soft >= 64 << 20 => {
                let more = if locked_anyway { ", which CAP_IPC_LOCK lifts" } else { "" };
                area.ok("locked memory", format!("{} KiB{more}", limit.soft >> 10));
            }
            Setting::Value(limit) => area.warn(
                "locked memory",
                format!("{} KiB: too little for a UMEM", limit.soft >> 10),
                "ulimit -l unlimited",
            ),
            Setting::Unsupported(reason) => area.warn("locked memory", reason, "ulimit -l"),
        }
        let huge = host.huge_pages.iter().find(|pages| pages.size == 2 << 20);
        let transparent = host.transparent_huge_pages.as_value().map_or("never", String::as_str);
        match huge {
            Some(pages) if pages.free > 0 => area.ok("huge pages", format!("{} of 2 MiB free", pages.free)),
            _ if transparent != "never" => {
                area.ok("huge pages", format!("none reserved; transparent ones on {transparent}"));
            }
            _ => area.warn("huge pages", "none", "echo 64 | sudo tee /proc/sys/vm/nr_hugepages"),
        }
        match machine.clocksource.as_str() {
            "tsc" => area.ok("clock source", "tsc"),
            other => area.warn(
                "clock source",
                format!("{other}: the kernel does not trust the TSC, or a hypervisor offers better"),
                "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource",
            ),
        }
        match machine.tsc_invariant {
            true => area.ok("TSC", "invariant: ticks are time"),
            false => area.warn("TSC", "not invariant: ticks are no time", "measure on a newer processor"),
        }
        if machine.virtualised {
            area.warn("hypervisor", "a virtual machine", "measure hardware on hardware");
        } else {
            area.ok("hypervisor", "none");
        }
        let costly: Vec<_> = host.costly_mitigations().map(|(name, _)| name.as_str()).collect();
        match costly.is_empty() {
            true => area.ok("mitigations", "none that cost"),
            false => {
                area.ok("mitigations", format!("in force, each system call pays: {}", costly.join(", ")))
            }
        }
        match std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim) {
            Ok("0") => {
                area.warn("BPF compiler", "off", "sudo sysctl -w net.core.bpf_jit_enable=1");
            }
            Ok(_) => area.ok("BPF compiler", "on"),
            Err(_) => area.ok("BPF compiler", "always on, or of another namespace"),
        }
        let busy = BusyPollDefaults::read();
        match (busy.read_us.as_value(), busy.poll_us.as_value()) {
            (Some(0), Some(0)) => area.ok("busy poll default", "off for other sockets"),
            (Some(read), Some(poll)) => area.warn(
                "busy poll default",
                format!("every socket polls: busy_read {read} us, busy_poll {poll} us"),
                "sudo sysctl -w net.core.busy_read=0 net.core.busy_poll=0",
            ),
            _ => area.ok("busy poll default", "of the system's first namespace, not this one"),
        }
        match Journal::leftovers() {
            Ok(leftovers) if leftovers.is_empty() => area.ok("killed runs", "left nothing changed"),
            Ok(leftovers) => area.warn(
                "killed runs",
                format!("{} left settings changed", leftovers.len()),
                "xdp-apps restore",
            ),
            Err(error) => area.warn("killed runs", error.to_string(), "sudo xdp-apps restore"),
        }
    }

    fn core(&mut self, host: &Host, allowed: &[usize], noise: Option<&Noise>) {
        let id = self.core;
        let mut area = self.area(format!("core {id}"));
        if allowed.len() < 3 {
            area.warn(
                "cores",
                format!("{} for the system and every spinning worker", allowed.len()),
                "on fewer than 3, run one worker, or cooperative ones",
            );
        } else {
            area.ok("cores", format!("{} allowed", allowed.len()));
        }
        match host.machine.isolated.contains(&id) {
            true => area.ok("isolation", "no other task is put here"),
            false => area.warn(
                "isolation",
                "other tasks run here too",
                format!("boot with isolcpus={id} nohz_full={id} rcu_nocbs={id}"),
            ),
        }
        let Some(core) = host.core(id) else { return };
        match &core.siblings {
            Setting::Value(siblings) if siblings.len() > 1 => {
                let others: Vec<_> =
                    siblings.iter().filter(|one| **one != id).map(ToString::to_string).collect();
                area.warn(
                    "SMT",
                    format!("shares its pipelines with core {}", others.join(", ")),
                    "echo off | sudo tee /sys/devices/system/cpu/smt/control",
                );
            }
            Setting::Value(_) => area.ok("SMT", "no sibling"),
            Setting::Unsupported(reason) => area.ok("SMT", reason),
        }
        match &core.governor {
            Setting::Value(name) if name == "performance" => area.ok("governor", name),
            Setting::Value(name) => {
                let remedy = format!(
                    "echo performance | sudo tee /sys/devices/system/cpu/cpu{id}/cpufreq/scaling_governor"
                );
                area.warn("governor", name, remedy);
            }
            Setting::Unsupported(reason) => area.ok("governor", format!("cannot be set: {reason}")),
        }
        match &host.turbo {
            Setting::Value(true) => {
                let remedy = match std::path::Path::new("/sys/devices/system/cpu/intel_pstate").exists() {
                    true => "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo",
                    false => "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost",
                };
                area.warn("turbo", "on: the frequency depends on heat", remedy);
            }
            Setting::Value(false) => area.ok("turbo", "off"),
            Setting::Unsupported(reason) => area.ok("turbo", format!("cannot be set: {reason}")),
        }
        let slow: Vec<_> = core.idle_states_slower_than(2).collect();
        match (&core.idle_states, slow.first()) {
            (Setting::Unsupported(reason), _) => area.ok("idle states", format!("cannot be set: {reason}")),
            (_, None) => area.ok("idle states", "none takes longer than 2 us to leave"),
            (_, Some(first)) => {
                let names: Vec<_> =
                    slow.iter().map(|state| format!("{} {} us", state.name, state.latency_us)).collect();
                let remedy = format!(
                    "for s in $(seq {} {}); do echo 1 | sudo tee /sys/devices/system/cpu/cpu{id}/cpuidle/state$s/disable; done",
                    first.index,
                    slow.last().map_or(first.index, |state| state.index),
                );
                area.warn("idle states", format!("to leave them takes: {}", names.join(", ")), remedy);
            }
        }
        if let Some(noise) = noise {
            area.noise(noise);
        }
    }

    fn interface(&mut self, interface: &Interface, host: &Host, args: &DoctorArgs) {
        let facts = Facts::read(interface);
        let core = self.core;
        let mut area = self.area(&interface.name);
        area.link(&facts);
        area.device(&facts, host, core);
        let guarded = match &facts.lock_out {
            Setting::Value(None) => None,
            Setting::Value(Some(why)) => Some(why.to_string()),
            Setting::Unsupported(reason) => Some(reason.clone()),
        };
        if args.no_probe {
            return area.ok("probes", "left out: --no-probe");
        }
        if let (Some(why), false) = (&guarded, args.force) {
            let remedy =
                format!("xdp-apps doctor --iface {} --force, if its traffic may stop", interface.name);
            return area.warn("probes", format!("left out: it {why}"), remedy);
        }
        if !interface.up {
            return area.warn(
                "probes",
                "left out: it is down",
                format!("sudo ip link set {} up", interface.name),
            );
        }
        let options = ProbeOptions { queue: args.queue, insist: args.force, ..ProbeOptions::default() };
        match probe::probe(interface, options) {
            Ok(contract) => {
                area.contract(&contract);
                self.contracts.push(ContractRow::of(&contract));
                self.probed.push(contract);
            }
            // not permitted: it has addresses, or we lack the privilege
            Err(error) if error.errno() == Some(Errno::EPERM) && !args.force => {
                let remedy = format!(
                    "sudo xdp-apps doctor --iface {} --force, if its traffic may stop",
                    interface.name
                );
                area.warn("probes", format!("left out: {error}"), remedy);
            }
            Err(error) => area.fail("probes", error.to_string(), "put that right, and run it again"),
        }
    }

    /// What follows from all of it.
    fn conclude(&mut self, host: &Host, noise: Option<&Noise>) {
        self.verdict = self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        let (mut can, mut cannot) = (Vec::new(), Vec::new());
        if host.machine.tsc_invariant {
            can.push("stamp packets in ticks and tell nanoseconds later".to_string());
        } else {
            cannot.push("tell time by ticks: the TSC is not invariant".to_string());
        }
        if let Some(noise) = noise {
            // a sample of this length meets a gap that begins within it
            const SAMPLE_NS: f64 = 10_000.0;
            for (bound, count) in Noise::BOUNDS_NS.iter().zip(noise.gaps).skip(1) {
                let share = count as f64 * SAMPLE_NS / noise.spun_ns.max(1) as f64;
                let us = bound / 1000;
                match share {
                    0.0 => can.push(format!("tell a delay of {us} us from noise: no such gap was met")),
                    share if share < 1.0 => can.push(format!(
                        "attribute samples of 10 us to the network, but for one in {:.0}, which meets a gap of {us} us or more",
                        1.0 / share
                    )),
                    _ => cannot.push(format!("attribute delays of {us} us: every sample meets such a gap")),
                }
            }
        }
        if host.machine.virtualised {
            cannot.push("say what hardware does: delays in the tail may be the hypervisor's".to_string());
        }
        for contract in &self.probed {
            let at = format!("{} queue {}", contract.interface, contract.queue);
            match contract.zero_copy {
                true => can.push(format!("compare zero-copy with copy mode on {at}")),
                false => cannot.push(format!("measure zero-copy on {at}: it was not granted")),
            }
            match contract.busy_poll.as_value().and_then(|found| found.is_effective()) {
                Some(false) => cannot.push(format!("measure busy polling on {at}: it polls nothing")),
                _ if contract.busy_poll.as_value().is_some() => {
                    can.push(format!("measure busy polling on {at}, once packets are seen to arrive by it"));
                }
                _ => {}
            }
            if contract.need_wakeup == Setting::Value(NeedWakeup::Constant) {
                cannot.push(format!("compare need_wakeup on and off on {at}: the flag is constant"));
            }
        }
        (self.can, self.cannot) = (can, cannot);
    }
}

impl Area<'_> {
    fn noise(&mut self, noise: &Noise) {
        let spun_s = noise.spun_ns as f64 / 1e9;
        let [one, five, fifty] = noise.gaps;
        let lost = noise.lost_ns as f64 / noise.spun_ns.max(1) as f64;
        let longest: Vec<_> =
            noise.longest.iter().take(5).map(|gap| format!("{:.1}", gap.len_ns as f64 / 1000.0)).collect();
        let found = format!(
            "{spun_s:.1} s of spinning: {one} gaps over 1 us, {five} over 5, {fifty} over 50; {:.3} % lost; longest (us) {}",
            lost * 100.0,
            if longest.is_empty() { "none".to_string() } else { longest.join(" ") }
        );
        if fifty == 0 && lost < 0.001 {
            return self.ok("noise", found);
        }
        let mut causes: Vec<_> =
            noise.interrupts.iter().take(3).map(|(name, count)| format!("{name} {count}")).collect();
        let preempted = noise.preempted.filter(|count| *count > 0);
        causes.extend(preempted.map(|count| format!("other threads {count}")));
        let stolen = noise.stolen_ns.filter(|ns| *ns > 0);
        causes.extend(stolen.map(|ns| format!("hypervisor {} ms", ns / 1_000_000)));
        let device =
            noise.interrupts.iter().find_map(|(name, _)| name.split(' ').next()?.parse::<u32>().ok());
        let remedy = match (preempted, device) {
            (Some(_), _) => {
                format!("boot with isolcpus={0} nohz_full={0}, or stop what else runs", noise.core)
            }
            (None, Some(number)) => {
                let other = if noise.core == 0 { 1 } else { 0 };
                format!("echo {other} | sudo tee /proc/irq/{number}/smp_affinity_list")
            }
            (None, None) => format!("boot with nohz_full={0} rcu_nocbs={0}", noise.core),
        };
        self.warn("noise", format!("{found}; meanwhile: {}", causes.join(", ")), remedy);
    }

    fn link(&mut self, facts: &Facts) {
        let Interface { name, mtu, .. } = &facts.interface;
        match (facts.interface.up, facts.interface.carrier) {
            (true, true) => self.ok("link", format!("up, MTU {mtu}")),
            (true, false) => {
                self.fail("link", "up, no carrier", "plug the cable in, or bring its other end up");
            }
            _ => self.fail("link", "down", format!("sudo ip link set {name} up")),
        }
        match &facts.lock_out {
            Setting::Value(None) => self.ok("guard", "neither the default route nor your connection"),
            Setting::Value(Some(why)) => {
                self.warn("guard", why.to_string(), "take another interface; --force if you must");
            }
            Setting::Unsupported(reason) => self.warn("guard", reason, "sudo xdp-apps doctor"),
        }
        match &facts.program {
            Setting::Value(None) => self.ok("XDP program", "none attached"),
            Setting::Value(Some(program)) => {
                let mut owners: Vec<_> =
                    program.processes.iter().map(|(id, comm)| format!("{comm} ({id})")).collect();
                owners.extend(program.pins.iter().map(|path| format!("pinned at {}", path.display())));
                let remedy = match (program.processes.first(), program.pins.first()) {
                    (Some((id, _)), _) => format!("sudo kill {id}"),
                    (_, Some(path)) => format!("sudo rm {}", path.display()),
                    _ => format!("sudo ip link set {name} xdp off"),
                };
                let held = if owners.is_empty() { "nobody".to_string() } else { owners.join(", ") };
                self.warn("XDP program", format!("{}, held by {held}", program.attached), remedy);
            }
            Setting::Unsupported(reason) => self.warn("XDP program", reason, "sudo xdp-apps doctor"),
        }
        match facts.bound_queues() {
            Setting::Value(bound) if bound.is_empty() => self.ok("AF_XDP sockets", "none bound"),
            Setting::Value(bound) => {
                let queues: Vec<_> = bound.iter().map(ToString::to_string).collect();
                let found = format!("bound to queue {}", queues.join(", "));
                self.warn("AF_XDP sockets", found, "stop the program that has them, or take other queues");
            }
            Setting::Unsupported(reason) => self.ok("AF_XDP sockets", format!("cannot be told: {reason}")),
        }
    }

    fn device(&mut self, facts: &Facts, host: &Host, core: usize) {
        let name = &facts.interface.name;
        match &facts.driver {
            Setting::Value(driver) => {
                self.ok("driver", format!("{} {}", driver.name, driver.bus).trim_end());
            }
            Setting::Unsupported(reason) => self.ok("driver", reason),
        }
        let node = host.core(core).and_then(|core| core.numa_node);
        match (&facts.numa_node, node) {
            (Setting::Value(device), Some(node)) if *device != node => self.warn(
                "memory node",
                format!("the device is on node {device}, core {core} on node {node}"),
                format!("--cpu one of node {device}: cat /sys/devices/system/node/node{device}/cpulist"),
            ),
            (Setting::Value(device), _) => self.ok("memory node", format!("node {device}, as the core")),
            (Setting::Unsupported(reason), _) => self.ok("memory node", reason),
        }
        match &facts.xdp {
            Setting::Value(found) if !found.has(XdpFeatures::BASIC | XdpFeatures::REDIRECT) => {
                self.warn("native XDP", "not in this driver", "--mode skb");
            }
            Setting::Value(found) => {
                let zero_copy = match (found.has(XdpFeatures::ZERO_COPY), found.zero_copy_segments_max) {
                    (false, _) => "yes, without zero-copy".to_string(),
                    (true, Some(most)) if most > 1 => {
                        format!("yes, and says zero-copy, up to {most} chunks a packet")
                    }
                    (true, _) => "yes, and says zero-copy, one chunk a packet".to_string(),
                };
                self.ok("native XDP", zero_copy);
            }
            Setting::Unsupported(reason) => self.ok("native XDP", format!("not told: {reason}")),
        }
        match &facts.queues {
            Setting::Value(queues) if queues.rx > 1 => self.warn(
                "queues",
                format!("packets spread over {}: one socket sees only its own", queues.rx),
                format!("--queues all, or sudo ethtool -L {name} combined 1 (rx 1 tx 1 on a veth)"),
            ),
            Setting::Value(queues) => self.ok("queues", format!("{} rx, {} tx", queues.rx, queues.tx)),
            Setting::Unsupported(reason) => self.ok("queues", reason),
        }
        match &facts.rings {
            Setting::Value(rings) => {
                self.ok("driver rings", format!("rx {}, tx {}", rings.rx.unwrap_or(0), rings.tx.unwrap_or(0)))
            }
            Setting::Unsupported(reason) => self.ok("driver rings", format!("cannot take effect: {reason}")),
        }
        match &facts.coalescing {
            Setting::Value(found) => {
                let rx = found.rx_usecs.unwrap_or(0);
                let adaptive = [found.adaptive_rx, found.adaptive_tx].contains(&Some(1));
                if rx > 0 || adaptive {
                    let how = if adaptive { ", adaptive" } else { "" };
                    self.warn(
                        "coalescing",
                        format!("interrupts wait {rx} us{how}"),
                        format!("sudo ethtool -C {name} adaptive-rx off rx-usecs 0"),
                    );
                } else {
                    self.ok("coalescing", "off");
                }
            }
            Setting::Unsupported(reason) => self.ok("coalescing", format!("cannot take effect: {reason}")),
        }
        if let Setting::Value(features) = &facts.features {
            let joined =
                [("LRO", ethtool::LRO, "lro off rx-gro-hw off"), ("VLAN", ethtool::RX_VLAN, "rxvlan off")];
            for (what, group, off) in joined {
                if features.any_on(group) {
                    let found = match what {
                        "LRO" => "packets are joined before XDP sees them",
                        _ => "VLAN tags are taken out before XDP sees them",
                    };
                    self.warn(
                        if what == "LRO" { "large receive" } else { "VLAN offload" },
                        found,
                        format!("sudo ethtool -K {name} {off}"),
                    );
                }
            }
        }
        let defaults = &facts.napi_defaults;
        let napi = facts.napis.as_value().and_then(|all| all.first());
        let defer = napi.and_then(|napi| napi.defer_hard_irqs);
        match defer.or(defaults.defer_hard_irqs.as_value().copied()) {
            Some(0) => self.ok("interrupt deferral", "off: each poll turns interrupts on again"),
            Some(count) => self.ok("interrupt deferral", format!("{count} empty polls")),
            None => self.ok("interrupt deferral", "not told"),
        }
        if let Setting::Value(interrupts) = &facts.interrupts {
            let here: Vec<_> = interrupts
                .iter()
                .filter(|one| {
                    let cores = if one.effective.is_empty() { &one.affinity } else { &one.effective };
                    cores.contains(&core)
                })
                .collect();
            match here.first() {
                None => self.ok("interrupts", format!("none on core {core}")),
                Some(first) => {
                    let names: Vec<_> =
                        here.iter().map(|one| format!("{} {}", one.number, one.name)).collect();
                    let other = host.cores.iter().map(|one| one.id).find(|id| *id != core).unwrap_or(0);
                    self.warn(
                        "interrupts",
                        format!("on core {core}: {}", names.join(", ")),
                        format!("echo {other} | sudo tee /proc/irq/{}/smp_affinity_list", first.number),
                    );
                }
            }
        }
    }

    fn contract(&mut self, contract: &Contract) {
        match contract.zero_copy {
            true => self.ok("zero-copy", "granted"),
            false => self.ok("zero-copy", "not granted: copy mode"),
        }
        match &contract.kick {
            Setting::Value(kick) => match kick.completed_us {
                Some(us) => self.ok("kick", format!("transmits, completed after {us} us")),
                None => self.fail("kick", "transmits nothing", "take another interface, or --mode skb"),
            },
            Setting::Unsupported(reason) => {
                self.warn("kick", format!("not probed: {reason}"), "bring its other end up")
            }
        }
        match &contract.need_wakeup {
            Setting::Value(NeedWakeup::Honoured) => self.ok("need_wakeup", "honoured"),
            Setting::Value(NeedWakeup::Constant) => {
                self.ok("need_wakeup", "constant: switching it on or off has no effect here");
            }
            Setting::Value(_) => self.warn("need_wakeup", "the flag is never set", "--need-wakeup off"),
            Setting::Unsupported(reason) => self.ok("need_wakeup", format!("not probed: {reason}")),
        }
        match &contract.busy_poll {
            Setting::Value(found) if found.napi_id.is_none() => self.ok(
                "busy polling",
                "cannot take effect: no NAPI instance is linked to the socket (SO_INCOMING_NAPI_ID is 0)",
            ),
            Setting::Value(found) => {
                let id = found.napi_id.unwrap_or(0);
                self.ok(
                    "busy polling",
                    format!("NAPI instance {id}; whether it receives, packets must show"),
                );
            }
            Setting::Unsupported(reason) => self.ok("busy polling", format!("not probed: {reason}")),
        }
        match &contract.prefer_busy_poll {
            Setting::Value(found) if found.stalls => self.warn(
                "prefer busy poll",
                "SO_PREFER_BUSY_POLL stops zero-copy sending here",
                "nothing to do: it is left out where a socket consults this",
            ),
            Setting::Value(_) => self.ok("prefer busy poll", "sends"),
            Setting::Unsupported(reason) => self.ok("prefer busy poll", format!("not probed: {reason}")),
        }
        if let Setting::Value(found) = &contract.invalid_descriptor {
            match (found.comes_back, found.next_is_sent) {
                (_, false) => self.warn(
                    "bad descriptor",
                    "holds up the packets behind it",
                    "nothing to do: ports check each before the kernel sees it",
                ),
                (true, _) => self.ok("bad descriptor", "its address comes back"),
                (false, _) => self.ok("bad descriptor", "its address is lost: ports check each before"),
            }
        }
        let binding = contract.binding;
        let found =
            format!("{} us; {} us right after a socket was closed", binding.first_us, binding.again_us);
        self.ok("bind", found);
    }
}

impl NoiseRow {
    fn of(noise: &Noise) -> Self {
        let [gaps_1us, gaps_5us, gaps_50us] = noise.gaps;
        Self {
            spun_s: noise.spun_ns as f64 / 1e9,
            gaps_1us,
            gaps_5us,
            gaps_50us,
            lost_share: noise.lost_ns as f64 / noise.spun_ns.max(1) as f64,
            longest_us: noise.longest.iter().map(|gap| gap.len_ns as f64 / 1000.0).collect(),
            interrupts: noise.interrupts.clone(),
            preempted: noise.preempted,
            stolen_ms: noise.stolen_ns.map(|ns| ns as f64 / 1e6),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut area = "";
        for check in &self.checks {
            if check.area != area {
                area = &check.area;
                writeln!(f, "{area}")?;
            }
            let verdict = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            writeln!(f, "  {verdict} {:<18} {}", check.name, check.found)?;
            if let Some(remedy) = &check.remedy {
                writeln!(f, "       {:<18} -> {remedy}", "")?;
            }
        }
        for (head, lines) in [("this machine can", &self.can), ("it cannot", &self.cannot)] {
            if !lines.is_empty() {
                writeln!(f, "{head}")?;
            }
            for line in lines {
                writeln!(f, "  {line}")?;
            }
        }
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let (warn, fail) = (count(Verdict::Warn), count(Verdict::Fail));
        writeln!(f, "{} ok, {warn} to look at, {fail} failed", count(Verdict::Ok))
    }
}
