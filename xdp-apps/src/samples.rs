//! Round trips out of the hot loop: a ring of samples between the pinger and whoever sums them up.
//!
//! The memory is there before the first packet: allocated, written to once, and locked where the memory-lock limit
//! allows. Writing a sample is a copy and a store; where the ring is full, the sample is counted and dropped, for waiting would
//! change what is measured.
//!
//! With a core to spare, [`Reader::record_until`] empties the ring while it fills, on a thread of its own. Without one, make the
//! ring as large as the run and empty it afterwards with [`Reader::drain_into`].
//!
//! ```
//! use xdp_apps::samples::{self, Sample};
//! let (mut writer, mut reader) = samples::channel(1000);
//! writer.write(Sample { sequence: 0, intended: 100, sent: 110, received: 150 });
//! let mut samples = Vec::new();
//! assert_eq!(reader.drain_into(&mut samples), 1);
//! assert_eq!((samples[0].from_intended(), samples[0].from_sent()), (50, 40));
//! ```

#[allow(unsafe_code, reason = "the one system call")]
mod sys;

use alloc::sync::Arc;
use core::time::Duration;
use rtrb::{Consumer, Producer, RingBuffer};
use xdp_core::Stop;

/// One round trip, in [`ticks`](xdp_core::ticks).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Which packet, from 0, those to warm up left out.
    pub sequence: u64,
    /// When it was to be sent. Without a schedule: when it was.
    pub intended: u64,
    /// When it was sent.
    pub sent: u64,
    /// When it was back.
    pub received: u64,
}

impl Sample {
    /// The round trip as a user sees it who wanted the packet sent on time: what the pinger or its machine held back is in it.
    #[inline]
    pub const fn from_intended(&self) -> u64 {
        self.received.wrapping_sub(self.intended)
    }

    /// The round trip of the packet alone. Of a sender that was held up it tells too little.
    #[inline]
    pub const fn from_sent(&self) -> u64 {
        self.received.wrapping_sub(self.sent)
    }
}

/// A ring of `capacity` samples (at least one), 32 bytes each: its two ends, each for one thread.
///
/// # Cost
/// A page fault for each page and two system calls: control plane only.
pub fn channel(capacity: usize) -> (Writer, Reader) {
    let (mut producer, consumer) = RingBuffer::new(capacity.max(1));
    let locked = Arc::new(Locked::new(&mut producer));
    (Writer { locked: locked.clone(), producer, lost: 0 }, Reader { _locked: locked, consumer })
}

/// The end samples go in.
#[derive(Debug)]
pub struct Writer {
    // Before the ring's end, so that the memory is unlocked while it is still there.
    locked: Arc<Locked>,
    producer: Producer<Sample>,
    lost: u64,
}

/// The end they come out.
#[derive(Debug)]
pub struct Reader {
    _locked: Arc<Locked>,
    consumer: Consumer<Sample>,
}

impl Writer {
    /// Writes one. Where the ring is full it is counted as [`lost`](Self::lost), and gone.
    #[inline]
    pub fn write(&mut self, sample: Sample) {
        if self.producer.push(sample).is_err() {
            self.lost += 1;
        }
    }

    /// Samples that found the ring full: make it larger, or have it emptied by a thread on another core.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether the memory is locked. It is not where the limit (`RLIMIT_MEMLOCK`) is lower and CAP_IPC_LOCK missing: then the
    /// kernel may take a page away, and the sample that needs it waits.
    pub fn is_locked(&self) -> bool {
        self.locked.held
    }
}

impl Reader {
    /// Moves everything written so far behind what `samples` holds. Returns how many.
    pub fn drain_into(&mut self, samples: &mut Vec<Sample>) -> usize {
        let Ok(chunk) = self.consumer.read_chunk(self.consumer.slots()) else { return 0 };
        let (first, second) = chunk.as_slices();
        samples.extend_from_slice(first);
        samples.extend_from_slice(second);
        let drained = chunk.len();
        chunk.commit_all();
        drained
    }

