//! What a driver can do for XDP, its queues and NAPI instances: generic netlink's family `netdev`.
//!
//! The family came with Linux 6.3 and grew since (`Documentation/netlink/specs/netdev.yaml`). What a kernel does not
//! know yet is `None`, never an error.
#![forbid(unsafe_code)]

use super::Error;
use super::netlink::{ACKED, Answer, Attributes, DUMP, Refusal, Request, Socket};
use alloc::format;
use alloc::vec::Vec;
use xdp_umem::Errno;

/// A family of generic netlink, with the number this kernel gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its message type.
    pub id: u16,
    /// Its version.
    pub version: u8,
}

impl Family {
    /// Looks a family up by name; `None` if the kernel has none of that name. Costs one exchange.
    pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Self>, Error> {
        const GENL_ID_CTRL: u16 = 16;
        const CTRL_CMD_GETFAMILY: u8 = 3;
        const CTRL_ATTR_FAMILY_ID: u16 = 1;
        const CTRL_ATTR_FAMILY_NAME: u16 = 2;
        const CTRL_ATTR_VERSION: u16 = 3;
        let request =
            Request::generic(GENL_ID_CTRL, ACKED, CTRL_CMD_GETFAMILY, 1).text(CTRL_ATTR_FAMILY_NAME, name);
        let answers = match socket.ask(request) {
            Err(Refusal { errno: Errno::ENOENT, .. }) => return Ok(None),
            answers => answers.map_err(|refusal| refusal.of("look up netlink family", name))?,
        };
        let family = answers.iter().find_map(|answer| {
            let attributes = attributes(answer);
            let id = attributes.uint(CTRL_ATTR_FAMILY_ID)?.try_into().ok()?;
            Some(Self { id, version: attributes.uint(CTRL_ATTR_VERSION)?.try_into().ok()? })
        });
        family.map(Some).ok_or_else(|| Error::new("look up netlink family", name, Errno::EPROTO))
    }

    /// A request to this family.
    pub fn request(self, flags: u16, command: u8) -> Request {
        Request::generic(self.id, flags, command, self.version)
    }
}

/// The attributes of a generic netlink message.
pub(super) fn attributes(answer: &Answer) -> Attributes<'_> {
    Attributes::parse(&answer.payload, 4)
}

/// What an interface's driver offers to XDP (`dev-get`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct XdpFeatures {
    /// The bits of `enum netdev_xdp_act`; see the constants. They may change when a program is attached.
    pub features: u64,
    /// The most fragments of a zero-copy packet, 1 for none; only with [`ZERO_COPY`](Self::ZERO_COPY). Since 6.6.
    pub zero_copy_segments_max: Option<u32>,
    /// What a program can ask of a received packet: timestamp 1, hash 2, VLAN tag 4. Since 6.7.
    pub rx_metadata: Option<u64>,
    /// What a socket can ask of a sent packet: timestamp 1, checksum 2, launch time 4. Since 6.8.
    pub xsk_features: Option<u64>,
}

impl XdpFeatures {
    /// Native programs may pass, drop, abort and send back.
    pub const BASIC: u64 = 1;
    /// They may redirect.
    pub const REDIRECT: u64 = 2;
    /// Packets may be redirected to it.
    pub const NDO_XMIT: u64 = 4;
    /// AF_XDP zero-copy.
    pub const ZERO_COPY: u64 = 8;
    /// Programs may run in the hardware.
    pub const HW_OFFLOAD: u64 = 16;
    /// Packets of several buffers arrive whole.
    pub const RX_FRAGMENTS: u64 = 32;
    /// Packets of several buffers may be redirected to it.
    pub const NDO_XMIT_FRAGMENTS: u64 = 64;

    /// Whether the driver has all these bits.
    pub const fn has(&self, bits: u64) -> bool {
        self.features & bits == bits
    }
}

/// Which direction a queue is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// It receives.
    Rx,
    /// It transmits.
    Tx,
}

/// One queue of an interface (`queue-get`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// Its number among those of its direction.
    pub id: u32,
    /// Its direction.
    pub kind: QueueKind,
    /// The NAPI instance that serves it; `None` where the driver does not say.
    pub napi_id: Option<u32>,
    /// Whether an AF_XDP socket is bound to it. Always `false` before Linux 6.15, which cannot say.
    pub xsk_bound: bool,
}

