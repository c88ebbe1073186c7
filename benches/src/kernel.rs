//! The kernel's side of four rings, played the same way to every library: over plain memory laid out as the kernel lays out its
//! own, or over a second mapping of the rings of an AF_XDP socket that was never bound.
//!
//! It writes entries ahead of time and publishes them burst by burst, with one store, so that a timed section sees every burst
//! arrive; and it checks that what was handed over came through.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::BorrowedFd;
use xdp_core::bench::RawRing;
use xdp_core::uapi::{self, MmapOffsets, RingOffset, UmemReg};
use xdp_core::{Desc, Errno, Umem};
use xdp_umem::{Fd, sys};

/// Slots of every ring.
pub const RING: u32 = 2048;
/// Chunks of the UMEM: two rings' worth.
pub const CHUNKS: u32 = 2 * RING;
/// Of a chunk, in bytes.
pub const CHUNK: u64 = 2048;
/// Of every packet, in bytes.
pub const LEN: u32 = 64;

/// Which ring, in the order of every array of four here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Chunks to receive into.
    Fill,
    /// Received packets.
    Rx,
    /// Packets to send.
    Tx,
    /// Chunks of packets sent.
    Completion,
}

impl Which {
    /// In order.
    pub const ALL: [Self; 4] = [Self::Fill, Self::Rx, Self::Tx, Self::Completion];

    /// Of an entry, in words of eight bytes.
    const fn words(self) -> usize {
        match self {
            Self::Fill | Self::Completion => 1,
            Self::Rx | Self::Tx => 2,
        }
    }
}

/// A ring in memory that is never given back.
#[derive(Clone, Copy, Debug)]
pub struct RingAt {
    /// The producer's index.
    pub producer: NonNull<AtomicU32>,
    /// The consumer's index.
    pub consumer: NonNull<AtomicU32>,
    /// The flags word.
    pub flags: NonNull<AtomicU32>,
    /// The first slot.
    pub slots: NonNull<u64>,
}

/// The four rings, mapped once.
pub type Rings = [RingAt; 4];

impl RingAt {
    /// In `base`, where `offset` says.
    ///
    /// # Safety
    /// The memory holds a ring of [`RING`] slots so laid out, and is never given back.
    unsafe fn new(base: NonNull<u8>, offset: &RingOffset) -> Self {
        // SAFETY: the caller's promise.
        let at = |offset: u64| unsafe { base.add(offset as usize) };
        Self {
            producer: at(offset.producer).cast(),
            consumer: at(offset.consumer).cast(),
            flags: at(offset.flags).cast(),
            slots: at(offset.desc).cast(),
        }
    }

    /// For our ends.
    pub fn raw(&self) -> RawRing {
        // SAFETY: the memory is never given back and has room for `RING` slots; each rig makes one end of each kind, the kernel's
        // being played between timed sections and, for the index alone, within them.
        unsafe { RawRing::new(self.producer, self.consumer, self.flags, self.slots.cast(), RING) }
    }

    fn index(word: NonNull<AtomicU32>) -> &'static AtomicU32 {
        // SAFETY: the memory is never given back.
        unsafe { &*word.as_ptr() }
    }

    fn slot(&self, which: Which, index: u32) -> NonNull<u64> {
        let place = (index % RING) as usize * which.words();
        // SAFETY: inside the ring.
        unsafe { self.slots.add(place) }
    }
}

/// Where the kernel has things, seen on 6.18: so that plain memory shares no more cache lines than a socket's.
const LAID_OUT: RingOffset = RingOffset { producer: 0, consumer: 128, desc: 320, flags: 196 };

#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u64; 512]);

/// Four rings in plain memory, whose indices begin at `first`.
pub fn plain(first: u32) -> Rings {
    Which::ALL.map(|which| {
        let len = LAID_OUT.desc as usize + RING as usize * which.words() * 8;
        let pages = Box::leak(vec![Page([0; 512]); len.div_ceil(4096)].into_boxed_slice());
        // SAFETY: just allocated so long, and leaked.
        let ring = unsafe { RingAt::new(NonNull::from(pages).cast(), &LAID_OUT) };
        RingAt::index(ring.producer).store(first, Ordering::Relaxed);
        RingAt::index(ring.consumer).store(first, Ordering::Relaxed);
        ring
    })
}

