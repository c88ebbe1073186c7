//! s2n-quic-core's ring cursor, the one s2n-quic-xdp is made of.

use crate::kernel::{self, RingAt};
use crate::rings::Bare;
use s2n_quic_core::sync::cursor::{Builder, Cursor};
use xdp_core::Desc;

/// Four cursors.
#[derive(Debug)]
pub struct Cursors {
    fill: Cursor<u64>,
    rx: Cursor<Desc>,
    tx: Cursor<Desc>,
    completion: Cursor<u64>,
}

fn builder<T: Copy>(ring: &RingAt) -> Builder<T> {
    Builder { producer: ring.producer, consumer: ring.consumer, data: ring.slots.cast(), size: kernel::RING }
}

impl Cursors {
    /// Over `rings`, whose indices begin at 0: a cursor knows no other beginning.
    pub fn new([fill, rx, tx, completion]: kernel::Rings) -> Self {
        // SAFETY: the memory is never given back, and each end is made once.
        unsafe {
            Self {
                fill: builder(&fill).build_producer(),
                rx: builder(&rx).build_consumer(),
                tx: builder(&tx).build_producer(),
                completion: builder(&completion).build_consumer(),
            }
        }
    }
}

/// Writes as many of `entries` as there is room for, and publishes them.
#[inline]
fn push<T: Copy>(cursor: &mut Cursor<T>, entries: &[T]) -> u32 {
    let n = cursor.acquire_producer(entries.len() as u32).min(entries.len() as u32);
    // SAFETY: we are the producer.
    let (head, tail) = unsafe { cursor.producer_data() };
    head.iter_mut().chain(tail).zip(entries).for_each(|(slot, entry)| *slot = *entry);
    if n > 0 {
        cursor.release_producer(n);
    }
    n
}

/// Reads up to `n` entries, and publishes that they were read.
#[inline]
fn pop<T: Copy>(cursor: &mut Cursor<T>, n: u32, mut f: impl FnMut(T)) -> u32 {
    let n = cursor.acquire_consumer(n).min(n);
    if n == 0 {
        return 0;
    }
    // SAFETY: we are the consumer.
    let (head, tail) = unsafe { cursor.consumer_data() };
    let in_head = head.len().min(n as usize);
    head[..in_head].iter().for_each(|entry| f(*entry));
    tail[..n as usize - in_head].iter().for_each(|entry| f(*entry));
    cursor.release_consumer(n);
    n
}

/// Moves up to `n` entries from one ring to another, slice by slice.
#[inline]
fn transfer<T: Copy, U: Copy>(
    from: &mut Cursor<T>,
    to: &mut Cursor<U>,
    n: u32,
    entry: impl Fn(T) -> U,
) -> u32 {
    let room = to.acquire_producer(n);
    // SAFETY: we are the producer.
    let (head, tail) = unsafe { to.producer_data() };
    let mut slots = head.iter_mut().chain(tail);
    let moved = pop(from, n.min(room), |taken| {
        if let Some(slot) = slots.next() {
            *slot = entry(taken);
        }
    });
    if moved > 0 {
        to.release_producer(moved);
    }
    moved
}

impl Bare for Cursors {
    fn fill(&mut self, addresses: &[u64]) {
        push(&mut self.fill, addresses);
    }

    fn rx(&mut self, n: u32, sum: &mut u64) -> u32 {
        pop(&mut self.rx, n, |desc| *sum = sum.wrapping_add(desc.addr + u64::from(desc.len)))
    }

    fn tx(&mut self, packets: &[Desc]) -> u32 {
        push(&mut self.tx, packets)
    }

    fn completion(&mut self, n: u32, sum: &mut u64) -> u32 {
        pop(&mut self.completion, n, |addr| *sum = sum.wrapping_add(addr))
    }

    fn recycle(&mut self, n: u32) -> u32 {
        transfer(&mut self.rx, &mut self.fill, n, |desc| desc.addr & !(kernel::CHUNK - 1))
    }

    fn forward(&mut self, n: u32) -> u32 {
        transfer(&mut self.completion, &mut self.fill, n, |addr| addr & !(kernel::CHUNK - 1));
        transfer(&mut self.rx, &mut self.tx, n, |desc| desc)
    }

    fn needs_wakeup(&self) -> Option<bool> {
        None // a cursor has no flags
    }
}
