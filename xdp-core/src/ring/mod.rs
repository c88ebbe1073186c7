//! The four rings, as two types: fill and tx are [`Producer`]s, rx and completion are [`Consumer`]s.
//!
//! A ring is a power of two of slots, an index that its producer moves and one that its consumer moves. What holds,
//! cited by number wherever `unsafe` leans on it:
//!
//! - **R1** A capacity is a power of two; indices run free and are compared by wrapping subtraction.
//! - **R2** The slots from our index to the known limit are ours.
//! - **R3** Entries are written before the index (`Release`) and read after it (`Acquire`).
//! - **R4** An end has one owner, on one thread at a time.
//!
//! and of the far side:
//!
//! - **K1** An address comes back once for each time it was lent, after its last use.
//! - **K2** A received descriptor lies inside the chunk that was lent; a completion names what was sent.
//! - **K3** A ring bound with need_wakeup says when it needs waking; one bound without always does, for tx.
//!
//! A far side that breaks R1 to R3 (an index that jumps) can make us read a stale entry or overwrite one it has not
//! read; slots are masked, so neither leaves the ring's memory, and every entry is checked before it becomes a frame.

mod consumer;
mod heap;
mod kernel;
mod producer;
#[cfg(feature = "bench")]
mod raw;
mod watcher;

pub use consumer::Consumer;
pub use heap::HeapRing;
pub use kernel::KernelRing;
pub(crate) use kernel::Mapping;
pub use kernel::RingSizes;
pub use producer::{Producer, Writer};
#[cfg(feature = "bench")]
pub use raw::RawRing;
pub(crate) use watcher::Watcher;

use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use xdp_umem::Desc;

mod sealed {
    pub trait Sealed {}
}
use sealed::Sealed;

/// Where the parts of a ring are.
#[derive(Clone, Copy, Debug)]
pub struct RingParts {
    pub(crate) producer: NonNull<AtomicU32>,
    pub(crate) consumer: NonNull<AtomicU32>,
    pub(crate) flags: NonNull<AtomicU32>,
    pub(crate) slots: NonNull<u8>,
    pub(crate) capacity: u32,
}

/// Memory with a ring in it: mapped from a socket ([`KernelRing`]) or on the heap (`Arc<HeapRing>`).
///
/// Sealed: whoever could point a ring at memory of their own could forge a frame.
///
/// # Safety
/// The parts stay where they are for as long as the value lives, wherever it is moved; the capacity is a power of
/// two (R1) and the slots hold so many entries of the ring's type.
pub unsafe trait RingMemory: Sealed {
    /// Where they are.
    fn parts(&self) -> RingParts;
}

/// What a ring carries: a chunk's address, or a packet's descriptor.
pub trait Entry: Copy + Sealed {
    /// Reads a slot, each word once, so that what is checked is what is used even if a far side breaks R2.
    ///
    /// # Safety
    /// `slot` is one of a ring of such entries.
    #[doc(hidden)]
    unsafe fn read(slot: NonNull<Self>) -> Self;

    /// Writes a slot.
    ///
    /// # Safety
    /// `slot` is one of a ring of such entries, and ours (R2).
    #[doc(hidden)]
    unsafe fn write(self, slot: NonNull<Self>);
}

impl Sealed for u64 {}
impl Entry for u64 {
    #[inline]
    unsafe fn read(slot: NonNull<Self>) -> Self {
        // SAFETY: the caller's promise.
        unsafe { slot.read_volatile() }
    }

    #[inline]
    unsafe fn write(self, slot: NonNull<Self>) {
        // SAFETY: the caller's promise.
        unsafe { slot.write(self) }
    }
}

impl Sealed for Desc {}
impl Entry for Desc {
    #[inline]
    unsafe fn read(slot: NonNull<Self>) -> Self {
        // Two words, as length and options are checked together.
        let words = slot.cast::<u64>();
        // SAFETY: the caller's promise; a descriptor is two aligned words.
        let (addr, rest) = unsafe { (words.read_volatile(), words.add(1).read_volatile()) };
        let rest = if cfg!(target_endian = "little") { rest } else { rest.rotate_right(32) };
        Self { addr, len: rest as u32, options: (rest >> 32) as u32 }
    }

    #[inline]
    unsafe fn write(self, slot: NonNull<Self>) {
        let rest = u64::from(self.len) | u64::from(self.options) << 32;
        let rest = if cfg!(target_endian = "little") { rest } else { rest.rotate_right(32) };
        // SAFETY: the caller's promise; a descriptor is two aligned words.
        unsafe { slot.cast::<[u64; 2]>().write([self.addr, rest]) }
    }
}

