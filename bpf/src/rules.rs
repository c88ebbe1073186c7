//! Rules: which packets are redirected to AF_XDP sockets, as text, as plain Rust, and as an XDP program.
//!
//! A packet is first read into a few *facts*, once, whatever the number of rules: destination MAC, outer VLAN id,
//! ethertype behind the tags, IP protocol, ports. Each condition then compares one fact. What a packet does not have (it
//! is too short, or of another kind) matches no condition, so one rule's verdict never depends on the other rules:
//!
//! * up to two tags (802.1Q or 802.1ad) are skipped before the ethertype; the VLAN id is the outer one's. Tags that the
//!   hardware has stripped are not in the packet any more: switch that offload off where VLANs are to be seen;
//! * IPv4 needs version 4 and a header length of 20 bytes or more, options are skipped; a fragment other than the first
//!   has a protocol but no ports;
//! * IPv6 needs version 6; up to four extension headers (hop-by-hop, routing, destination options, fragment) are walked, and
//!   the protocol is what stands behind them, or the first header that could not be passed;
//! * ports exist where a whole UDP (8 bytes) or TCP (20 bytes) header lies in the packet;
//! * lengths and checksums that headers claim are not compared: that is the stages' work.

#![forbid(unsafe_code)]

use crate::insn::{Alu, AssembleError, Assembler, Cond, Insn, Label, Reg, Size};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use Reg::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const TAGS: usize = 2;
const EXTENSIONS: usize = 4;
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Protocols with a name, beside their number.
const PROTOCOLS: [(&str, u8); 9] = [
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", TCP),
    ("udp", UDP),
    ("gre", 47),
    ("esp", 50),
    ("icmp6", 58),
    ("ospf", 89),
    ("sctp", 132),
];
/// Ethertypes with a name, beside their number.
const ETHER_TYPES: [(&str, u16); 3] = [("ip", ETH_P_IP), ("ip6", ETH_P_IPV6), ("arp", ETH_P_ARP)];

/// A range of ports, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// The ports from one to the other, in either order.
    pub const fn between(a: u16, b: u16) -> Self {
        if a <= b { Self { first: a, last: b } } else { Self { first: b, last: a } }
    }

    /// The lowest.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self::between(port, port)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Conditions that a packet meets all of. As text they are joined with `and`:
///
/// | text | condition |
/// | --- | --- |
/// | `all` | none: every packet |
/// | `ether 0x88b5`, `ip`, `ip6`, `arp` | the ethertype behind the VLAN tags |
/// | `ip proto 47`, `udp`, `tcp`, `icmp`, `icmp6` | the protocol, over IPv4 or IPv6 |
/// | `udp port 5000-5010`, `tcp port 80` | the destination port; `src-port` is the source's |
/// | `dst-mac 02:00:00:00:00:01` | the destination MAC address |
/// | `vlan 100` | the outer VLAN id |
///
/// ```
/// use xdp_bpf::{Ports, Rule};
///
/// let rule: Rule = "vlan 7 and ip6 and udp port 5000-5010".parse()?;
/// assert_eq!(rule, Rule::all().vlan(7).ether_type(0x86dd).udp_port(Ports::between(5000, 5010)));
/// # Ok::<(), xdp_bpf::RuleError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    dst_mac: Option<[u8; 6]>,
    vlan: Option<u16>,
    ether_type: Option<u16>,
    ip_protocol: Option<u8>,
    // Ports stand beside a protocol that has them, UDP or TCP, and nothing else.
    dst_ports: Option<Ports>,
    src_ports: Option<Ports>,
}

impl Rule {
    /// No condition: every packet.
    pub const fn all() -> Self {
        Self {
            dst_mac: None,
            vlan: None,
            ether_type: None,
            ip_protocol: None,
            dst_ports: None,
            src_ports: None,
        }
    }

    /// And the packet goes to this MAC address.
    pub const fn dst_mac(self, mac: [u8; 6]) -> Self {
        Self { dst_mac: Some(mac), ..self }
    }

    /// And its outer VLAN tag has this id.
    ///
    /// # Panics
    /// If `id` is above 4095.
    pub const fn vlan(self, id: u16) -> Self {
        assert!(id < 4096, "a VLAN id has 12 bits");
        Self { vlan: Some(id), ..self }
    }

    /// And its ethertype, behind up to two VLAN tags, is this.
    pub const fn ether_type(self, ether_type: u16) -> Self {
        Self { ether_type: Some(ether_type), ..self }
    }

