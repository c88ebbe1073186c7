//! Interface: what the kernel says of a network interface, and its plain settings.
#![forbid(unsafe_code)]

use super::Error;
use super::Mac;
use super::genl::{self, QueueKind};
use super::namespace::{Namespace, or_none};
use super::netlink::{ACKED, Answer, Attributes, CREATE, DUMP, Request, Socket, field};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;
use xdp_umem::Errno;

pub use super::new_link::{End, NewLink};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_NUM_TX_QUEUES: u16 = 31;
pub(super) const IFLA_NUM_RX_QUEUES: u16 = 32;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_CARRIER: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;

/// A network interface as it was when it was read, in the calling thread's namespace.
///
/// The setters act on the interface with this index, whatever it is called by now, and leave the fields as they
/// were read; [`refresh`](Self::refresh) reads anew. Each is refused with `EXDEV` on a thread of another namespace
/// than the one it was read in, where the same index is somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// Its number, unique in its namespace.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its link-layer address, if that has the six bytes of Ethernet.
    pub mac: Option<Mac>,
    /// The longest packet it sends, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Whether it was brought up (`IFF_UP`).
    pub up: bool,
    /// Whether there is a signal: the cable, or the other end of a veth pair, is up.
    pub carrier: bool,
    /// Whether it takes packets (`IFF_RUNNING`): a moment after it has a signal. Before, what is sent is dropped.
    pub operational: bool,
    /// What kind of virtual interface it is, such as `"veth"`; `None` for hardware and `lo`.
    pub kind: Option<String>,
    /// Receive queues as allocated when it was made; how many are in use: [`queues`](Self::queues).
    pub rx_queues_allocated: u32,
    /// Transmit queues as allocated when it was made.
    pub tx_queues_allocated: u32,
    /// The interface it is tied to: a veth's peer, what a VLAN lies on. Its index is of another namespace if
    /// [`lower_elsewhere`](Self::lower_elsewhere).
    pub lower: Option<u32>,
    /// Whether `lower` is in another namespace.
    pub lower_elsewhere: bool,
    /// The bridge, bond or VRF that it is part of.
    pub master: Option<u32>,
    /// How many have asked it to receive every packet on the wire; `None` where the kernel does not say.
    pub promiscuity: Option<u32>,
    /// The XDP programs attached.
    pub xdp: AttachedXdp,
    namespace: u64,
}

/// The XDP programs of an interface, by their ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachedXdp {
    /// In the driver (native mode).
    pub native: Option<u32>,
    /// After the driver, on socket buffers (generic mode).
    pub generic: Option<u32>,
    /// In the hardware.
    pub offloaded: Option<u32>,
}

/// Queues in use, of each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Receive queues.
    pub rx: u32,
    /// Transmit queues.
    pub tx: u32,
}

impl Interface {
    /// The interface of that name. Costs a netlink exchange.
    ///
    /// # Errors
    /// `ENODEV`, with the names there are.
    pub fn named(name: &str) -> Result<Self, Error> {
        let found = match is_name(name) {
            true => Self::ask(name, request(RTM_GETLINK, ACKED, 0, 0, 0).text(IFLA_IFNAME, name)),
            false => Err(Error::new("find interface", name, Errno::ENODEV)),
        };
        found.map_err(|error| match error.errno() {
            Errno::ENODEV => {
                let names: Vec<_> = Self::all().unwrap_or_default().into_iter().map(|one| one.name).collect();
                error.remedy_is(format!("there are: {}", or_none(&names)))
            }
            _ => error,
        })
    }

    /// The interface with that index. `ENODEV` if there is none.
    pub fn with_index(index: u32) -> Result<Self, Error> {
        Self::ask(&format!("number {index}"), request(RTM_GETLINK, ACKED, index, 0, 0))
    }

    /// All interfaces of the namespace, by index.
    pub fn all() -> Result<Vec<Self>, Error> {
        let namespace = current_namespace()?;
        let answers = Socket::route()?.run("list", "interfaces", request(RTM_GETLINK, DUMP, 0, 0, 0))?;
        let mut all: Vec<_> = answers.iter().filter_map(|answer| Self::parse(answer, namespace)).collect();
        all.sort_by_key(|interface| interface.index);
        Ok(all)
    }

