//! Producer: the end that writes entries. Fill and tx.

use super::{Entry, RingMemory, Run};
use crate::uapi::XDP_RING_NEED_WAKEUP;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

/// The end of a ring that writes entries: we of fill and tx, the kernel of rx and completion.
///
/// Entries are written one by one where only we see them ([`push`](Self::push)) and published together, by one
/// store ([`commit`](Self::commit)).
#[derive(Debug)]
pub struct Producer<T, M> {
    /// The slot to write next.
    next: u32,
    /// Up to here the consumer may read.
    published: u32,
    /// The first slot that was not free when we last looked: the consumer's index, once round. May be stale, on the
    /// safe side.
    limit: u32,
    mask: u32,
    slots: NonNull<T>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    /// Keeps what the pointers point to where it is.
    memory: M,
    entries: PhantomData<T>,
}

// SAFETY: the pointers are into `memory`, which may be sent; R4 is kept by `&mut self`.
unsafe impl<T: Send, M: Send> Send for Producer<T, M> {}

/// Writes entries for the length of a burst, with its place in a register: what [`push`](Producer::push) does, without
/// loading and storing the ring's state each time. The ring knows of them when the writer goes, by a panic too.
#[derive(Debug)]
pub struct Writer<'p, T, M> {
    ring: &'p mut Producer<T, M>,
    /// Free slots side by side, the next one first.
    run: Run<T>,
    /// The index of the run's end.
    end: u32,
    /// Entries that may be written beyond the run.
    left: u32,
}

impl<T: Entry, M: RingMemory> Writer<'_, T, M> {
    /// Writes what `entry` makes of `value` where only we see it; gives `value` back where there is no room or `entry`
    /// makes nothing of it.
    #[inline]
    pub fn push_with<V>(&mut self, value: V, entry: impl FnOnce(V) -> Result<T, V>) -> Result<(), V> {
        if self.run.is_empty() && !self.extend() {
            return Err(value);
        }
        let entry = entry(value)?; // should it panic, nothing was pushed
        // SAFETY: it was seen not to be empty, or extended.
        let slot = unsafe { self.run.step() };
        // SAFETY: R2, the run's slots are free, and ours until they are published.
        unsafe { entry.write(slot) };
        Ok(())
    }

    /// The ring itself, for once, which may be written as ever.
    #[inline]
    pub fn with_ring<V>(&mut self, f: impl FnOnce(&mut Producer<T, M>) -> V) -> V {
        let next = self.index();
        self.ring.next = next;
        let value = f(self.ring);
        self.left = (self.left + self.run.len()).saturating_sub(self.ring.next.wrapping_sub(next));
        // SAFETY: R1, no slot from one inside the ring.
        self.run = unsafe { Run::new(self.ring.slots, 0) };
        self.end = self.ring.next;
        value
    }

    /// The next run, where there is one.
    #[inline]
    fn extend(&mut self) -> bool {
        self.ring.next = self.end;
        self.run = self.ring.free_run(self.left);
        let len = self.run.len();
        (self.end, self.left) = (self.end.wrapping_add(len), self.left - len);
        len > 0
    }
}

impl<T, M> Writer<'_, T, M> {
    /// The slot to write next.
    #[inline]
    fn index(&self) -> u32 {
        self.end.wrapping_sub(self.run.len())
    }
}

impl<T, M> Drop for Writer<'_, T, M> {
    #[inline]
    fn drop(&mut self) {
        self.ring.next = self.index();
    }
}

impl<T: Entry, M: RingMemory> Producer<T, M> {
    /// The producing end of the ring in `memory`, which goes on where its index stands.
    ///
    /// # Safety
    /// R4: no other producing end is made of this memory. The slots are of `T`.
    pub(crate) unsafe fn new(memory: M) -> Self {
        let parts = memory.parts();
        assert!(parts.capacity.is_power_of_two(), "R1");
        // SAFETY: the parts live as long as `memory`.
        let (next, consumed) = unsafe {
            (parts.producer.as_ref().load(Ordering::Relaxed), parts.consumer.as_ref().load(Ordering::Acquire))
        };
        Self {
            next,
            published: next,
            limit: consumed.wrapping_add(parts.capacity),
            mask: parts.capacity - 1,
            slots: parts.slots.cast(),
            producer: parts.producer,
            consumer: parts.consumer,
            flags: parts.flags,
            memory,
            entries: PhantomData,
        }
    }