/// An AF_XDP socket with four rings and `umem`, not bound.
///
/// # Errors
/// No privilege (EPERM: CAP_NET_RAW), a kernel without AF_XDP.
pub fn unbound(umem: &Umem) -> Result<Fd, Errno> {
    let socket = sys::socket(uapi::AF_XDP, 3 /* SOCK_RAW */, 0)?;
    let reg = UmemReg {
        addr: umem.region().base().as_ptr() as u64,
        len: umem.layout().len() as u64,
        chunk_size: umem.layout().chunk_size(),
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    sys::setsockopt(&socket, uapi::SOL_XDP, uapi::XDP_UMEM_REG, &reg)?;
    for option in
        [uapi::XDP_UMEM_FILL_RING, uapi::XDP_RX_RING, uapi::XDP_TX_RING, uapi::XDP_UMEM_COMPLETION_RING]
    {
        sys::setsockopt(&socket, uapi::SOL_XDP, option, &RING)?;
    }
    Ok(socket)
}

/// Maps the four rings of a socket that has them, once more.
///
/// # Errors
/// As the system calls.
pub fn map(socket: BorrowedFd<'_>, first: u32) -> Result<Rings, Errno> {
    let socket = Fd::from(socket.try_clone_to_owned().map_err(|_| Errno::EBADF)?);
    let (offsets, _) = sys::getsockopt::<MmapOffsets>(&socket, uapi::SOL_XDP, uapi::XDP_MMAP_OFFSETS)?;
    let map = |which: Which, page: u64, offset: &RingOffset| {
        let len = offset.desc as usize + RING as usize * which.words() * 8;
        let base = sys::mmap_shared(&socket, len, page, 0x8000 /* MAP_POPULATE */)?;
        // SAFETY: the kernel laid it out so, and it is never unmapped.
        let ring = unsafe { RingAt::new(base, offset) };
        if first != 0 {
            RingAt::index(ring.producer).store(first, Ordering::Relaxed);
            RingAt::index(ring.consumer).store(first, Ordering::Relaxed);
        }
        Ok(ring)
    };
    Ok([
        map(Which::Fill, uapi::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr)?,
        map(Which::Rx, uapi::XDP_PGOFF_RX_RING, &offsets.rx)?,
        map(Which::Tx, uapi::XDP_PGOFF_TX_RING, &offsets.tx)?,
        map(Which::Completion, uapi::XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr)?,
    ])
}

/// Plays the kernel.
#[derive(Debug)]
pub struct Kernel {
    rings: Rings,
    /// Where the entries laid out end: published up to the producer's index.
    laid: [u32; 4],
}

impl Kernel {
    /// Behind `rings`.
    pub fn new(rings: Rings) -> Self {
        let laid = rings.map(|ring| RingAt::index(ring.producer).load(Ordering::Acquire));
        Self { rings, laid }
    }

    /// Takes everything from the fill or the tx ring: the addresses, in order.
    pub fn take(&mut self, which: Which) -> Vec<u64> {
        let ring = &self.rings[which as usize];
        let (from, to) = (RingAt::index(ring.consumer), RingAt::index(ring.producer).load(Ordering::Acquire));
        let first = from.load(Ordering::Relaxed);
        let taken = (0..to.wrapping_sub(first))
            .map(|i| {
                // SAFETY: inside the ring, and published.
                unsafe { ring.slot(which, first.wrapping_add(i)).read() }
            })
            .collect();
        from.store(to, Ordering::Release);
        taken
    }

    /// Writes entries to the rx or the completion ring without publishing them.
    pub fn lay(&mut self, which: Which, addresses: &[u64]) {
        for &addr in addresses {
            let slot = self.rings[which as usize].slot(which, self.laid[which as usize]);
            // SAFETY: inside the ring, and beyond what is published.
            unsafe {
                slot.write(addr);
                if which.words() == 2 {
                    slot.add(1).write(LEN.into());
                }
            }
            self.laid[which as usize] = self.laid[which as usize].wrapping_add(1);
        }
    }

    /// Publishes `n` of the entries laid.
    #[inline]
    pub fn publish(&self, which: Which, n: u32) {
        let producer = RingAt::index(self.rings[which as usize].producer);
        producer.store(producer.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }
}

/// The addresses of `n` packets, where a received one begins in its chunk.
pub fn addresses(n: u32) -> Vec<u64> {
    (0..u64::from(n)).map(|chunk| chunk * CHUNK + 256).collect()
}

/// The same as descriptors.
pub fn descriptors(n: u32) -> Vec<Desc> {
    addresses(n).into_iter().map(|addr| Desc { addr, len: LEN, options: 0 }).collect()
}