    /// And its IPv4 or IPv6 protocol is this. Takes the place of an earlier protocol and its ports.
    pub const fn ip_protocol(self, protocol: u8) -> Self {
        if matches!(self.ip_protocol, Some(before) if before == protocol) {
            return self;
        }
        Self { ip_protocol: Some(protocol), dst_ports: None, src_ports: None, ..self }
    }

    /// And it is UDP, to one of these ports.
    pub fn udp_port(self, ports: impl Into<Ports>) -> Self {
        Self { dst_ports: Some(ports.into()), ..self.ip_protocol(UDP) }
    }

    /// And it is UDP, from one of these ports.
    pub fn udp_src_port(self, ports: impl Into<Ports>) -> Self {
        Self { src_ports: Some(ports.into()), ..self.ip_protocol(UDP) }
    }

    /// And it is TCP, to one of these ports.
    pub fn tcp_port(self, ports: impl Into<Ports>) -> Self {
        Self { dst_ports: Some(ports.into()), ..self.ip_protocol(TCP) }
    }

    /// And it is TCP, from one of these ports.
    pub fn tcp_src_port(self, ports: impl Into<Ports>) -> Self {
        Self { src_ports: Some(ports.into()), ..self.ip_protocol(TCP) }
    }

    /// Whether the program would redirect this packet (from its Ethernet header on) because of this rule.
    pub fn matches(&self, packet: &[u8]) -> bool {
        self.holds(&Facts::of(packet))
    }

    fn is_all(&self) -> bool {
        *self == Self::all()
    }

    fn holds(&self, facts: &Facts) -> bool {
        let (dst, src) = (facts.ports.map(|(_, dst)| dst), facts.ports.map(|(src, _)| src));
        let within = |ports: Option<Ports>, port: Option<u16>| {
            ports.is_none_or(|p| port.is_some_and(|x| p.contains(x)))
        };
        (self.dst_mac.is_none() || self.dst_mac == facts.dst_mac)
            && (self.vlan.is_none() || self.vlan == facts.vlan)
            && (self.ether_type.is_none() || self.ether_type == facts.ether_type)
            && (self.ip_protocol.is_none() || self.ip_protocol == facts.ip_protocol)
            && within(self.dst_ports, dst)
            && within(self.src_ports, src)
    }

    /// Adds one condition that was written `text`, refusing one that contradicts or repeats what is there.
    fn with(self, text: &[&str]) -> Result<Self, String> {
        let protocol = |rule: Self, protocol: u8| match rule.ip_protocol {
            Some(other) if other != protocol => Err(format!(
                "a packet has one protocol, not both `{}` and `{}`; make two rules of it, joined with `or`",
                Protocol(other),
                Protocol(protocol)
            )),
            _ => Ok(rule.ip_protocol(protocol)),
        };
        let ether_type = |rule: Self, ether_type: u16| match rule.ether_type {
            Some(_) => Err("the ethertype is given twice; make two rules of it, joined with `or`".to_owned()),
            None => Ok(rule.ether_type(ether_type)),
        };
        match *text {
            ["ether", kind] => {
                ether_type(self, named(&ETHER_TYPES, kind).map_or_else(|| number(kind, "an ethertype"), Ok)?)
            }
            ["ip", "proto", kind] => {
                protocol(self, named(&PROTOCOLS, kind).map_or_else(|| number(kind, "an IP protocol"), Ok)?)
            }
            ["vlan", _] if self.vlan.is_some() => Err("`vlan` is given twice".to_owned()),
            ["vlan", id] => match number::<u16>(id, "a VLAN id")? {
                id @ 0..=4095 => Ok(self.vlan(id)),
                _ => Err(format!("`{id}` is no VLAN id; say 0 to 4095")),
            },
            ["dst-mac", _] if self.dst_mac.is_some() => Err("`dst-mac` is given twice".to_owned()),
            ["dst-mac", mac] => Ok(self.dst_mac(parse_mac(mac)?)),
            [kind @ ("udp" | "tcp"), end @ ("port" | "src-port"), range] => {
                let rule = protocol(self, if kind == "udp" { UDP } else { TCP })?;
                let ports = Some(parse_ports(range)?);
                match end {
                    "port" if rule.dst_ports.is_none() => Ok(Self { dst_ports: ports, ..rule }),
                    "src-port" if rule.src_ports.is_none() => Ok(Self { src_ports: ports, ..rule }),
                    _ => Err(format!("`{end}` is given twice; make two rules of it, joined with `or`")),
                }
            }
            ["all"] => Err("`all` stands alone".to_owned()),
            [kind] => match (named(&ETHER_TYPES, kind), named(&PROTOCOLS, kind)) {
                (Some(kind), _) => ether_type(self, kind),
                (_, Some(kind)) => protocol(self, kind),
                _ => Err(not_understood(text)),
            },
            [] => Err("a condition is missing".to_owned()),
            _ => Err(not_understood(text)),
        }
    }
}

