//! Routes and neighbours; which interface the host, or the user, hangs on.
#![forbid(unsafe_code)]

use super::link::{all_addresses, ip_bytes};
use super::netlink::{ACKED, Answer, Attributes, CREATE, DUMP, REPLACE, Request, Socket, field};
use super::{Error, Interface, Mac};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use xdp_umem::Errno;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;

/// Why an interface must not be touched unless the user insists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOut {
    /// Traffic to the world goes through it.
    DefaultRoute,
    /// The user's own connection, with that peer or to that address of ours, goes through it.
    Connection(IpAddr),
}

impl fmt::Display for LockOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DefaultRoute => f.write_str("carries the default route"),
            Self::Connection(ip) => write!(f, "carries your own connection ({ip})"),
        }
    }
}

/// Why this interface must not be touched, if so: for every app to ask before it attaches or changes anything. The
/// user's connection is what `SSH_CONNECTION` says, which `sudo` without `-E` hides.
pub fn lock_out(interface: &Interface) -> Result<Option<LockOut>, Error> {
    interface.must_be_here("check")?;
    if carries_default_route(interface.index)? {
        return Ok(Some(LockOut::DefaultRoute));
    }
    let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
    Ok(carries_connection(interface.index, &connection)?.map(LockOut::Connection))
}

/// Whether a route to everywhere (or to either half of it, as VPNs make them), IPv4 or IPv6, in any table, leaves
/// through this interface, or through one that lies on it (a bridge, a bond, a VLAN). Costs two exchanges.
pub fn carries_default_route(index: u32) -> Result<bool, Error> {
    let answers = Socket::route()?.run("list", "routes", Request::new(RTM_GETROUTE, DUMP).raw(&[0; 12]))?;
    let outgoing: Vec<u32> = answers.iter().flat_map(default_route_interfaces).collect();
    any_lies_on(index, &outgoing)
}

/// Which address of a connection, written as in `SSH_CONNECTION` ("peer port own port"), goes through this interface:
/// our own if it is the interface's, else the peer's if its route leaves here. Costs up to three exchanges.
pub fn carries_connection(index: u32, connection: &str) -> Result<Option<IpAddr>, Error> {
    let mut words = connection.split_ascii_whitespace();
    // a link-local IPv6 address has its interface behind a percent sign
    let mut ip = |nth| words.nth(nth).and_then(|word: &str| word.split('%').next()?.parse::<IpAddr>().ok());
    let (peer, own) = (ip(0), ip(1));
    if let Some(own) = own {
        let holders: Vec<u32> = all_addresses()?
            .iter()
            .filter(|address| address.ip == own)
            .map(|address| address.index)
            .collect();
        if any_lies_on(index, &holders)? {
            return Ok(Some(own));
        }
    }
    let Some(peer) = peer else { return Ok(None) };
    let outgoing: Vec<u32> = outgoing_interface(peer)?.into_iter().collect();
    Ok(any_lies_on(index, &outgoing)?.then_some(peer))
}

/// The index of the interface that packets to `ip` leave through; `None` if there is no route.
pub fn outgoing_interface(ip: IpAddr) -> Result<Option<u32>, Error> {
    const NO_WAY: [Errno; 4] = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];
    let (family, bytes) = ip_bytes(ip);
    let mut header = [0; 12];
    header[0] = family;
    header[1] = bytes.len() as u8 * 8;
    let request = Request::new(RTM_GETROUTE, ACKED).raw(&header).bytes(RTA_DST, &bytes);
    match Socket::route()?.ask(request) {
        Ok(answers) => {
            Ok(answers.iter().find_map(|answer| Attributes::parse(&answer.payload, 12).u32(RTA_OIF)))
        }
        // unreachable, prohibited or blackholed (in this order): there is no way out
        Err(refusal) if NO_WAY.contains(&refusal.errno) => Ok(None),
        Err(refusal) => Err(refusal.of("find route to", ip.to_string())),
    }
}

impl Interface {
    /// Adds a route to `destination` with a prefix of so many bits (0: everywhere), through this interface and, if given,
    /// a gateway. `EEXIST` if there is one, `ENETDOWN` or `ENETUNREACH` while the interface or the gateway is not there.
    pub fn add_route(&self, destination: IpAddr, prefix: u8, gateway: Option<IpAddr>) -> Result<(), Error> {
        const RTPROT_STATIC: u8 = 4;
        const RT_SCOPE_LINK: u8 = 253;
        self.must_be_here("add route through")?;
        let (family, bytes) = ip_bytes(destination);
        let scope = if gateway.is_none() { RT_SCOPE_LINK } else { 0 };
        let header = [family, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0, 0, 0, 0];
        let mut request = Request::new(RTM_NEWROUTE, CREATE).raw(&header).u32(RTA_OIF, self.index);
        if prefix > 0 {
            request = request.bytes(RTA_DST, &bytes);
        }
        if let Some(gateway) = gateway {
            request = request.bytes(RTA_GATEWAY, &ip_bytes(gateway).1);
        }
        Socket::route()?.run("add route through", &self.name, request).map(drop)
    }

