//! One AF_XDP socket: its rings, its options, its wake-ups.

use crate::far::{Bellpush, Far, Kicked, Outcome, Standstill, State, Want};
use crate::port::{Port, RingReceiver, RingTransmitter};
use crate::ring::{Consumer, KernelRing, Mapping, Producer, RingSizes, Watcher};
use crate::uapi::{self, MmapOffsets, SockaddrXdp, Statistics, UmemReg};
use crate::{Error, clock};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::ffi::c_int;
use core::sync::atomic::{Ordering, fence};
use xdp_bpf::Attachment;
use xdp_umem::{Errno, Fd, Pages, Registered, Umem, sys};

const SO_BUSY_POLL: c_int = 46;
const SO_INCOMING_NAPI_ID: c_int = 56;
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;

/// Whether packets are to pass between the device and the UMEM without a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Or the bind fails.
    Require,
    /// If the driver can; which it was, [`Granted::zero_copy`] says.
    #[default]
    Prefer,
    /// Copy mode, even where the driver could.
    Off,
}

/// Busy polling: our system calls run the device's poll, in place of its interrupt. Since Linux 5.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// Packets a poll may handle (`SO_BUSY_POLL_BUDGET`).
    pub budget: u32,
    /// How long a call may poll, in microseconds (`SO_BUSY_POLL`).
    pub time_us: u32,
    /// Whether to keep interrupts off between polls (`SO_PREFER_BUSY_POLL`). On drivers that send and receive in different
    /// NAPI instances (virtio_net; igb with up to half of its queues in use) this stalls zero-copy sending: where that is
    /// seen, the socket stops preferring, and [`Granted::prefers_busy_poll`] says so.
    pub prefer: bool,
}

/// How to bind a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XskConfig {
    /// Of its rings.
    pub rings: RingSizes,
    /// With or without copies.
    pub zero_copy: ZeroCopy,
    /// Whether the driver may say when it needs waking (`XDP_USE_NEED_WAKEUP`). No effect in copy mode.
    pub need_wakeup: bool,
    /// Whether packets longer than a chunk are received, in several (`XDP_USE_SG`). Since Linux 6.6.
    pub multi_buffer: bool,
    /// Busy polling, if any.
    pub busy_poll: Option<BusyPoll>,
    /// Packets a send call moves in copy mode (`XDP_MAX_TX_SKB_BUDGET`), 32 to the tx ring's size; as many as the tx
    /// ring holds, if not given. Since Linux 6.17; before it is 32.
    pub tx_budget: Option<u32>,
    /// Bytes of packets that may be on their way out in copy mode (`SO_SNDBUF`); the kernel's default, if not given,
    /// which is 256 packets of 64 bytes, or 93 of 1400.
    pub send_buffer: Option<u32>,
    /// How long to try again while the queue is taken, in milliseconds: a closed socket's is free only after some 20 ms.
    pub bind_timeout_ms: u32,
}

impl Default for XskConfig {
    fn default() -> Self {
        Self {
            rings: RingSizes { fill: 2048, rx: 2048, tx: 2048, completion: 2048 },
            zero_copy: ZeroCopy::Prefer,
            need_wakeup: true,
            multi_buffer: false,
            busy_poll: None,
            tx_budget: None,
            send_buffer: None,
            bind_timeout_ms: 2000,
        }
    }
}

#[cfg(feature = "std")]
impl XskConfig {
    /// This, adapted to what was found out about the very queue: see [`Contract::adapt`](crate::probe::Contract::adapt).
    ///
    /// # Errors
    /// What is asked for is known not to work there.
    pub fn under(&self, contract: &crate::probe::Contract) -> Result<(Self, alloc::vec::Vec<String>), Error> {
        contract.adapt(self)
    }
}

