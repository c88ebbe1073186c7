//! Frame: an owned chunk and the packet in it. Desc: its name in a ring.

use crate::umem::{Cut, Short};
use crate::{Umem, sys::Plain};
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// A packet's place as a ring carries it: `struct xdp_desc` in `include/uapi/linux/if_xdp.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Desc {
    /// Offset of the packet in the UMEM, in bytes (unaligned: of the chunk, the packet's offset in the top 16 bits).
    pub addr: u64,
    /// Of the packet, in bytes.
    pub len: u32,
    /// [`CONTINUED`](Self::CONTINUED), [`TX_METADATA`](Self::TX_METADATA).
    pub options: u32,
}

const _: () = assert!(size_of::<Desc>() == 16);
// SAFETY: three integers without padding.
unsafe impl Plain for Desc {}

impl Desc {
    /// The packet goes on in the next descriptor: `XDP_PKT_CONTD`. Since Linux 6.6.
    pub const CONTINUED: u32 = 1;
    /// A `struct xsk_tx_metadata` lies before the packet: `XDP_TX_METADATA`. Since Linux 6.8.
    pub const TX_METADATA: u32 = 2;
}

/// The packet goes on in another frame, whose place is written at the start of this one's chunk. Same bit as the
/// descriptor's, so that flags are options.
const MORE: u8 = Desc::CONTINUED as u8;
/// The user asks for TX metadata to be honoured. Same bit as the descriptor's.
const METADATA: u8 = Desc::TX_METADATA as u8;

/// What a frame knows beside its chunk, in one word, so that a frame travels in two registers:
/// start (16 bits), port (8), flags (8), size (16), len (16). The length is on top, so that one shift gives what a descriptor
/// carries; what is tested and masked is in the lower half, where an instruction's constant reaches it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta(u64);

impl Meta {
    const PORT: u32 = 16;
    const FLAGS: u32 = 24;
    const SIZE: u32 = 32;
    const LEN: u32 = 48;

    /// In a chunk of `size` bytes, with nothing in it.
    #[inline]
    pub(crate) const fn of_size(size: u16) -> Self {
        Self((size as u64) << Self::SIZE)
    }

    /// As `self`, which has nothing in it, with a packet somewhere below 1 << 16.
    #[inline]
    const fn at(self, start: u64, len: u64) -> Self {
        debug_assert!(start <= 0xffff && len <= 0xffff);
        Self(self.0 | start | len << Self::LEN)
    }

    /// Where the packet begins in the chunk, in bytes.
    #[inline]
    const fn start(self) -> u16 {
        self.0 as u16
    }

    /// Of the packet, in bytes; `start + len <= size`.
    #[inline]
    const fn len(self) -> u16 {
        (self.0 >> Self::LEN) as u16
    }

    /// Of the chunk, in bytes.
    #[inline]
    const fn size(self) -> u16 {
        (self.0 >> Self::SIZE) as u16
    }

    /// The port it came in by.
    #[inline]
    const fn port(self) -> u8 {
        (self.0 >> Self::PORT) as u8
    }

    #[inline]
    const fn flags(self) -> u8 {
        (self.0 >> Self::FLAGS) as u8
    }

    /// The length, if it is not 0 and no flag is set.
    #[inline]
    const fn plain_len(self) -> Option<u16> {
        if self.0 & ((MORE | METADATA) as u64) << Self::FLAGS == 0 && self.len() != 0 {
            Some(self.len())
        } else {
            None
        }
    }

    #[inline]
    const fn with_place(self, start: u16, len: u16) -> Self {
        Self(self.0 & !(0xffff | 0xffff << Self::LEN) | start as u64 | (len as u64) << Self::LEN)
    }

    #[inline]
    const fn with_port(self, port: u8) -> Self {
        Self(self.0 & !(0xff << Self::PORT) | (port as u64) << Self::PORT)
    }

    #[inline]
    const fn with_flags(self, flags: u8) -> Self {
        Self(self.0 & !(0xff << Self::FLAGS) | (flags as u64) << Self::FLAGS)
    }
}

/// Bytes at the start of a chunk that a link to the next fragment may take: 16, aligned to 8.
const LINK: u16 = 24;