/// A run of slots that lie side by side: from `at` to `end`.
#[derive(Debug)]
struct Run<T> {
    at: NonNull<T>,
    end: NonNull<T>,
}

impl<T> Run<T> {
    /// Of `len` slots from `first`.
    ///
    /// # Safety
    /// The slots are of one ring's memory.
    #[inline]
    unsafe fn new(first: NonNull<T>, len: u32) -> Self {
        // SAFETY: the caller's promise.
        Self { at: first, end: unsafe { first.add(len as usize) } }
    }

    #[inline]
    fn len(&self) -> u32 {
        ((self.end.as_ptr() as usize - self.at.as_ptr() as usize) / size_of::<T>()) as u32
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// The next slot, which is then no more of the run.
    ///
    /// # Safety
    /// The run is not empty.
    #[inline]
    unsafe fn step(&mut self) -> NonNull<T> {
        let slot = self.at;
        // SAFETY: before `end`, so that the next slot's place is at most `end`.
        self.at = unsafe { slot.add(1) };
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    fn ring(capacity: u32, first: u32) -> (Producer<u64, Arc<HeapRing>>, Consumer<u64, Arc<HeapRing>>) {
        let memory = Arc::new(HeapRing::new(capacity, first));
        // SAFETY: R4, one end of each kind over fresh memory.
        unsafe { (Producer::new(memory.clone()), Consumer::new(memory)) }
    }

    /// Indices next to every wrap there is.
    const STARTS: [u32; 7] = [0, 1, u32::MAX, u32::MAX - 3, u32::MAX - 1000, 1 << 31, (1 << 31) - 1];

    #[test]
    fn a_ring_answers_as_a_queue_does_from_any_start() {
        for first in STARTS {
            let (mut producer, mut consumer) = ring(8, first);
            let mut model = VecDeque::new();
            let (mut seed, mut next) = (first | 1, 0u64);
            let mut pushed = 0;
            for _ in 0..20_000 {
                seed ^= seed << 13;
                seed ^= seed >> 17;
                seed ^= seed << 5;
                match seed % 4 {
                    0 => {
                        let room = model.len() + pushed < 8;
                        assert_eq!(producer.push(next), if room { Ok(()) } else { Err(next) });
                        if room {
                            pushed += 1;
                            next += 1;
                        }
                    }
                    1 => {
                        assert_eq!(producer.commit(), pushed as u32);
                        model.extend(next - pushed as u64..next);
                        pushed = 0;
                    }
                    2 => assert_eq!(producer.free(8) as usize, 8 - model.len() - pushed),
                    _ => {
                        let n = seed >> 8 & 7;
                        let mut seen = Vec::new();
                        let count = consumer.consume(n, |entry| seen.push(entry));
                        let expected: Vec<_> = (0..n).map_while(|_| model.pop_front()).collect();
                        assert_eq!((count as usize, seen), (expected.len(), expected));
                    }
                }
            }
        }
    }

    #[test]
    fn a_burst_writes_what_as_many_pushes_would_from_any_start() {
        for first in STARTS {
            let (mut producer, mut consumer) = ring(8, first);
            let (mut seed, mut next, mut held) = (first | 1, 0u64, 0u64);
            for _ in 0..5_000 {
                seed ^= seed << 13;
                seed ^= seed >> 17;
                seed ^= seed << 5;
                let (most, tries, refuse) =
                    (u64::from(seed >> 8 & 15), u64::from(seed >> 12 & 15), seed >> 16 & 15);
                let mut writer = producer.writer(most as u32);
                let mut written = 0;
                for i in 0..tries {
                    // Now and then the entry is not made, or the ring is written past the writer.
                    if i as u32 == refuse {
                        assert_eq!(writer.push_with(next, Err), Err(next));
                    } else if i as u32 + 1 == refuse {
                        let pushed = writer.with_ring(|ring| ring.push(next)).is_ok();
                        assert_eq!(pushed, held < 8);
                        (next, held, written) =
                            (next + u64::from(pushed), held + u64::from(pushed), written + u64::from(pushed));
                    } else {
                        let room = held < 8 && written < most;
                        assert_eq!(writer.push_with(next, Ok), if room { Ok(()) } else { Err(next) });
                        (next, held, written) =
                            (next + u64::from(room), held + u64::from(room), written + u64::from(room));
                    }
                }
                drop(writer);
                assert_eq!(u64::from(producer.commit()), written);
                let mut expected = next - held;
                let taken = consumer.consume(seed >> 20 & 15, |entry| {
                    assert_eq!(entry, expected);
                    expected += 1;
                });
                held -= u64::from(taken);
            }
            assert!(next > 5_000, "it wrote something");
        }
    }

    #[test]
    fn a_panic_while_an_entry_is_made_pushes_nothing_and_keeps_what_was_pushed() {
        extern crate std;
        let (mut producer, mut consumer) = ring(4, u32::MAX);
        let caught = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            let mut writer = producer.writer(4);
            (0..2).for_each(|entry| writer.push_with(entry, Ok).unwrap());
            let _ = writer.push_with(2, |_| panic!("a frame of another UMEM"));
        }));
        assert!(caught.is_err());
        assert_eq!(producer.commit(), 2);
        let mut seen = Vec::new();
        consumer.consume(4, |entry| seen.push(entry));
        assert_eq!(seen, [0, 1]);
    }

    #[test]
    fn a_slice_is_written_as_far_as_there_is_room_from_any_start() {
        for first in STARTS {
            let (mut producer, mut consumer) = ring(8, first);
            for (next, len) in (0..11).cycle().take(200).enumerate() {
                let entries: Vec<u64> = (next as u64..).take(len).collect();
                assert_eq!(producer.push_slice(&entries), len.min(8));
                producer.commit();
                let mut seen = Vec::new();
                consumer.consume(u32::MAX, |entry| seen.push(entry));
                assert_eq!(seen, entries[..len.min(8)]);
            }
            (0..3).for_each(|entry| producer.push(entry).unwrap());
            assert_eq!(producer.push_slice(&[7; 8]), 5, "what is free, and no more");
            assert_eq!((producer.push_slice(&[7; 8]), producer.push_slice(&[7])), (0, 0));
        }
    }

    #[test]
    fn nothing_is_seen_before_it_is_committed() {
        let (mut producer, mut consumer) = ring(4, u32::MAX - 1);
        producer.push(1).unwrap();
        assert_eq!(consumer.consume(4, |_| panic!("not yet")), 0);
        producer.commit();
        assert_eq!(consumer.consume(4, |entry| assert_eq!(entry, 1)), 1);
    }

    #[test]
    fn a_panic_in_the_middle_loses_one_entry_and_doubles_none() {
        extern crate std;
        for first in STARTS {
            let (mut producer, mut consumer) = ring(8, first);
            (0..6).for_each(|entry| producer.push(entry).unwrap());
            producer.commit();
            let mut seen = Vec::new();
            let caught = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                consumer.consume(8, |entry| {
                    seen.push(entry);
                    assert!(entry != 2, "a stage that panics");
                })
            }));
            assert!(caught.is_err());
            assert_eq!(producer.free(8), 8 - 3, "what was handed out was published");
            consumer.consume(8, |entry| seen.push(entry));
            assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn an_index_that_jumps_stays_inside_the_ring() {
        let memory = Arc::new(HeapRing::new(4, 0));
        // SAFETY: R4, one end of each kind over fresh memory.
        let (mut producer, mut consumer) =
            unsafe { (Producer::<u64, _>::new(memory.clone()), Consumer::<u64, _>::new(memory.clone())) };
        memory.set_producer(0xdead_beef);
        assert_eq!(consumer.consume(u32::MAX, |_| ()), 4);
        memory.set_consumer(0xdead_beef);
        assert!(producer.free(u32::MAX) <= 4);
    }

    #[test]
    fn a_consumer_that_claims_what_was_not_published_frees_nothing() {
        let memory = Arc::new(HeapRing::new(4, 7));
        // SAFETY: R4, the one producing end of fresh memory.
        let mut producer = unsafe { Producer::<u64, _>::new(memory.clone()) };
        (0..4).for_each(|entry| producer.push(entry).unwrap());
        memory.set_consumer(7 + 4);
        assert_eq!(producer.push(4), Err(4), "it would overwrite an entry that nobody saw");
        assert_eq!(producer.commit(), 4);
        assert_eq!(producer.push(4), Ok(()), "once they are published the claim is a consumer's own affair");
    }

    #[test]
    fn two_threads_pass_everything_in_order() {
        extern crate std;
        let (mut producer, mut consumer) = ring(64, u32::MAX - 500);
        const COUNT: u64 = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut next = 0;
                while next < COUNT {
                    while next < COUNT && producer.push(next).is_ok() {
                        next += 1;
                    }
                    producer.commit();
                    std::thread::yield_now();
                }
            });
            let mut expected = 0;
            while expected < COUNT {
                consumer.consume(64, |entry| {
                    assert_eq!(entry, expected);
                    expected += 1;
                });
                std::thread::yield_now();
            }
        });
    }
}
