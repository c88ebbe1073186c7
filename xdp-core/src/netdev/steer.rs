//! Steer: rules that send a flow to a receive queue before any hash is looked at (ethtool's ntuple).
//!
//! With all other queues left to the host, `udp dst-port 5000 -> queue 3` is how one flow reaches one AF_XDP socket. The
//! driver decides which kinds of rule it takes; most want the offload `ntuple` on first ([`NTUPLE`]).
#![forbid(unsafe_code)]

use super::change::{Change, Outcome, Undo};
use super::sys::{self, FlowSpec};
use super::tune::Place;
use super::{Error, Interface, Setting};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use xdp_umem::Errno;

/// The offload that receive rules need on most drivers.
pub const NTUPLE: &[&str] = &["rx-ntuple-filter"];

// struct ethtool_rx_flow_spec: what is where
const FLOW_TYPE: usize = 0;
const HEADER: usize = 4;
const HEADER_MASK: usize = 76;
const QUEUE: usize = 152;
const LOCATION: usize = 160;
/// `RX_CLS_FLOW_DISC`.
const DISCARD: u64 = u64::MAX;

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowKind {
    /// TCP over IPv4.
    Tcp4,
    /// UDP over IPv4.
    Udp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
    /// Any packet, by its ethertype.
    Ether,
}

impl FlowKind {
    const ALL: [(Self, u32, &'static str); 5] = [
        (Self::Tcp4, 1, "tcp4"),
        (Self::Udp4, 2, "udp4"),
        (Self::Tcp6, 5, "tcp6"),
        (Self::Udp6, 6, "udp6"),
        (Self::Ether, 0x12, "ether"),
    ];

    fn row(self) -> (Self, u32, &'static str) {
        *Self::ALL.iter().find(|row| row.0 == self).expect("each kind has its row")
    }

    /// Where source port, destination port, or the ethertype are in the header's union.
    fn offsets(self) -> (usize, usize) {
        match self {
            Self::Tcp4 | Self::Udp4 => (8, 10),
            Self::Tcp6 | Self::Udp6 => (32, 34),
            Self::Ether => (12, 12),
        }
    }
}

/// A flow: the packets of a kind with these ports, or with that ethertype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flow {
    /// What kind of packet.
    pub kind: FlowKind,
    /// With this source port; any, if not given.
    pub src_port: Option<u16>,
    /// With this destination port; any, if not given.
    pub dst_port: Option<u16>,
    /// With this ethertype, for [`FlowKind::Ether`] only.
    pub ether_type: Option<u16>,
}

impl Flow {
    /// UDP over IPv4 to that port.
    pub const fn udp4(dst_port: u16) -> Self {
        Self { kind: FlowKind::Udp4, src_port: None, dst_port: Some(dst_port), ether_type: None }
    }

    /// TCP over IPv4 to that port.
    pub const fn tcp4(dst_port: u16) -> Self {
        Self { kind: FlowKind::Tcp4, ..Self::udp4(dst_port) }
    }

    /// UDP over IPv6 to that port.
    pub const fn udp6(dst_port: u16) -> Self {
        Self { kind: FlowKind::Udp6, ..Self::udp4(dst_port) }
    }

    /// TCP over IPv6 to that port.
    pub const fn tcp6(dst_port: u16) -> Self {
        Self { kind: FlowKind::Tcp6, ..Self::udp4(dst_port) }
    }

    /// Any packet with that ethertype.
    pub const fn ether(ether_type: u16) -> Self {
        Self { kind: FlowKind::Ether, src_port: None, dst_port: None, ether_type: Some(ether_type) }
    }

    /// As the kernel wants it, for `queue`, at a place of the table.
    fn spec(&self, queue: u32, place: u32) -> FlowSpec {
        let mut spec = [0; 168];
        spec[FLOW_TYPE..][..4].copy_from_slice(&self.kind.row().1.to_ne_bytes());
        let (src, dst) = self.kind.offsets();
        let mut want = |offset: usize, value: Option<u16>| {
            if let Some(value) = value {
                spec[HEADER + offset..][..2].copy_from_slice(&value.to_be_bytes());
                spec[HEADER_MASK + offset..][..2].copy_from_slice(&[0xff; 2]);
            }
        };
        match self.kind {
            FlowKind::Ether => want(dst, self.ether_type),
            _ => {
                want(src, self.src_port);
                want(dst, self.dst_port);
            }
        }
        spec[QUEUE..][..8].copy_from_slice(&u64::from(queue).to_ne_bytes());
        spec[LOCATION..][..4].copy_from_slice(&place.to_ne_bytes());
        spec
    }

