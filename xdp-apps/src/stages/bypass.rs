//! Bypass: stands for work.

use xdp_core::{Frame, Stage, Verdict, ticks};

/// Burns so many [`ticks`] on every packet and passes it on: what a network function's own work does to a path's delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bypass(pub u64);

impl Stage for Bypass {
    #[inline]
    fn process(&mut self, _: &mut Frame<'_>) -> Verdict {
        let start = ticks();
        while ticks().wrapping_sub(start) < self.0 {
            core::hint::spin_loop();
        }
        Verdict::Next
    }
}
