//! Until: a stage with an end ends its worker.

use xdp_core::{Frame, Outbox, Stage, Stop, Transmit, Verdict};

/// A stage that is done at some time.
pub trait Finite: Stage {
    /// Whether nothing is left to do as of `now`, in [`ticks`](xdp_core::ticks).
    fn is_done(&mut self, now: u64) -> bool;
}

/// Sets `stop` once the stage is done, so that [`Worker::run`](xdp_core::Worker::run) returns, and every worker else that looks
/// at the same one.
#[derive(Debug)]
pub struct Until<'s, S> {
    /// The stage.
    pub stage: S,
    stop: &'s Stop,
}

impl<'s, S: Finite> Until<'s, S> {
    /// Runs `stage` until it is done.
    pub const fn done(stage: S, stop: &'s Stop) -> Self {
        Self { stage, stop }
    }
}

impl<S: Finite> Stage for Until<'_, S> {
    const STAMPS: bool = S::STAMPS;

    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.stage.process(frame)
    }

    #[inline]
    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        self.stage.tick(out);
        if self.stage.is_done(xdp_core::ticks()) {
            self.stop.set();
        }
    }

    #[inline]
    fn finished(&mut self, frame: &Frame<'_>) {
        self.stage.finished(frame);
    }

    #[inline]
    fn due(&self) -> Option<u64> {
        self.stage.due()
    }

    #[inline]
    fn kicked(&mut self, port: u8, before: u64, after: u64) {
        self.stage.kicked(port, before, after);
    }
}