    /// Reads it anew, by index.
    pub fn refresh(&self) -> Result<Self, Error> {
        self.must_be_here("read")?;
        Self::with_index(self.index)
    }

    /// The index of the other end of a veth pair, in its own namespace.
    pub fn peer(&self) -> Option<u32> {
        self.lower.filter(|_| self.kind.as_deref() == Some("veth"))
    }

    /// The queues in use now. Mounts a sysfs of the namespace on a short-lived thread; without the privilege for that,
    /// asks netlink, which knows only of interfaces that are up.
    ///
    /// # Errors
    /// `EPERM` where neither is to be had.
    pub fn queues(&self) -> Result<Queues, Error> {
        let name = self.refresh()?.name;
        let count = |sysfs: &Path| count_queues(&sysfs.join("class/net").join(&name).join("queues"));
        match Namespace::current()?.with_sysfs(count) {
            Ok(counted) => counted.map_err(|error| Error::io("count queues of", &self.name, &error)),
            Err(error) if error.errno() == Errno::EPERM => {
                let queues = genl::queues(self.index)?.filter(|queues| !queues.is_empty()).ok_or(error)?;
                let count = |kind| queues.iter().filter(|queue| queue.kind == kind).count() as u32;
                Ok(Queues { rx: count(QueueKind::Rx), tx: count(QueueKind::Tx) })
            }
            Err(error) => Err(error),
        }
    }

    /// Its addresses, each with the length of its prefix in bits.
    pub fn addresses(&self) -> Result<Vec<(IpAddr, u8)>, Error> {
        self.must_be_here("list addresses of")?;
        Ok(all_addresses()?
            .into_iter()
            .filter(|one| one.index == self.index)
            .map(|one| (one.ip, one.prefix))
            .collect())
    }

    /// Brings it up or down.
    pub fn set_up(&self, up: bool) -> Result<(), Error> {
        let flags = if up { IFF_UP } else { 0 };
        self.set(
            if up { "bring up" } else { "bring down" },
            request(RTM_NEWLINK, ACKED, self.index, flags, IFF_UP),
        )
    }

