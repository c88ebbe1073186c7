//! Ports: what lends frames to the wire, takes arrived ones, sends, and takes sent ones back.

use crate::far::Far;
use crate::ring::{Consumer, Producer, RingMemory, Writer};
use crate::uapi::{XDP_TXMD_FLAGS_CHECKSUM, XDP_TXMD_FLAGS_LAUNCH_TIME, XDP_TXMD_FLAGS_TIMESTAMP};
use core::marker::PhantomData;
use xdp_umem::{Desc, Frame, Umem};

/// The receiving half of a port: lends free frames to the wire, takes arrived ones from it.
pub trait Receive<'u> {
    /// Lends a frame to receive into; gives it back if there is no room. The frame is one chunk.
    fn offer(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>>;

    /// Takes up to `most` frames to offer, one after the other: [`offer`](Self::offer) for a burst, with its place in the
    /// ring in a register.
    #[inline]
    fn offers(&mut self, most: u32) -> impl Burst<'u>
    where
        Self: Sized,
    {
        Offers { half: self, left: most, frames: PhantomData }
    }

    /// Hands arrived packets to `judge`, one by one: up to `n`, or a few more where several sockets share the port.
    /// Never stops inside a packet of several frames. Returns how many.
    fn receive(&mut self, n: u32, judge: impl FnMut(Frame<'u>)) -> u32;

    /// Publishes what was offered.
    fn commit(&mut self);

    /// How many more frames it takes, as of now if fewer than `wanted` are known of.
    fn room(&mut self, wanted: u32) -> u32;

    /// Chunks on the far side, those offered and not yet published too.
    fn lent(&self) -> usize;

    /// The most chunks it can have lent.
    fn capacity(&self) -> usize;

    /// Entries of the far side's that named no chunk of ours, or one that was here already: each a chunk lost. It keeps
    /// counting as lent.
    fn broken(&self) -> u64 {
        0
    }
}

/// The sending half of a port: queues frames, takes finished ones back.
pub trait Transmit<'u> {
    /// Queues a packet, all its frames or none; gives it back if there is no room, if it is empty, or if its TX metadata
    /// is what the kernel would refuse.
    fn send(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>>;

    /// Takes packets to queue, one after the other: [`send`](Self::send) for a burst, with its place in the ring in a register.
    #[inline]
    fn sends(&mut self) -> impl Burst<'u>
    where
        Self: Sized,
    {
        Sends { half: self, frames: PhantomData }
    }

    /// Hands every finished frame to `finished`: empty, its start where it was when sent. Returns how many.
    fn reap(&mut self, finished: impl FnMut(Frame<'u>)) -> u32;

    /// Publishes what was queued.
    fn commit(&mut self);

    /// Chunks on the far side, those queued and not yet published too.
    fn lent(&self) -> usize;

    /// The most chunks it can have queued.
    fn capacity(&self) -> usize;

    /// How many more frames it takes, as of now if fewer than `wanted` are known of.
    fn room(&mut self, wanted: u32) -> u32;

    /// As [`Receive::broken`].
    fn broken(&self) -> u64 {
        0
    }
}

/// A half of a port for the length of a burst: what it took is queued, or lent, when it goes, by a panic too.
pub trait Burst<'u> {
    /// Takes a frame; gives it back where the half would.
    fn put(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>>;
}

/// Any receiving half's burst.
struct Offers<'b, 'u, R> {
    half: &'b mut R,
    left: u32,
    frames: PhantomData<Frame<'u>>,
}

impl<'u, R: Receive<'u>> Burst<'u> for Offers<'_, 'u, R> {
    #[inline]
    fn put(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        if self.left == 0 {
            return Err(frame);
        }
        self.half.offer(frame)?;
        self.left -= 1;
        Ok(())
    }
}

/// Any sending half's burst.
struct Sends<'b, 'u, T> {
    half: &'b mut T,
    frames: PhantomData<Frame<'u>>,
}

impl<'u, T: Transmit<'u>> Burst<'u> for Sends<'_, 'u, T> {
    #[inline]
    fn put(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        self.half.send(frame)
    }
}

/// Both halves and the far side: what a worker turns the crank of.
#[derive(Debug)]
pub struct Port<R, T, F> {
    /// The receiving half.
    pub rx: R,
    /// The sending half.
    pub tx: T,
    /// What is behind both.
    pub far: F,
}

impl<R, T, F: Far> Port<R, T, F> {
    /// Puts a port together.
    pub const fn new(rx: R, tx: T, far: F) -> Self {
        Self { rx, tx, far }
    }
}

/// How many packets ahead the receiver asks for a packet's first line. Far enough to hide a miss, near enough to stay
/// within a burst.
const AHEAD: u32 = 4;
/// No prefetch.
const NOWHERE: u32 = u32::MAX;

/// The receiving half over rings: one fill ring, and an rx ring for each of the `K` sockets that share it.
#[derive(Debug)]
pub struct RingReceiver<'u, M, const K: usize = 1> {
    umem: &'u Umem,
    fill: Producer<u64, M>,
    rx: [Consumer<Desc, M>; K],
    /// What the fill ring's index would be with nothing lent, less the rx indices: with it, the indices count what is lent.
    origin: u32,
    /// The fragments of a packet whose last one has not arrived.
    partial: [Option<Frame<'u>>; K],
    partial_chunks: usize,
    broken: u64,
    /// How many packets ahead to prefetch, or [`NOWHERE`].
    ahead: u32,
}

impl<'u, M: RingMemory, const K: usize> RingReceiver<'u, M, K> {
    /// # Safety
    /// Addresses that come in on `rx` are ones that went out on `fill` (K1): nobody else writes or reads the far ends.
    pub(crate) unsafe fn new(umem: &'u Umem, fill: Producer<u64, M>, rx: [Consumer<Desc, M>; K]) -> Self {
        let mut half = Self {
            umem,
            fill,
            rx,
            origin: 0,
            partial: [const { None }; K],
            partial_chunks: 0,
            broken: 0,
            ahead: AHEAD,
        };
        half.origin = half.fill.index().wrapping_sub(half.taken());
        half
    }

    /// Whether to ask for a packet's first cache line four packets before it is judged, as is the default. It costs about a tick a
    /// packet, and hides a miss: without it where few frames circulate, or packets are not looked at.
    pub fn set_prefetch(&mut self, on: bool) {
        self.ahead = if on { AHEAD } else { NOWHERE };
    }

    #[inline]
    fn taken(&self) -> u32 {
        self.rx.iter().fold(0, |sum, rx| sum.wrapping_add(rx.index()))
    }
}

impl<'u, M: RingMemory, const K: usize> Receive<'u> for RingReceiver<'u, M, K> {
    #[inline]
    fn offer(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        self.offers(1).put(frame)
    }

    #[inline]
    fn offers(&mut self, most: u32) -> impl Burst<'u> {
        RingOffers { umem: self.umem, fill: self.fill.writer(most) }
    }

    #[inline]
    fn receive(&mut self, n: u32, mut judge: impl FnMut(Frame<'u>)) -> u32 {
        let Self { umem, rx, partial, partial_chunks, broken, ahead, .. } = self;
        let (umem, ahead) = (*umem, *ahead);
        let mut packets = 0;
        for (rx, partial) in rx.iter_mut().zip(partial) {
            let mut no_packet = 0; // entries that ended none
            // While a packet is being assembled, none is taken the short way.
            let mut short = umem.short(partial.is_some());
            let taken = rx.consume_peeking(
                n,
                ahead,
                |desc| prefetch(umem.hint(desc.addr)),
                |desc| {
                    // SAFETY: K1, the address was lent on this port's fill ring and comes back once.
                    let frame = match unsafe { Frame::from_plain_desc(desc, short) } {
                        Some(frame) => Some(frame),
                        None => {
                            // SAFETY: as above, for nothing was made of it there.
                            let frame = unsafe {
                                unusual_packet(
                                    umem,
                                    partial,
                                    partial_chunks,
                                    broken,
                                    desc.addr,
                                    desc.len,
                                    desc.options,
                                )
                            };
                            short = umem.short(partial.is_some());
                            frame
                        }
                    };
                    match frame {
                        Some(frame) => judge(frame),
                        None => no_packet += 1,
                    }
                },
            );
            packets += taken - no_packet;
        }
        packets
    }

    #[inline]
    fn commit(&mut self) {
        self.fill.commit();
    }

    #[inline]
    fn room(&mut self, wanted: u32) -> u32 {
        self.fill.free(wanted)
    }

    #[inline]
    fn lent(&self) -> usize {
        // One sum that wraps: a far side whose index jumped has us take more entries than were lent, all of them broken.
        let lent = self.fill.index().wrapping_sub(self.taken()).wrapping_sub(self.origin);
        lent.wrapping_add(self.broken as u32) as usize + self.partial_chunks
    }

    fn capacity(&self) -> usize {
        self.fill.capacity() as usize
    }

    fn broken(&self) -> u64 {
        self.broken
    }
}

/// The packet that a descriptor ends; it may be of several fragments, of which this adds one.
///
/// # Safety
/// K1, as for [`Frame::from_desc`].
#[cold]
#[inline(never)]
unsafe fn unusual_packet<'u>(
    umem: &'u Umem,
    partial: &mut Option<Frame<'u>>,
    chunks: &mut usize,
    broken: &mut u64,
    addr: u64,
    len: u32,
    options: u32,
) -> Option<Frame<'u>> {
    let desc = Desc { addr, len, options }; // whose address would keep it out of registers
    // SAFETY: the caller's promise.
    let Some(frame) = (unsafe { Frame::from_desc(desc, umem) }) else {
        *broken += 1;
        return None;
    };
    let continued = desc.options & Desc::CONTINUED != 0;
    match partial {
        Some(packet) => {
            *chunks += 1;
            // A received fragment has 256 bytes before it (K2). One without is given up, and the packet goes on.
            if packet.append(frame).is_err() {
                (*chunks, *broken) = (*chunks - 1, *broken + 1);
            }
        }
        None if continued => {
            *chunks += 1;
            *partial = Some(frame);
        }
        None => return Some(frame),
    }
    if continued {
        return None;
    }
    let packet = partial.take()?;
    *chunks -= packet.chunks();
    Some(packet)
}

