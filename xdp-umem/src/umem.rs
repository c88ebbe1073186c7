//! Umem: a region cut in chunks.

use crate::{Desc, Errno, Frame, Layout, Region, RegionOptions};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Where the packet's offset begins in an address of an unaligned UMEM: `XSK_UNALIGNED_BUF_OFFSET_SHIFT`.
const OFFSET_SHIFT: u32 = 48;

/// Packet memory shared with the kernel, cut in chunks of one size. It outlives every [`Frame`] cut from it.
///
/// ```
/// use xdp_umem::{Layout, Umem};
/// let umem = Umem::heap(Layout::new(2048, 64)?);
/// let frames = umem.take_frames().expect("nobody took them before");
/// assert_eq!(frames.len(), 64);
/// assert!(umem.take_frames().is_none(), "a chunk has one owner");
/// # Ok::<(), xdp_umem::LayoutError>(())
/// ```
#[derive(Debug)]
pub struct Umem {
    cut: Cut,
    layout: Layout,
    /// Set once the chunks were handed out.
    taken: AtomicBool,
    /// Sockets that may still use the chunks, each of which holds a [`Registered`].
    registered: Arc<AtomicUsize>,
    #[cfg(feature = "ledger")]
    ledger: ledger::Ledger,
    region: Region,
}

/// Where the chunks lie: what the hot path needs to know of a UMEM, in half a cache line.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Of the first chunk.
    base: NonNull<u8>,
    /// Of all chunks, in bytes, if they are aligned; else 0, so that the one comparison which bounds an address also tells
    /// the modes apart.
    aligned_len: u64,
    /// Of a chunk, in bytes.
    pub(crate) size: u64,
    /// One less, if the chunks are aligned: then the bits of an address that say where in its chunk it is.
    mask: u64,
    /// Of all chunks, in bytes.
    len: u64,
}

// SAFETY: the pointer is into the UMEM's region, which is Send; bytes are reached through frames alone.
unsafe impl Send for Cut {}
// SAFETY: it never changes.
unsafe impl Sync for Cut {}

impl Cut {
    fn new(region: &Region, layout: &Layout) -> Self {
        let len = layout.len() as u64;
        let aligned_len = if layout.is_unaligned() { 0 } else { len };
        let size = u64::from(layout.chunk_size());
        Self { base: region.base(), aligned_len, size, mask: size - 1, len }
    }

    /// Where a descriptor's packet begins, in the UMEM and in its chunk, both in bytes; `None` unless the packet lies
    /// inside one chunk of this UMEM (K2).
    #[inline]
    pub(crate) fn split(&self, desc: Desc) -> Option<(u64, u32)> {
        if desc.addr >= self.aligned_len {
            return self.split_unaligned(desc);
        }
        let start = desc.addr & self.mask;
        // `aligned_len` is a multiple of the chunk size, so below it lies a whole chunk.
        if u64::from(desc.len) > self.size - start {
            return None;
        }
        Some((desc.addr, start as u32))
    }

    /// As `split`, of a descriptor without options in an aligned UMEM: where the packet begins in its chunk.
    #[inline]
    pub(crate) fn split_plain(&self, desc: Desc) -> Option<u64> {
        let start = desc.addr & self.mask;
        // With its options on top, a length is too long unless there are none.
        let len = u64::from(desc.len) | u64::from(desc.options) << 32;
        (desc.addr < self.aligned_len && len <= self.size - start).then_some(start)
    }

    /// An unaligned UMEM's descriptor, or one that is outside.
    #[cold]
    fn split_unaligned(&self, desc: Desc) -> Option<(u64, u32)> {
        let (chunk, start) = (desc.addr & ((1 << OFFSET_SHIFT) - 1), (desc.addr >> OFFSET_SHIFT) as u32);
        let (size, whole) = (self.size as u32, chunk % self.size == 0);
        let inside = chunk < self.len && start <= size && desc.len <= size - start;
        let whole = self.is_unaligned() && inside && whole;
        whole.then_some((chunk + u64::from(start), start))
    }

    #[inline]
    fn is_unaligned(&self) -> bool {
        self.aligned_len == 0
    }

