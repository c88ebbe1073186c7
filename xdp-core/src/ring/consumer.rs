//! Consumer: the end that reads entries. Rx and completion.

use super::{Entry, RingMemory};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

/// The end of a ring that reads entries: we of rx and completion, the kernel of fill and tx.
#[derive(Debug)]
pub struct Consumer<T, M> {
    /// The slot to read next.
    next: u32,
    /// Up to here there was something to read when we last looked. May be stale, on the safe side.
    limit: u32,
    mask: u32,
    slots: NonNull<T>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    /// Keeps what the pointers point to where it is.
    memory: M,
    entries: PhantomData<T>,
}

// SAFETY: the pointers are into `memory`, which may be sent; R4 is kept by `&mut self`.
unsafe impl<T: Send, M: Send> Send for Consumer<T, M> {}

/// Publishes what was taken when it goes, by a panic too: an entry handed out is never handed out again.
struct Taken<'c, T, M> {
    ring: &'c mut Consumer<T, M>,
    /// The slot whose entry was handed out last. Here and not in the ring, so that it stays in a register.
    slot: NonNull<T>,
    /// The last one that lies beside it.
    last: NonNull<T>,
    /// The index behind that.
    end: u32,
}

impl<T, M> Drop for Taken<'_, T, M> {
    #[inline]
    fn drop(&mut self) {
        let next = self.end.wrapping_sub(self.left());
        self.ring.next = next;
        // SAFETY: the index lives as long as `memory`.
        unsafe { self.ring.consumer.as_ref() }.store(next, Ordering::Release); // R3, read before it is overwritten
    }
}

impl<T, M> Taken<'_, T, M> {
    /// Entries up to the last one.
    #[inline]
    fn left(&self) -> u32 {
        ((self.last.as_ptr() as usize - self.slot.as_ptr() as usize) / size_of::<T>()) as u32
    }
}

impl<T: Entry, M: RingMemory> Consumer<T, M> {
    /// The consuming end of the ring in `memory`, which goes on where its index stands.
    ///
    /// # Safety
    /// R4: no other consuming end is made of this memory. The slots are of `T`.
    pub(crate) unsafe fn new(memory: M) -> Self {
        let parts = memory.parts();
        assert!(parts.capacity.is_power_of_two(), "R1");
        // SAFETY: the index lives as long as `memory`.
        let next = unsafe { parts.consumer.as_ref() }.load(Ordering::Relaxed);
        Self {
            next,
            limit: next,
            mask: parts.capacity - 1,
            slots: parts.slots.cast(),
            producer: parts.producer,
            consumer: parts.consumer,
            memory,
            entries: PhantomData,
        }
    }

    /// How many slots the ring has.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.mask + 1
    }

    /// How many entries there are to read, as of now if fewer than `wanted` are known of; else as many as are known of.
    #[inline]
    pub fn available(&mut self, wanted: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.next);
        if known >= wanted { known } else { self.look() }
    }

    /// Loads the producer's index.
    #[inline]
    fn look(&mut self) -> u32 {
        // SAFETY: the index lives as long as `memory`.
        let produced = unsafe { self.producer.as_ref() }.load(Ordering::Acquire); // R3, entries after the index
        let available = produced.wrapping_sub(self.next).min(self.capacity()); // an index that jumped goes once round
        self.limit = self.next.wrapping_add(available);
        available
    }

    /// Hands up to `n` entries to `f`, each once, and then publishes that they were taken, with one store. Returns how many.
    ///
    /// Our index moves past an entry before `f` sees it: should `f` panic, that entry is spent and the rest are still there.
    #[inline]
    pub fn consume(&mut self, n: u32, f: impl FnMut(T)) -> u32 {
        self.consume_ahead::<0>(n, |_| (), f)
    }

    /// As [`consume`](Self::consume), and shows `peek` each entry of the burst `AHEAD` places before `f` gets it, for
    /// a prefetch.
    #[inline]
    pub fn consume_ahead<const AHEAD: u32>(&mut self, n: u32, peek: impl Fn(T), f: impl FnMut(T)) -> u32 {
        self.consume_peeking(n, if AHEAD == 0 { u32::MAX } else { AHEAD }, peek, f)
    }

    /// As `consume_ahead`, where how far ahead is not known beforehand: `u32::MAX` shows nothing.
    #[inline]
    pub(crate) fn consume_peeking(
        &mut self,
        n: u32,
        ahead: u32,
        peek: impl Fn(T),
        mut f: impl FnMut(T),
    ) -> u32 {
        let n = self.available(n).min(n);
        if n == 0 {
            return 0;
        }
        let (first, mut len) = self.run(self.next, n);
        Self::show(first, len, ahead, &peek);
        let (last, end) = (Self::slot(first, len - 1), self.next.wrapping_add(len));
        let mut taken = Taken { slot: first, last, end, ring: self };
        let mut left = n - len;
        loop {
            loop {
                f(Self::read(taken.slot));
                if taken.slot == taken.last {
                    break;
                }
                if taken.left() > ahead {
                    peek(Self::glance(Self::slot(taken.slot, ahead + 1)));
                }
                taken.slot = Self::slot(taken.slot, 1);
            }
            if left == 0 {
                return n;
            }
            let first;
            (first, len) = taken.ring.run(taken.end, left);
            Self::show(first, len, ahead, &peek);
            (taken.slot, taken.last) = (first, Self::slot(first, len - 1));
            (taken.end, left) = (taken.end.wrapping_add(len), left - len);
        }
    }

    /// Up to `most` slots side by side, from that of `index` on: the first, and how many. At least one, if `most` is.
    #[inline]
    fn run(&self, index: u32, most: u32) -> (NonNull<T>, u32) {
        let index = index & self.mask;
        (Self::slot(self.slots, index), most.min(self.capacity() - index))
    }

    /// Shows what comes first of a run, as its later entries are shown while these are handed out.
    #[inline]
    fn show(first: NonNull<T>, len: u32, ahead: u32, peek: impl Fn(T)) {
        if ahead != u32::MAX {
            (0..len.min(ahead + 1)).for_each(|i| peek(Self::glance(Self::slot(first, i))));
        }
    }

    /// `n` slots on.
    #[inline]
    fn slot(from: NonNull<T>, n: u32) -> NonNull<T> {
        // SAFETY: R1, callers stay inside the ring: below the mask, or within a run.
        unsafe { from.add(n as usize) }
    }

    /// As `read`, where nothing but a hint hangs on it: the compiler may load the part it needs.
    #[inline]
    fn glance(slot: NonNull<T>) -> T {
        // SAFETY: a slot of the ring; R2, up to the limit nobody writes it.
        unsafe { slot.read() }
    }

    #[inline]
    fn read(slot: NonNull<T>) -> T {
        // SAFETY: a slot of the ring; R2, up to the limit nobody writes it.
        unsafe { T::read(slot) }
    }

    /// Our index: how many entries were ever taken, free-running, wrapping.
    #[inline]
    pub fn index(&self) -> u32 {
        self.next
    }

    /// What the ring is in.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }
}
