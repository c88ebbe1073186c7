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
    /// The slot to read next. Here and not in the ring, so that it stays in a register.
    next: u32,
}

impl<T, M> Drop for Taken<'_, T, M> {
    #[inline]
    fn drop(&mut self) {
        self.ring.next = self.next;
        // SAFETY: the index lives as long as `memory`.
        unsafe { self.ring.consumer.as_ref() }.store(self.next, Ordering::Release); // R3, read before it is overwritten
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
    pub fn consume_ahead<const AHEAD: u32>(&mut self, n: u32, peek: impl Fn(T), mut f: impl FnMut(T)) -> u32 {
        let n = self.available(n).min(n);
        if n == 0 {
            return 0;
        }
        if AHEAD > 0 {
            (0..n.min(AHEAD)).for_each(|i| peek(self.glance(self.next.wrapping_add(i))));
        }
        let end = self.next.wrapping_add(n);
        let mut taken = Taken { next: self.next, ring: self };
        while taken.next != end {
            let entry = taken.ring.read(taken.next);
            if AHEAD > 0 && end.wrapping_sub(taken.next) > AHEAD {
                peek(taken.ring.glance(taken.next.wrapping_add(AHEAD)));
            }
            taken.next = taken.next.wrapping_add(1);
            f(entry);
        }
        n
    }

    /// As `read`, where nothing but a hint hangs on it: the compiler may load the part it needs.
    #[inline]
    fn glance(&self, index: u32) -> T {
        // SAFETY: as in `read`.
        unsafe { self.slots.add((index & self.mask) as usize).read() }
    }

    #[inline]
    fn read(&self, index: u32) -> T {
        // SAFETY: R1, the mask keeps the slot inside the ring; R2, up to the limit nobody writes it. Volatile, so that
        // what is checked is what is used even if a far side breaks R2.
        unsafe { self.slots.add((index & self.mask) as usize).read_volatile() }
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