/// What a socket got, read back, beside what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Granted {
    /// `XDP_OPTIONS` says so.
    pub zero_copy: bool,
    /// Whether the driver's wake-up flags mean anything: asked for, and zero-copy. In copy mode the tx flag is constant.
    pub need_wakeup: bool,
    /// Busy polling: `Ok` with the NAPI id where it works, else why not.
    pub busy_poll: Result<u32, String>,
    /// Whether interrupts stay off between polls; `false`, though asked for, once that has been seen to stall sending.
    pub prefers_busy_poll: bool,
    /// Packets a send call moves in copy mode; `None` on kernels without the option, where it is 32 at most.
    pub tx_budget: Option<u32>,
    /// `SO_SNDBUF`, as the kernel has it, in bytes.
    pub send_buffer: u32,
    /// Of the rings.
    pub rings: RingSizes,
}

/// One AF_XDP socket, bound, with its rings mapped. Made by [`Registration::bind`](crate::Registration::bind); the halves
/// of its port and its far side share it.
///
/// Dropped in this order: its slot in the XSKMAP, its mappings, its descriptor, and last its hold on the program's
/// attachment. The other way round virtio_net crashes the kernel.
#[derive(Debug)]
pub struct Xsk {
    _slot: Option<Slot>,
    rings: Rings,
    fd: Fd,
    _attachment: Option<Arc<Attachment>>,
    _registered: Registered,
    config: XskConfig,
    tx_budget: Option<u32>,
    name: String,
    queue: u32,
}

/// The bare ends of a socket's rings, and the socket.
#[cfg(feature = "std")]
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) fill: Producer<u64, KernelRing>,
    pub(crate) rx: Consumer<xdp_umem::Desc, KernelRing>,
    pub(crate) tx: Producer<xdp_umem::Desc, KernelRing>,
    pub(crate) completion: Consumer<u64, KernelRing>,
    pub(crate) xsk: Arc<Xsk>,
}

#[derive(Debug)]
struct Rings {
    fill: Mapping,
    rx: Mapping,
    tx: Mapping,
    completion: Mapping,
}

/// A socket's place in an XSKMAP, cleared when dropped.
#[derive(Debug)]
struct Slot {
    attachment: Arc<Attachment>,
    index: u32,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // It fails only where the socket was taken out by others, and then it is out.
        let _ = self.attachment.map().clear(self.index);
    }
}

/// Where a socket is to be bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) ifindex: u32,
    pub(crate) name: &'a str,
    pub(crate) queue: u32,
    /// The program that is to redirect to it, and its slot in that program's map.
    pub(crate) attachment: Option<(&'a Arc<Attachment>, u32)>,
}