    /// Writes a permanent neighbour entry: packets to `ip` go to `mac`, and nobody is asked.
    pub fn add_neighbour(&self, ip: IpAddr, mac: Mac) -> Result<(), Error> {
        const NUD_PERMANENT: u16 = 0x80;
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        self.must_be_here("add neighbour to")?;
        let (family, bytes) = ip_bytes(ip);
        let mut header = [0; 12];
        header[0] = family;
        header[4..8].copy_from_slice(&self.index.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let request =
            Request::new(RTM_NEWNEIGH, REPLACE).raw(&header).bytes(NDA_DST, &bytes).bytes(NDA_LLADDR, &mac.0);
        Socket::route()?.run("add neighbour to", &self.name, request).map(drop)
    }
}

/// The interfaces of a route, if it leads everywhere.
fn default_route_interfaces(answer: &Answer) -> Vec<u32> {
    let is_default = || {
        let [_, prefix] = field::<2>(&answer.payload, 0)?;
        let [kind] = field::<1>(&answer.payload, 7)?;
        (prefix <= 1 && kind == RTN_UNICAST).then(|| Attributes::parse(&answer.payload, 12))
    };
    let Some(attributes) = is_default() else { return Vec::new() };
    let paths = attributes.find(RTA_MULTIPATH).map_or(&[][..], |paths| paths.value);
    attributes.u32(RTA_OIF).into_iter().chain(next_hops(paths)).collect()
}

/// The interfaces in an array of `struct rtnexthop`, each with attributes behind it.
fn next_hops(mut paths: &[u8]) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(field(paths, 0)?));
        let index = u32::from_ne_bytes(field(paths, 4)?);
        // a length less than its own header would never end
        let next = len.max(8).next_multiple_of(4);
        paths = paths.get(next..).unwrap_or_default();
        Some(index)
    })
}

/// Whether any of `upper` is this interface or lies on it.
fn any_lies_on(index: u32, upper: &[u32]) -> Result<bool, Error> {
    let known = upper.is_empty() || upper.contains(&index);
    Ok(if known { !upper.is_empty() } else { reached(upper, &Interface::all()?).contains(&index) })
}

/// The interfaces of `upper` and all they lie on: parts of a bridge or bond, what a VLAN or tunnel is made on, the peer
/// in the same namespace.
fn reached(upper: &[u32], all: &[Interface]) -> Vec<u32> {
    let mut reached = upper.to_vec();
    let mut at = 0;
    while let Some(&top) = reached.get(at) {
        let parts = all.iter().filter(|one| one.master == Some(top)).map(|one| one.index);
        let lower =
            all.iter().filter(|one| one.index == top && !one.lower_elsewhere).filter_map(|one| one.lower);
        for found in parts.chain(lower) {
            if !reached.contains(&found) {
                reached.push(found);
            }
        }
        at += 1;
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_by_several_paths_names_every_interface() {
        let hop = |len: u16, index: u32| {
            let mut bytes = [0; 8];
            bytes[..2].copy_from_slice(&len.to_ne_bytes());
            bytes[4..].copy_from_slice(&index.to_ne_bytes());
            bytes
        };
        assert_eq!(next_hops(&[hop(8, 3), hop(8, 4)].concat()).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(
            next_hops(&[hop(0, 3), hop(u16::MAX, 4)].concat()).collect::<Vec<_>>(),
            [3, 4],
            "hostile lengths"
        );
        assert_eq!(next_hops(&[1, 2, 3]).count(), 0);
    }

    #[test]
    fn what_carries_a_vlan_on_a_bridge_is_reached_whatever_is_stacked_between() {
        let lo = Interface::named("lo").unwrap();
        let link = |index, lower, master| {
            let mut link = lo.clone();
            (link.index, link.lower, link.master) = (index, lower, master);
            link
        };
        // 2 and 3 are ports of bridge 4, on which lies VLAN 5; 6 and 7 are a pair, each the other's lower
        let mut all = [
            link(1, None, None),
            link(2, None, Some(4)),
            link(3, None, Some(4)),
            link(4, None, None),
            link(5, Some(4), None),
            link(6, Some(7), None),
            link(7, Some(6), None),
        ];
        assert_eq!(reached(&[5], &all), [5, 4, 2, 3]);
        assert_eq!(reached(&[7], &all), [7, 6], "and an end");
        all[5].lower_elsewhere = true;
        assert_eq!(reached(&[6], &all), [6], "7 is another interface in another namespace");
    }

    #[test]
    fn a_connection_to_loopback_goes_through_loopback() {
        let through = |connection| carries_connection(1, connection).unwrap();
        assert_eq!(through("127.0.0.1 50000 127.0.0.1 22"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(through(""), None);
        assert_eq!(through("what is this"), None);
        assert_eq!(LockOut::DefaultRoute.to_string(), "carries the default route");
    }
}
