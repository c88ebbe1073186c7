//! The paper's three hosts on one machine: A – B – C, network namespaces joined by veth pairs.
#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use xdp_core::netdev::change::{CreateLink, CreateNamespace};
use xdp_core::netdev::journal::{Journal, Report};
use xdp_core::netdev::{End, Error, Interface, Mac, Namespace, NewLink};

/// One end of a link.
#[derive(Clone, Debug)]
pub struct Card {
    /// Its interface's name, in its host's namespace.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Its address in the kernel's own stack.
    pub ip: Ipv4Addr,
}

/// Three namespaces and two links, made through the journal: removed when dropped, or by `restore` after a SIGKILL.
#[derive(Debug)]
pub struct Hosts {
    /// The host that asks.
    pub a: Namespace,
    /// The host in the middle.
    pub b: Namespace,
    /// The host behind it.
    pub c: Namespace,
    /// A's card, towards B.
    pub a_to_b: Card,
    /// B's card towards A.
    pub b_to_a: Card,
    /// B's card towards C.
    pub b_to_c: Card,
    /// C's card, towards B.
    pub c_to_b: Card,
    journal: Journal,
}

impl Hosts {
    /// Makes them: namespaces `xdp-PID-a`, `-b`, `-c`, links with the process id in their names, `queues` queues each, up, each
    /// end with an address in 198.18.0.0/15 (the benchmarking network).
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN and CAP_NET_ADMIN; what was made until then is gone again.
    ///
    /// # Cost
    /// About 10 ms.
    pub fn new(queues: u32) -> Result<Self, Error> {
        let mut journal = Journal::open()?;
        let pid = std::process::id();
        let mut host = |letter| journal.apply(CreateNamespace::new(format!("xdp-{pid}-{letter}")));
        let (a, b, c) = (host('a')?, host('b')?, host('c')?);
        let card = |name: &str, net: u8, host: u8| Card {
            name: format!("x{name}{pid}"),
            mac: Mac::local(u32::from_be_bytes([pid as u8, net, host, 1])),
            ip: Ipv4Addr::new(198, 18, net, host),
        };
        let (a_to_b, b_to_a) = (card("ab", 0, 1), card("ba", 0, 2));
        let (b_to_c, c_to_b) = (card("bc", 1, 1), card("cb", 1, 2));
        for (near, here, far, there) in [(&a_to_b, &a, &b_to_a, &b), (&b_to_c, &b, &c_to_b, &c)] {
            let end =
                |card: &Card, namespace| End::new(card.name.clone()).in_namespace(namespace).mac(card.mac);
            let link = NewLink::veth(end(near, here), end(far, there)).queues(queues);
            journal.apply(CreateLink::new(link))?;
            for (card, namespace) in [(near, here), (far, there)] {
                namespace.run(|| {
                    let interface = Interface::named(&card.name)?;
                    interface.set_ipv6_autoconfigured(false)?; // no packets but ours
                    interface.add_address(IpAddr::V4(card.ip), 24)?;
                    interface.set_up(true)
                })??;
            }
            there.run(|| Interface::named(&far.name)?.wait_operational(Duration::from_secs(2)))??;
            here.run(|| Interface::named(&near.name)?.wait_operational(Duration::from_secs(2)))??;
        }
        Ok(Self { a, b, c, a_to_b, b_to_a, b_to_c, c_to_b, journal })
    }

    /// Removes them, and says what could not be.
    pub fn remove(mut self) -> Report {
        self.journal.restore()
    }
}
