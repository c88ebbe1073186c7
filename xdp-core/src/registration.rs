//! Registration: one UMEM, many queues.
#![forbid(unsafe_code)]

use crate::ring::KernelRing;
use crate::xsk::{Place, Xsk, XskConfig, XskFar};
use crate::{Error, Port, RingReceiver, RingTransmitter};
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
    queues: u32,
    /// Kept by the sockets: with the last of them on an interface, its program goes.
    attachments: Vec<(Key, Weak<Attachment>)>,
}

/// An interface anywhere: the cookie of its network namespace, and its index there.
type Key = (u64, u32);

impl<'u> Registration<'u> {
    /// Sockets of `umem`, fed every packet by a program in native mode.
    pub fn new(umem: &'u Umem) -> Self {
        Self { umem, program: Some((Mode::Native, Rules::all())), queues: 64, attachments: Vec::new() }
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
        let ifindex = self.check(interface, queue, config)?;
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
                            queues: self.queues,
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

    /// The interface's index, if everything that can be checked before anything is changed is in order.
    #[cfg(feature = "std")]
    fn check(&self, name: &str, queue: u32, config: &XskConfig) -> Result<u32, Error> {
        use alloc::format;
        use xdp_umem::Errno;
        let interface = crate::netdev::Interface::named(name)?;
        let queues = interface.queues()?;
        let queues = queues.rx.max(queues.tx);
        if queue >= queues {
            let remedy = format!("it has {queues}, numbered from 0");
            return Err(Error::new("bind", format!("{name} queue {queue}"), Errno::EINVAL, remedy));
        }
        let (longest, room) = (interface.mtu + 14, self.umem.layout().packet_max());
        if self.program.is_some() && !config.multi_buffer && longest > room {
            return Err(Error::new(
                "receive on",
                format!("{name} (MTU {})", interface.mtu),
                Errno::EMSGSIZE,
                format!(
                    "a packet of {longest} bytes does not fit a chunk of {} ({room} after headroom): lower the MTU{}",
                    self.umem.layout().chunk_size(),
                    if self.umem.layout().chunk_size() < 4096 { ", or take --chunk-size 4096" } else { "" },
                ),
            ));
        }
        Ok(interface.index)
    }

    #[cfg(not(feature = "std"))]
    fn check(&self, name: &str, _: u32, _: &XskConfig) -> Result<u32, Error> {
        let index = alloc::ffi::CString::new(name).ok().and_then(|name| sys::if_nametoindex(&name).ok());
        index.ok_or_else(|| {
            Error::new("find", name, xdp_umem::Errno::ENODEV, "no such interface in this network namespace")
        })
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

/// What tells this thread's network namespace from all others, or 0 before Linux 5.14.
fn namespace_cookie() -> u64 {
    const SO_NETNS_COOKIE: i32 = 71;
    sys::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)
        .and_then(|socket| sys::getsockopt::<u64>(&socket, libc::SOL_SOCKET, SO_NETNS_COOKIE))
        .map_or(0, |(cookie, _)| cookie)
}