/// Shown so that parsing it again gives the same rule.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        let mut before = "";
        let mut and = |f: &mut fmt::Formatter<'_>| f.write_str(core::mem::replace(&mut before, " and "));
        if let Some([a, b, c, d, e, g]) = self.dst_mac {
            and(f)?;
            write!(f, "dst-mac {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")?;
        }
        if let Some(id) = self.vlan {
            and(f)?;
            write!(f, "vlan {id}")?;
        }
        if let Some(kind) = self.ether_type {
            and(f)?;
            match ETHER_TYPES.iter().find(|(_, value)| *value == kind) {
                Some((name, _)) => f.write_str(name)?,
                None => write!(f, "ether {kind:#06x}")?,
            }
        }
        let Some(protocol) = self.ip_protocol.map(Protocol) else { return Ok(()) };
        for (end, ports) in [("port", self.dst_ports), ("src-port", self.src_ports)] {
            if let Some(ports) = ports {
                and(f)?;
                write!(f, "{protocol} {end} {ports}")?;
            }
        }
        if self.dst_ports.is_none() && self.src_ports.is_none() {
            and(f)?;
            write!(f, "{protocol}")?;
        }
        Ok(())
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let refuse = |why| RuleError { rule: text.trim().to_owned(), why };
        let words: Vec<&str> = text.split_whitespace().collect();
        if words == ["all"] {
            return Ok(Self::all());
        }
        let rule =
            words.split(|word| *word == "and").try_fold(Self::all(), |rule, condition| rule.with(condition));
        match rule.map_err(refuse)? {
            Self { ether_type: Some(kind), ip_protocol: Some(_), .. }
                if kind != ETH_P_IP && kind != ETH_P_IPV6 =>
            {
                Err(refuse(format!(
                    "no packet can match: ethertype {kind:#06x} carries no IP protocol; drop one of the two"
                )))
            }
            rule => Ok(rule),
        }
    }
}

/// A rule that could not be understood: what was written, and why not.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleError {
    /// The rule, as written.
    pub rule: String,
    /// What is wrong with it, and what to write instead.
    pub why: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule `{}`: {}", self.rule, self.why)
    }
}

impl core::error::Error for RuleError {}