    /// The flow of a rule, if these fields say all of it.
    fn of(spec: &FlowSpec) -> Option<Self> {
        let kind = word(spec, FLOW_TYPE);
        let (kind, ..) = *FlowKind::ALL.iter().find(|row| row.1 == kind)?;
        let (src, dst) = kind.offsets();
        let half = |offset: usize| {
            let at = |base: usize| [spec[base + offset], spec[base + offset + 1]];
            (at(HEADER_MASK) == [0xff; 2]).then(|| u16::from_be_bytes(at(HEADER)))
        };
        let flow = match kind {
            FlowKind::Ether => Self { kind, src_port: None, dst_port: None, ether_type: half(dst) },
            _ => Self { kind, src_port: half(src), dst_port: half(dst), ether_type: None },
        };
        let again = flow.spec(0, 0);
        let same = |from: usize, to: usize| again[from..to] == spec[from..to];
        (same(HEADER_MASK, 148)).then_some(flow)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.row().2)?;
        for (name, value) in [("src-port", self.src_port), ("dst-port", self.dst_port)] {
            if let Some(value) = value {
                write!(f, " {name} {value}")?;
            }
        }
        self.ether_type.map_or(Ok(()), |kind| write!(f, " proto {kind:#06x}"))
    }
}

/// Where a rule leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To that receive queue.
    Queue(u32),
    /// Nowhere: its packets are dropped.
    Drop,
    /// To a virtual function or an RSS context.
    Other(u64),
}

/// A rule as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SteeringRule {
    /// Its place in the driver's table; the first that matches counts.
    pub place: u32,
    /// What it matches; `None` for a rule that looks at more than a [`Flow`] says.
    pub flow: Option<Flow>,
    /// Where it leads.
    pub target: Target,
}

impl SteeringRule {
    fn of(place: u32, spec: &FlowSpec) -> Self {
        let target = match u64::from_ne_bytes(spec[QUEUE..][..8].try_into().expect("eight bytes")) {
            DISCARD => Target::Drop,
            queue => u32::try_from(queue).map_or(Target::Other(queue), Target::Queue),
        };
        Self { place, flow: Flow::of(spec), target }
    }
}

impl Interface {
    /// The receive rules it has. A netlink exchange, and an ioctl for each rule.
    pub fn steering_rules(&self) -> Result<Setting<Vec<SteeringRule>>, Error> {
        let rules = self.by_ioctl("read", "receive rules", |socket, name| {
            let (places, _) = sys::rule_places(socket, name)?;
            let rule = |place| Ok(SteeringRule::of(place, &sys::rule_at(socket, name, place)?));
            places.into_iter().map(rule).collect()
        });
        Setting::of("receive rules", rules)
    }
}

/// A rule that sends a flow to a queue, as a change. It takes a free place, the highest, so that rules that were there
/// before it keep their precedence.
#[derive(Clone, Debug)]
pub struct Steer {
    interface: Interface,
    flow: Flow,
    queue: u32,
    spec: Option<FlowSpec>,
}

impl Steer {
    /// That flow, arriving on that interface, to that receive queue.
    pub fn new(interface: &Interface, flow: Flow, queue: u32) -> Self {
        Self { interface: interface.clone(), flow, queue, spec: None }
    }
}

impl Change for Steer {
    /// The rule's place.
    type Made = u32;

    fn prepare(&mut self) -> Result<Undo, Error> {
        let places = self.interface.by_ioctl("read", "receive rules", sys::rule_places);
        let (taken, len) = places.map_err(|error| match error.errno() {
            Errno::EOPNOTSUPP => {
                error.saying(format!("receive rules not supported by {}", self.interface.name))
            }
            _ => error,
        })?;
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let free = (0..len).rev().find(|place| !taken.contains(place)).ok_or_else(|| {
            let error = Error::new("add a receive rule to", &self.interface.name, Errno::ENOSPC);
            error
                .saying(format!("all {len} places are taken"))
                .remedy_is("delete one (ethtool -U DEV delete N)")
        })?;
        let spec = *self.spec.insert(self.flow.spec(self.queue, free));
        Ok(Undo::RemoveRule { at: Place::of(&self.interface), place: free, spec: spec.to_vec() })
    }

