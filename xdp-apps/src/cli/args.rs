//! What was typed: every option, by one name and one meaning in all commands. [`plan`](super::plan) makes sense of it.
#![forbid(unsafe_code)]

use super::units::{self, Cores, InterfaceSpec, Queues};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::Ipv4Addr;
use std::time::Duration;
use xdp_core::wire::Mac;
use xdp_core::{HugePages, Idle, Mode, Rules};

const AFTER_HELP: &str = "\
Two hosts on one wire, each in a terminal of its own:
  xdp-apps reflect --netns b --iface vb
  xdp-apps ping    --netns a --iface va --dst-mac 02:00:00:00:00:0b --count 100k --rate 10k

Every option that takes a value can also be set by a variable: --ring-size by XDP_APPS_RING_SIZE, and so on.
Exit codes: 0 done, 1 run-time error, 2 usage, 3 privilege or feature missing, 4 finished but incomplete, 130 interrupted.";

/// Packets through AF_XDP: ping, reflect, forward, drop and generate them.
#[derive(Debug, Parser)]
#[command(name = "xdp-apps", version, max_term_width = 110, after_help = AFTER_HELP)]
#[command(disable_help_subcommand = true, infer_long_args = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands. A new one is a variant here, its arguments and a `run` in a file of its own, and an arm in `main`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Ping(Ping),
    Reflect(Reflect),
    Forward(Forward),
    Drop(Drop),
    Generate(Generate),
    Demo(super::demo::Demo),
    Contract(super::contract::ContractArgs),
    Doctor(super::doctor::DoctorArgs),
    Restore(Restore),
    #[command(subcommand)]
    Testbed(super::testbed::Testbed),
    PingDemo(super::testbed::PingDemo),
    Completions(Completions),
    Man(Man),
}

/// Send probes on a schedule, and measure how long each takes to come back.
///
/// The schedule is open: a reply that is late delays nobody. Only what answers the probes is taken from the interface; all
/// other traffic stays with the host. The other end runs `reflect`. Exits with 4 if a probe was lost.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdp-apps ping --iface eth1 --dst-mac 02:00:00:00:00:0b --count 1M --rate 100k
  xdp-apps ping --iface eth1 --dst-ip 10.0.0.2 --duration 10s --interval 1ms --packet-size 1400
  xdp-apps ping --iface eth1 --dst-ip 10.0.0.2 --count 100k --interval 0     one in flight, as fast as it goes")]
pub(crate) struct Ping {
    #[command(flatten)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    #[command(flatten)]
    pub(crate) packet: Packet,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) run: Run,

    /// Probes sent first and left out of the results
    #[arg(long, value_name = "N", env = "XDP_APPS_WARM_UP", value_parser = units::count, default_value = "1000")]
    pub(crate) warm_up: u64,

    /// Probes that may be on their way at once; further ones are sent late, and counted as late
    #[arg(long, value_name = "N", env = "XDP_APPS_IN_FLIGHT", value_parser = units::positive_count)]
    pub(crate) in_flight: Option<u64>,
}

/// Send every packet back to where it came from.
///
/// Swaps MAC addresses, and in UDP packets addresses and ports; answers ICMP and ICMPv6 echo requests.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdp-apps reflect --iface eth1 --queues all --cpu 2,3
  xdp-apps reflect --iface eth1 --match 'udp port 9000 or icmp' --idle adaptive")]
pub(crate) struct Reflect {
    #[command(flatten)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// Carry packets between two interfaces, or between two queues.
///
/// Both sides lie on one UMEM: no byte is copied in user space. Queue i of the first interface pairs with queue i of the
/// second, a worker for each pair. Checksums that a veth's sender left to the hardware are finished on the way.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdp-apps forward --iface eth1 --iface eth2
  xdp-apps forward --iface eth1 --iface eth2 --queues 0-1 --cpu 2,3
  xdp-apps forward --iface eth1:0 --iface eth1:1                               two queues of one interface

In skb mode a sender's TCP may arrive in aggregates longer than a chunk, which are dropped and counted (rx_dropped):
switch its segmentation offloads off (tso, gso). Native mode does so by itself on a veth.")]
pub(crate) struct Forward {
    #[command(flatten)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) run: Run,

    /// Write this destination into what is forwarded (else it stays as it is)
    #[arg(long, value_name = "MAC", env = "XDP_APPS_DST_MAC")]
    pub(crate) dst_mac: Option<Mac>,

    /// Write this source into what is forwarded (else it stays as it is)
    #[arg(long, value_name = "MAC", env = "XDP_APPS_SRC_MAC")]
    pub(crate) src_mac: Option<Mac>,