    /// Waits until it takes packets, and returns it as it is then. After the second end of a veth pair is brought up, the
    /// kernel needs a moment (`net/core/link_watch.c`) in which it drops what either end sends.
    ///
    /// # Errors
    /// `ETIMEDOUT`.
    pub fn wait_operational(&self, timeout: Duration) -> Result<Self, Error> {
        let start = Instant::now();
        loop {
            let now = self.refresh()?;
            if now.operational {
                return Ok(now);
            }
            if start.elapsed() >= timeout {
                let error = Error::new("wait for", &self.name, Errno::ETIMEDOUT).saying("not operational");
                return Err(error.remedy_is("bring it up, and its peer too, or plug the cable in"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sets the MTU, in bytes.
    ///
    /// # Errors
    /// `EINVAL` outside the driver's range, which an attached XDP program narrows.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        self.set("set MTU of", self.change().u32(IFLA_MTU, mtu))
    }

    /// Sets the link-layer address. `EBUSY` where the driver wants it down first.
    pub fn set_mac(&self, mac: Mac) -> Result<(), Error> {
        self.set("set address of", self.change().bytes(IFLA_ADDRESS, &mac.0))
    }

    /// Gives it another name. `EEXIST` if that is taken; `EBUSY` before Linux 6.2 if it is up.
    pub fn rename(&self, name: &str) -> Result<(), Error> {
        must_be_name("rename", name)?;
        self.set("rename", self.change().text(IFLA_IFNAME, name))
    }

    /// Moves it to another namespace, where it arrives down, without addresses, and maybe with another index.
    /// AF_XDP sockets bound to it are unbound for good.
    pub fn move_to(&self, namespace: &Namespace) -> Result<(), Error> {
        self.set("move", self.change().u32(IFLA_NET_NS_FD, namespace.fd().raw() as u32))
    }

    /// Whether it gives itself an IPv6 address when it comes up, with the packets that costs. Off for a quiet wire.
    ///
    /// # Errors
    /// `EAFNOSUPPORT` in a kernel without IPv6, which is quiet anyway.
    pub fn set_ipv6_autoconfigured(&self, on: bool) -> Result<(), Error> {
        const EUI64: u8 = 0;
        const NONE: u8 = 1;
        let mode = if on { EUI64 } else { NONE };
        let family =
            |nest: Request| nest.nest(libc::AF_INET6 as u16, |nest| nest.u8(IFLA_INET6_ADDR_GEN_MODE, mode));
        self.set("set IPv6 of", self.change().nest(IFLA_AF_SPEC, family))
    }

    /// Adds an address with a prefix of so many bits; an IPv6 one is usable at once (no duplicate detection).
    ///
    /// # Errors
    /// `EEXIST` if it has the address, `EINVAL` for an impossible prefix.
    pub fn add_address(&self, ip: IpAddr, prefix: u8) -> Result<(), Error> {
        const IFA_F_NODAD: u8 = 2;
        let (family, bytes) = ip_bytes(ip);
        let flags = if ip.is_ipv6() { IFA_F_NODAD } else { 0 };
        let mut header = [family, prefix, flags, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&self.index.to_ne_bytes());
        let mut request = Request::new(RTM_NEWADDR, CREATE).raw(&header).bytes(IFA_ADDRESS, &bytes);
        request = request.bytes(IFA_LOCAL, &bytes).u32(IFA_FLAGS, flags.into());
        self.set("add address to", request)
    }

    /// Removes it from the host; with a veth goes its peer. `EOPNOTSUPP` for hardware.
    pub fn delete(&self) -> Result<(), Error> {
        self.set("delete", request(RTM_DELLINK, ACKED, self.index, 0, 0))
    }

    /// The inode of the namespace it was read in.
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    /// A change of this interface, still without attributes.
    fn change(&self) -> Request {
        request(RTM_NEWLINK, ACKED, self.index, 0, 0)
    }

    fn set(&self, operation: &'static str, request: Request) -> Result<(), Error> {
        self.must_be_here(operation)?;
        Socket::route()?.run(operation, &self.name, request).map(drop)
    }

    /// `EXDEV` on a thread of another namespace.
    pub(super) fn must_be_here(&self, operation: &'static str) -> Result<(), Error> {
        if current_namespace()? == self.namespace {
            return Ok(());
        }
        let error =
            Error::new(operation, &self.name, Errno::EXDEV).saying("read in another network namespace");
        Err(error.remedy_is("call this inside Namespace::run of its own namespace"))
    }

    fn ask(shown: &str, request: Request) -> Result<Self, Error> {
        let namespace = current_namespace()?;
        let answers = Socket::route()?.run("find interface", shown, request)?;
        let found = answers.iter().find_map(|answer| Self::parse(answer, namespace));
        found.ok_or_else(|| Error::new("find interface", shown, Errno::EPROTO))
    }

    /// Reads a `struct ifinfomsg` and its attributes.
    fn parse(answer: &Answer, namespace: u64) -> Option<Self> {
        if answer.kind != RTM_NEWLINK {
            return None;
        }
        let index = u32::from_ne_bytes(field(&answer.payload, 4)?);
        let flags = u32::from_ne_bytes(field(&answer.payload, 8)?);
        let attributes = Attributes::parse(&answer.payload, 16);
        let positive = |kind| attributes.u32(kind).filter(|index| *index != 0);
        Some(Self {
            index,
            name: attributes.text(IFLA_IFNAME)?.to_string(),
            mac: attributes.find(IFLA_ADDRESS).and_then(|one| one.value.try_into().ok()).map(Mac),
            mtu: attributes.u32(IFLA_MTU)?,
            up: flags & IFF_UP != 0,
            carrier: attributes.u32(IFLA_CARRIER) == Some(1),
            operational: flags & IFF_RUNNING != 0,
            kind: attributes.nest(IFLA_LINKINFO).text(IFLA_INFO_KIND).map(str::to_string),
            rx_queues_allocated: attributes.u32(IFLA_NUM_RX_QUEUES).unwrap_or(1),
            tx_queues_allocated: attributes.u32(IFLA_NUM_TX_QUEUES).unwrap_or(1),
            lower: positive(IFLA_LINK),
            lower_elsewhere: attributes.find(IFLA_LINK_NETNSID).is_some(),
            master: positive(IFLA_MASTER),
            promiscuity: attributes.u32(IFLA_PROMISCUITY),
            xdp: AttachedXdp::parse(attributes.nest(IFLA_XDP)),
            namespace,
        })
    }
}

impl AttachedXdp {
    /// Whether there is one at all.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    fn parse(attributes: Attributes<'_>) -> Self {
        // with one program the kernel names its mode and id; with several, each mode's id has its own attribute
        let one = attributes.u32(IFLA_XDP_PROG_ID);
        let attached = attributes.u32(IFLA_XDP_ATTACHED).unwrap_or(0);
        let id =
            |mode: u32, kind| attributes.u32(kind).or(one.filter(|_| attached == mode)).filter(|id| *id != 0);
        Self { native: id(1, 5), generic: id(2, 6), offloaded: id(3, 7) }
    }
}

/// An address of an interface.
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) ip: IpAddr,
    prefix: u8,
}

/// The addresses of all interfaces.
pub(super) fn all_addresses() -> Result<Vec<Address>, Error> {
    let request = Request::new(RTM_GETADDR, DUMP).raw(&[0; 8]);
    let answers = Socket::route()?.run("list", "addresses", request)?;
    let parse = |answer: &Answer| {
        let attributes = Attributes::parse(&answer.payload, 8);
        let bytes = attributes.find(IFA_LOCAL).or(attributes.find(IFA_ADDRESS))?;
        let index = u32::from_ne_bytes(field(&answer.payload, 4)?);
        Some(Address { index, ip: ip_of(bytes.value)?, prefix: *answer.payload.get(1)? })
    };
    Ok(answers.iter().filter_map(parse).collect())
}

/// An IP address's family and bytes.
pub(super) fn ip_bytes(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (libc::AF_INET as u8, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6 as u8, ip.octets().to_vec()),
    }
}