/// A burst into the fill ring.
struct RingOffers<'b, 'u, M> {
    umem: &'u Umem,
    fill: Writer<'b, u64, M>,
}

impl<'u, M: RingMemory> Burst<'u> for RingOffers<'_, 'u, M> {
    #[inline]
    fn put(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        self.fill.push_with(frame, |frame| Ok(frame.into_chunk(self.umem)))
    }
}

#[inline]
fn prefetch(packet: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it reads nothing, whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(packet.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = packet;
}

/// The sending half over rings: a tx ring for each of the `K` sockets that share one completion ring.
#[derive(Debug)]
pub struct RingTransmitter<'u, M, const K: usize = 1> {
    umem: &'u Umem,
    tx: [Producer<Desc, M>; K],
    completion: Consumer<u64, M>,
    /// As the receiver's.
    origin: u32,
    /// The ring that sends now.
    turn: usize,
    broken: u64,
}

impl<'u, M: RingMemory, const K: usize> RingTransmitter<'u, M, K> {
    /// # Safety
    /// Addresses that come in on `completion` are ones that went out on `tx` (K1): nobody else writes or reads the far ends.
    pub(crate) unsafe fn new(
        umem: &'u Umem,
        tx: [Producer<Desc, M>; K],
        completion: Consumer<u64, M>,
    ) -> Self {
        const { assert!(K > 0) };
        let mut half = Self { umem, tx, completion, origin: 0, turn: 0, broken: 0 };
        half.origin = half.queued().wrapping_sub(half.completion.index());
        half
    }

