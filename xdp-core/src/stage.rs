//! Stages: what judges packets.
#![forbid(unsafe_code)]

use crate::port::Transmit;
use xdp_umem::{Frame, Pool};

/// What becomes of a packet, in XDP's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next stage judges; at the end of a chain, as [`Drop`](Self::Drop).
    Next,
    /// Out by the port it came in by.
    Tx,
    /// Out by another port.
    Redirect(u8),
    /// To the pool.
    Drop,
}

/// Judges one packet at a time. It borrows the frame, so that it cannot lose one.
///
/// Any `FnMut(&mut Frame<'_>) -> Verdict` is one. Chains are types: `filter.then(count).then(reflector)` compiles to one loop.
pub trait Stage {
    /// Whether [`kicked`](Self::kicked) wants its time stamps; without, they are compiled out.
    const STAMPS: bool = false;

    /// Judges a packet; may change it, and move its head and tail.
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict;

    /// Once a turn, before anything is received: where a stage sends packets of its own making.
    #[inline]
    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        let _ = out;
    }

    /// Sees a frame that was sent before it is recycled: its TX metadata, filled in by the kernel, is before its start.
    #[inline]
    fn finished(&mut self, frame: &Frame<'_>) {
        let _ = frame;
    }

    /// When `tick` has something to do, in [`ticks`](crate::ticks); bounds how long a worker sleeps. `None`: nothing in sight.
    #[inline]
    fn due(&self) -> Option<u64> {
        None
    }

    /// What `port`'s far side was woken for took from `before` to `after`, in ticks. Only with [`STAMPS`](Self::STAMPS).
    #[inline]
    fn kicked(&mut self, port: u8, before: u64, after: u64) {
        let _ = (port, before, after);
    }

    /// This stage, then `next` where this one says [`Verdict::Next`].
    fn then<S: Stage>(self, next: S) -> Then<Self, S>
    where
        Self: Sized,
    {
        Then(self, next)
    }
}

impl<F: FnMut(&mut Frame<'_>) -> Verdict> Stage for F {
    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self(frame)
    }
}

/// Two stages, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Then<A, B>(pub A, pub B);

impl<A: Stage, B: Stage> Stage for Then<A, B> {
    const STAMPS: bool = A::STAMPS || B::STAMPS;

    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        match self.0.process(frame) {
            Verdict::Next => self.1.process(frame),
            verdict => verdict,
        }
    }

    #[inline]
    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        self.0.tick(out);
        self.1.tick(out);
    }

    #[inline]
    fn finished(&mut self, frame: &Frame<'_>) {
        self.0.finished(frame);
        self.1.finished(frame);
    }

    #[inline]
    fn due(&self) -> Option<u64> {
        match (self.0.due(), self.1.due()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    #[inline]
    fn kicked(&mut self, port: u8, before: u64, after: u64) {
        self.0.kicked(port, before, after);
        self.1.kicked(port, before, after);
    }
}

/// Where a stage sends packets of its own: frames from the worker's pool, to any of its ports.
#[derive(Debug)]
pub struct Outbox<'w, 'u, T> {
    pub(crate) pool: &'w mut Pool<'u>,
    pub(crate) tx: &'w mut [T],
    /// Packets sent, and packets that found no frame or no room.
    pub(crate) sent: u64,
    pub(crate) refused: u64,
}

impl<'u, T: Transmit<'u>> Outbox<'_, 'u, T> {
    /// Has `build` fill an empty frame and queues it on `port`. `false`, counted, and nothing sent, where there is no
    /// frame left, no such port, or no room on it, or where `build` says `false`.
    #[inline]
    pub fn send(&mut self, port: u8, build: impl FnOnce(&mut Frame<'u>) -> bool) -> bool {
        let sent = self.try_send(port, build);
        if sent {
            self.sent += 1
        } else {
            self.refused += 1
        }
        sent
    }

    #[inline]
    fn try_send(&mut self, port: u8, build: impl FnOnce(&mut Frame<'u>) -> bool) -> bool {
        let Some(tx) = self.tx.get_mut(port as usize) else { return false };
        if tx.room(1) == 0 {
            return false;
        }
        let Some(frame) = self.pool.take() else { return false };
        let mut held = Held { frame: Some(frame), pool: self.pool };
        if !held.frame.as_mut().is_some_and(build) {
            return false;
        }
        match held.frame.take().map(|frame| tx.send(frame)) {
            Some(Ok(())) => true,
            refused => {
                held.frame = refused.and_then(Result::err);
                false
            }
        }
    }

    /// Queues a copy of a packet's bytes on `port`, as [`send`](Self::send) does.
    pub fn copy(&mut self, port: u8, packet: &[u8]) -> bool {
        self.send(port, |frame| frame.write(packet))
    }

    /// How many packets `port` takes, of up to `wanted`.
    #[inline]
    pub fn room(&mut self, port: u8, wanted: u32) -> u32 {
        let frames = self.pool.len() as u32;
        self.tx.get_mut(port as usize).map_or(0, |tx| tx.room(wanted).min(frames).min(wanted))
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        self.tx.len()
    }
}

/// A frame in a stage's hands: it goes back to the pool if the stage panics.
pub(crate) struct Held<'p, 'u> {
    pub(crate) frame: Option<Frame<'u>>,
    pub(crate) pool: &'p mut Pool<'u>,
}

impl<'u> Held<'_, 'u> {
    /// Has `judge` look at the frame, which comes back with the verdict; to the pool if `judge` panics.
    #[inline]
    pub(crate) fn judged<V>(
        frame: Frame<'u>,
        pool: &mut Pool<'u>,
        judge: impl FnOnce(&mut Frame<'u>) -> V,
    ) -> (Frame<'u>, V) {
        let mut held = Held { frame: Some(frame), pool };
        match &mut held.frame {
            Some(frame) => {
                let verdict = judge(frame);
                match held.frame.take() {
                    Some(frame) => (frame, verdict),
                    None => unreachable!("nobody took it"),
                }
            }
            None => unreachable!("just put there"),
        }
    }
}

impl Drop for Held<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            self.pool.put(frame);
        }
    }
}