/// What is redirected: packets that any one of the rules matches. As text they are joined with `or`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Every packet.
    pub fn all() -> Self {
        Self(vec![Rule::all()])
    }

    /// Packets that match any of `rules`; none, if there is none.
    pub fn any_of(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// The rules, as given.
    pub fn as_slice(&self) -> &[Rule] {
        &self.0
    }

    /// Whether the program redirects this packet, from its Ethernet header on: the reference that the program is tested against.
    pub fn matches(&self, packet: &[u8]) -> bool {
        let facts = Facts::of(packet);
        self.0.iter().any(|rule| rule.holds(&facts))
    }

    /// The program: `XDP_REDIRECT` into the XSKMAP behind `map_fd`, at the receive queue's number plus `first_index`, for packets
    /// that match and whose slot holds a socket; `XDP_PASS` for all others.
    ///
    /// # Errors
    /// More rules than jumps can reach across (thousands).
    pub fn compile(&self, map_fd: i32, first_index: u32) -> Result<Vec<Insn>, AssembleError> {
        let mut code = Assembler::new();
        if self.0.iter().any(Rule::is_all) {
            emit_redirect(&mut code, R1, map_fd, first_index);
            return code.finish();
        }
        let (pass, redirect) = (code.label(), code.label());
        if !self.0.is_empty() {
            code.push(Insn::mov(CONTEXT, R1));
            self.emit_facts(&mut code, pass);
            for rule in &self.0 {
                emit_rule(&mut code, rule, redirect);
            }
        }
        code.bind(pass);
        code.push(Insn::mov(R0, XDP_PASS));
        code.push(Insn::exit());
        if !self.0.is_empty() {
            code.bind(redirect);
            emit_redirect(&mut code, CONTEXT, map_fd, first_index);
        }
        code.finish()
    }

    /// Reads what the rules ask about into registers, each fact or a value out of its range.
    fn emit_facts(&self, code: &mut Assembler, pass: Label) {
        let any = |wanted: fn(&Rule) -> bool| self.0.iter().any(wanted);
        let ports = any(|rule| rule.dst_ports.is_some() || rule.src_ports.is_some());
        let protocol = any(|rule| rule.ip_protocol.is_some());
        let vlan = any(|rule| rule.vlan.is_some());
        let ether_type = protocol || vlan || any(|rule| rule.ether_type.is_some());

        code.push(Insn::load(Size::Word, AT, CONTEXT, MD_DATA));
        code.push(Insn::load(Size::Word, END, CONTEXT, MD_DATA_END));
        emit_within(code, ETH_HLEN, pass);
        if any(|rule| rule.dst_mac.is_some()) {
            code.push(Insn::load(Size::Word, MAC, AT, 0));
            code.push(Insn::load(Size::Half, R0, AT, 4));
            code.push(Insn::alu(Alu::Lsh, R0, 32));
            code.push(Insn::alu(Alu::Or, MAC, R0));
        }
        if !ether_type {
            return;
        }
        let judge = code.label();
        code.push(Insn::load(Size::Half, ETHER_TYPE, AT, 12));
        code.push(Insn::alu(Alu::Add, AT, ETH_HLEN));
        if protocol {
            code.push(Insn::store_imm(Size::Word, FRAME, OFFSET, ETH_HLEN));
        }
        if vlan {
            code.push(Insn::mov(VLAN, ABSENT));
        }
        if protocol {
            code.push(Insn::mov(PROTOCOL, ABSENT));
        }
        if ports {
            code.push(Insn::mov(DST_PORT, ABSENT));
            code.push(Insn::mov(SRC_PORT, ABSENT));
        }
        let untagged = code.label();
        for tag in 0..TAGS {
            let tagged = code.label();
            code.jump(Cond::Eq, ETHER_TYPE, wire(ETH_P_8021Q), tagged);
            code.jump(Cond::Ne, ETHER_TYPE, wire(ETH_P_8021AD), untagged);
            code.bind(tagged);
            emit_within(code, 4, judge);
            if vlan && tag == 0 {
                code.push(Insn::load(Size::Half, VLAN, AT, 0));
                code.push(Insn::swap_be16(VLAN));
                code.push(Insn::alu(Alu::And, VLAN, 0xfff));
            }
            code.push(Insn::load(Size::Half, ETHER_TYPE, AT, 2));
            code.push(Insn::alu(Alu::Add, AT, 4));
            if protocol {
                code.push(Insn::store_imm(Size::Word, FRAME, OFFSET, ETH_HLEN + 4 * (tag as i32 + 1)));
            }
        }
        code.bind(untagged);
        if protocol {
            emit_ip(code, judge, vlan, ports);
        }
        code.bind(judge);
    }
}

