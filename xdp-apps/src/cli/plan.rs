//! What will be done: everything typed, resolved against the host and checked, before anything is touched.
#![forbid(unsafe_code)]

use super::args::{Device, OnOff, Run, ZeroCopyWish};
use super::cores::Cores;
use super::failure::{Code, Failure};
use super::units::{Queues, thousands};
use crate::session::{Place, Setup, within};
use serde_json::{Value, json};
use std::fmt::{self, Write};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use xdp_core::cpu::{self, Cap, MemlockLimit};
use xdp_core::netdev::{Interface, Namespace, route};
use xdp_core::ring::RingSizes;
use xdp_core::wire::Mac;
use xdp_core::{BusyPoll, HugePages, Idle, Layout, RegionOptions, Rules, XskConfig, ZeroCopy};

/// How long one call polls the device, in microseconds.
const BUSY_POLL_US: u32 = 20;
const RING_SIZE_MIN: u32 = 8;
const RING_SIZE_MAX: u32 = 1 << 16;
/// Ethernet header, and room for one VLAN tag, in bytes.
const HEADER: u32 = 14;
const VLAN_TAG: u32 = 4;

/// What a command needs of a plan beyond its device options.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The command's name.
    pub(crate) command: &'static str,
    /// What it takes from the interface where no `--match` is given; `None`: it only sends.
    pub(crate) rules: Option<Rules>,
    /// Ports of a worker: 1, or 2 for pairs.
    pub(crate) ports: usize,
    /// The longest packet it sends of its own making, in bytes.
    pub(crate) packet_size: Option<u32>,
}

/// Where and how a command runs; checked. What cannot work was refused.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) command: &'static str,
    pub(crate) setup: Setup,
    /// As `--netns` names it.
    pub(crate) namespace: Option<String>,
    /// The interfaces, each once.
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) cores: Cores,
    pub(crate) limits: Limits,
    /// Privileges that are missing: for a plan that is only printed.
    missing: Vec<Cap>,
}

/// When a run ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) duration: Option<Duration>,
    pub(crate) count: Option<u64>,
}

impl Plan {
    /// Makes sense of what was typed.
    pub(crate) fn new(wish: &Wish, device: &Device, run: &Run) -> Result<Self, Failure> {
        let xsk = socket(device)?;
        let idle = Idle::from(device.idle);
        let namespace = device.netns.as_deref().map(open_namespace).transpose()?;
        let (interfaces, ports) = within(namespace.as_ref(), || {
            let interfaces = look_up(device)?;
            let places = places(wish, device, &interfaces)?;
            Ok::<_, Failure>((interfaces, places))
        })??;
        let cores = Cores::choose(ports.len(), device.cpu.as_ref().map(|cores| &cores.0[..]))?;
        if device.cpu.as_ref().is_some_and(|wanted| wanted.0.len() > ports.len()) {
            return Err(Failure::usage(format!(
                "--cpu: there are more cores than the {} worker(s); name one a queue",
                ports.len()
            )));
        }
        let layout = layout(wish, device, &xsk, &interfaces, ports.len())?;
        check_packet_size(wish, &layout, &interfaces)?;
        let rules = device.rules.clone().or_else(|| wish.rules.clone());
        let seats = ports.into_iter().zip(&cores.of);
        let setup = Setup {
            program: rules.map(|rules| (device.mode, rules)),
            layout,
            region: RegionOptions {
                huge_pages: device.huge_pages.into(),
                node: cores.of.first().and_then(|core| cpu::numa_node(*core)),
                shared: false,
            },
            xsk,
            burst: device.burst,
            idle,
            seats: seats.map(|(ports, core)| Place { core: Some(*core), ports }).collect(),
            namespace,
        };
        if setup.is_cooperative() && matches!(idle, Idle::Poll | Idle::Adaptive) {
            return Err(Failure::usage(format!(
                "--idle: several workers share a core, and one that sleeps holds up the others; take spin or pause, or {} cores",
                setup.seats.len()
            )));
        }
        let missing = check_privileges(device.netns.is_some(), run.dry_run)?;
        if !run.dry_run {
            check_memory_lock(&setup)?;
        }
        Ok(Self {
            command: wish.command,
            setup,
            namespace: device.netns.clone(),
            interfaces,
            cores,
            limits: Limits { duration: run.duration, count: run.count },
            missing,
        })
    }

