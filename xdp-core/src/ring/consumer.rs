//! Consumer: the end that reads entries. Rx and completion.

use super::{Entry, RingMemory, Run};
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
    /// Entries side by side, the next one first. Here and not in the ring, so that its place stays in a register.
    run: Run<T>,
    /// The index of the run's end.
    end: u32,
}

impl<T, M> Drop for Taken<'_, T, M> {
    #[inline]
    fn drop(&mut self) {
        let next = self.end.wrapping_sub(self.run.len());
        self.ring.next = next;
        // SAFETY: the index lives as long as `memory`.
        unsafe { self.ring.consumer.as_ref() }.store(next, Ordering::Release); // R3, read before it is overwritten
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
        // SAFETY: R1, no slot from one inside the ring.
        let none = unsafe { Run::new(self.slots, 0) };
        let mut taken = Taken { run: none, end: self.next, ring: self };
        let mut left = n;
        while left > 0 {
            taken.run = taken.ring.run(taken.end, left);
            let len = taken.run.len();
            (taken.end, left) = (taken.end.wrapping_add(len), left - len);
            for slot in (0..AHEAD).map_while(|i| taken.run.ahead(i)) {
                peek(Self::glance(slot));
            }
            while !taken.run.is_empty() {
                if AHEAD > 0 {
                    if let Some(slot) = taken.run.ahead(AHEAD) {
                        peek(Self::glance(slot));
                    }
                }
                // SAFETY: it was seen not to be empty.
                let slot = unsafe { taken.run.step() };
                f(Self::read(slot));
            }
        }
        n
    }

    /// Up to `most` slots side by side, from that of `index` on.
    #[inline]
    fn run(&self, index: u32, most: u32) -> Run<T> {
        let index = index & self.mask;
        let len = most.min(self.capacity() - index);
        // SAFETY: R1, the mask keeps the first slot inside the ring, and the run ends with the ring at the latest.
        unsafe { Run::new(self.slots.add(index as usize), len) }
    }

    /// As `read`, where nothing but a hint hangs on it: the compiler may load the part it needs.
    #[inline]
    fn glance(slot: NonNull<T>) -> T {
        // SAFETY: a run's slot; R2, up to the limit nobody writes it.
        unsafe { slot.read() }
    }

    #[inline]
    fn read(slot: NonNull<T>) -> T {
        // SAFETY: a run's slot; R2, up to the limit nobody writes it.
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