/// Shown so that parsing it again gives the same rules; no rule at all is shown as `none`, which is not parsed.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, rule) in self.0.iter().enumerate() {
            write!(f, "{}{rule}", if i > 0 { " or " } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Rules {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        words
            .split(|word| *word == "or")
            .map(|rule| rule.join(" ").parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What a packet is, as far as conditions ask.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Facts {
    dst_mac: Option<[u8; 6]>,
    vlan: Option<u16>,
    ether_type: Option<u16>,
    ip_protocol: Option<u8>,
    ports: Option<(u16, u16)>, // source, destination
}

impl Facts {
    fn of(packet: &[u8]) -> Self {
        let mut facts = Self::default();
        let Some((ethernet, mut rest)) = packet.split_first_chunk::<14>() else { return facts };
        facts.dst_mac = ethernet.first_chunk().copied();
        let mut ether_type = be16(ethernet, 12);
        for tag in 0..TAGS {
            if ether_type != ETH_P_8021Q && ether_type != ETH_P_8021AD {
                break;
            }
            let Some((header, behind)) = rest.split_first_chunk::<4>() else { break };
            if tag == 0 {
                facts.vlan = Some(be16(header, 0) & 0xfff);
            }
            (ether_type, rest) = (be16(header, 2), behind);
        }
        facts.ether_type = Some(ether_type);
        match ether_type {
            ETH_P_IP => facts.read_ipv4(rest),
            ETH_P_IPV6 => facts.read_ipv6(rest),
            _ => {}
        }
        facts
    }

    fn read_ipv4(&mut self, packet: &[u8]) {
        let Some(header) = packet.first_chunk::<20>() else { return };
        let header_len = usize::from(header[0] & 0xf) * 4;
        if header[0] >> 4 != 4 || header_len < 20 {
            return;
        }
        self.ip_protocol = Some(header[9]);
        if be16(header, 6) & 0x1fff == 0 {
            self.read_ports(header[9], packet.get(header_len..));
        }
    }

    fn read_ipv6(&mut self, packet: &[u8]) {
        let Some((header, mut rest)) = packet.split_first_chunk::<40>() else { return };
        if header[0] >> 4 != 6 {
            return;
        }
        let mut next = header[6];
        for _ in 0..EXTENSIONS {
            if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT) {
                break;
            }
            let Some(extension) = rest.first_chunk::<8>() else { break };
            let len = if next == FRAGMENT { 8 } else { (usize::from(extension[1]) + 1) * 8 };
            let later_fragment = next == FRAGMENT && be16(extension, 2) & 0xfff8 != 0;
            next = extension[0];
            if later_fragment {
                self.ip_protocol = Some(next);
                return;
            }
            rest = rest.get(len..).unwrap_or_default();
        }
        self.ip_protocol = Some(next);
        self.read_ports(next, Some(rest));
    }

    fn read_ports(&mut self, protocol: u8, packet: Option<&[u8]>) {
        let header_len = match protocol {
            UDP => 8,
            TCP => 20,
            _ => return,
        };
        self.ports =
            packet.and_then(|p| p.get(..header_len)).map(|header| (be16(header, 0), be16(header, 2)));
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

// The program's registers. Facts are scalars, so that nothing of a packet's shape is left when the rules are judged and the
// verifier sees the same state at each of them, however many ways lead there.
const VLAN: Reg = R1; // in this machine's order
const ETHER_TYPE: Reg = R2; // as it lies in the packet
const PROTOCOL: Reg = R3;
const DST_PORT: Reg = R4; // in this machine's order
const SRC_PORT: Reg = R5; // likewise
const CONTEXT: Reg = R6;
const MAC: Reg = R7; // four bytes as they lie, the last two above them
const END: Reg = R8;
const AT: Reg = R9; // the next header; free once the facts are known
const SCRATCH: Reg = R5; // until the source port is known
const FAR: Reg = R9; // an offset in the packet, once pointers are left behind
const FAR_PROTOCOL: Reg = R8;
const FRAME: Reg = R10;
const ABSENT: i32 = 0x1_0000; // no 16-bit value

// What lies in the frame.
const KEPT_VLAN: i16 = -8;
const KEPT_ETHER_TYPE: i16 = -16;
const OFFSET: i16 = -24; // of the IP header in the packet
const BUFFER: i16 = -48; // 24 bytes

const ETH_HLEN: i32 = 14;
const MD_DATA: i16 = 0; // offsets in struct xdp_md
const MD_DATA_END: i16 = 4;
const MD_RX_QUEUE_INDEX: i16 = 16;
const XDP_PASS: i32 = 2;
const REDIRECT_MAP: i32 = 51; // BPF_FUNC_redirect_map
const XDP_LOAD_BYTES: i32 = 189; // BPF_FUNC_xdp_load_bytes, since Linux 5.18

/// A 16-bit constant as a load from the packet shows it.
fn wire(value: u16) -> i32 {
    i32::from(value.to_be())
}

/// Goes to `short` unless `len` bytes lie at `AT`. Uses R0.
fn emit_within(code: &mut Assembler, len: i32, short: Label) {
    code.push(Insn::mov(R0, AT));
    code.push(Insn::alu(Alu::Add, R0, len));
    code.jump(Cond::Gt, R0, END, short);
}

/// From the ethertype to the protocol and, if wanted, the ports; goes on at `judge`, which comes next.
///
/// Where headers have the usual lengths this is done by pointers and constants alone. Behind IPv4 options and IPv6 extensions
/// the packet is read by a helper: without `CAP_PERFMON` the verifier lets no variable be added to a packet's pointer.
fn emit_ip(code: &mut Assembler, judge: Label, vlan: bool, ports: bool) {
    let (ipv6, transport, far_transport, far_end) = (code.label(), code.label(), code.label(), code.label());
    code.jump(Cond::Eq, ETHER_TYPE, wire(ETH_P_IPV6), ipv6);
    code.jump(Cond::Ne, ETHER_TYPE, wire(ETH_P_IP), judge);

    emit_within(code, 20, judge);
    code.push(Insn::load(Size::Byte, R0, AT, 0));
    code.jump(Cond::Lt, R0, 0x45, judge); // version below 4, or a header below 20 bytes
    code.jump(Cond::Gt, R0, 0x4f, judge); // version above 4
    code.push(Insn::load(Size::Byte, PROTOCOL, AT, 9));
    if ports {
        let options = code.label();
        code.push(Insn::load(Size::Half, SCRATCH, AT, 6));
        code.push(Insn::alu(Alu::And, SCRATCH, wire(0x1fff)));
        code.push(Insn::alu(Alu::Add, AT, 20));
        code.jump(Cond::Ne, R0, 0x45, options);
        code.jump(Cond::Eq, SCRATCH, 0, transport); // the first fragment, or the whole
        code.push(Insn::mov(SRC_PORT, ABSENT));
        code.goto(judge);
        code.bind(options);
        emit_go_far(code, vlan);
        code.jump(Cond::Ne, SCRATCH, 0, far_end);
        code.push(Insn::alu(Alu::And, R0, 0xf));
        code.push(Insn::alu(Alu::Lsh, R0, 2));
        code.push(Insn::alu(Alu::Add, FAR, R0));
        code.goto(far_transport);
    } else {
        code.goto(judge);
    }

    code.bind(ipv6);
    emit_within(code, 40, judge);
    code.push(Insn::load(Size::Byte, R0, AT, 0));
    code.push(Insn::alu(Alu::Rsh, R0, 4));
    code.jump(Cond::Ne, R0, 6, judge);
    code.push(Insn::load(Size::Byte, PROTOCOL, AT, 6));
    code.push(Insn::alu(Alu::Add, AT, 40));
    let extensions = code.label();
    for extension in [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS] {
        code.jump(Cond::Eq, PROTOCOL, i32::from(extension), extensions);
    }

    code.bind(transport);
    if ports {
        let whole = code.label();
        code.push(Insn::mov(SRC_PORT, ABSENT)); // it was SCRATCH
        code.push(Insn::mov(R0, AT));
        code.push(Insn::alu(Alu::Add, R0, 8));
        code.jump(Cond::Eq, PROTOCOL, i32::from(UDP), whole);
        code.jump(Cond::Ne, PROTOCOL, i32::from(TCP), judge);
        code.push(Insn::alu(Alu::Add, R0, 12));
        code.bind(whole);
        code.jump(Cond::Gt, R0, END, judge);
        emit_ports(code, AT, 0);
    }
    code.goto(judge);

    code.bind(extensions);
    emit_go_far(code, vlan);
    code.push(Insn::alu(Alu::Add, FAR, 40));
    for _ in 0..EXTENSIONS {
        let (read, options, next) = (code.label(), code.label(), code.label());
        for extension in [HOP_BY_HOP, ROUTING, FRAGMENT] {
            code.jump(Cond::Eq, FAR_PROTOCOL, i32::from(extension), read);
        }
        code.jump(Cond::Ne, FAR_PROTOCOL, i32::from(DESTINATION_OPTIONS), far_transport);
        code.bind(read);
        emit_read_far(code, 8, far_end);
        code.jump(Cond::Ne, FAR_PROTOCOL, i32::from(FRAGMENT), options);
        code.push(Insn::load(Size::Byte, FAR_PROTOCOL, FRAME, BUFFER));
        code.push(Insn::load(Size::Half, R0, FRAME, BUFFER + 2));
        code.jump(Cond::Set, R0, wire(0xfff8), far_end); // not the first fragment
        code.push(Insn::alu(Alu::Add, FAR, 8));
        code.goto(next);
        code.bind(options);
        code.push(Insn::load(Size::Byte, FAR_PROTOCOL, FRAME, BUFFER));
        code.push(Insn::load(Size::Byte, R0, FRAME, BUFFER + 1));
        code.push(Insn::alu(Alu::Add, R0, 1));
        code.push(Insn::alu(Alu::Lsh, R0, 3));
        code.push(Insn::alu(Alu::Add, FAR, R0));
        code.bind(next);
    }
    code.bind(far_transport);
    let back = code.label();
    if ports {
        let (udp, whole) = (code.label(), code.label());
        code.jump(Cond::Eq, FAR_PROTOCOL, i32::from(UDP), udp);
        code.jump(Cond::Ne, FAR_PROTOCOL, i32::from(TCP), far_end);
        emit_read_far(code, 20, far_end);
        code.goto(whole);
        code.bind(udp);
        emit_read_far(code, 8, far_end);
        code.bind(whole);
        emit_ports(code, FRAME, BUFFER);
        code.goto(back);
    }
    code.bind(far_end);
    if ports {
        code.push(Insn::mov(DST_PORT, ABSENT));
        code.push(Insn::mov(SRC_PORT, ABSENT));
    }
    code.bind(back);
    code.push(Insn::mov(PROTOCOL, FAR_PROTOCOL));
    code.push(Insn::load(Size::Double, ETHER_TYPE, FRAME, KEPT_ETHER_TYPE));
    if vlan {
        code.push(Insn::load(Size::Double, VLAN, FRAME, KEPT_VLAN));
    }
}

/// The ports of the transport header at `base + off`.
fn emit_ports(code: &mut Assembler, base: Reg, off: i16) {
    for (register, at) in [(SRC_PORT, 0), (DST_PORT, 2)] {
        code.push(Insn::load(Size::Half, register, base, off + at));
        code.push(Insn::swap_be16(register));
    }
}

/// Leaves pointers behind: keeps the facts that helpers would lose, and sets FAR to where the IP header is.
fn emit_go_far(code: &mut Assembler, vlan: bool) {
    if vlan {
        code.push(Insn::store(Size::Double, FRAME, KEPT_VLAN, VLAN));
    }
    code.push(Insn::store(Size::Double, FRAME, KEPT_ETHER_TYPE, ETHER_TYPE));
    code.push(Insn::mov(FAR_PROTOCOL, PROTOCOL));
    code.push(Insn::load(Size::Word, FAR, FRAME, OFFSET));
}

/// Reads `len` bytes at the packet's offset FAR into the buffer; goes to `short` if there are not as many. Uses R0 to R5.
fn emit_read_far(code: &mut Assembler, len: i32, short: Label) {
    code.push(Insn::mov(R1, CONTEXT));
    code.push(Insn::mov(R2, FAR));
    code.push(Insn::mov(R3, FRAME));
    code.push(Insn::alu(Alu::Add, R3, i32::from(BUFFER)));
    code.push(Insn::mov(R4, len));
    code.push(Insn::call(XDP_LOAD_BYTES));
    code.jump(Cond::Ne, R0, 0, short);
}

/// Goes to `redirect` if the facts meet each condition, else on with the next instruction. Uses R0.
fn emit_rule(code: &mut Assembler, rule: &Rule, redirect: Label) {
    let next = code.label();
    if let Some([a, b, c, d, e, f]) = rule.dst_mac {
        let mac = u64::from(u32::from_ne_bytes([a, b, c, d])) | u64::from(u16::from_ne_bytes([e, f])) << 32;
        code.extend(Insn::load_u64(R0, mac));
        code.jump(Cond::Ne, MAC, R0, next);
    }
    if let Some(id) = rule.vlan {
        code.jump(Cond::Ne, VLAN, i32::from(id), next);
    }
    if let Some(kind) = rule.ether_type {
        code.jump(Cond::Ne, ETHER_TYPE, wire(kind), next);
    }
    if let Some(protocol) = rule.ip_protocol {
        code.jump(Cond::Ne, PROTOCOL, i32::from(protocol), next);
    }
    for (register, ports) in [(DST_PORT, rule.dst_ports), (SRC_PORT, rule.src_ports)] {
        let Some(ports) = ports else { continue };
        if ports.first == ports.last {
            code.jump(Cond::Ne, register, i32::from(ports.first), next);
        } else {
            code.jump(Cond::Lt, register, i32::from(ports.first), next);
            code.jump(Cond::Gt, register, i32::from(ports.last), next);
        }
    }
    code.goto(redirect);
    code.bind(next);
}

/// `return bpf_redirect_map(map, context->rx_queue_index + first_index, XDP_PASS)`.
fn emit_redirect(code: &mut Assembler, context: Reg, map_fd: i32, first_index: u32) {
    code.push(Insn::load(Size::Word, R2, context, MD_RX_QUEUE_INDEX));
    if first_index != 0 {
        code.push(Insn::alu32(Alu::Add, R2, first_index as i32));
    }
    code.extend(Insn::load_map(R1, map_fd));
    code.push(Insn::mov(R3, XDP_PASS));
    code.push(Insn::call(REDIRECT_MAP));
    code.push(Insn::exit());
}

/// A protocol as a condition is written.
struct Protocol(u8);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(_, value)| *value == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "ip proto {}", self.0),
        }
    }
}