    /// The interface of a worker's port.
    pub(crate) fn interface(&self, worker: usize, port: usize) -> &Interface {
        let name = &self.setup.seats[worker].ports[port].0;
        self.interfaces
            .iter()
            .find(|interface| interface.name == *name)
            .expect("every port's interface was looked up")
    }

    /// Why something is not as a user may expect, a line each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for core in &self.cores.shared {
            notes.push(format!("core {core} is in use by another xdp-apps too; choose others with --cpu"));
        }
        if self.setup.is_cooperative() {
            notes.push(
                "several workers share a core and take turns on it; give each one of its own with --cpu"
                    .into(),
            );
        }
        notes
    }

    pub(crate) fn to_json(&self) -> Value {
        let Setup { program, layout, region, xsk, burst, idle, seats, .. } = &self.setup;
        let workers = seats.iter().map(|seat| {
            let ports =
                seat.ports.iter().map(|(interface, queue)| json!({ "iface": interface, "queue": queue }));
            json!({ "core": seat.core, "ports": ports.collect::<Vec<_>>() })
        });
        json!({
            "command": self.command,
            "netns": self.namespace,
            "mode": program.as_ref().map(|(mode, _)| mode.to_string()),
            "match": program.as_ref().map(|(_, rules)| rules.to_string()),
            "zero_copy": zero_copy(xsk.zero_copy),
            "need_wakeup": xsk.need_wakeup,
            "busy_poll": xsk.busy_poll.map(|busy_poll| busy_poll.budget),
            "tx_budget": xsk.tx_budget,
            "ring_size": xsk.rings.rx,
            "burst": burst,
            "idle": format!("{idle:?}").to_lowercase(),
            "umem": {
                "chunk_size": layout.chunk_size(), "chunks": layout.chunks(), "huge_pages": huge_pages(region.huge_pages),
            },
            "workers": workers.collect::<Vec<_>>(),
            "duration_s": self.limits.duration.map(|duration| duration.as_secs_f64()),
            "count": self.limits.count,
            "missing_privileges": self.missing.iter().map(|cap| cap.name()).collect::<Vec<_>>(),
        })
    }
}

/// As people read it: a few lines.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { program, layout, region, xsk, burst, idle, seats, .. } = &self.setup;
        write!(f, "{}", self.command)?;
        if let Some(namespace) = &self.namespace {
            write!(f, " in namespace {namespace}")?;
        }
        match program {
            Some((mode, rules)) => writeln!(f, ": program in {mode} mode takes {rules}")?,
            None => writeln!(f, ": no program, it only sends")?,
        }
        for (i, seat) in seats.iter().enumerate() {
            let ports: Vec<_> =
                seat.ports.iter().map(|(interface, queue)| format!("{interface} queue {queue}")).collect();
            let core = seat.core.map_or("any core".to_string(), |core| format!("core {core}"));
            writeln!(f, "worker {i}: {} on {core}", ports.join(" <-> "))?;
        }
        writeln!(
            f,
            "sockets: zero-copy {}, need_wakeup {}, busy polling {}, rings of {}, bursts of {burst}, idle {}",
            zero_copy(xsk.zero_copy),
            if xsk.need_wakeup { "on" } else { "off" },
            xsk.busy_poll.map_or("off".into(), |busy_poll| format!("{} packets a call", busy_poll.budget)),
            xsk.rings.rx,
            format!("{idle:?}").to_lowercase(),
        )?;
        writeln!(
            f,
            "memory: {} chunks of {} bytes ({} MiB), huge pages {}",
            thousands(layout.chunks().into()),
            layout.chunk_size(),
            layout.len().div_ceil(1 << 20),
            huge_pages(region.huge_pages),
        )?;
        match self.limits {
            Limits { duration: None, count: None } => writeln!(f, "until Ctrl-C")?,
            Limits { duration, count } => {
                let mut text = String::new();
                if let Some(count) = count {
                    write!(text, " {} packets", thousands(count))?;
                }
                if let Some(duration) = duration {
                    write!(text, "{}{duration:?}", if count.is_some() { ", or " } else { " " })?;
                }
                writeln!(f, "until{text}")?;
            }
        }
        if !self.missing.is_empty() {
            writeln!(f, "missing: {}", lacking(&self.missing))?;
        }
        Ok(())
    }
}

fn zero_copy(wish: ZeroCopy) -> &'static str {
    match wish {
        ZeroCopy::Require => "require",
        ZeroCopy::Prefer => "prefer",
        ZeroCopy::Off => "off",
    }
}

