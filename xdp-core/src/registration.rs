//! Registration: one UMEM, many queues.
#![forbid(unsafe_code)]

use crate::ring::KernelRing;
use crate::xsk::{Place, Xsk, XskConfig, XskFar};
#[cfg(feature = "std")]
use crate::{Errno, ZeroCopy};
use crate::{Error, Port, RingReceiver, RingTransmitter};
#[cfg(feature = "std")]
use alloc::format;
use alloc::string::ToString;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use xdp_bpf::{AttachOptions, Attachment, Mode, Rules};
use xdp_umem::{Umem, sys};

/// A port over a real AF_XDP socket.
pub type XskPort<'u> = Port<RingReceiver<'u, KernelRing>, RingTransmitter<'u, KernelRing>, XskFar>;

/// Binds queues of any interfaces to one UMEM, so that a frame received on one can be sent on any other.
///
/// Each socket registers the memory itself, so that zero-copy and wake-ups may differ from queue to queue; the memory-lock
/// limit counts it each time. The first queue bound on an interface puts the XDP program on it; the last port dropped
/// takes it off.
///
/// ```no_run
/// use xdp_core::{Layout, Registration, RegionOptions, Umem, Worker, Verdict, XskConfig};
/// let umem = Umem::new(Layout::new(2048, 8192)?, &RegionOptions::default())?;
/// let mut registration = Registration::new(&umem);
/// let port = registration.bind("veth0", 0, &XskConfig::default())?;
/// let frames = umem.take_frames().expect("taken once");
/// let mut worker = Worker::new([port], |_: &mut xdp_core::Frame<'_>| Verdict::Tx, frames);
/// worker.turn();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Registration<'u> {
    umem: &'u Umem,
    /// What the program redirects, and where it runs; `None` for sockets that only send.
    program: Option<(Mode, Rules)>,
    /// Kept by the sockets: with the last of them on an interface, its program goes.
    attachments: Vec<(Key, Weak<Attachment>)>,
}

/// Entries of each program's map: 8 bytes each, and more than any card has queues, so that whichever is bound first does not
/// decide which others can be.
const QUEUES: u32 = 4096;

/// An interface anywhere: the cookie of its network namespace, and its index there.
type Key = (u64, u32);

impl<'u> Registration<'u> {
    /// Sockets of `umem`, fed every packet by a program in native mode.
    pub fn new(umem: &'u Umem) -> Self {
        Self { umem, program: Some((Mode::Native, Rules::all())), attachments: Vec::new() }
    }

    /// Runs the program in this mode: always said, never left to the kernel.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.program = self.program.map(|(_, rules)| (mode, rules));
        self
    }

    /// Redirects only what matches; everything else stays with the host.
    pub fn rules(mut self, rules: Rules) -> Self {
        self.program = self.program.map(|(mode, _)| (mode, rules));
        self
    }

    /// Attaches no program: the sockets only send.
    pub fn send_only(mut self) -> Self {
        self.program = None;
        self
    }

    /// Binds a queue, in the calling thread's network namespace.
    ///
    /// # Errors
    /// No such interface (ENODEV) or queue (EINVAL), the queue taken (EBUSY, after
    /// [`bind_timeout_ms`](XskConfig::bind_timeout_ms)), zero-copy required and refused (EOPNOTSUPP), a program attached
    /// already (EBUSY, EEXIST), no privilege (EPERM), the memory-lock limit (ENOBUFS), a packet of the interface's MTU longer than
    /// a chunk takes (EMSGSIZE). The text of each says what to do.
    ///
    /// # Cost
    /// Some twenty system calls, and five more for the first queue of an interface.
    pub fn bind(&mut self, interface: &str, queue: u32, config: &XskConfig) -> Result<XskPort<'u>, Error> {
        let (ifindex, config) = self.check(interface, queue, config)?;
        let config = &config;
        let attachment = match &self.program {
            Some((mode, rules)) => {
                let key = (namespace_cookie(), ifindex);
                self.attachments.retain(|(_, attachment)| attachment.strong_count() > 0);
                let found = self.attachments.iter().find(|(known, _)| *known == key);
                Some(match found.and_then(|(_, attachment)| attachment.upgrade()) {
                    Some(attachment) => attachment,
                    None => {
                        let options = AttachOptions {
                            interface: interface.to_string(),
                            queues: QUEUES,
                            frags: config.multi_buffer,
                            ..AttachOptions::default()
                        };
                        let attachment = Arc::new(Attachment::new(ifindex, *mode, rules, &options)?);
                        self.attachments.push((key, Arc::downgrade(&attachment)));
                        attachment
                    }
                })
            }
            None => None,
        };
        let attachment = attachment.as_ref().map(|attachment| (attachment, attachment.index(queue)));
        let place = Place { ifindex, name: interface, queue, attachment };
        Xsk::open(self.umem, place, config)
    }

    /// The interface's index and what to bind with, if everything that can be checked before anything is changed is in
    /// order.
    #[cfg(feature = "std")]
    fn check(&self, name: &str, queue: u32, config: &XskConfig) -> Result<(u32, XskConfig), Error> {
        use crate::netdev::ethtool::Driver;
        let interface = crate::netdev::Interface::named(name)?;
        let queues = interface.queues()?;
        let driver = interface.driver()?.value();
        let facts = Facts {
            name,
            mtu: interface.mtu,
            queues: (queues.rx, queues.tx),
            driver: driver.as_ref().map_or("", |Driver { name, .. }| name),
            packet_max: self.umem.layout().packet_max(),
            chunk_size: self.umem.layout().chunk_size(),
            mode: self.program.as_ref().map(|(mode, _)| *mode),
        };
        Ok((interface.index, facts.settle(queue, config)?))
    }

    #[cfg(not(feature = "std"))]
    fn check(&self, name: &str, _: u32, config: &XskConfig) -> Result<(u32, XskConfig), Error> {
        let index = alloc::ffi::CString::new(name).ok().and_then(|name| sys::if_nametoindex(&name).ok());
        let index = index.ok_or_else(|| {
            Error::new("find", name, xdp_umem::Errno::ENODEV, "no such interface in this network namespace")
        })?;
        Ok((index, *config))
    }

    /// The memory.
    pub fn umem(&self) -> &'u Umem {
        self.umem
    }

    /// The programs attached, one an interface, as long as a port on it lives.
    pub fn attachments(&self) -> impl Iterator<Item = Arc<Attachment>> {
        self.attachments.iter().filter_map(|(_, attachment)| attachment.upgrade())
    }
}