    /// The packet's first byte. `offset` is from [`split`](Self::split).
    #[inline]
    pub(crate) fn pointer(&self, offset: u64) -> NonNull<u8> {
        debug_assert!(offset <= self.len);
        // SAFETY: inside the region or, with nothing in the packet, just behind its chunk, as `split` checked.
        unsafe { self.base.add(offset as usize) }
    }

    /// The address of the chunk in which a packet begins at `pointer`, `start` bytes in. Panics if it is not of this UMEM.
    #[inline]
    pub(crate) fn chunk(&self, pointer: NonNull<u8>, start: u16) -> u64 {
        let chunk = self.offset(pointer).wrapping_sub(start.into());
        assert!(chunk < self.len, "a frame of another UMEM");
        chunk
    }

    /// The address a tx ring carries for a packet of one byte and more that begins at `pointer`, if this UMEM is aligned and
    /// holds it: then it holds the whole chunk.
    #[inline]
    pub(crate) fn join_plain(&self, pointer: NonNull<u8>) -> Option<u64> {
        let addr = self.offset(pointer);
        (addr < self.aligned_len).then_some(addr)
    }

    /// The address a tx ring carries for a packet that begins at `pointer`, `start` bytes into its chunk, and the chunk's.
    /// Panics if it is not of this UMEM.
    #[inline]
    pub(crate) fn join(&self, pointer: NonNull<u8>, start: u16) -> (u64, u64) {
        let chunk = self.offset(pointer).wrapping_sub(start.into());
        if chunk >= self.aligned_len {
            return self.join_unaligned(chunk, start);
        }
        (chunk + u64::from(start), chunk)
    }

    #[cold]
    fn join_unaligned(&self, chunk: u64, start: u16) -> (u64, u64) {
        assert!(self.is_unaligned() && chunk < self.len, "a frame of another UMEM");
        (chunk | u64::from(start) << OFFSET_SHIFT, chunk)
    }

    #[inline]
    fn offset(&self, pointer: NonNull<u8>) -> u64 {
        (pointer.as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize) as u64
    }
}

impl Umem {
    /// Maps memory that the kernel can be given.
    ///
    /// # Errors
    /// As [`Region::map`].
    pub fn new(layout: Layout, options: &RegionOptions) -> Result<Self, Errno> {
        Ok(Self::over(Region::map(layout.len(), options)?, layout))
    }

    /// On the heap, for simulation: a socket refuses it.
    pub fn heap(layout: Layout) -> Self {
        Self::over(Region::heap(layout.len()), layout)
    }

    fn over(region: Region, layout: Layout) -> Self {
        assert!(region.len() >= layout.len(), "the region holds every chunk");
        Self {
            cut: Cut::new(&region, &layout),
            layout,
            taken: AtomicBool::new(false),
            registered: Arc::default(),
            #[cfg(feature = "ledger")]
            ledger: ledger::Ledger::new(layout.chunks()),
            region,
        }
    }