/// The IP address of 4 or 16 bytes.
pub(super) fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A message about links: `struct ifinfomsg`.
pub(super) fn request(kind: u16, flags: u16, index: u32, up: u32, change: u32) -> Request {
    Request::new(kind, flags).raw(&link_header(index, up, change))
}

/// `struct ifinfomsg`: family, type, index, flags and which of them count.
pub(super) fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Whether the kernel would take it for an interface's name (`dev_valid_name`).
fn is_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    !name.is_empty() && name.len() < 16 && name != "." && name != ".." && !name.contains(bad)
}

/// `EINVAL` for what is no name.
pub(super) fn must_be_name(operation: &'static str, name: &str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    let error = Error::new(operation, format!("{name:?}"), Errno::EINVAL);
    Err(error.remedy_is("use 1 to 15 bytes without slash, colon and space"))
}

/// The inode of the calling thread's namespace.
pub(super) fn current_namespace() -> Result<u64, Error> {
    let metadata = fs::metadata("/proc/thread-self/ns/net");
    metadata.map(|found| found.ino()).map_err(|error| Error::io("read", "the current namespace", &error))
}

fn count_queues(directory: &Path) -> std::io::Result<Queues> {
    let mut queues = Queues { rx: 0, tx: 0 };
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        queues.rx += u32::from(name.to_string_lossy().starts_with("rx-"));
        queues.tx += u32::from(name.to_string_lossy().starts_with("tx-"));
    }
    Ok(queues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_by_name_and_by_index() {
        let lo = Interface::named("lo").unwrap();
        assert_eq!((lo.index, lo.kind.as_deref(), lo.xdp), (1, None, AttachedXdp::default()));
        assert_eq!(Interface::with_index(1).unwrap().name, "lo");
        assert!(Interface::all().unwrap().contains(&lo.refresh().unwrap()));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known() {
        for name in ["nosuch0", "a-name-that-is-too-long", ""] {
            let error = Interface::named(name).unwrap_err();
            assert_eq!(error.errno(), Errno::ENODEV);
            assert!(error.remedy().contains("lo"), "{error}");
        }
    }

    #[test]
    fn the_kernels_one_program_and_several_are_both_read() {
        let read = |request: Request| AttachedXdp::parse(Attributes::parse(request.payload(), 0));
        let one = read(Request::new(0, 0).u8(IFLA_XDP_ATTACHED, 2).u32(IFLA_XDP_PROG_ID, 9));
        assert_eq!(one, AttachedXdp { generic: Some(9), ..AttachedXdp::default() });
        let several = read(Request::new(0, 0).u8(IFLA_XDP_ATTACHED, 4).u32(5, 7).u32(6, 8));
        assert_eq!(several, AttachedXdp { native: Some(7), generic: Some(8), offloaded: None });
    }
}