/// What decides whether a socket can work where it is to be bound.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
struct Facts<'a> {
    name: &'a str,
    mtu: u32,
    /// In use: receive, transmit.
    queues: (u32, u32),
    driver: &'a str,
    packet_max: u32,
    chunk_size: u32,
    /// Of the program; `None` for a socket that only sends.
    mode: Option<Mode>,
}

#[cfg(feature = "std")]
impl Facts<'_> {
    /// What to bind with: as asked, but in copy mode where zero-copy is only preferred and is known not to work although
    /// the kernel would grant it.
    fn settle(&self, queue: u32, config: &XskConfig) -> Result<XskConfig, Error> {
        let Self { name, mtu, queues: (rx, tx), .. } = *self;
        // With a program attached virtio_net has more transmit queues in use than receive queues. A zero-copy socket can be
        // bound to one of those that is no pair, and the kernel crashes when it goes (seen on 6.18 and 7.3).
        let sending_only = self.mode.is_none() && config.zero_copy == ZeroCopy::Off;
        let queues = if sending_only { rx.max(tx) } else { rx };
        if queue >= queues {
            let remedy = format!("it has {queues}, numbered from 0");
            return Err(Error::new("bind", format!("{name} queue {queue}"), Errno::EINVAL, remedy));
        }
        let longest = mtu + 14;
        let receives_whole = self.mode.is_some() && !config.multi_buffer;
        if receives_whole && longest > self.packet_max {
            return Err(self.too_long(
                self.packet_max,
                "after headroom",
                &[("take --chunk-size 4096", self.chunk_size < 4096)],
            ));
        }
        let refused = if self.mode == Some(Mode::Skb) {
            // igb grants it, and moves nothing
            let remedy = "zero-copy is the driver's: take --mode native, or --copy";
            Some(Error::new("bind", format!("{name} queue {queue} in skb mode"), Errno::EOPNOTSUPP, remedy))
        } else if self.mode.is_none() && self.sends_only_with_a_program() {
            let remedy =
                "the driver sends in zero-copy only with a program attached: receive as well, or take --copy";
            Some(Error::new(
                "bind",
                format!("{name} queue {queue} without a program"),
                Errno::EOPNOTSUPP,
                remedy,
            ))
        } else if receives_whole && longest > self.whole_max() {
            // it would deliver the packet in two, each as if it were one
            let how = "in the driver's steps of 1024";
            let remedies = [("take --chunk-size 4096", self.chunk_size < 4096), ("take --copy", true)];
            Some(self.too_long(self.whole_max(), how, &remedies))
        } else {
            None
        };
        match (refused, config.zero_copy) {
            (Some(error), ZeroCopy::Require) => Err(error),
            (Some(_), _) => Ok(XskConfig { zero_copy: ZeroCopy::Off, ..*config }),
            (None, _) => Ok(*config),
        }
    }

    /// Whether the driver grants zero-copy without a program and then refuses every wake-up: igb was seen to, and its
    /// siblings' `xsk_wakeup` functions check the same.
    fn sends_only_with_a_program(&self) -> bool {
        ["igb", "igc", "ixgbe", "i40e", "ice"].contains(&self.driver)
    }

    /// The longest packet that the driver receives into one chunk in zero-copy: the receive buffers of Intel's 1-gigabit
    /// cards are of whole kilobytes (`SRRCTL.BSIZEPKT`).
    fn whole_max(&self) -> u32 {
        match self.driver {
            "igb" | "igc" => self.packet_max / 1024 * 1024,
            _ => self.packet_max,
        }
    }

    fn too_long(&self, room: u32, how: &str, remedies: &[(&str, bool)]) -> Error {
        let Self { name, mtu, chunk_size, .. } = *self;
        let mut remedy = format!(
            "a packet of {} bytes does not fit a chunk of {chunk_size} ({room} {how}): lower the MTU",
            mtu + 14
        );
        for (other, applies) in remedies {
            if *applies {
                remedy += ", or ";
                remedy += other;
            }
        }
        Error::new("receive on", format!("{name} (MTU {mtu})"), Errno::EMSGSIZE, remedy)
    }
}

