//! Contract: what a driver really does with AF_XDP, found out on the very interface.
#![forbid(unsafe_code)]

use super::failure::{Code, Failure};
use super::out;
use clap::Args;
use serde::Serialize;
use xdp_core::netdev::genl::NapiSettings;
use xdp_core::netdev::journal::Journal;
use xdp_core::netdev::packet::PacketSender;
use xdp_core::netdev::{Interface, Namespace, Setting, tune};
use xdp_core::probe::{self, Contract, NeedWakeup, ProbeOptions};
use xdp_core::{BusyPoll, Mode, XskConfig};

/// Find out what a queue really does: whether kicks transmit, need_wakeup means anything, busy polling polls.
///
/// Binds sockets of its own for a second or two and sends under a hundred small packets to the interface's own address. With
/// --peer, packets are also received: a program then takes ethertype 0x88b5 alone. Changes no
/// setting but with --defer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdp-apps contract --iface eth1
  xdp-apps contract --netns a --iface va --peer vb --peer-netns b")]
pub(crate) struct ContractArgs {
    /// The interface
    #[arg(long = "iface", value_name = "IFACE", env = "XDP_APPS_IFACE")]
    pub(crate) interface: String,

    /// Its queue
    #[arg(long, value_name = "QUEUE", env = "XDP_APPS_QUEUES", default_value = "0")]
    pub(crate) queue: u32,

    /// The network namespace it is in: a name (ip netns), or a process id
    #[arg(long, value_name = "NAME", env = "XDP_APPS_NETNS")]
    pub(crate) netns: Option<String>,

    /// Where the XDP program runs: native or skb
    #[arg(long, value_name = "MODE", env = "XDP_APPS_MODE", default_value = "native")]
    pub(crate) mode: Mode,

    /// An interface of this machine on the same wire, to send packets from that are to be received
    #[arg(long, value_name = "IFACE")]
    pub(crate) peer: Option<String>,

    /// The network namespace the peer is in
    #[arg(long, value_name = "NAME", requires = "peer")]
    pub(crate) peer_netns: Option<String>,

    /// Defer interrupts meanwhile (napi_defer_hard_irqs 2, gro_flush_timeout 200 us), as busy polling wants it; put back after
    #[arg(long)]
    pub(crate) defer: bool,

    /// Probe an interface that the host hangs on, or that has addresses: its traffic stops for moments
    #[arg(long)]
    pub(crate) force: bool,

    /// Print one JSON document on stdout
    #[arg(long, env = "XDP_APPS_JSON")]
    pub(crate) json: bool,
}

/// Probes and prints.
pub(crate) fn run(args: &ContractArgs) -> Result<Code, Failure> {
    let peer = match &args.peer {
        Some(name) => {
            let on = || PacketSender::on(&Interface::named(name)?);
            Some(match &args.peer_netns {
                Some(namespace) => open_namespace(namespace)?.run(on)??,
                None => on()?,
            })
        }
        None => None,
    };
    if let Some(name) = &args.netns {
        open_namespace(name)?.enter()?;
    }
    let interface = Interface::named(&args.interface)?;
    let mut journal = None;
    if args.defer {
        let wanted = NapiSettings {
            defer_hard_irqs: Some(2),
            gro_flush_timeout_ns: Some(200_000),
            ..NapiSettings::default()
        };
        let journal = journal.insert(Journal::open()?);
        if let Setting::Unsupported(reason) = tune::set_napi(journal, &interface, None, &wanted)? {
            eprintln!("interrupts not deferred: {reason}");
        }
    }
    let mut send = |frame: &[u8]| peer.as_ref().is_some_and(|peer| peer.send(frame).is_ok());
    let options = ProbeOptions {
        queue: args.queue,
        mode: args.mode,
        traffic: if peer.is_some() { Some(&mut send) } else { None },
        insist: args.force,
    };
    let contract = probe::probe(&interface, options)?;
    if let Some(report) = journal.map(|mut journal| journal.restore()).filter(|report| !report.is_complete())
    {
        return Err(Failure::new(Code::Incomplete, format!("{report}run xdp-apps restore")));
    }
    if args.json {
        let text = serde_json::to_string_pretty(&ContractRow::of(&contract));
        out::print(text.map_err(|error| Failure::new(Code::Runtime, format!("write JSON: {error}")))?)?;
        return Ok(Code::Done);
    }
    // everything that can be asked for at once, to say what would be left out
    let all = XskConfig {
        busy_poll: Some(BusyPoll { budget: 64, time_us: 20, prefer: true }),
        ..XskConfig::default()
    };
    let notes: String = match all.under(&contract) {
        Ok((_, notes)) => notes.iter().map(|note| format!("note: {note}\n")).collect(),
        Err(error) => format!("note: {error}"),
    };
    out::print(format!("{contract}{notes}"))?;
    Ok(Code::Done)
}

pub(super) fn open_namespace(name: &str) -> Result<Namespace, Failure> {
    Ok(match name.parse() {
        Ok(process) => Namespace::of_process(process)?,
        Err(_) => Namespace::named(name)?,
    })
}

/// A contract for a document: null where it was not probed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ContractRow {
    interface: String,
    driver: Option<String>,
    queue: u32,
    zero_copy: bool,
    bind_us: u64,
    bind_again_us: u64,
    kick_completed_us: Option<u64>,
    need_wakeup: Option<&'static str>,
    napi_id: Option<u32>,
    busy_poll_effective: Option<bool>,
    prefer_busy_poll_stalls: Option<bool>,
    invalid_descriptor_comes_back: Option<bool>,
    receives: Option<bool>,
    pieces_in_2048_byte_chunks: Option<Vec<u32>>,
}

impl ContractRow {
    pub(super) fn of(contract: &Contract) -> Self {
        let busy_poll = contract.busy_poll.as_value();
        Self {
            interface: contract.interface.clone(),
            driver: contract.driver.clone(),
            queue: contract.queue,
            zero_copy: contract.zero_copy,
            bind_us: contract.binding.first_us,
            bind_again_us: contract.binding.again_us,
            kick_completed_us: contract.kick.as_value().and_then(|kick| kick.completed_us),
            need_wakeup: match contract.need_wakeup {
                Setting::Value(NeedWakeup::Honoured) => Some("honoured"),
                Setting::Value(NeedWakeup::Constant) => Some("constant"),
                Setting::Value(NeedWakeup::Never) => Some("never"),
                _ => None,
            },
            napi_id: busy_poll.and_then(|found| found.napi_id),
            busy_poll_effective: busy_poll.and_then(|found| found.is_effective()),
            prefer_busy_poll_stalls: contract.prefer_busy_poll.as_value().map(|found| found.stalls),
            invalid_descriptor_comes_back: contract
                .invalid_descriptor
                .as_value()
                .map(|found| found.comes_back),
            receives: contract.receiving.as_value().map(|found| found.arrives),
            pieces_in_2048_byte_chunks: contract.splitting.as_value().map(|found| found.pieces.clone()),
        }
    }
}