fn named<T: Copy>(names: &[(&str, T)], word: &str) -> Option<T> {
    names.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

/// A number, decimal or with `0x`.
fn number<T: TryFrom<u32>>(word: &str, what: &str) -> Result<T, String> {
    let value = match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => word.parse(),
    };
    let value = value.map_err(|_| format!("`{word}` is not {what}; say a number such as 17 or 0x11"))?;
    T::try_from(value).map_err(|_| format!("`{word}` is too large for {what}"))
}

fn parse_ports(word: &str) -> Result<Ports, String> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (number(first, "a port")?, number(last, "a port")?);
    if first > last {
        return Err(format!("the ports `{word}` run backwards; say {last}-{first}"));
    }
    Ok(Ports { first, last })
}

fn parse_mac(word: &str) -> Result<[u8; 6], String> {
    let mut mac = [0; 6];
    let mut parts = word.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| matches!(part.len(), 1 | 2) && !part.starts_with('+'));
        *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(|| no_mac(word))?;
    }
    if parts.next().is_some() { Err(no_mac(word)) } else { Ok(mac) }
}

fn no_mac(word: &str) -> String {
    format!("`{word}` is no MAC address; say six bytes such as 02:00:00:00:00:01")
}

fn not_understood(words: &[&str]) -> String {
    format!(
        "`{}` is not understood; a condition is `all`, `ether TYPE`, `ip`, `ip6`, `arp`, `ip proto N`, `udp`, `tcp`, `icmp`, `icmp6`, \
         `udp port N-M`, `tcp src-port N`, `dst-mac MAC` or `vlan ID`, and they are joined with `and`",
        words.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::Listing;
    use alloc::string::ToString;

    fn rules(text: &str) -> Rules {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_is_shown_as_it_is_written() {
        for text in [
            "all",
            "ether 0x88b5",
            "arp",
            "ip proto 99",
            "icmp6",
            "udp",
            "udp port 5000-5010",
            "tcp src-port 80",
            "udp port 5000 and udp src-port 53",
            "dst-mac 02:00:00:00:00:0a and vlan 100 and ip6 and tcp port 1-65535",
            "udp port 5000 or ether 0x88b5 or vlan 0",
        ] {
            assert_eq!(rules(text).to_string(), text);
        }
        assert_eq!(rules("ether arp"), rules("ether 0x0806"));
        assert_eq!(rules("ip proto udp and udp port 0x10"), rules("udp port 16"));
        assert_eq!(rules("  gre\tor  all "), Rules::any_of([Rule::all().ip_protocol(47), Rule::all()]));
    }

    #[test]
    fn a_rule_that_makes_no_sense_says_what_to_write_instead() {
        for (text, want) in [
            ("", "a condition is missing"),
            ("udp and", "a condition is missing"),
            ("udp or", "a condition is missing"),
            ("udp prot 5", "`udp prot 5` is not understood; a condition is"),
            ("udp port 70000", "`70000` is too large for a port"),
            ("udp port x", "`x` is not a port; say a number"),
            ("udp port 9-5", "the ports `9-5` run backwards; say 5-9"),
            ("udp port 1 and udp port 2", "`port` is given twice; make two rules"),
            ("udp port 1 and tcp", "not both `udp` and `tcp`; make two rules"),
            ("ether 0x88b5 and udp", "no packet can match"),
            ("ip and ip6", "the ethertype is given twice"),
            ("vlan 4096", "say 0 to 4095"),
            ("ip proto 256", "`256` is too large for an IP protocol"),
            ("dst-mac 02:00:00:00:00", "no MAC address; say six bytes"),
            ("dst-mac 02:00:00:00:00:00:00", "no MAC address"),
            ("all and udp", "`all` stands alone"),
        ] {
            let error = text.parse::<Rules>().unwrap_err().to_string();
            assert!(error.contains(want), "{text:?} gave {error:?}, which lacks {want:?}");
        }
    }

    #[test]
    fn a_later_protocol_takes_the_place_of_an_earlier_one_with_its_ports() {
        assert_eq!(Rule::all().udp_port(7).ip_protocol(47), Rule::all().ip_protocol(47));
        assert_eq!(Rule::all().udp_port(7).udp_src_port(9).to_string(), "udp port 7 and udp src-port 9");
        assert_eq!(Rule::all().udp_port(7).tcp_port(9), Rule::all().tcp_port(9));
        assert_eq!(Ports::between(9, 5), Ports::between(5, 9));
    }

    #[test]
    fn redirecting_everything_takes_six_slots() {
        let listing = Listing(&Rules::all().compile(3, 0).unwrap()).to_string();
        let want =
            "   0: r2 = *(u32 *)(r1 +16)\n   1: r1 = map fd 3\n   3: r3 = 0x2\n   4: call 51\n   5: exit\n";
        assert_eq!(listing, want);
    }

    #[test]
    fn a_packet_too_short_for_ethernet_matches_all_and_nothing_else() {
        assert!(Rules::all().matches(&[]));
        assert!(!Rules::any_of([]).matches(&[0; 60]));
        for text in ["ether 0", "dst-mac 0:0:0:0:0:0", "vlan 0", "ip proto 0"] {
            assert!(!rules(text).matches(&[0; 13]), "{text}");
        }
        assert!(rules("ether 0").matches(&[0; 14]));
    }

    #[test]
    fn thousands_of_rules_are_an_error_not_a_wrong_program() {
        let many = |n: usize| Rules::any_of((0..n).map(|i| Rule::all().udp_port(i as u16)));
        assert!(many(5000).compile(0, 0).is_ok());
        assert!(matches!(many(20_000).compile(0, 0), Err(AssembleError::TooFar { .. })));
    }
}