/// A chunk of UMEM, owned: while it lives nobody else, the kernel included, touches its bytes.
///
/// It derefs to the packet's bytes. A packet of several chunks is its first frame, with the others linked behind
/// it ([`append`](Self::append)). Handing a frame to a port or a pool moves it:
///
/// ```compile_fail,E0382
/// use xdp_umem::{Layout, Pool, Umem};
/// let umem = Umem::heap(Layout::new(2048, 4).unwrap());
/// let mut pool = Pool::new(umem.take_frames().unwrap());
/// let frame = pool.take().unwrap();
/// pool.put(frame);
/// println!("{}", frame.len()); // error[E0382]: borrow of moved value
/// ```
///
/// Safe code cannot make one up, nor copy one, nor keep one longer than its UMEM:
///
/// ```compile_fail,E0451
/// use core::{marker::PhantomData, ptr::NonNull};
/// let frame = xdp_umem::Frame { // error[E0451]: private fields
///     packet: NonNull::dangling(), meta: unimplemented!(), umem: PhantomData,
/// };
/// ```
/// ```compile_fail,E0133
/// use xdp_umem::{Desc, Frame, Layout, Umem};
/// let umem = Umem::heap(Layout::new(2048, 4).unwrap());
/// let frame = Frame::from_desc(Desc::default(), &umem); // error[E0133]: unsafe
/// ```
/// ```compile_fail,E0599
/// use xdp_umem::{Layout, Umem};
/// let umem = Umem::heap(Layout::new(2048, 4).unwrap());
/// let frame = umem.take_frames().unwrap().next().unwrap();
/// let two = [frame.clone(), frame]; // error[E0599]: no method `clone`
/// ```
/// ```compile_fail,E0505
/// use xdp_umem::{Layout, Umem};
/// let umem = Umem::heap(Layout::new(2048, 4).unwrap());
/// let frame = umem.take_frames().unwrap().next().unwrap();
/// drop(umem); // error[E0505]: moved out while borrowed
/// println!("{}", frame.len());
/// ```
#[must_use = "a frame let go is a chunk lost: hand it to a pool or a port"]
pub struct Frame<'u> {
    /// The packet's first byte, `meta.start()` bytes into the chunk.
    packet: NonNull<u8>,
    meta: Meta,
    umem: PhantomData<&'u Umem>,
}