impl Xsk {
    /// Opens a socket, gives it `umem`, makes and maps its rings, and binds it, in the thread's network namespace.
    pub(crate) fn open<'u>(
        umem: &'u Umem,
        place: Place<'_>,
        config: &XskConfig,
    ) -> Result<Port<RingReceiver<'u, KernelRing>, RingTransmitter<'u, KernelRing>, XskFar>, Error> {
        Ok(Self::ready(umem, place, config)?.into_port(umem))
    }

    /// As [`open`](Self::open), with the bare ends of its rings, for probing what the kernel does with descriptors that no
    /// port would write.
    ///
    /// # Safety
    /// Nobody has a frame of `umem`, or will while the ends live.
    #[cfg(feature = "std")]
    pub(crate) unsafe fn open_ends(umem: &Umem, place: Place<'_>, config: &XskConfig) -> Result<Ends, Error> {
        let xsk = Self::ready(umem, place, config)?;
        let ring = |mapping: &Mapping| KernelRing::new(mapping.parts(), xsk.clone());
        let rings = &xsk.rings;
        // SAFETY: R4, the socket is new, so each end is made once; without frames nobody minds what the kernel hands back.
        let (fill, rx, tx, completion) = unsafe {
            (
                Producer::new(ring(&rings.fill)),
                Consumer::new(ring(&rings.rx)),
                Producer::new(ring(&rings.tx)),
                Consumer::new(ring(&rings.completion)),
            )
        };
        Ok(Ends { fill, rx, tx, completion, xsk })
    }

    /// A bound socket that nobody has an end of yet.
    fn ready(umem: &Umem, place: Place<'_>, config: &XskConfig) -> Result<Arc<Self>, Error> {
        let at = format!("{} queue {}", place.name, place.queue);
        let fail = |operation, remedy: &str| {
            let at = at.clone();
            let remedy = remedy.to_string();
            move |errno| Error::new(operation, at, errno, remedy)
        };
        if umem.region().pages() == Pages::Heap {
            return Err(fail("register", "this UMEM is on the heap: map it with Umem::new")(Errno::EFAULT));
        }
        let fd = sys::socket(uapi::AF_XDP, libc::SOCK_RAW, 0).map_err(|errno| {
            let remedy = match errno {
                Errno::EPERM => {
                    "an AF_XDP socket needs CAP_NET_RAW: run as root, or give the binary the capability"
                }
                Errno::EAFNOSUPPORT => "this kernel is built without CONFIG_XDP_SOCKETS",
                _ => "",
            };
            fail("open an AF_XDP socket for", remedy)(errno)
        })?;
        let registered = register(&fd, umem)
            .map_err(|errno| fail("register the UMEM with", &registration_remedy(errno, umem))(errno))?;
        let sizes = &config.rings;
        for (option, entries) in [
            (uapi::XDP_UMEM_FILL_RING, sizes.fill),
            (uapi::XDP_UMEM_COMPLETION_RING, sizes.completion),
            (uapi::XDP_RX_RING, sizes.rx),
            (uapi::XDP_TX_RING, sizes.tx),
        ] {
            sys::setsockopt(&fd, uapi::SOL_XDP, option, &entries)
                .map_err(fail("make a ring for", "ring sizes are powers of two"))?;
        }
        let (offsets, written) = sys::getsockopt::<MmapOffsets>(&fd, uapi::SOL_XDP, uapi::XDP_MMAP_OFFSETS)
            .map_err(fail("read the ring offsets of", ""))?;
        if written != size_of::<MmapOffsets>() {
            return Err(fail(
                "read the ring offsets of",
                "this kernel is older than 5.4: 6.1 is the oldest supported",
            )(Errno::EPROTO));
        }
        let map = |page_offset, offset, capacity, entry_size| {
            Mapping::new(&fd, page_offset, offset, capacity, entry_size)
                .map_err(fail("map a ring of", "smaller rings may fit"))
        };
        let rings = Rings {
            fill: map(uapi::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, sizes.fill, 8)?,
            rx: map(uapi::XDP_PGOFF_RX_RING, &offsets.rx, sizes.rx, 16)?,
            tx: map(uapi::XDP_PGOFF_TX_RING, &offsets.tx, sizes.tx, 16)?,
            completion: map(uapi::XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, sizes.completion, 8)?,
        };
        let tx_budget = set_tx_budget(&fd, config).map_err(fail("set the tx budget of", TX_BUDGET))?;
        if let Some(bytes) = config.send_buffer {
            set_send_buffer(&fd, bytes).map_err(fail("set the send buffer of", ""))?;
        }
        if let Some(busy_poll) = config.busy_poll {
            set_busy_poll(&fd, busy_poll).map_err(fail("set busy polling of", "it needs CAP_NET_ADMIN"))?;
        }
        bind(&fd, &place, config)
            .map_err(|errno| fail("bind", &bind_remedy(errno, &place, config))(errno))?;
        let slot = match place.attachment {
            Some((attachment, index)) => {
                attachment.map().set(index, &fd).map_err(Error::from)?;
                Some(Slot { attachment: attachment.clone(), index })
            }
            None => None,
        };
        Ok(Arc::new(Self {
            _slot: slot,
            rings,
            fd,
            _attachment: place.attachment.map(|(attachment, _)| attachment.clone()),
            _registered: registered,
            config: *config,
            tx_budget,
            name: place.name.to_string(),
            queue: place.queue,
        }))
    }

    /// The two halves and the far side, made once, of a socket nobody else has yet.
    fn into_port<'u>(
        self: Arc<Self>,
        umem: &'u Umem,
    ) -> Port<RingReceiver<'u, KernelRing>, RingTransmitter<'u, KernelRing>, XskFar> {
        let ring = |mapping: &Mapping| KernelRing::new(mapping.parts(), self.clone());
        let rings = &self.rings;
        // SAFETY: R4, this is called once for a socket, so each end is made once; the kernel has the far ends, and
        // moves addresses from fill to rx and from tx to completion (K1).
        let (receiver, transmitter) = unsafe {
            (
                RingReceiver::new(umem, Producer::new(ring(&rings.fill)), [Consumer::new(ring(&rings.rx))]),
                RingTransmitter::new(
                    umem,
                    [Producer::new(ring(&rings.tx))],
                    Consumer::new(ring(&rings.completion)),
                ),
            )
        };
        let (tx, fill) = (Watcher::new(ring(&rings.tx)), Watcher::new(ring(&rings.fill)));
        let zero_copy = self.is_zero_copy();
        let far = XskFar {
            push: Bellpush::new(zero_copy),
            zero_copy,
            busy_poll: self.busy_poll().is_ok(),
            standstill: Standstill::new(zero_copy && self.prefers_busy_poll()),
            starved: Standstill::new(zero_copy),
            receives: false,
            tx,
            fill,
            state: State::Up,
            xsk: self,
        };
        Port::new(receiver, transmitter, far)
    }

    /// What it was granted, read back now.
    ///
    /// # Cost
    /// Four system calls.
    pub fn granted(&self) -> Granted {
        let zero_copy = self.is_zero_copy();
        let send_buffer = sys::getsockopt::<i32>(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUF);
        Granted {
            zero_copy,
            need_wakeup: zero_copy && self.config.need_wakeup,
            busy_poll: self.busy_poll(),
            prefers_busy_poll: self.prefers_busy_poll(),
            tx_budget: if zero_copy { None } else { self.tx_budget },
            send_buffer: send_buffer.map_or(0, |(bytes, _)| bytes as u32),
            rings: self.config.rings,
        }
    }

    /// Whether `XDP_OPTIONS` says zero-copy: the only way to know what the bind chose. Since Linux 5.3.
    pub fn is_zero_copy(&self) -> bool {
        sys::getsockopt::<u32>(&self.fd, uapi::SOL_XDP, uapi::XDP_OPTIONS)
            .is_ok_and(|(options, _)| options & uapi::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// The NAPI instance that busy polling polls, or why there is no busy polling.
    fn busy_poll(&self) -> Result<u32, String> {
        let asked = self.config.busy_poll.is_some();
        match sys::getsockopt::<u32>(&self.fd, libc::SOL_SOCKET, SO_INCOMING_NAPI_ID) {
            Ok((0, _)) => {
                let why = "the driver links no NAPI instance to the queue (SO_INCOMING_NAPI_ID is 0)";
                Err(if asked {
                    why.to_string()
                } else {
                    format!("not asked for, and in vain if it were: {why}")
                })
            }
            Ok(_) if !asked => Err("not asked for".to_string()),
            Ok((id, _)) => Ok(id),
            Err(errno) => Err(format!("SO_INCOMING_NAPI_ID cannot be read: {errno}")),
        }
    }

    fn prefers_busy_poll(&self) -> bool {
        sys::getsockopt::<u32>(&self.fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL).is_ok_and(|(on, _)| on != 0)
    }

    fn set_busy_poll_us(&self, us: u32) -> Result<(), Errno> {
        sys::setsockopt(&self.fd, libc::SOL_SOCKET, SO_BUSY_POLL, &us)
    }

    /// What the kernel counted: `XDP_STATISTICS`. Kernels before 5.9 leave the last three at 0.
    pub fn statistics(&self) -> Result<Statistics, Errno> {
        Ok(sys::getsockopt(&self.fd, uapi::SOL_XDP, uapi::XDP_STATISTICS)?.0)
    }

    /// Takes the pending `SO_ERROR`: ENETDOWN, once, after the interface was removed.
    pub fn take_error(&self) -> Option<Errno> {
        match sys::getsockopt::<i32>(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR) {
            Ok((0, _)) | Err(_) => None,
            Ok((errno, _)) => Some(Errno::from_raw(errno)),
        }
    }

    /// Its descriptor.
    #[cfg(feature = "std")]
    pub(crate) fn fd(&self) -> &Fd {
        &self.fd
    }

    /// How it was asked to be bound.
    pub fn config(&self) -> &XskConfig {
        &self.config
    }

    /// The name of its interface when it was bound.
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// Its queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }
}

#[cfg(feature = "std")]
impl std::os::fd::AsFd for Xsk {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn register(fd: &Fd, umem: &Umem) -> Result<Registered, Errno> {
    let layout = umem.layout();
    let mut flags = 0;
    if layout.is_unaligned() {
        flags |= uapi::XDP_UMEM_UNALIGNED_CHUNK_FLAG;
    }
    if layout.tx_metadata_len() > 0 {
        flags |= uapi::XDP_UMEM_TX_METADATA_LEN;
    }
    let reg = UmemReg {
        addr: umem.region().base().as_ptr() as u64,
        len: layout.len() as u64,
        chunk_size: layout.chunk_size(),
        headroom: layout.headroom(),
        flags,
        tx_metadata_len: layout.tx_metadata_len(),
    };
    let set = |reg: &UmemReg| sys::setsockopt(fd, uapi::SOL_XDP, uapi::XDP_UMEM_REG, reg);
    match set(&reg) {
        // 6.8 to 6.10 honour the length without the flag, and refuse the flag.
        Err(Errno::EINVAL) if layout.tx_metadata_len() > 0 => {
            set(&UmemReg { flags: flags & !uapi::XDP_UMEM_TX_METADATA_LEN, ..reg })?;
        }
        done => done?,
    }
    Ok(umem.register())
}

fn registration_remedy(errno: Errno, umem: &Umem) -> String {
    let kib = umem.layout().len() / 1024;
    match errno {
        Errno::ENOBUFS => format!(
            "{kib} KiB are more than the memory-lock limit leaves, and every socket counts its UMEM anew: \
             raise it (ulimit -l), take fewer chunks, or grant CAP_IPC_LOCK"
        ),
        Errno::ENOMEM => format!("{kib} KiB cannot be pinned: take fewer chunks"),
        Errno::EINVAL => "this kernel does not take this chunk size, headroom or metadata length".to_string(),
        _ => String::new(),
    }
}

const TX_BUDGET: &str = "it is 32 to the tx ring's size, since Linux 6.17";

/// Raises the copy-mode send budget; `None` where the kernel has no such option and nobody asked.
fn set_tx_budget(fd: &Fd, config: &XskConfig) -> Result<Option<u32>, Errno> {
    let budget = config.tx_budget.unwrap_or(config.rings.tx);
    if config.tx_budget.is_none() && budget < 32 {
        return Ok(None); // a ring this small never meets the budget
    }
    match sys::setsockopt(fd, uapi::SOL_XDP, uapi::XDP_MAX_TX_SKB_BUDGET, &budget) {
        Ok(()) => Ok(Some(budget)),
        Err(Errno::ENOPROTOOPT) if config.tx_budget.is_none() => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Past the system's limit where we may, up to it where not. The kernel doubles what it is given.
fn set_send_buffer(fd: &Fd, bytes: u32) -> Result<(), Errno> {
    let half = bytes / 2;
    sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &half)
        .or_else(|_| sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &half))
}

fn set_busy_poll(fd: &Fd, busy_poll: BusyPoll) -> Result<(), Errno> {
    let set = |name, value: u32| sys::setsockopt(fd, libc::SOL_SOCKET, name, &value);
    if busy_poll.prefer {
        set(SO_PREFER_BUSY_POLL, 1)?;
    }
    set(SO_BUSY_POLL, busy_poll.time_us)?;
    set(SO_BUSY_POLL_BUDGET, busy_poll.budget)
}

/// Binds, trying again while the queue is taken: a closed socket's queue is released only later.
fn bind(fd: &Fd, place: &Place<'_>, config: &XskConfig) -> Result<(), Errno> {
    const PAUSE_MS: u32 = 2;
    let mut flags = match config.zero_copy {
        ZeroCopy::Require => uapi::XDP_ZEROCOPY,
        ZeroCopy::Prefer => 0,
        ZeroCopy::Off => uapi::XDP_COPY,
    };
    if config.need_wakeup {
        flags |= uapi::XDP_USE_NEED_WAKEUP;
    }
    if config.multi_buffer {
        flags |= uapi::XDP_USE_SG;
    }
    let address = SockaddrXdp {
        family: uapi::AF_XDP as u16,
        flags,
        ifindex: place.ifindex,
        queue_id: place.queue,
        shared_umem_fd: 0,
    };
    let mut left = config.bind_timeout_ms / PAUSE_MS;
    loop {
        match sys::bind(fd, &address) {
            Err(Errno::EBUSY) if left > 0 => {
                left -= 1;
                sys::sleep_ns(u64::from(PAUSE_MS) * 1_000_000);
            }
            bound => return bound,
        }
    }
}

fn bind_remedy(errno: Errno, place: &Place<'_>, config: &XskConfig) -> String {
    match errno {
        Errno::EBUSY => format!(
            "another socket has this queue, and had it for {} ms: stop the other program, or take another queue",
            config.bind_timeout_ms
        ),
        Errno::EOPNOTSUPP if config.zero_copy == ZeroCopy::Require => {
            "the driver has no zero-copy (or not with these options): take --zero-copy=prefer or --copy"
                .to_string()
        }
        Errno::EINVAL => format!(
            "{} has no queue {}, or the chunk cannot hold its MTU: see its queues with `ethtool -l`",
            place.name, place.queue
        ),
        Errno::ENODEV => "no such interface in this network namespace".to_string(),
        Errno::ENOENT => {
            "the device lacks what zero-copy needs (on virtio: queue reset, mergeable buffers)".to_string()
        }
        Errno::ENETDOWN => "the interface is down: set it up".to_string(),
        _ => String::new(),
    }
}

/// The kernel behind a socket's port: wakes it and knows its state.
#[derive(Debug)]
pub struct XskFar {
    push: Bellpush,
    zero_copy: bool,
    busy_poll: bool,
    standstill: Standstill,
    /// Of the fill ring.
    starved: Standstill,
    /// Whether the driver ever took a chunk to receive into.
    receives: bool,
    tx: Watcher<KernelRing>,
    fill: Watcher<KernelRing>,
    state: State,
    xsk: Arc<Xsk>,
}

impl XskFar {
    /// The socket.
    pub fn xsk(&self) -> &Arc<Xsk> {
        &self.xsk
    }

    /// Zero-copy, or busy polling.
    #[inline(never)]
    fn kick_with_care(&mut self, want: Want) -> Kicked {
        let pending = self.tx.pending();
        if pending > 0 && self.xsk.config.need_wakeup {
            // We published, then look at the flag; the driver sets the flag, then looks at the ring once more. On both
            // sides a store before a load, which only a full fence keeps in order.
            fence(Ordering::SeqCst);
        }
        if want.tx && self.standstill.is_seen(pending, self.tx.taken(), clock::ticks) {
            return self.prefer_no_more();
        }
        let send = want.tx && self.push.due(pending, self.tx.taken(), self.tx.needs_wakeup(), clock::ticks);
        if self.busy_poll {
            // Either call runs the device's poll, which serves both directions.
            return if send || (want.tx && pending > 0) { self.send() } else { self.receive() };
        }
        let mut kicked = if send { self.send() } else { Kicked::IDLE };
        let asks = self.fill.needs_wakeup();
        if want.rx && (asks || !self.receives) {
            let woken = self.feed(asks);
            kicked.calls += woken.calls;
            if kicked.outcome == Outcome::Idle {
                kicked.outcome = woken.outcome;
            }
        }
        kicked
    }

    /// Wakes a driver that asks for chunks to receive into, or has never taken any.
    ///
    /// The drivers igb and igc, where receiving and sending have an interrupt each, wake only the sending side (until
    /// 7.0 and the stable kernels of March 2026), and so never see a chunk that comes after they found none, which also is
    /// at the bind. One busy poll runs the receiving side.
    #[cold]
    fn feed(&mut self, asks: bool) -> Kicked {
        let taken = self.fill.taken();
        self.receives |= taken != 0;
        if self.starved.is_seen(self.fill.pending(), taken, clock::ticks) {
            self.starved.rearm();
            let before = self.xsk.config.busy_poll.map_or(0, |busy_poll| busy_poll.time_us);
            // It fails only without CAP_NET_ADMIN, and then the call between the two is an ordinary one.
            let _ = self.xsk.set_busy_poll_us(20);
            let mut kicked = self.receive();
            let _ = self.xsk.set_busy_poll_us(before);
            kicked.calls += 2;
            return kicked;
        }
        if asks { self.receive() } else { Kicked::IDLE }
    }

    /// A send call of a socket that prefers busy polling polls the receive queue's NAPI instance and leaves it at that
    /// (`__xsk_sendmsg` in `net/xdp/xsk.c`), so where another instance sends, nothing does. Without the preference the call
    /// wakes the driver.
    #[cold]
    fn prefer_no_more(&mut self) -> Kicked {
        // It can only fail on a socket that has no such option, and that has no such trouble.
        let _ = sys::setsockopt(&self.xsk.fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &0u32);
        let mut kicked = self.send();
        kicked.calls += 1;
        kicked
    }

    #[inline(never)]
    fn send(&mut self) -> Kicked {
        if self.push.held_back() {
            return Kicked { calls: 0, outcome: Outcome::HeldBack };
        }
        let before = self.tx.taken();
        let outcome = self.outcome(sys::send_nothing(&self.xsk.fd));
        // In zero-copy the driver takes the packets later, so a call that succeeded was not in vain.
        let moved = self.tx.taken() != before || (self.zero_copy && outcome == Outcome::Woken);
        self.push.called(moved);
        Kicked { calls: 1, outcome }
    }

    fn receive(&mut self) -> Kicked {
        let outcome = self.outcome(sys::receive_nothing(&self.xsk.fd));
        Kicked { calls: 1, outcome }
    }

    /// What an errno of a wake-up call means; see `__xsk_generic_xmit` and `xsk_sendmsg` in `net/xdp/xsk.c`.
    fn outcome(&mut self, called: Result<(), Errno>) -> Outcome {
        let (state, outcome) = match called {
            Ok(()) => (State::Up, Outcome::Woken),
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => (State::Up, Outcome::Again),
            Err(Errno::EBUSY) => (State::Up, Outcome::Dropped),
            Err(Errno::ENETDOWN) => (State::Down, Outcome::Down),
            Err(Errno::ENXIO) => (State::Gone, Outcome::Gone),
            Err(errno) => (self.state, Outcome::Failed(errno)),
        };
        self.state = state;
        outcome
    }
}

impl Far for XskFar {
    #[inline]
    fn kick(&mut self, want: Want) -> Kicked {
        if self.zero_copy || self.busy_poll {
            return self.kick_with_care(want);
        }
        // Copy mode: the flags are constant, the ring's indices tell. Receiving needs no waking.
        if want.tx && self.tx.pending() > 0 { self.send() } else { Kicked::IDLE }
    }

    /// One `recvfrom` of nothing: ENETDOWN where the interface is down, ENXIO where it is gone; poll(2) tells neither.
    fn check(&mut self) -> State {
        self.outcome(sys::receive_nothing(&self.xsk.fd));
        if self.state == State::Gone {
            self.xsk.take_error();
        }
        self.state
    }

    fn state(&self) -> State {
        self.state
    }

    fn descriptor(&self) -> Option<i32> {
        Some(self.xsk.fd.raw())
    }
}