    fn apply(&mut self) -> Result<u32, Error> {
        if self.spec.is_none() {
            self.prepare()?;
        }
        let spec = self.spec.expect("prepared");
        let insert = |socket: &xdp_umem::Fd, name: &[u8; 16]| sys::insert_rule(socket, name, &spec);
        const KINDS: &str = "switch the offload ntuple on, or use a kind of rule that the driver has";
        self.interface.by_ioctl("add", "a receive rule", insert).map_err(|error| match error.errno() {
            Errno::EOPNOTSUPP => {
                let kind = self.flow.kind.row().2;
                error
                    .saying(format!("rules of kind {kind} not supported by {}", self.interface.name))
                    .remedy_is(KINDS)
            }
            Errno::EINVAL => error.remedy_is(KINDS),
            _ => error,
        })?;
        Ok(word(&spec, LOCATION))
    }

    fn verify(&self) -> Result<(), Error> {
        let Some(spec) = &self.spec else { return Ok(()) };
        let place = word(spec, LOCATION);
        let found = self
            .interface
            .by_ioctl("read", "a receive rule", |socket, name| sys::rule_at(socket, name, place))?;
        let found = SteeringRule::of(place, &found);
        if found == SteeringRule::of(place, spec) {
            return Ok(());
        }
        let error = Error::new("add a receive rule to", &self.interface.name, Errno::ERANGE);
        Err(error.saying(format!("reads back {found:?}")))
    }
}

/// Takes the rule at a place away if it is still the one we put there, for [`Undo::RemoveRule`].
pub(super) fn remove(at: &Place, place: u32, spec: &[u8]) -> Result<Outcome, Error> {
    let done = at.run(|interface| {
        interface.by_ioctl("remove", "a receive rule", |socket, name| {
            let ours = <FlowSpec>::try_from(spec).map_err(|_| Errno::EPROTO)?;
            match sys::rule_at(socket, name, place) {
                Ok(found) if SteeringRule::of(place, &found) == SteeringRule::of(place, &ours) => {
                    sys::delete_rule(socket, name, place).map(|()| Outcome::Undone)
                }
                Ok(_) | Err(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Outcome::AlreadyGone),
                Err(errno) => Err(errno),
            }
        })
    });
    match done {
        Err(error) if error.errno() == Errno::EPROTO => Err(error),
        Err(error) if error.is_absent() => Ok(Outcome::AlreadyGone),
        done => Ok(done?.unwrap_or(Outcome::AlreadyGone)),
    }
}

/// A rule's bytes in words.
pub(super) fn shown(spec: &[u8]) -> String {
    let spec = <FlowSpec>::try_from(spec).ok();
    let flow = spec.and_then(|spec| Flow::of(&spec));
    flow.map_or_else(|| "of unknown kind".to_string(), |flow| flow.to_string())
}

fn word(spec: &FlowSpec, at: usize) -> u32 {
    u32::from_ne_bytes(spec[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_reads_as_it_is_written() {
        let mut both = Flow::tcp4(80);
        both.src_port = Some(1024);
        for flow in [Flow::udp4(5000), Flow::tcp6(443), Flow::udp6(1), Flow::ether(0x88b5), both] {
            let spec = flow.spec(3, 77);
            let rule = SteeringRule::of(77, &spec);
            assert_eq!((rule.flow, rule.target, word(&spec, LOCATION)), (Some(flow), Target::Queue(3), 77));
        }
        assert_eq!(both.to_string(), "tcp4 src-port 1024 dst-port 80");
    }

    #[test]
    fn a_port_is_where_the_kernel_looks_for_it() {
        let spec = Flow::udp4(0x1234).spec(1, 2);
        assert_eq!((&spec[..4], &spec[14..16]), (&2u32.to_ne_bytes()[..], &[0x12, 0x34][..]));
        assert_eq!((&spec[86..88], spec[152], spec[160]), (&[0xff, 0xff][..], 1, 2));
        assert_eq!(spec.iter().filter(|byte| **byte != 0).count(), 7, "and nothing else is asked for");
    }

    #[test]
    fn a_rule_that_says_more_is_not_taken_for_a_flow() {
        let mut spec = Flow::udp4(5000).spec(1, 0);
        spec[HEADER_MASK] = 0xff; // and a source address
        assert_eq!(SteeringRule::of(0, &spec).flow, None);
        spec[QUEUE..][..8].copy_from_slice(&DISCARD.to_ne_bytes());
        assert_eq!(SteeringRule::of(0, &spec).target, Target::Drop);
    }
}