const _: () = assert!(size_of::<Frame<'_>>() == 16, "four frames to a cache line");
const _: () = assert!(size_of::<Option<Frame<'_>>>() == 16, "and none is a null");

// SAFETY: a frame is the only way to its chunk, so who holds it may touch it, on whatever thread.
unsafe impl Send for Frame<'_> {}
// SAFETY: a shared frame only reads.
unsafe impl Sync for Frame<'_> {}

impl<'u> Frame<'u> {
    /// Owns the chunk around `offset`.
    ///
    /// # Safety
    /// `cut` is that of a UMEM borrowed for `'u`; `offset` lies `start` bytes into a chunk of it which no other frame owns;
    /// `start + len` is within the chunk's size.
    #[inline]
    pub(crate) unsafe fn own(cut: &Cut, offset: u64, start: u64, len: u64) -> Self {
        let meta = cut.empty.at(start, len);
        Self { packet: cut.pointer(offset), meta, umem: PhantomData }
    }

    /// Takes a chunk back, as `Box::from_raw` does: `None` where the descriptor does not lie in one chunk of the
    /// UMEM (K2) or, with the feature `ledger`, names one that is here already (K1).
    ///
    /// # Safety
    /// No other frame owns the chunk at `desc.addr`.
    #[inline]
    pub unsafe fn from_desc(desc: Desc, umem: &'u Umem) -> Option<Self> {
        let cut = umem.cut();
        let (offset, start) = cut.split(desc)?;
        if !umem.give_back(offset - u64::from(start)) {
            return None;
        }
        // SAFETY: `split` checked the bounds; that the chunk has no other owner is the caller's promise.
        Some(unsafe { Self::own(cut, offset, start.into(), desc.len.into()) })
    }

    /// As [`from_desc`](Self::from_desc), for the everyday case in the fewest instructions: `None`, and nothing done, where the
    /// descriptor has options, names no packet inside one chunk, or the UMEM is unaligned. `from_desc` tells these apart.
    ///
    /// # Safety
    /// As for `from_desc`.
    #[inline]
    pub unsafe fn from_plain_desc(desc: Desc, short: Short<'u>) -> Option<Self> {
        let start = short.cut.split_plain(desc)?;
        #[cfg(feature = "ledger")]
        if !short.umem.give_back(desc.addr - start) {
            return None;
        }
        // SAFETY: `split_plain` checked the bounds; that the chunk has no other owner is the caller's promise.
        Some(unsafe { Self::own(short.cut, desc.addr, start, desc.len.into()) })
    }

    /// Gives the chunk up to be sent if its packet is [plain](Self::is_plain), in the fewest instructions; else gives
    /// itself back, as it does where the UMEM is unaligned or another one ([`into_desc`](Self::into_desc) tells which).
    #[inline]
    pub fn into_plain_desc(self, umem: &Umem) -> Result<Desc, Self> {
        let Some(len) = self.meta.plain_len() else { return Err(self) };
        let start = self.meta.start();
        let Some(addr) = umem.cut().join_plain(self.packet) else { return Err(self) };
        umem.lend(addr - u64::from(start));
        Ok(Desc { addr, len: len.into(), options: 0 })
    }

    /// Gives the chunk up to be sent, as `Box::into_raw` does. Panics on a frame of another UMEM, or if a further
    /// fragment is still linked to it (see [`take_rest`](Self::take_rest)).
    #[inline]
    pub fn into_desc(self, umem: &Umem) -> Desc {
        assert!(!self.has_more(), "fragments go one by one");
        let (addr, chunk) = umem.cut().join(self.packet, self.meta.start());
        umem.lend(chunk);
        Desc { addr, len: self.meta.len().into(), options: self.meta.flags().into() }
    }

    /// Gives the chunk up to be received into: the chunk's address, never the packet's. Panics as
    /// [`into_desc`](Self::into_desc) does.
    #[inline]
    pub fn into_chunk(self, umem: &Umem) -> u64 {
        assert!(!self.has_more(), "fragments go one by one");
        let chunk = umem.cut().chunk(self.packet, self.meta.start());
        umem.lend(chunk);
        chunk
    }

    /// Panics unless this frame is of `umem`; lends nothing. For whoever must know before it takes the frame over.
    #[inline]
    pub fn assert_of(&self, umem: &Umem) {
        umem.cut().chunk(self.packet, self.meta.start());
    }

    /// The port it came in by.
    #[inline]
    pub fn port(&self) -> u8 {
        self.meta.port()
    }

    /// Says which port it came in by.
    #[inline]
    pub fn set_port(&mut self, port: u8) {
        self.meta = self.meta.with_port(port);
    }

    /// Makes the packet empty, to begin where `umem`'s layout has packets begin, as if fresh from [`Umem::take_frames`].
    #[inline]
    pub(crate) fn reset(mut self, start: u16) -> Self {
        self.packet = self.at(start);
        self.meta = Meta::of_size(self.meta.size()).at(start.into(), 0);
        self
    }

    /// A place in the chunk, `offset` bytes in, at most its size.
    #[inline]
    fn at(&self, offset: u16) -> NonNull<u8> {
        debug_assert!(offset <= self.meta.size());
        // SAFETY: from where the packet begins, `start` bytes in, to another place in the same chunk or just behind it.
        unsafe { self.packet.offset(isize::from(offset as i16) - isize::from(self.meta.start() as i16)) }
    }

    /// The most bytes this frame's packet can have without moving its start.
    #[inline]
    pub fn capacity(&self) -> usize {
        (self.meta.size() - self.meta.start()) as usize
    }

    /// Free bytes before the packet.
    #[inline]
    pub fn headroom(&self) -> usize {
        (self.meta.start() - self.first()) as usize
    }

    /// Free bytes behind the packet.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.capacity() - self.len()
    }

    /// The first byte that a packet may use: behind the link, where there is one.
    #[inline]
    fn first(&self) -> u16 {
        if self.has_more() { LINK } else { 0 }
    }

    /// Moves the packet's start by `delta` bytes, forward to strip a header, back to make room for one, as
    /// `bpf_xdp_adjust_head`. `false`, and nothing done, where there is no room. New bytes hold what was there before.
    #[inline]
    pub fn adjust_head(&mut self, delta: i32) -> bool {
        let start = i32::from(self.meta.start()).wrapping_add(delta);
        let len = i32::from(self.meta.len()).wrapping_sub(delta);
        // Their sum stays what it was, so that bounding one bounds the other, and neither has wrapped.
        let end = i32::from(self.meta.start()) + i32::from(self.meta.len());
        let fits = (i32::from(self.first())..=end).contains(&start) && (0..=end).contains(&len);
        if fits {
            self.packet = self.at(start as u16);
            self.meta = self.meta.with_place(start as u16, len as u16);
        }
        fits
    }

    /// Moves the packet's end by `delta` bytes, as `bpf_xdp_adjust_tail`. `false`, and nothing done, where there is
    /// no room. New bytes hold what was there before.
    #[inline]
    pub fn adjust_tail(&mut self, delta: i32) -> bool {
        let len = i32::from(self.meta.len()).wrapping_add(delta);
        len >= 0 && self.set_len(len as usize)
    }

    /// Makes the packet `len` bytes long from where it begins; `false`, and nothing done, where there is no room.
    #[inline]
    pub fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.capacity();
        if fits {
            self.meta = self.meta.with_place(self.meta.start(), len as u16);
        }
        fits
    }

    /// Makes the packet a copy of `bytes`; `false`, and nothing done, where there is no room.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        let fits = self.set_len(bytes.len());
        if fits {
            self.copy_from_slice(bytes);
        }
        fits
    }

    /// The bytes before the packet, the nearest last: where an XDP program leaves its metadata.
    #[inline]
    pub fn head(&self) -> &[u8] {
        let first = self.first();
        // SAFETY: from `first` to `start` lies in the chunk, which is ours; all of it was zeroed when mapped.
        unsafe { core::slice::from_raw_parts(self.at(first).as_ptr(), (self.meta.start() - first) as usize) }
    }

    /// The bytes before the packet, the nearest last: where TX metadata goes.
    #[inline]
    pub fn head_mut(&mut self) -> &mut [u8] {
        let first = self.first();
        let first_byte = self.at(first).as_ptr();
        // SAFETY: as in `head`, and `&mut self` makes this the only reference.
        unsafe { core::slice::from_raw_parts_mut(first_byte, (self.meta.start() - first) as usize) }
    }

    /// Whether the packet is one frame with something in it and no requests: what a tx ring takes as it is.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.meta.plain_len().is_some()
    }

    /// Whether the kernel is asked to look at the TX metadata before the packet.
    #[inline]
    pub fn has_tx_metadata(&self) -> bool {
        self.meta.flags() & METADATA != 0
    }

    /// Asks the kernel, or not, to look at the TX metadata before the packet. Since Linux 6.8.
    #[inline]
    pub fn set_tx_metadata(&mut self, on: bool) {
        let flags = self.meta.flags();
        self.meta = self.meta.with_flags(if on { flags | METADATA } else { flags & !METADATA });
    }

    /// Asks the CPU to fetch the packet's first cache line.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint; it reads nothing, whatever the address.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.packet.as_ptr().cast());
        }
    }
}

