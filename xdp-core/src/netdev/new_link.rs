//! NewLink: virtual interfaces to be made: veth pairs, dummies, ifbs.
#![forbid(unsafe_code)]

use super::link::{
    IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, IFLA_NET_NS_FD, IFLA_NUM_RX_QUEUES,
    IFLA_NUM_TX_QUEUES, RTM_NEWLINK, link_header, must_be_name, request,
};
use super::netlink::{CREATE, Request, Socket};
use super::{Error, Interface, Mac, Namespace};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use xdp_umem::Errno;

/// One interface that is to be: of a pair, one end.
#[derive(Clone, Debug)]
pub struct End<'n> {
    name: String,
    namespace: Option<&'n Namespace>,
    mac: Option<Mac>,
}

impl<'n> End<'n> {
    /// One of that name, in the namespace of the thread that makes it.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), namespace: None, mac: None }
    }

    /// In another namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &'n Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// With that address instead of a random one.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Runs a job where the interface is.
    fn run<T: Send>(&self, job: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        match self.namespace {
            Some(namespace) => namespace.run(job)?,
            None => job(),
        }
    }
}

/// A virtual interface to be made, or a pair of them.
#[derive(Clone, Debug)]
pub struct NewLink<'n> {
    kind: &'static str,
    near: End<'n>,
    far: Option<End<'n>>,
    queues: u32,
    mtu: Option<u32>,
}

impl<'n> NewLink<'n> {
    /// Two interfaces, each the other's wire.
    pub fn veth(near: End<'n>, far: End<'n>) -> Self {
        Self { kind: "veth", near, far: Some(far), queues: 1, mtu: None }
    }

    /// An interface that drops what it is given.
    pub fn dummy(end: End<'n>) -> Self {
        Self { kind: "dummy", near: end, far: None, queues: 1, mtu: None }
    }

    /// An interface for shaping what others receive; another one that needs no hardware.
    pub fn ifb(end: End<'n>) -> Self {
        Self { kind: "ifb", ..Self::dummy(end) }
    }

    /// With so many receive and transmit queues, all in use (else one).
    #[must_use]
    pub fn queues(mut self, queues: u32) -> Self {
        self.queues = queues;
        self
    }

    /// With that MTU, in bytes (else the kernel's, 1500).
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Makes it, down and without addresses: one interface, or both ends of a pair, the near one first. Costs a
    /// netlink exchange, one more for each interface, and a thread for each in another namespace.
    ///
    /// # Errors
    /// `EEXIST` if a name is taken, `EOPNOTSUPP` if the kernel lacks the kind, `EPERM` without CAP_NET_ADMIN, `EINVAL` for
    /// an impossible name, MTU or number of queues.
    pub fn create(&self) -> Result<Vec<Interface>, Error> {
        must_be_name("create", &self.near.name)?;
        let ends: Vec<_> = [Some(&self.near), self.far.as_ref()].into_iter().flatten().collect();
        let made = Socket::route()?.run("create", self.shown(), self.request()?);
        made.map_err(|error| match error.errno() {
            Errno::EOPNOTSUPP => error.remedy_is("load the kernel module, or build a kernel that has it"),
            _ => error,
        })?;
        let read: Result<_, _> = ends.iter().map(|end| end.run(|| Interface::named(&end.name))).collect();
        if read.is_err() {
            // what cannot be read cannot be handed out, nor may it stay
            let _ = self.near.run(|| Interface::named(&self.near.name)?.delete());
        }
        read
    }

    /// As [`create`](Self::create), of a pair.
    ///
    /// # Panics
    /// If it is not a pair.
    pub fn create_pair(&self) -> Result<[Interface; 2], Error> {
        assert!(self.far.is_some(), "a {} has one end", self.kind);
        let [near, far] = self.create()?.try_into().expect("one interface for each end");
        Ok([near, far])
    }

    /// The near end's name.
    pub fn name(&self) -> &str {
        &self.near.name
    }

    /// The near end's namespace, if not that of the thread.
    pub(super) fn namespace(&self) -> Option<&'n Namespace> {
        self.near.namespace
    }

    /// The near end's address, chosen now if it was left open.
    pub(super) fn fixed_mac(&mut self, otherwise: impl FnOnce() -> Mac) -> Mac {
        *self.near.mac.get_or_insert_with(otherwise)
    }

    /// For error texts.
    fn shown(&self) -> String {
        match &self.far {
            Some(far) => format!("{} {} and {}", self.kind, self.near.name, far.name),
            None => format!("{} {}", self.kind, self.near.name),
        }
    }

    fn request(&self) -> Result<Request, Error> {
        const IFLA_INFO_DATA: u16 = 2;
        const VETH_INFO_PEER: u16 = 1;
        if let Some(far) = &self.far {
            must_be_name("create", &far.name)?;
        }
        let message = self.describe(request(RTM_NEWLINK, CREATE, 0, 0, 0), &self.near);
        Ok(message.nest(IFLA_LINKINFO, |info| {
            let info = info.text(IFLA_INFO_KIND, self.kind);
            let Some(far) = &self.far else { return info };
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| self.describe(peer.raw(&link_header(0, 0, 0)), far))
            })
        }))
    }

    /// Adds an end's attributes.
    fn describe(&self, mut message: Request, end: &End<'_>) -> Request {
        message = message.text(IFLA_IFNAME, &end.name);
        message = message.u32(IFLA_NUM_TX_QUEUES, self.queues).u32(IFLA_NUM_RX_QUEUES, self.queues);
        if let Some(mtu) = self.mtu {
            message = message.u32(IFLA_MTU, mtu);
        }
        if let Some(mac) = end.mac {
            message = message.bytes(IFLA_ADDRESS, &mac.0);
        }
        match end.namespace {
            Some(namespace) => message.u32(IFLA_NET_NS_FD, namespace.fd().raw() as u32),
            None => message,
        }
    }
}