/// One NAPI instance (`napi-get`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Napi {
    /// Its id, what `SO_INCOMING_NAPI_ID` gives.
    pub id: u32,
    /// Its interrupt, if the driver says.
    pub irq: Option<u32>,
    /// The process id of its thread, if it is threaded.
    pub pid: Option<u32>,
    /// How many empty polls before interrupts are turned on again. Since 6.13.
    pub defer_hard_irqs: Option<u32>,
    /// How long it may sleep with packets not yet handed up, in nanoseconds. Since 6.13.
    pub gro_flush_timeout_ns: Option<u64>,
    /// How long a busy-polling user may keep interrupts off, in nanoseconds. Since 6.13.
    pub irq_suspend_timeout_ns: Option<u64>,
    /// Polled by a kernel thread (1), or by one that never sleeps (2, since 6.19). Since 6.17.
    pub threaded: Option<u32>,
}

/// What the interface's driver offers to XDP; `None` before Linux 6.3. Costs two exchanges.
///
/// # Errors
/// `ENODEV` if there is no such interface.
pub fn xdp_features(index: u32) -> Result<Option<XdpFeatures>, Error> {
    const DEV_GET: u8 = 1;
    const DEV_IFINDEX: u16 = 1;
    let answers = ask(index, ACKED, DEV_GET, DEV_IFINDEX)?;
    let parse = |attributes: Attributes<'_>| {
        let zero_copy_segments_max = attributes.u32(4);
        let (rx_metadata, xsk_features) = (attributes.uint(5), attributes.uint(6));
        Some(XdpFeatures { features: attributes.uint(3)?, zero_copy_segments_max, rx_metadata, xsk_features })
    };
    Ok(answers.and_then(|answers| answers.iter().find_map(|answer| parse(attributes(answer)))))
}

/// The interface's queues in use; `None` before Linux 6.8. An interface that is down has none. Costs two exchanges.
pub fn queues(index: u32) -> Result<Option<Vec<Queue>>, Error> {
    const QUEUE_GET: u8 = 10;
    const QUEUE_IFINDEX: u16 = 2;
    let parse = |attributes: Attributes<'_>| {
        let kind = if attributes.u32(3)? == 0 { QueueKind::Rx } else { QueueKind::Tx };
        let (napi_id, xsk_bound) = (attributes.u32(4), attributes.find(7).is_some());
        Some(Queue { id: attributes.u32(1)?, kind, napi_id, xsk_bound })
    };
    list(index, QUEUE_GET, QUEUE_IFINDEX, parse)
}

/// The interface's NAPI instances; `None` before Linux 6.8. Costs two exchanges.
pub fn napis(index: u32) -> Result<Option<Vec<Napi>>, Error> {
    const NAPI_GET: u8 = 11;
    const NAPI_IFINDEX: u16 = 1;
    let parse = |attributes: Attributes<'_>| {
        Some(Napi {
            id: attributes.u32(2)?,
            irq: attributes.u32(3),
            pid: attributes.u32(4),
            defer_hard_irqs: attributes.u32(5),
            gro_flush_timeout_ns: attributes.uint(6),
            irq_suspend_timeout_ns: attributes.uint(7),
            threaded: attributes.u32(8),
        })
    };
    list(index, NAPI_GET, NAPI_IFINDEX, parse)
}

/// What is to be set of a NAPI instance; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NapiSettings {
    /// How many empty polls before interrupts are turned on again. With the timeout below it keeps interrupts off while
    /// somebody busy-polls.
    pub defer_hard_irqs: Option<u32>,
    /// After how many nanoseconds without a poll the interrupt's work is done after all: longer than the longest pause between
    /// two polls of ours.
    pub gro_flush_timeout_ns: Option<u64>,
    /// How long a busy-polling user may keep interrupts off although no packet came, in nanoseconds.
    pub irq_suspend_timeout_ns: Option<u64>,
    /// Whether a kernel thread polls it, instead of the softirq.
    pub threaded: Option<bool>,
}

impl NapiSettings {
    /// Whether everything that is to be set is so in `found`.
    pub fn holds_in(&self, found: &Napi) -> bool {
        self.beyond(found) == Self::default()
    }