    /// Finish checksums that senders left to the hardware: where the field holds the pseudo-header's sum
    #[arg(long, value_name = "WHEN", env = "XDP_APPS_FIX_CHECKSUMS", default_value = "auto")]
    pub(crate) fix_checksums: FixChecksums,
}

/// Receive and drop packets, and count them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdp-apps drop --iface eth1 --duration 10s --json
  xdp-apps drop --iface eth1 --match 'udp port 9000' --count 1M")]
pub(crate) struct Drop {
    #[command(flatten)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// Send UDP packets, as fast as they go or at a pace.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdp-apps generate --iface eth1 --dst-mac 02:00:00:00:00:0b --duration 10s
  xdp-apps generate --iface eth1 --dst-ip 10.0.0.2 --count 1M --rate 100k --packet-size 1400")]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    #[command(flatten)]
    pub(crate) packet: Packet,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// Put back what a run that was killed left changed on this host.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdp-apps restore            lists, asks, restores
  xdp-apps restore --yes")]
pub(crate) struct Restore {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,

    /// Only list what there is
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

/// Print a shell's completions.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  xdp-apps completions bash > /etc/bash_completion.d/xdp-apps")]
pub(crate) struct Completions {
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual page.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  xdp-apps man > /usr/share/man/man1/xdp-apps.1")]
pub(crate) struct Man {
    /// The page of this command, instead of the whole program's
    pub(crate) command: Option<String>,
}

/// Interfaces, sockets, memory and cores.
#[derive(Debug, Args)]
#[command(next_help_heading = "Interface and socket")]
pub(crate) struct Device {
    /// The interface, perhaps with its queues (eth1:0-3); give it twice to forward between two
    #[arg(
        long = "iface",
        value_name = "IFACE[:QUEUES]",
        required = true,
        env = "XDP_APPS_IFACE",
        value_delimiter = ' '
    )]
    pub(crate) interfaces: Vec<InterfaceSpec>,

    /// Its queues, a worker on a core of its own for each: 0, 0-3, 0,2 or all
    #[arg(
        long = "queues",
        visible_alias = "queue",
        value_name = "QUEUES",
        env = "XDP_APPS_QUEUES",
        default_value = "0"
    )]
    pub(crate) queues: Queues,

    /// The network namespace it is in: a name (ip netns), or a process id
    #[arg(long, value_name = "NAME", env = "XDP_APPS_NETNS")]
    pub(crate) netns: Option<String>,

    /// Where the XDP program runs: native (in the driver) or skb (anywhere, slower)
    #[arg(long, value_name = "MODE", env = "XDP_APPS_MODE", default_value = "native")]
    pub(crate) mode: Mode,

    /// Copy packets between the device and the UMEM, even where the driver need not
    #[arg(long, conflicts_with = "zero_copy")]
    pub(crate) copy: bool,

    /// Do not copy: require fails where the driver cannot, prefer says what was granted
    #[arg(long, value_name = "WISH", env = "XDP_APPS_ZERO_COPY", default_value = "prefer")]
    pub(crate) zero_copy: ZeroCopyWish,

    /// Let the driver say when it needs waking
    #[arg(long, value_name = "ON|OFF", env = "XDP_APPS_NEED_WAKEUP", default_value = "on")]
    pub(crate) need_wakeup: OnOff,

    /// Poll the device from our own system calls, up to so many packets a call
    #[arg(long, value_name = "BUDGET", env = "XDP_APPS_BUSY_POLL", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) busy_poll: Option<u16>,

    /// Which packets leave the host's stack: all, 'udp port 9000 or icmp', 'vlan 7 and ip6', ... [default: ping: its replies;
    /// generate: none; others: all]
    #[arg(long = "match", value_name = "RULES", env = "XDP_APPS_MATCH")]
    pub(crate) rules: Option<Rules>,

    /// Entries of each ring, a power of two
    #[arg(long, value_name = "ENTRIES", env = "XDP_APPS_RING_SIZE", value_parser = units::size, default_value = "2048")]
    pub(crate) ring_size: u32,

    /// Packets a worker handles at once
    #[arg(long, value_name = "N", env = "XDP_APPS_BURST", default_value = "64", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) burst: u32,

    /// Packets a send call moves in copy mode, 32 to the ring's size (Linux 6.17) [default: the ring's size]
    #[arg(long, value_name = "N", env = "XDP_APPS_TX_BUDGET")]
    pub(crate) tx_budget: Option<u32>,

    /// Bytes of a chunk, 2048 or 4096 [default: what the MTU needs]
    #[arg(long, value_name = "BYTES", env = "XDP_APPS_CHUNK_SIZE", value_parser = units::size, help_heading = "Memory and cores")]
    pub(crate) chunk_size: Option<u32>,

    /// Chunks in all [default: what the rings can hold]
    #[arg(long, value_name = "N", env = "XDP_APPS_CHUNKS", value_parser = units::size, help_heading = "Memory and cores")]
    pub(crate) chunks: Option<u32>,

