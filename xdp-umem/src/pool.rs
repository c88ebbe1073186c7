//! Pool: a worker's free frames.
#![forbid(unsafe_code)]

use crate::{Frame, Frames, Umem};
use alloc::boxed::Box;
use core::fmt;

/// Free frames, last in, first out, so that the few in use stay in the cache. It never grows.
///
/// ```
/// use xdp_umem::{Layout, Pool, Umem};
/// let umem = Umem::heap(Layout::new(2048, 4)?);
/// let mut pool = Pool::new(umem.take_frames().unwrap());
/// let mut frame = pool.take().unwrap();
/// assert!(frame.write(b"a packet"));
/// assert_eq!(pool.len(), 3);
/// pool.put(frame);
/// # Ok::<(), xdp_umem::LayoutError>(())
/// ```
pub struct Pool<'u> {
    umem: &'u Umem,
    /// Frames below `len`, nothing from there on. A boxed slice, as a `Vec`'s growth would be compiled into the loop.
    frames: Box<[Option<Frame<'u>>]>,
    len: usize,
    /// Where a packet begins in a frame handed out.
    start: u16,
}

impl<'u> Pool<'u> {
    /// Holds `frames`, and room for as many.
    pub fn new(frames: Frames<'u>) -> Self {
        let umem = frames.umem();
        let start = umem.layout().packet_start() as u16;
        // In descending order, so that the first taken is the first chunk.
        let mut frames: Box<[_]> = frames.map(Some).collect();
        frames.reverse();
        Self { umem, len: frames.len(), frames, start }
    }

    /// The UMEM its frames are of.
    pub fn umem(&self) -> &'u Umem {
        self.umem
    }

    /// An empty frame, whose packet begins 256 bytes + headroom into its chunk; `None` when there is none left.
    #[inline]
    pub fn take(&mut self) -> Option<Frame<'u>> {
        let last = self.len.checked_sub(1)?;
        let frame = self.frames.get_mut(last)?.take()?;
        self.len = last;
        Some(frame.reset(self.start))
    }

    /// Takes a packet's frames back, all its fragments. Panics if they are more than the pool began with.
    #[inline]
    pub fn put(&mut self, frame: Frame<'u>) {
        let frame = if frame.has_more() { self.put_rest(frame) } else { frame };
        self.frames[self.len] = Some(frame);
        self.len += 1;
    }

    /// All but the first frame. By value, so that a frame without a rest never has to have an address.
    #[cold]
    fn put_rest(&mut self, mut frame: Frame<'u>) -> Frame<'u> {
        let mut rest = frame.take_rest();
        while let Some(mut fragment) = rest {
            rest = fragment.take_rest();
            self.put(fragment);
        }
        frame
    }

    /// How many frames it holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many frames it has room for: as many as it began with.
    pub fn capacity(&self) -> usize {
        self.frames.len()
    }
}

impl fmt::Debug for Pool<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} of {} frames)", self.len, self.frames.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;
    use alloc::vec::Vec;

    #[test]
    fn it_answers_as_a_stack_does() {
        let umem = Umem::heap(Layout::new(2048, 8).unwrap());
        let mut pool = Pool::new(umem.take_frames().unwrap());
        let mut held = Vec::new();
        let mut seed = 1u32;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if seed >> 31 == 0 {
                let frame = pool.take();
                assert_eq!(frame.is_some(), held.len() < 8);
                held.extend(frame);
            } else if let Some(frame) = held.pop() {
                let first = frame.as_ptr();
                pool.put(frame);
                let again = pool.take().unwrap();
                assert_eq!(again.as_ptr(), first, "the last one in is the first one out");
                pool.put(again);
            }
            assert_eq!(pool.len() + held.len(), 8);
        }
    }

    #[test]
    fn a_packet_of_several_frames_comes_back_whole_and_fresh() {
        let umem = Umem::heap(Layout::new(2048, 8).unwrap());
        let mut pool = Pool::new(umem.take_frames().unwrap());
        let mut packet = pool.take().unwrap();
        for _ in 0..4 {
            packet.append(pool.take().unwrap()).unwrap();
        }
        pool.put(packet);
        assert_eq!(pool.len(), 8);
        while let Some(frame) = pool.take() {
            assert_eq!((frame.len(), frame.headroom(), frame.has_more()), (0, 256, false));
        }
    }

    #[test]
    #[should_panic]
    fn more_frames_than_it_began_with_are_refused() {
        let umem = Umem::heap(Layout::new(2048, 8).unwrap());
        let mut parts = umem.take_frames().unwrap().split(2).into_iter();
        let (mut one, mut other) = (Pool::new(parts.next().unwrap()), Pool::new(parts.next().unwrap()));
        other.put(one.take().unwrap());
    }
}