    /// How it is cut.
    #[inline]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The memory under it.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Every chunk as a frame, once: `None` when they were taken before.
    pub fn take_frames(&self) -> Option<Frames<'_>> {
        let first = !self.taken.swap(true, Ordering::AcqRel);
        first.then_some(Frames { umem: self, next: 0, end: self.layout.chunks })
    }

    /// Makes [`take_frames`](Self::take_frames) hand every chunk out again, after a device was lost with chunks
    /// on its far side. That no frame lives is what `&mut self` says; that no socket does is counted: `false`,
    /// and nothing done, while one is registered, be it a forgotten one.
    pub fn recover(&mut self) -> bool {
        let free = self.registered.load(Ordering::Acquire) == 0;
        if free {
            *self.taken.get_mut() = false;
            #[cfg(feature = "ledger")]
            self.ledger.clear();
        }
        free
    }

    /// Counts one more socket that may use the chunks, until the token is dropped.
    pub fn register(&self) -> Registered {
        self.registered.fetch_add(1, Ordering::AcqRel);
        Registered(Arc::clone(&self.registered))
    }

    /// Where `len` bytes from address `addr` (an offset, as rings carry it) lie, if they lie inside one chunk.
    /// Who may touch them is the caller's affair.
    pub fn locate(&self, desc: Desc) -> Option<NonNull<u8>> {
        Some(self.cut.pointer(self.cut.split(desc)?.0))
    }

    /// Where a received packet will turn out to lie, unchecked: for a prefetch, never to be read through. In an unaligned UMEM
    /// it is nowhere, and the prefetch without effect.
    #[inline]
    pub fn hint(&self, addr: u64) -> *const u8 {
        self.cut.base.as_ptr().wrapping_add(addr as usize)
    }

    /// The address of the chunk a ring's address lies in, without its packet's offset; `None` outside the UMEM.
    pub fn chunk_of(&self, addr: u64) -> Option<u64> {
        let (offset, start) = self.cut.split(Desc { addr, len: 0, options: 0 })?;
        Some(offset - u64::from(start))
    }

    /// Where its chunks lie.
    #[inline]
    pub(crate) fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Notes that a chunk leaves us.
    #[inline]
    pub(crate) fn lend(&self, chunk: u64) {
        #[cfg(feature = "ledger")]
        self.ledger.lend((chunk / u64::from(self.layout.chunk_size)) as usize);
        #[cfg(not(feature = "ledger"))]
        let _ = chunk;
    }

    /// Notes that a chunk came back; `false` if it was here already (K1 broken).
    #[inline]
    pub(crate) fn give_back(&self, chunk: u64) -> bool {
        #[cfg(feature = "ledger")]
        return self.ledger.give_back((chunk / u64::from(self.layout.chunk_size)) as usize);
        #[cfg(not(feature = "ledger"))]
        {
            let _ = chunk;
            true
        }
    }
}

/// A socket's claim on a [`Umem`]: while it lives, [`Umem::recover`] refuses.
#[derive(Debug)]
pub struct Registered(Arc<AtomicUsize>);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Chunks not yet handed out, as an iterator of frames.
#[must_use = "frames let go are chunks lost"]
#[derive(Debug)]
pub struct Frames<'u> {
    umem: &'u Umem,
    next: u32,
    end: u32,
}

impl<'u> Frames<'u> {
    /// The UMEM they are of.
    pub fn umem(&self) -> &'u Umem {
        self.umem
    }

    /// The first `n` of them (all, if there are fewer) as a part of their own.
    pub fn split_off(&mut self, n: usize) -> Self {
        let n = n.min(self.len()) as u32;
        let part = Self { umem: self.umem, next: self.next, end: self.next + n };
        self.next += n;
        part
    }

    /// `n` parts of one size, one for each worker; what does not divide evenly goes to the first.
    pub fn split(mut self, n: usize) -> Vec<Self> {
        let each = self.len() / n.max(1);
        let first = each + self.len() % n.max(1);
        (0..n).map(|part| self.split_off(if part == 0 { first } else { each })).collect()
    }
}

impl<'u> Iterator for Frames<'u> {
    type Item = Frame<'u>;