    #[inline]
    fn queued(&self) -> u32 {
        self.tx.iter().fold(0, |sum, tx| sum.wrapping_add(tx.index()))
    }
}

/// A burst into a tx ring.
struct RingSends<'b, 'u, M> {
    umem: &'u Umem,
    tx: Writer<'b, Desc, M>,
}

impl<'u, M: RingMemory> Burst<'u> for RingSends<'_, 'u, M> {
    #[inline]
    fn put(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        let umem = self.umem;
        match self.tx.push_with(frame, |frame| frame.into_plain_desc(umem)) {
            Ok(()) => Ok(()),
            Err(frame) => self.tx.with_ring(|tx| send_unusual(tx, umem, frame)),
        }
    }
}

/// Queues a packet that is not simply one frame in an aligned chunk, or for which there was no room.
#[cold]
#[inline(never)]
fn send_unusual<'u, M: RingMemory>(
    tx: &mut Producer<Desc, M>,
    umem: &Umem,
    mut frame: Frame<'u>,
) -> Result<(), Frame<'u>> {
    let chunks = frame.chunks() as u32;
    let sendable = frame.fragments().all(|fragment| !fragment.is_empty())
        && (!frame.has_tx_metadata() || metadata_is_valid(&frame, umem));
    if !sendable || tx.free(chunks) < chunks {
        return Err(frame);
    }
    frame.fragments().for_each(|fragment| fragment.assert_of(umem));
    loop {
        let rest = frame.take_rest();
        let mut desc = frame.into_desc(umem);
        let Some(next) = rest else {
            let _ = tx.push(desc);
            return Ok(());
        };
        desc.options |= Desc::CONTINUED;
        let _ = tx.push(desc);
        frame = next;
        frame.set_tx_metadata(false); // only a packet's first frame has any
    }
}