fn huge_pages(wish: HugePages) -> &'static str {
    match wish {
        HugePages::Off => "off",
        HugePages::Prefer => "prefer",
        HugePages::Require => "require",
    }
}

fn socket(device: &Device) -> Result<XskConfig, Failure> {
    let entries = device.ring_size;
    if !entries.is_power_of_two() || !(RING_SIZE_MIN..=RING_SIZE_MAX).contains(&entries) {
        let near = entries.clamp(RING_SIZE_MIN, RING_SIZE_MAX).next_power_of_two();
        return Err(Failure::usage(format!(
            "--ring-size {entries}: a ring has a power of two of entries, {RING_SIZE_MIN} to {RING_SIZE_MAX}; take {near}"
        )));
    }
    if let Some(budget) = device.tx_budget {
        if !(32..=entries).contains(&budget) {
            return Err(Failure::usage(format!(
                "--tx-budget {budget}: it is 32 to the ring's {entries}; choose it in that range, or a larger --ring-size"
            )));
        }
    }
    Ok(XskConfig {
        rings: RingSizes { fill: entries, rx: entries, tx: entries, completion: entries },
        zero_copy: match (device.copy, device.zero_copy) {
            (true, _) => ZeroCopy::Off,
            (false, ZeroCopyWish::Require) => ZeroCopy::Require,
            (false, ZeroCopyWish::Prefer) => ZeroCopy::Prefer,
        },
        need_wakeup: device.need_wakeup == OnOff::On,
        busy_poll: device.busy_poll.map(|budget| BusyPoll {
            budget: budget.into(),
            time_us: BUSY_POLL_US,
            // Preferring it stalls zero-copy sending where another NAPI instance sends than receives (virtio_net, igb).
            prefer: false,
        }),
        tx_budget: device.tx_budget,
        ..XskConfig::default()
    })
}

fn open_namespace(name: &str) -> Result<Namespace, Failure> {
    let namespace = match name.parse() {
        Ok(pid) => Namespace::of_process(pid),
        Err(_) => Namespace::named(name),
    };
    Ok(namespace?)
}

/// The interfaces named, each once, as they are now. To be called in their namespace.
fn look_up(device: &Device) -> Result<Vec<Interface>, Failure> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for spec in &device.interfaces {
        if interfaces.iter().any(|known| known.name == spec.name) {
            continue;
        }
        let interface = Interface::named(&spec.name).map_err(|error| {
            if !error.is_absent() {
                return error.into();
            }
            let known = Interface::all().unwrap_or_default();
            let known: Vec<_> = known.iter().map(|one| one.name.as_str()).collect();
            let place = device.netns.as_ref().map_or("here".into(), |name| format!("in namespace {name}"));
            Failure::usage(format!(
                "use {}: no such interface {place}; there are: {}",
                spec.name,
                known.join(", ")
            ))
        })?;
        if !interface.up {
            return Err(Failure::new(
                Code::Runtime,
                format!("use {0}: it is down; set it up (`ip link set {0} up`)", spec.name),
            ));
        }
        if !device.force {
            if let Some(reason) = route::lock_out(&interface)? {
                return Err(Failure::usage(format!(
                    "use {}: it {reason}; take another interface, or say --force if nothing depends on it",
                    spec.name
                )));
            }
        }
        interfaces.push(interface);
    }
    Ok(interfaces)
}