    /// How many slots the ring has.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.mask + 1
    }

    /// How many entries can be pushed, if fewer than `wanted` are known of as of now; else as many as are known of.
    #[inline]
    pub fn free(&mut self, wanted: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.next);
        if known >= wanted { known } else { self.look() }
    }

    /// Loads the consumer's index.
    #[inline]
    fn look(&mut self) -> u32 {
        // SAFETY: the index lives as long as `memory`.
        let consumed = unsafe { self.consumer.as_ref() }.load(Ordering::Acquire); // R3, it has read before we overwrite
        self.limit = consumed.wrapping_add(self.capacity());
        let free = self.limit.wrapping_sub(self.next);
        let unread = self.published.wrapping_sub(consumed);
        if free > self.capacity() || unread > self.capacity() {
            // An index that jumped, back or past what was published: nothing is known to be free.
            self.limit = self.next;
            return 0;
        }
        free
    }

    /// Writes an entry where only we see it; gives it back if the ring is full.
    #[inline]
    pub fn push(&mut self, entry: T) -> Result<(), T> {
        if self.free(1) == 0 {
            return Err(entry);
        }
        // SAFETY: R1, the mask keeps the slot inside the ring.
        let slot = unsafe { self.slots.add((self.next & self.mask) as usize) };
        // SAFETY: R2, the slot at `next` is ours until `commit`.
        unsafe { entry.write(slot) };
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Writes as many of `entries` as there is room for where only we see them, in one or two copies. Returns how many.
    #[inline]
    pub fn push_slice(&mut self, entries: &[T]) -> usize {
        if let [one] = entries {
            return usize::from(self.push(*one).is_ok());
        }
        let wanted = entries.len() as u32;
        let n = self.free(wanted).min(wanted) as usize;
        if n == 0 {
            return 0;
        }
        let index = (self.next & self.mask) as usize;
        let (before, behind) = entries[..n].split_at(n.min(self.capacity() as usize - index));
        // SAFETY: R1, the mask keeps the slot inside the ring, and before its end there is room for the first part.
        let slot = unsafe { self.slots.add(index) };
        // SAFETY: R2, so many slots from `next` on are ours; nobody has a slice of a ring's memory.
        unsafe { slot.copy_from_nonoverlapping(NonNull::from(before).cast(), before.len()) };
        if !behind.is_empty() {
            // SAFETY: as above, for what lies at the ring's beginning.
            unsafe { self.slots.copy_from_nonoverlapping(NonNull::from(behind).cast(), behind.len()) };
        }
        self.next = self.next.wrapping_add(n as u32);
        n
    }

    /// Writes up to `most` entries, as a burst.
    #[inline]
    pub fn writer(&mut self, most: u32) -> Writer<'_, T, M> {
        // SAFETY: R1, no slot from one inside the ring.
        let run = unsafe { Run::new(self.slots, 0) };
        Writer { end: self.next, left: most, run, ring: self }
    }

    /// Up to `most` free slots side by side, from the next one on.
    #[cold]
    fn free_run(&mut self, most: u32) -> Run<T> {
        let index = self.next & self.mask;
        let len = self.free(1).min(most).min(self.capacity() - index);
        // SAFETY: R1, the mask keeps the first slot inside the ring, and the run ends with the ring at the latest.
        unsafe { Run::new(self.slots.add(index as usize), len) }
    }

    /// Publishes everything pushed since the last time, with one store. Returns how many.
    #[inline]
    pub fn commit(&mut self) -> u32 {
        let pushed = self.next.wrapping_sub(self.published);
        if pushed > 0 {
            self.published = self.next;
            // SAFETY: the index lives as long as `memory`.
            unsafe { self.producer.as_ref() }.store(self.next, Ordering::Release); // R3, entries before the index
        }
        pushed
    }

    /// Our index: how many entries were ever pushed, free-running, wrapping.
    #[inline]
    pub fn index(&self) -> u32 {
        self.next
    }

    /// How many published entries the consumer has not taken. One load, nothing stored.
    #[inline]
    pub fn pending(&self) -> u32 {
        // SAFETY: the index lives as long as `memory`.
        self.published.wrapping_sub(unsafe { self.consumer.as_ref() }.load(Ordering::Relaxed))
    }

    /// Whether the consumer asks to be woken (K3).
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        // SAFETY: the word lives as long as `memory`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & XDP_RING_NEED_WAKEUP != 0
    }

    /// What the ring is in.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }
}