impl<'u, M: RingMemory, const K: usize> Transmit<'u> for RingTransmitter<'u, M, K> {
    #[inline]
    fn send(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        self.sends().put(frame)
    }

    #[inline]
    fn sends(&mut self) -> impl Burst<'u> {
        RingSends { umem: self.umem, tx: self.tx[if K == 1 { 0 } else { self.turn }].writer(u32::MAX) }
    }

    #[inline]
    fn reap(&mut self, mut finished: impl FnMut(Frame<'u>)) -> u32 {
        let Self { umem, completion, broken, .. } = self;
        let (umem, short) = (*umem, umem.short(false));
        completion.consume(completion.capacity(), |addr| {
            // SAFETY: K1, the address was queued on this port's tx ring and comes back once.
            if let Some(frame) = unsafe { Frame::from_plain_desc(Desc { addr, len: 0, options: 0 }, short) } {
                return finished(frame);
            }
            match unusual_chunk(umem, addr) {
                Some(frame) => finished(frame),
                None => *broken += 1,
            }
        })
    }

    #[inline]
    fn commit(&mut self) {
        if K == 1 {
            self.tx[0].commit();
        } else {
            for tx in &mut self.tx {
                tx.commit();
            }
            self.turn = (self.turn + 1) % K;
        }
    }

    #[inline]
    fn lent(&self) -> usize {
        let lent = self.queued().wrapping_sub(self.completion.index()).wrapping_sub(self.origin);
        lent.wrapping_add(self.broken as u32) as usize
    }

    fn capacity(&self) -> usize {
        self.tx.iter().map(|tx| tx.capacity() as usize).sum()
    }

    #[inline]
    fn room(&mut self, wanted: u32) -> u32 {
        self.tx[self.turn].free(wanted)
    }

    fn broken(&self) -> u64 {
        self.broken
    }
}