/// The ports of each worker.
fn places(
    wish: &Wish,
    device: &Device,
    interfaces: &[Interface],
) -> Result<Vec<Vec<(String, u32)>>, Failure> {
    let mut sides = Vec::new();
    for spec in &device.interfaces {
        let interface =
            interfaces.iter().find(|one| one.name == spec.name).expect("every interface was looked up");
        let has = interface.queues()?;
        // A veth, and most cards, have as many of each; a socket can be bound to any that is of either direction.
        let has = has.rx.max(has.tx);
        let wanted = spec.queues.as_ref().unwrap_or(&device.queues);
        let queues = match wanted {
            Queues::All => (0..has).collect(),
            Queues::Some(queues) => queues.clone(),
        };
        if let Some(queue) = queues.iter().find(|queue| **queue >= has) {
            let there = if has == 1 {
                "it has 1, number 0".to_string()
            } else {
                format!("it has {has}, 0 to {}", has - 1)
            };
            return Err(Failure::usage(format!(
                "use {} queue {queue}: no such queue; {there} (`ethtool -L` changes that)",
                spec.name
            )));
        }
        sides.push(queues.into_iter().map(|queue| (spec.name.clone(), queue)).collect::<Vec<_>>());
    }
    let all: Vec<_> = sides.iter().flatten().collect();
    if let Some(i) = (1..all.len()).find(|i| all[..*i].contains(&all[*i])) {
        let (name, queue) = all[i];
        return Err(Failure::usage(format!(
            "--iface: {name} queue {queue} is named twice; name each queue once, as in --iface {name}:0 --iface {name}:1"
        )));
    }
    if wish.ports == 1 {
        return Ok(sides.into_iter().flatten().map(|port| vec![port]).collect());
    }
    match &sides[..] {
        [one, other] if one.len() == other.len() => {
            Ok(one.iter().zip(other).map(|(one, other)| vec![one.clone(), other.clone()]).collect())
        }
        [one, other] => Err(Failure::usage(format!(
            "--queues: {} has {} and {} has {} to forward between; name as many of each (--iface IFACE:QUEUES)",
            device.interfaces[0].name,
            one.len(),
            device.interfaces[1].name,
            other.len(),
        ))),
        [one] if one.len() >= 2 && one.len() % 2 == 0 => Ok(one.chunks(2).map(<[_]>::to_vec).collect()),
        _ => Err(Failure::usage(
            "--iface: forward needs two sides; name two interfaces (--iface A --iface B), or an even number of queues",
        )),
    }
}

/// The smallest layout that serves: chunks as large as the MTU needs, as many as all rings hold at once.
fn layout(
    wish: &Wish,
    device: &Device,
    xsk: &XskConfig,
    interfaces: &[Interface],
    workers: usize,
) -> Result<Layout, Failure> {
    let receives = device.rules.is_some() || wish.rules.is_some();
    let longest = interfaces.iter().max_by_key(|interface| interface.mtu).expect("at least one interface");
    let needed = if receives { longest.mtu + HEADER } else { wish.packet_size.unwrap_or(0) };
    let with_tag = if receives { needed + VLAN_TAG } else { needed };
    let small = Layout::new(2048, 1)?.packet_max();
    let chunk_size = device.chunk_size.unwrap_or(if with_tag <= small { 2048 } else { 4096 });

    let ports = wish.ports as u64;
    let ring = u64::from(xsk.rings.fill);
    let each = ports * (ring + u64::from(xsk.rings.tx)) + u64::from(device.burst);
    let least = ports + ports * u64::from(xsk.rings.tx) + 1;
    let chunks = match device.chunks {
        None => each * workers as u64,
        Some(chunks) if u64::from(chunks) / workers as u64 >= least => chunks.into(),
        Some(chunks) => {
            return Err(Failure::usage(format!(
                "--chunks {chunks}: each of {workers} worker(s) needs {ports} to receive into + {} in tx rings + 1 in hand = \
                 {least}, better {each}; take {} or more, or a smaller --ring-size",
                ports * u64::from(xsk.rings.tx),
                least * workers as u64,
            )));
        }
    };
    let layout = Layout::new(chunk_size, u32::try_from(chunks).unwrap_or(u32::MAX))?;
    if receives && needed > layout.packet_max() {
        return Err(Failure::usage(format!(
            "receive on {} (MTU {}): a packet of {needed} bytes does not fit a chunk of {chunk_size} ({} after headroom); \
             lower the MTU{}",
            longest.name,
            longest.mtu,
            layout.packet_max(),
            if chunk_size < 4096 { ", or take --chunk-size 4096" } else { "" },
        )));
    }
    Ok(layout)
}

fn check_packet_size(wish: &Wish, layout: &Layout, interfaces: &[Interface]) -> Result<(), Failure> {
    let Some(size) = wish.packet_size else { return Ok(()) };
    let shortest = interfaces.iter().min_by_key(|interface| interface.mtu).expect("at least one interface");
    let most = shortest.mtu + HEADER + VLAN_TAG;
    if size > most {
        return Err(Failure::usage(format!(
            "--packet-size {size}: {} sends {most} bytes at most (MTU {}); take a smaller size, or raise the MTU",
            shortest.name, shortest.mtu
        )));
    }
    if size > layout.packet_max() {
        return Err(Failure::usage(format!(
            "--packet-size {size}: a chunk of {} takes {}; take a smaller size{}",
            layout.chunk_size(),
            layout.packet_max(),
            if layout.chunk_size() < 4096 { ", or --chunk-size 4096" } else { "" },
        )));
    }
    Ok(())
}