    /// Empties the ring a thousand times a second until `stop` is set or the writer is gone, and once more then: a recorder
    /// thread's whole work. Returns everything, in order.
    ///
    /// A ring of 2,000,000 samples a second must hold 2,000 for each millisecond this thread may be kept from its core.
    pub fn record_until(&mut self, stop: &Stop) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(self.consumer.buffer().capacity());
        loop {
            // Looked at before the ring is: what was written before the end is then in it.
            let ended = stop.is_set() || self.consumer.is_abandoned();
            self.drain_into(&mut samples);
            if ended {
                return samples;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The ring's memory, locked until the first of both ends' last hold on it is dropped.
#[derive(Debug)]
struct Locked {
    start: usize,
    len: usize,
    held: bool,
}

impl Locked {
    fn new(producer: &mut Producer<Sample>) -> Self {
        let capacity = producer.buffer().capacity();
        let mut chunk = producer.write_chunk(capacity).expect("a fresh ring is empty");
        // Writing the empty samples touched every page; they are not committed.
        let (slots, rest) = chunk.as_mut_slices();
        debug_assert!(rest.is_empty(), "a fresh ring begins at its first slot");
        let (start, len) = (slots.as_ptr() as usize, size_of_val(slots));
        Self { start, len, held: sys::lock(start, len).is_ok() }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if self.held {
            sys::unlock(self.start, self.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sequence: u64) -> Sample {
        Sample { sequence, intended: 10 * sequence, sent: 10 * sequence + 1, received: 10 * sequence + 5 }
    }

    #[test]
    fn samples_come_out_in_the_order_they_went_in_across_the_wrap() {
        let (mut writer, mut reader) = channel(7);
        let mut samples = Vec::new();
        for round in 0..10 {
            (0..5).for_each(|n| writer.write(sample(round * 5 + n)));
            assert_eq!(reader.drain_into(&mut samples), 5);
        }
        assert_eq!(reader.drain_into(&mut samples), 0);
        assert_eq!(samples, (0..50).map(sample).collect::<Vec<_>>());
        assert_eq!(writer.lost(), 0);
    }

    #[test]
    fn a_full_ring_counts_and_does_not_wait() {
        let (mut writer, mut reader) = channel(3);
        (0..5).for_each(|n| writer.write(sample(n)));
        assert_eq!(writer.lost(), 2);
        let mut samples = Vec::new();
        reader.drain_into(&mut samples);
        assert_eq!(samples, [sample(0), sample(1), sample(2)]);
        writer.write(sample(9));
        reader.drain_into(&mut samples);
        assert_eq!((samples.len(), writer.lost()), (4, 2));
    }

    #[test]
    fn the_memory_is_there_and_locked_while_either_end_lives() {
        const CAPACITY: usize = 1 << 18; // 8 MiB, mapped by itself
        let (writer, reader) = channel(CAPACITY);
        let (start, len) = (writer.locked.start, writer.locked.len);
        assert_eq!(len, CAPACITY * size_of::<Sample>());
        let backing = || xdp_core::cpu::backing(start + len / 2).unwrap();
        assert!(backing().resident >= len, "{:?}", backing());
        if !writer.is_locked() {
            println!("skipped: the memory-lock limit is below {len} bytes");
            return;
        }
        assert!(backing().locked >= len, "{:?}", backing());
        drop(reader);
        assert!(backing().locked >= len, "the writer still needs it");
    }

    #[test]
    fn a_recorder_returns_everything_written_before_the_end() {
        let stop = Stop::new();
        let (mut writer, mut reader) = channel(1 << 16);
        let samples = std::thread::scope(|scope| {
            let recorder = scope.spawn(|| reader.record_until(&stop));
            (0..50_000).for_each(|n| writer.write(sample(n)));
            stop.set();
            recorder.join().unwrap()
        });
        assert_eq!((samples.len(), writer.lost()), (50_000, 0));
        assert!(samples.iter().zip(0..).all(|(found, n)| *found == sample(n)));
    }

    #[test]
    fn a_recorder_ends_with_its_writer() {
        let (mut writer, mut reader) = channel(8);
        writer.write(sample(1));
        drop(writer);
        assert_eq!(reader.record_until(&Stop::new()), [sample(1)]);
    }
}