    /// What of it is not so in `found`.
    pub(super) fn beyond(&self, found: &Napi) -> Self {
        let had = found.settings();
        Self {
            defer_hard_irqs: self.defer_hard_irqs.filter(|value| had.defer_hard_irqs != Some(*value)),
            gro_flush_timeout_ns: self
                .gro_flush_timeout_ns
                .filter(|value| had.gro_flush_timeout_ns != Some(*value)),
            irq_suspend_timeout_ns: self
                .irq_suspend_timeout_ns
                .filter(|value| had.irq_suspend_timeout_ns != Some(*value)),
            threaded: self.threaded.filter(|value| had.threaded != Some(*value)),
        }
    }
}

impl Napi {
    /// What of it can be set, as it is.
    pub fn settings(&self) -> NapiSettings {
        NapiSettings {
            defer_hard_irqs: self.defer_hard_irqs,
            gro_flush_timeout_ns: self.gro_flush_timeout_ns,
            irq_suspend_timeout_ns: self.irq_suspend_timeout_ns,
            threaded: self.threaded.map(|how| how != 0),
        }
    }
}

/// Sets a NAPI instance of the calling thread's namespace (`napi-set`); what is `None` stays. Does not read back. Since
/// Linux 6.13, `threaded` since 6.17. Costs two exchanges.
///
/// # Errors
/// `EOPNOTSUPP` where the kernel does not know the command or one of the values, `ENOENT` if there is no such instance,
/// `EPERM` without CAP_NET_ADMIN, `ERANGE` or `EINVAL` for a value out of range.
pub fn set_napi(id: u32, wanted: &NapiSettings) -> Result<(), Error> {
    const NAPI_SET: u8 = 14;
    let object = format!("NAPI instance {id}");
    let mut socket = Socket::generic()?;
    let Some(family) = Family::find(&mut socket, "netdev")? else {
        return Err(Error::new("set", object, Errno::EOPNOTSUPP).saying("needs Linux 6.13"));
    };
    let mut request = family.request(ACKED, NAPI_SET).u32(2, id);
    if let Some(value) = wanted.defer_hard_irqs {
        request = request.u32(5, value);
    }
    for (kind, value) in [(6, wanted.gro_flush_timeout_ns), (7, wanted.irq_suspend_timeout_ns)] {
        if let Some(value) = value {
            request = request.u64(kind, value);
        }
    }
    if let Some(threaded) = wanted.threaded {
        request = request.u32(8, threaded.into());
    }
    socket.run("set", object, request).map(drop)
}

fn list<T>(
    index: u32,
    command: u8,
    ifindex: u16,
    parse: impl Fn(Attributes<'_>) -> Option<T>,
) -> Result<Option<Vec<T>>, Error> {
    let answers = ask(index, DUMP, command, ifindex)?;
    Ok(answers.map(|answers| answers.iter().filter_map(|answer| parse(attributes(answer))).collect()))
}

/// Asks family `netdev` about an interface; `None` if the family or the command is not there.
fn ask(index: u32, flags: u16, command: u8, ifindex: u16) -> Result<Option<Vec<Answer>>, Error> {
    let mut socket = Socket::generic()?;
    let Some(family) = Family::find(&mut socket, "netdev")? else { return Ok(None) };
    match socket.ask(family.request(flags, command).u32(ifindex, index)) {
        Err(Refusal { errno: Errno::EOPNOTSUPP, .. }) => Ok(None),
        answers => answers
            .map(Some)
            .map_err(|refusal| refusal.of("read XDP features of", format!("interface {index}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_family_knows_itself_and_not_others() {
        let mut socket = Socket::generic().unwrap();
        assert_eq!(Family::find(&mut socket, "nlctrl").unwrap().unwrap().id, 16);
        assert_eq!(Family::find(&mut socket, "nosuchfamily").unwrap(), None);
    }

    #[test]
    fn loopback_offers_nothing_to_xdp() {
        match xdp_features(1).unwrap() {
            Some(found) => assert_eq!(found.features, 0, "lo has no native XDP"),
            None => std::println!("skipped: the kernel has no netlink family netdev (before Linux 6.3)"),
        }
        assert!(queues(1).unwrap().is_none_or(|queues| queues.iter().all(|queue| !queue.xsk_bound)));
    }
}