/// What tells this thread's network namespace from all others, or 0 before Linux 5.14.
fn namespace_cookie() -> u64 {
    const SO_NETNS_COOKIE: i32 = 71;
    sys::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)
        .and_then(|socket| sys::getsockopt::<u64>(&socket, libc::SOL_SOCKET, SO_NETNS_COOKIE))
        .map_or(0, |(cookie, _)| cookie)
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    const IGB: Facts<'_> = Facts {
        name: "x0",
        mtu: 1500,
        queues: (2, 2),
        driver: "igb",
        packet_max: 2048 - 256,
        chunk_size: 2048,
        mode: Some(Mode::Native),
    };

    fn settled(facts: &Facts<'_>, zero_copy: ZeroCopy) -> Result<ZeroCopy, Errno> {
        let config = XskConfig { zero_copy, ..XskConfig::default() };
        let settled = facts.settle(0, &config);
        settled.map(|config| config.zero_copy).map_err(|error| error.errno().expect("a socket's"))
    }

    #[test]
    fn a_card_that_would_cut_packets_in_two_gets_no_zero_copy() {
        assert_eq!(settled(&IGB, ZeroCopy::Require), Err(Errno::EMSGSIZE));
        assert_eq!(settled(&IGB, ZeroCopy::Prefer), Ok(ZeroCopy::Off));
        assert_eq!(settled(&IGB, ZeroCopy::Off), Ok(ZeroCopy::Off));
        let fits = [
            Facts { mtu: 1010, ..IGB },
            Facts { chunk_size: 4096, packet_max: 3840, ..IGB },
            Facts { driver: "virtio_net", ..IGB },
        ];
        for facts in fits {
            assert_eq!(settled(&facts, ZeroCopy::Require), Ok(ZeroCopy::Require), "{facts:?}");
        }
        assert_eq!(settled(&Facts { mtu: 1011, ..IGB }, ZeroCopy::Require), Err(Errno::EMSGSIZE));
    }

    #[test]
    fn a_packet_longer_than_a_chunk_is_refused_in_any_mode() {
        let long = Facts { driver: "veth", mtu: 2000, ..IGB };
        for zero_copy in [ZeroCopy::Require, ZeroCopy::Prefer, ZeroCopy::Off] {
            assert_eq!(settled(&long, zero_copy), Err(Errno::EMSGSIZE));
        }
        let config = XskConfig { multi_buffer: true, ..XskConfig::default() };
        assert!(long.settle(0, &config).is_ok(), "in several chunks it fits");
    }

    #[test]
    fn a_program_in_skb_mode_gets_no_zero_copy() {
        let skb = Facts { mode: Some(Mode::Skb), driver: "virtio_net", ..IGB };
        assert_eq!(settled(&skb, ZeroCopy::Require), Err(Errno::EOPNOTSUPP));
        assert_eq!(settled(&skb, ZeroCopy::Prefer), Ok(ZeroCopy::Off));
    }

    #[test]
    fn a_card_that_sends_only_under_a_program_gets_no_zero_copy_without_one() {
        let sending = Facts { mode: None, ..IGB };
        assert_eq!(settled(&sending, ZeroCopy::Require), Err(Errno::EOPNOTSUPP));
        assert_eq!(settled(&sending, ZeroCopy::Prefer), Ok(ZeroCopy::Off));
        let other = Facts { driver: "virtio_net", ..sending };
        assert_eq!(settled(&other, ZeroCopy::Require), Ok(ZeroCopy::Require));
    }

    #[test]
    fn a_transmit_queue_without_its_receive_queue_is_only_for_sending_by_copy() {
        let facts = Facts { queues: (1, 3), driver: "virtio_net", ..IGB };
        let at = |facts: &Facts<'_>, queue, zero_copy| {
            facts.settle(queue, &XskConfig { zero_copy, ..XskConfig::default() }).is_ok()
        };
        assert!(at(&facts, 0, ZeroCopy::Require));
        assert!(!at(&facts, 1, ZeroCopy::Require) && !at(&facts, 1, ZeroCopy::Off));
        let sending = Facts { mode: None, ..facts };
        assert!(at(&sending, 2, ZeroCopy::Off) && !at(&sending, 3, ZeroCopy::Off));
        assert!(!at(&sending, 2, ZeroCopy::Require) && !at(&sending, 2, ZeroCopy::Prefer));
    }
}