/// Packets of several chunks.
impl<'u> Frame<'u> {
    /// Whether the packet goes on in another frame.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.meta.flags() & MORE != 0
    }

    /// How many chunks the packet takes.
    #[inline]
    pub fn chunks(&self) -> usize {
        if self.has_more() { self.fragments().count() } else { 1 }
    }

    /// Of the whole packet, in bytes, over all its fragments. (`len` is of this frame's.)
    pub fn packet_len(&self) -> usize {
        self.fragments().map(|fragment| fragment.len()).sum()
    }

    /// The packet's frames, this one first. Each shows its own bytes.
    pub fn fragments(&self) -> impl Iterator<Item = &Self> {
        core::iter::successors(Some(self), |fragment| fragment.next())
    }

    /// Calls `f` with each fragment's bytes in turn.
    pub fn for_each_fragment(&mut self, mut f: impl FnMut(&mut [u8])) {
        let mut fragment = Some(self);
        while let Some(frame) = fragment {
            f(frame);
            fragment = frame.next_mut();
        }
    }

    /// Links `fragment` (with whatever follows it) behind the packet's last frame.
    ///
    /// # Errors
    /// Gives it back if the last frame has less than 24 bytes before its packet to write the link in.
    pub fn append(&mut self, fragment: Self) -> Result<(), Self> {
        let mut last = self;
        while last.has_more() {
            last = last.next_mut().expect("a linked fragment");
        }
        if last.meta.start() < LINK {
            return Err(fragment);
        }
        // SAFETY: the slot lies within the first LINK bytes of a chunk that is ours, before its packet.
        unsafe { last.link().write(fragment) };
        last.meta = last.meta.with_flags(last.meta.flags() | MORE);
        Ok(())
    }

    /// Takes off everything behind the first fragment.
    #[inline]
    pub fn take_rest(&mut self) -> Option<Self> {
        if !self.has_more() {
            return None;
        }
        self.meta = self.meta.with_flags(self.meta.flags() & !MORE);
        // SAFETY: MORE was set, so `append` wrote a frame there, and clearing it makes this the one time it is read.
        Some(unsafe { self.link().read() })
    }

    #[inline]
    fn next(&self) -> Option<&Self> {
        // SAFETY: MORE says that `append` wrote a frame there; shared as we are.
        self.has_more().then(|| unsafe { self.link().as_ref() })
    }

    #[inline]
    fn next_mut(&mut self) -> Option<&mut Self> {
        // SAFETY: MORE says that `append` wrote a frame there; ours alone as we are.
        self.has_more().then(|| unsafe { self.link().as_mut() })
    }

    /// Where the next fragment is written: the first multiple of 8 in the chunk (an unaligned chunk may begin anywhere).
    #[inline]
    fn link(&self) -> NonNull<Self> {
        let chunk = self.at(0);
        let skip = chunk.as_ptr().align_offset(align_of::<Self>());
        debug_assert!(skip + size_of::<Self>() <= LINK as usize);
        // SAFETY: at most 7 bytes into a chunk of 2048 and more.
        unsafe { chunk.add(skip).cast() }
    }
}