/// The frame behind a completed address that is not that of an aligned chunk.
///
/// An address may have lost its lowest bit: the kernel keeps a tag there while the packet is on its way in copy mode, and
/// clears it (seen on 6.18.44), so the address of a chunk at an odd offset comes back one less. Only unaligned chunks lie at
/// odd offsets, and none of them begins where another one does less one.
#[cold]
#[inline(never)]
fn unusual_chunk(umem: &Umem, addr: u64) -> Option<Frame<'_>> {
    let desc = Desc { addr, len: 0, options: 0 };
    // SAFETY: K1, the address was queued on the tx ring whose completions these are, and comes back once.
    let frame = unsafe { Frame::from_desc(desc, umem) };
    if frame.is_some() || !umem.layout().is_unaligned() || desc.addr & 1 != 0 {
        return frame;
    }
    // SAFETY: K1, as for the address that came back: it names no chunk, so the one meant is the next.
    unsafe { Frame::from_desc(Desc { addr: desc.addr | 1, ..desc }, umem) }
}

/// Whether the kernel would take the TX metadata before this packet: in copy mode it does not consume a descriptor
/// whose metadata it refuses, so that one bad request would block the ring for good (`xsk_skb_metadata`, `net/xdp/xsk.c`).
fn metadata_is_valid(frame: &Frame<'_>, umem: &Umem) -> bool {
    const KNOWN: u64 = XDP_TXMD_FLAGS_TIMESTAMP | XDP_TXMD_FLAGS_CHECKSUM | XDP_TXMD_FLAGS_LAUNCH_TIME;
    let len = umem.layout().tx_metadata_len() as usize;
    let head = frame.head();
    if len < 24 || head.len() < len {
        return false;
    }
    let metadata = &head[head.len() - len..];
    let flags = u64::from_ne_bytes(metadata[..8].try_into().expect("eight bytes"));
    let half = |at: usize| u32::from(u16::from_ne_bytes([metadata[at], metadata[at + 1]]));
    let checksum_inside = (half(8) + half(10) + 2) as usize <= frame.len();
    flags & !KNOWN == 0 && (flags & XDP_TXMD_FLAGS_CHECKSUM == 0 || checksum_inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::HeapRing;
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use xdp_umem::Layout;

    type Ring = Arc<HeapRing>;

    /// A receiving half whose rings begin just before a wrap, and the far end of its rx ring.
    fn receiver(umem: &Umem) -> (RingReceiver<'_, Ring>, Producer<Desc, Ring>) {
        let [fill, rx] = [0; 2].map(|_| Arc::new(HeapRing::new(8, u32::MAX)));
        // SAFETY: R4, one end of each over fresh memory; the tests hand each chunk back once (K1).
        unsafe {
            let half = RingReceiver::new(umem, Producer::new(fill), [Consumer::new(rx.clone())]);
            (half, Producer::new(rx))
        }
    }

    #[test]
    fn a_fragment_with_no_room_before_it_is_given_up_and_counted() {
        let umem = Umem::heap(Layout::new(2048, 3).unwrap());
        let (mut half, mut far) = receiver(&umem);
        umem.take_frames().unwrap().for_each(|frame| half.offer(frame).unwrap());
        for (addr, options) in [(0, Desc::CONTINUED), (2048, Desc::CONTINUED), (4096, 0)] {
            far.push(Desc { addr, len: 9, options }).unwrap();
        }
        far.commit();
        let mut packets = Vec::new();
        assert_eq!(half.receive(8, |packet| packets.push(packet)), 1);
        assert_eq!((packets[0].chunks(), half.broken(), half.lent()), (1, 2, 2), "every chunk is somewhere");
    }

    #[test]
    fn more_forged_entries_than_chunks_were_lent_leave_the_lent_as_many() {
        let umem = Umem::heap(Layout::new(2048, 3).unwrap());
        let (mut half, mut far) = receiver(&umem);
        half.offer(umem.take_frames().unwrap().next().unwrap()).unwrap();
        (0..5).for_each(|n| far.push(Desc { addr: u64::MAX - n, len: 9, options: 0 }).unwrap());
        far.commit();
        assert_eq!(half.receive(8, |_| panic!("none of them is a packet")), 0);
        assert_eq!((half.broken(), half.lent()), (5, 1));
    }
}