    fn next(&mut self) -> Option<Frame<'u>> {
        if self.next == self.end {
            return None;
        }
        let chunk = u64::from(self.next) * u64::from(self.umem.layout.chunk_size);
        self.next += 1;
        let start = self.umem.layout.packet_start();
        // SAFETY: chunks are handed out once (`taken`), each by the one part that holds its number.
        Some(unsafe { Frame::own(&self.umem.cut, chunk + u64::from(start), start.into(), 0) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Frames<'_> {}

/// One byte a chunk: who owns it.
#[cfg(feature = "ledger")]
mod ledger {
    use alloc::boxed::Box;
    use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

    /// 1 where the chunk is on the far side. A chunk's byte is written by its one owner, so loads and stores do.
    #[derive(Debug)]
    pub(super) struct Ledger(Box<[AtomicU8]>);

    impl Ledger {
        pub(super) fn new(chunks: u32) -> Self {
            Self((0..chunks).map(|_| AtomicU8::new(0)).collect())
        }

        pub(super) fn clear(&mut self) {
            self.0.iter_mut().for_each(|byte| *byte.get_mut() = 0);
        }

        #[inline]
        pub(super) fn lend(&self, chunk: usize) {
            self.0[chunk].store(1, Relaxed);
        }

        #[inline]
        pub(super) fn give_back(&self, chunk: usize) -> bool {
            let lent = self.0[chunk].load(Relaxed) == 1;
            self.0[chunk].store(0, Relaxed);
            lent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_split_only_inside_one_chunk() {
        let umem = Umem::heap(Layout::new(2048, 4).unwrap());
        let split = |addr, len| umem.cut.split(Desc { addr, len, options: 0 });
        assert_eq!(split(2048 + 256, 1792), Some((2048 + 256, 256)));
        assert_eq!(split(2048 + 256, 1793), None);
        assert_eq!(split(0, 2048), Some((0, 0)));
        assert_eq!(split(8191, 1), Some((8191, 2047)));
        assert_eq!(split(8192, 0), None);
        assert_eq!(split(u64::MAX, 0), None);
        assert_eq!(split(0, u32::MAX), None);
    }

    #[test]
    fn a_plain_descriptor_is_one_without_options_that_split_takes_too() {
        let umem = Umem::heap(Layout::new(2048, 4).unwrap());
        let unaligned = Umem::heap(Layout::unaligned(2048, 4).unwrap());
        let addresses = [0, 1, 256, 2047, 2048, 8191, 8192, 1 << 32, 1 << 48, u64::MAX];
        let lengths = [0, 1, 60, 1792, 2047, 2048, 2049, 65_536, u32::MAX];
        for (addr, len) in addresses.into_iter().flat_map(|addr| lengths.map(|len| (addr, len))) {
            let desc = Desc { addr, len, options: 0 };
            let start = umem.cut.split(desc).map(|(offset, start)| {
                assert_eq!(offset, addr);
                u64::from(start)
            });
            assert_eq!(umem.cut.split_plain(desc), start, "{desc:?}");
            assert_eq!(unaligned.cut.split_plain(desc), None);
            for options in [1, 2, 1 << 31, u32::MAX] {
                assert_eq!(umem.cut.split_plain(Desc { options, ..desc }), None, "{desc:?} {options}");
            }
        }
    }

    #[test]
    fn unaligned_addresses_carry_their_offset_on_top() {
        let umem = Umem::heap(Layout::unaligned(3000, 4).unwrap());
        let split = |addr, len| umem.cut.split(Desc { addr, len, options: 0 });
        assert_eq!(split(3000 | 256 << 48, 2744), Some((3256, 256)));
        assert_eq!(split(3000 | 256 << 48, 2745), None);
        assert_eq!(split(3001 | 256 << 48, 1), None, "not the start of a chunk");
        assert_eq!(split(12_000, 0), None);
        assert_eq!(split(u64::MAX, 0), None);
        assert_eq!(umem.cut.join(umem.cut.pointer(3256), 256), (3000 | 256 << 48, 3000));
    }

    #[test]
    fn frames_split_without_losing_a_chunk() {
        let umem = Umem::heap(Layout::new(2048, 10).unwrap());
        let parts = umem.take_frames().unwrap().split(3);
        assert_eq!(parts.iter().map(Frames::len).collect::<Vec<_>>(), [4, 3, 3]);
        let chunks: Vec<u64> = parts.into_iter().flatten().map(|frame| frame.into_chunk(&umem)).collect();
        assert_eq!(chunks, (0..10).map(|n| n * 2048).collect::<Vec<_>>());
    }

    #[test]
    fn chunks_are_handed_out_again_only_when_no_socket_is_registered() {
        let mut umem = Umem::heap(Layout::new(2048, 2).unwrap());
        assert_eq!(umem.take_frames().unwrap().len(), 2);
        let token = umem.register();
        assert!(!umem.recover());
        core::mem::forget(umem.register());
        drop(token);
        assert!(!umem.recover(), "a forgotten socket still counts");
        assert!(umem.take_frames().is_none());
    }

    #[test]
    fn a_lost_device_gives_its_chunks_back() {
        let mut umem = Umem::heap(Layout::new(2048, 2).unwrap());
        assert!(umem.take_frames().is_some());
        drop(umem.register());
        assert!(umem.recover());
        assert_eq!(umem.take_frames().unwrap().len(), 2);
    }
}