    /// Put the packets on 2 MiB pages
    #[arg(
        long,
        value_name = "WISH",
        env = "XDP_APPS_HUGE_PAGES",
        default_value = "prefer",
        help_heading = "Memory and cores"
    )]
    pub(crate) huge_pages: HugePagesWish,

    /// The cores of the workers, in their order [default: the last ones that no other xdp-apps has]
    #[arg(long, value_name = "CORES", env = "XDP_APPS_CPU", help_heading = "Memory and cores")]
    pub(crate) cpu: Option<Cores>,

    /// What a worker does when there is nothing to do
    #[arg(
        long,
        value_name = "HOW",
        env = "XDP_APPS_IDLE",
        default_value = "spin",
        help_heading = "Memory and cores"
    )]
    pub(crate) idle: IdleWish,

    /// Take an interface that carries the default route or your own connection
    #[arg(long)]
    pub(crate) force: bool,
}

/// Whom packets are from and to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Packets")]
pub(crate) struct Addresses {
    /// The receiver's card [default: what the neighbour table knows of --dst-ip]
    #[arg(long, value_name = "MAC", env = "XDP_APPS_DST_MAC")]
    pub(crate) dst_mac: Option<Mac>,

    /// The sender's card [default: the interface's]
    #[arg(long, value_name = "MAC", env = "XDP_APPS_SRC_MAC")]
    pub(crate) src_mac: Option<Mac>,

    /// The receiver [default: 198.18.0.2]
    #[arg(long, value_name = "IP", env = "XDP_APPS_DST_IP")]
    pub(crate) dst_ip: Option<Ipv4Addr>,

    /// The sender [default: the interface's first address, else 198.18.0.1]
    #[arg(long, value_name = "IP", env = "XDP_APPS_SRC_IP")]
    pub(crate) src_ip: Option<Ipv4Addr>,

    /// The UDP port they go to
    #[arg(long, value_name = "PORT", env = "XDP_APPS_PORT", default_value = "9000", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,

    /// The VLAN they carry the tag of
    #[arg(long, value_name = "ID", env = "XDP_APPS_VLAN", value_parser = clap::value_parser!(u16).range(0..4095))]
    pub(crate) vlan: Option<u16>,
}

/// What packets look like.
#[derive(Debug, Args)]
#[command(next_help_heading = "Packets")]
pub(crate) struct Packet {
    /// Bytes of a packet, from its MAC addresses on
    #[arg(long, value_name = "BYTES", env = "XDP_APPS_PACKET_SIZE", value_parser = units::size, default_value = "64")]
    pub(crate) packet_size: u32,
}

/// How fast packets go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Packets")]
pub(crate) struct Pace {
    /// Time between two packets, over all queues; 0 is as fast as it goes [default: ping: 1ms; generate: 0]
    #[arg(long, value_name = "TIME", env = "XDP_APPS_INTERVAL", value_parser = units::duration, conflicts_with = "rate")]
    pub(crate) interval: Option<Duration>,

    /// Packets a second, over all queues
    #[arg(long, value_name = "PPS", env = "XDP_APPS_RATE", value_parser = units::rate)]
    pub(crate) rate: Option<u64>,
}

/// When it ends and what it prints.
#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub(crate) struct Run {
    /// Stop after this time [default: run until Ctrl-C]
    #[arg(long, value_name = "TIME", env = "XDP_APPS_DURATION", value_parser = units::positive_duration)]
    pub(crate) duration: Option<Duration>,

    /// Stop after so many packets
    #[arg(long, value_name = "N", env = "XDP_APPS_COUNT", value_parser = units::positive_count)]
    pub(crate) count: Option<u64>,

    /// Check everything, print what would be done, and touch nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print one JSON document on stdout
    #[arg(long, env = "XDP_APPS_JSON")]
    pub(crate) json: bool,

    /// Print the plan and every counter too
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Print results and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Put back, unasked, what killed runs left changed on this host (see restore)
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ZeroCopyWish {
    Require,
    Prefer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FixChecksums {
    Auto,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HugePagesWish {
    Off,
    Prefer,
    Require,
}

impl From<HugePagesWish> for HugePages {
    fn from(wish: HugePagesWish) -> Self {
        match wish {
            HugePagesWish::Off => Self::Off,
            HugePagesWish::Prefer => Self::Prefer,
            HugePagesWish::Require => Self::Require,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IdleWish {
    /// Look again at once
    Spin,
    /// Look again after a CPU's pause
    Pause,
    /// Sleep in poll(2)
    Poll,
    /// Spin for a while, then sleep
    Adaptive,
}

impl From<IdleWish> for Idle {
    fn from(wish: IdleWish) -> Self {
        match wish {
            IdleWish::Spin => Self::Spin,
            IdleWish::Pause => Self::Pause,
            IdleWish::Poll => Self::Poll,
            IdleWish::Adaptive => Self::Adaptive,
        }
    }
}
