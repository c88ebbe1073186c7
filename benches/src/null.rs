//! A port to nowhere: whatever is lent to it comes in as a packet of 64 bytes, whatever is sent is finished. What DPDK's `net_null`
//! and BESS's source and sink are: the loop and its frames, without rings.

use xdp_core::{Far, Frame, Kicked, Port, Receive, State, Transmit, Want};

/// Frames, last in, first out.
#[derive(Debug)]
struct Stack<'u> {
    frames: Box<[Option<Frame<'u>>]>,
    len: usize,
}

impl<'u> Stack<'u> {
    fn new(capacity: usize) -> Self {
        Self { frames: (0..capacity).map(|_| None).collect(), len: 0 }
    }

    #[inline]
    fn push(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        match self.frames.get_mut(self.len) {
            Some(slot) => {
                *slot = Some(frame);
                self.len += 1;
                Ok(())
            }
            None => Err(frame),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Frame<'u>> {
        let last = self.len.checked_sub(1)?;
        let frame = self.frames.get_mut(last)?.take();
        self.len = last;
        frame
    }
}

/// Where packets of 64 bytes come from.
#[derive(Debug)]
pub struct Source<'u>(Stack<'u>);

/// Where packets go.
#[derive(Debug)]
pub struct Sink<'u>(Stack<'u>);

/// Nobody to wake.
#[derive(Debug)]
pub struct Nobody;

/// A port that has room for `capacity` frames each way.
pub fn port<'u>(capacity: usize) -> Port<Source<'u>, Sink<'u>, Nobody> {
    Port::new(Source(Stack::new(capacity)), Sink(Stack::new(capacity)), Nobody)
}

impl<'u> Receive<'u> for Source<'u> {
    #[inline]
    fn offer(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        self.0.push(frame)
    }

    #[inline]
    fn receive(&mut self, n: u32, mut judge: impl FnMut(Frame<'u>)) -> u32 {
        for received in 0..n {
            let Some(mut frame) = self.0.pop() else { return received };
            frame.set_len(64);
            judge(frame);
        }
        n
    }

    fn commit(&mut self) {}

    #[inline]
    fn room(&mut self, _: u32) -> u32 {
        (self.0.frames.len() - self.0.len) as u32
    }

    #[inline]
    fn lent(&self) -> usize {
        self.0.len
    }

    fn capacity(&self) -> usize {
        self.0.frames.len()
    }
}

impl<'u> Transmit<'u> for Sink<'u> {
    #[inline]
    fn send(&mut self, frame: Frame<'u>) -> Result<(), Frame<'u>> {
        self.0.push(frame)
    }

    #[inline]
    fn reap(&mut self, mut finished: impl FnMut(Frame<'u>)) -> u32 {
        let mut count = 0;
        while let Some(frame) = self.0.pop() {
            finished(frame);
            count += 1;
        }
        count
    }

    fn commit(&mut self) {}

    #[inline]
    fn lent(&self) -> usize {
        self.0.len
    }

    fn capacity(&self) -> usize {
        self.0.frames.len()
    }

    #[inline]
    fn room(&mut self, _: u32) -> u32 {
        (self.0.frames.len() - self.0.len) as u32
    }
}

impl Far for Nobody {
    #[inline]
    fn kick(&mut self, _: Want) -> Kicked {
        Kicked::IDLE
    }

    fn check(&mut self) -> State {
        State::Up
    }

    fn state(&self) -> State {
        State::Up
    }
}
