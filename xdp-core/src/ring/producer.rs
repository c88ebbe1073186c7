//! Producer: the end that writes entries. Fill and tx.

use super::{Entry, RingMemory};
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

/// The next slot of a ring, known to be free.
#[derive(Debug)]
pub struct Slot<'p, T, M>(&'p mut Producer<T, M>);

impl<T: Entry, M> Slot<'_, T, M> {
    /// Writes the entry where only we see it.
    #[inline]
    pub fn fill(self, entry: T) {
        let ring = self.0;
        // SAFETY: R1, the mask keeps the slot inside the ring; R2, it is ours until `commit`.
        unsafe { ring.slots.add((ring.next & ring.mask) as usize).write(entry) };
        ring.next = ring.next.wrapping_add(1);
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

    /// A free slot, to be filled at once; none if the ring is full. For entries that are made only where there is room.
    #[inline]
    pub fn slot(&mut self) -> Option<Slot<'_, T, M>> {
        if self.free(1) == 0 { None } else { Some(Slot(self)) }
    }

    /// Writes an entry where only we see it; gives it back if the ring is full.
    #[inline]
    pub fn push(&mut self, entry: T) -> Result<(), T> {
        match self.slot() {
            Some(slot) => {
                slot.fill(entry);
                Ok(())
            }
            None => Err(entry),
        }
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