/// The privileges missing, which is an error unless the plan is only printed.
fn check_privileges(other_namespace: bool, dry_run: bool) -> Result<Vec<Cap>, Failure> {
    let needed = [Cap::NetRaw, Cap::NetAdmin, Cap::Bpf, Cap::SysAdmin];
    let needed = if other_namespace { &needed[..] } else { &needed[..3] };
    let missing = cpu::missing(needed)?;
    if missing.is_empty() || dry_run {
        return Ok(missing);
    }
    Err(Failure::new(Code::Environment, format!("use AF_XDP: {}", lacking(&missing))))
}

/// Which capabilities are missing and how to get them, in a line.
fn lacking(missing: &[Cap]) -> String {
    let names: Vec<_> = missing.iter().map(|cap| cap.name()).collect();
    let program = std::env::current_exe().map_or("xdp-apps".into(), |path| path.display().to_string());
    format!(
        "no {}; run as root, or once: sudo setcap {}+ep {program}",
        names.join(", "),
        names.join(",").to_lowercase()
    )
}

/// Whether the memory-lock limit, raised as far as we may, leaves room for every socket's registration.
fn check_memory_lock(setup: &Setup) -> Result<(), Failure> {
    if cpu::missing(&[Cap::IpcLock])?.is_empty() {
        return Ok(());
    }
    let limit = MemlockLimit::raise().or_else(|_| MemlockLimit::read())?;
    let sockets: usize = setup.seats.iter().map(|seat| seat.ports.len()).sum();
    let needed = setup.layout.len() as u64 * sockets as u64;
    if needed <= limit.soft {
        return Ok(());
    }
    Err(Failure::new(
        Code::Environment,
        format!(
            "lock {} KiB ({sockets} socket(s) of {} KiB): the memory-lock limit is {} KiB; raise it (ulimit -l), take a smaller \
             --ring-size or fewer --chunks, or grant CAP_IPC_LOCK",
            needed / 1024,
            setup.layout.len() / 1024,
            limit.soft / 1024,
        ),
    ))
}

/// The interface's first IPv4 address.
pub(crate) fn own_address(plan: &Plan, interface: &Interface) -> Result<Option<Ipv4Addr>, Failure> {
    let addresses = within(plan.setup.namespace.as_ref(), || interface.addresses())??;
    Ok(addresses.into_iter().find_map(|(ip, _)| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }))
}

/// The card that the kernel's neighbour table knows for an address behind an interface.
pub(crate) fn neighbour(plan: &Plan, interface: &Interface, ip: Ipv4Addr) -> Result<Option<Mac>, Failure> {
    let table = within(plan.setup.namespace.as_ref(), || fs::read_to_string("/proc/thread-self/net/arp"))?;
    Ok(neighbour_in(&table.unwrap_or_default(), &interface.name, ip))
}

fn neighbour_in(table: &str, interface: &str, ip: Ipv4Addr) -> Option<Mac> {
    const COMPLETE: u32 = 2; // ATF_COM
    table.lines().skip(1).find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [address, _, flags, mac, _, device] = words[..] else { return None };
        let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
        let found = address.parse() == Ok(ip) && device == interface && flags & COMPLETE != 0;
        if found { mac.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_neighbour_table_is_read_for_the_interface_and_only_complete_entries() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.0.0.2         0x1         0x0         00:00:00:00:00:00     *        eth1\n\
                     10.0.0.2         0x1         0x2         02:00:00:00:00:0a     *        eth2\n\
                     10.0.0.3         0x1         0x6         02:00:00:00:00:0b     *        eth1\n";
        let find = |interface, last| neighbour_in(table, interface, Ipv4Addr::new(10, 0, 0, last));
        assert_eq!(find("eth1", 2), None);
        assert_eq!(find("eth2", 2), Some(Mac([2, 0, 0, 0, 0, 0xa])));
        assert_eq!(find("eth1", 3), Some(Mac([2, 0, 0, 0, 0, 0xb])));
        assert_eq!(find("eth1", 4), None);
    }

    #[test]
    fn missing_privileges_are_named_with_the_command_that_grants_them() {
        let text = lacking(&[Cap::NetRaw, Cap::Bpf]);
        assert!(text.starts_with("no CAP_NET_RAW, CAP_BPF; run as root"), "{text}");
        assert!(text.contains("setcap cap_net_raw,cap_bpf+ep "), "{text}");
    }
}