impl Deref for Frame<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: start + len <= size, and the chunk is ours; all of it was zeroed when mapped.
        unsafe { core::slice::from_raw_parts(self.packet.as_ptr(), self.meta.len() as usize) }
    }
}

impl DerefMut for Frame<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        unsafe { core::slice::from_raw_parts_mut(self.packet.as_ptr(), self.meta.len() as usize) }
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("packet", &self.packet)
            .field("start", &self.meta.start())
            .field("len", &self.meta.len())
            .field("port", &self.port())
            .field("more", &self.has_more())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;
    use alloc::vec::Vec;

    fn umem() -> Umem {
        Umem::heap(Layout::new(2048, 8).unwrap())
    }

    #[test]
    fn a_packet_survives_the_way_into_a_ring_and_back() {
        let umem = umem();
        let mut frame = umem.take_frames().unwrap().nth(1).unwrap();
        assert!(frame.write(b"hello"));
        let desc = frame.into_desc(&umem);
        assert_eq!(desc, Desc { addr: 2048 + 256, len: 5, options: 0 });
        // SAFETY: the one owner of the chunk was just given up.
        let frame = unsafe { Frame::from_desc(desc, &umem) }.unwrap();
        assert_eq!(&frame[..], b"hello");
        assert_eq!(frame.into_chunk(&umem), 2048);
    }

    #[test]
    fn a_plain_packet_takes_the_short_way_and_nothing_else_does() {
        let (umem, other) = (umem(), umem());
        let mut frames = umem.take_frames().unwrap();
        let mut frame = frames.nth(3).unwrap();
        frame = frame.into_plain_desc(&umem).expect_err("an empty one");
        assert!(frame.write(&[7; 1792]));
        frame.set_port(255);
        frame = frame.into_plain_desc(&other).expect_err("another UMEM");
        frame.set_tx_metadata(true);
        frame = frame.into_plain_desc(&umem).expect_err("one with metadata");
        frame.set_tx_metadata(false);
        frame.append(frames.next().unwrap()).unwrap();
        frame = frame.into_plain_desc(&umem).expect_err("one of two");
        let _ = frame.take_rest();
        let desc = frame.into_plain_desc(&umem).unwrap();
        assert_eq!(desc, Desc { addr: 3 * 2048 + 256, len: 1792, options: 0 });
        // SAFETY: the one owner of the chunk was just given up.
        let frame = unsafe { Frame::from_plain_desc(desc, umem.short(false)) }.unwrap();
        assert_eq!((&frame[..], frame.headroom(), frame.port()), (&[7; 1792][..], 256, 0));
        let _ = frame;
    }

    #[test]
    #[should_panic(expected = "a frame of another UMEM")]
    fn a_frame_of_another_umem_is_refused() {
        let (one, other) = (umem(), umem());
        let frame = one.take_frames().unwrap().next().unwrap();
        let _ = frame.into_desc(&other);
    }

    #[test]
    fn head_and_tail_move_within_the_chunk_and_not_a_byte_further() {
        let umem = umem();
        let mut frame = umem.take_frames().unwrap().next().unwrap();
        assert_eq!((frame.headroom(), frame.capacity()), (256, 1792));
        assert!(!frame.adjust_head(-257) && !frame.adjust_head(1) && !frame.adjust_tail(-1));
        for wild in [i32::MIN, i32::MIN + 256, i32::MAX, i32::MAX - 256, 70_000, -70_000] {
            assert!(!frame.adjust_head(wild) && !frame.adjust_tail(wild), "{wild}");
        }
        assert!(frame.adjust_head(-256));
        assert_eq!((frame.headroom(), frame.len(), frame.tailroom()), (0, 256, 1792));
        assert!(!frame.adjust_tail(1793) && frame.adjust_tail(1792));
        assert_eq!(frame.len(), 2048);
        assert!(!frame.set_len(2049) && frame.set_len(10));
        assert!(frame.adjust_head(10) && frame.is_empty());
        let _ = frame;
    }

    #[test]
    fn fragments_are_linked_in_order_and_come_apart_in_order() {
        let umem = umem();
        let mut frames = umem.take_frames().unwrap();
        let mut packet = frames.next().unwrap();
        assert!(packet.write(b"one"));
        for part in [&b"two"[..], b"three"] {
            let mut fragment = frames.next().unwrap();
            assert!(fragment.write(part));
            packet.append(fragment).unwrap();
        }
        assert_eq!((packet.chunks(), packet.packet_len()), (3, 11));
        packet.for_each_fragment(|bytes| bytes[0] = bytes[0].to_ascii_uppercase());
        assert_eq!(
            packet.fragments().map(|f| f.to_vec()).collect::<Vec<_>>(),
            [&b"One"[..], b"Two", b"Three"]
        );
        assert_eq!(packet.headroom(), 256 - 24, "the link is not headroom");
        assert!(!packet.adjust_head(-233) && packet.adjust_head(-232));
        let mut rest = packet.take_rest().unwrap();
        let last = rest.take_rest().unwrap();
        assert_eq!((&rest[..], &last[..], last.has_more()), (&b"Two"[..], &b"Three"[..], false));
    }

    #[test]
    fn no_room_for_a_link_gives_the_fragment_back() {
        let umem = umem();
        let mut frames = umem.take_frames().unwrap();
        let mut packet = frames.next().unwrap();
        assert!(packet.adjust_head(-250));
        assert!(packet.append(frames.next().unwrap()).is_err());
        assert!(!packet.has_more());
    }

    #[test]
    #[should_panic(expected = "one by one")]
    fn a_packet_of_several_frames_is_not_sent_as_one_descriptor() {
        let umem = umem();
        let mut frames = umem.take_frames().unwrap();
        let mut packet = frames.next().unwrap();
        packet.append(frames.next().unwrap()).unwrap();
        let _ = packet.into_desc(&umem);
    }

    #[test]
    fn links_are_aligned_in_chunks_that_are_not() {
        let umem = Umem::heap(Layout::unaligned(2049, 8).unwrap());
        let mut frames: Vec<_> = umem.take_frames().unwrap().collect();
        let mut packet = frames.remove(1);
        for frame in frames.drain(..) {
            packet.append(frame).unwrap();
        }
        assert_eq!(packet.chunks(), 8);
    }

    #[cfg(feature = "ledger")]
    #[test]
    fn the_ledger_refuses_an_address_that_comes_back_twice() {
        let umem = umem();
        let desc = umem.take_frames().unwrap().next().unwrap().into_desc(&umem);
        // SAFETY: the first is the chunk's one owner; the second call must make none.
        unsafe {
            let frame = Frame::from_desc(desc, &umem);
            assert!(frame.is_some());
            assert!(Frame::from_desc(desc, &umem).is_none());
        }
    }
}
