//! The far side of a port: waking it, and what became of it.
#![forbid(unsafe_code)]

use xdp_umem::Errno;

/// Which directions a worker has an interest in when it kicks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Frames were lent to receive into.
    pub rx: bool,
    /// Frames were handed over to be sent.
    pub tx: bool,
}

impl Want {
    /// Both.
    pub const BOTH: Self = Self { rx: true, tx: true };
}

/// What one kick did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kicked {
    /// System calls made: 0, 1, or 2 where each direction needed its own.
    pub calls: u32,
    /// How it went.
    pub outcome: Outcome,
}

impl Kicked {
    /// There was nothing to wake for.
    pub const IDLE: Self = Self { calls: 0, outcome: Outcome::Idle };
}

/// How a kick went. The kernel's errno and what it means here are in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to wake for.
    Idle,
    /// There is, but the last calls moved nothing: holding back for a few turns.
    HeldBack,
    /// The far side was woken, or did as much as it could.
    Woken,
    /// EAGAIN, ENOBUFS: it could not take everything; what is left stays in the ring.
    Again,
    /// EBUSY: one packet was dropped by the device and counts as sent; the rest stays in the ring.
    Dropped,
    /// ENETDOWN: the interface is down; what was queued stays in the ring.
    Down,
    /// ENXIO: the interface is gone for good.
    Gone,
    /// Anything else: a bug here, or a kernel not met before.
    Failed(Errno),
}

/// Whether a far side moves packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As far as is known.
    Up,
    /// The interface is down; it may come back.
    Down,
    /// The interface was removed; it will not.
    Gone,
}

/// The far side of a port: the kernel behind a socket, or a simulated one behind a bell.
pub trait Far {
    /// Wakes it if it needs waking: one system call at most, where one serves both directions.
    fn kick(&mut self, want: Want) -> Kicked;

    /// Asks whether it still moves packets. A system call, for a socket.
    fn check(&mut self) -> State;

    /// What the last kick or check found.
    fn state(&self) -> State;

    /// The descriptor to sleep on with poll(2); none where there is nothing to sleep on.
    fn descriptor(&self) -> Option<i32> {
        None
    }
}

/// When to wake a sender, from the state of its rings alone: one decision for sockets and for the simulated kernel.
///
/// - Copy mode: the kernel sends only inside our call, whatever the flag says (it is constant). So call after a commit,
///   and again only while the tx ring's consumer is behind its producer; frames merely not yet completed are no reason.
/// - Zero-copy: call when the ring says so (K3). A flag missed by a race is seen on the next turn; should it never come,
///   call once the consumer has stood still for a while.
/// - Calls that moved nothing are spaced out, up to 64 turns apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bellpush {
    zero_copy: bool,
    /// The tx ring's consumer index when we last looked, and since when it has stood there.
    taken: u32,
    since: u64,
    /// Turns to let pass, and how many at the next call in vain.
    hold: u32,
    vain: u32,
}

/// How long a zero-copy consumer may stand still before it is woken without having asked, in ticks: of the order of a
/// millisecond where a tick is a third of a nanosecond.
pub(crate) const STILL_TICKS: u64 = if cfg!(target_arch = "x86_64") { 1 << 21 } else { 1 << 15 };
const HOLD_MAX: u32 = 64;

impl Bellpush {
    pub(crate) fn new(zero_copy: bool) -> Self {
        Self { zero_copy, taken: 0, since: 0, hold: 0, vain: 1 }
    }

    /// Whether to wake the sender now, `pending` packets waiting in its ring whose consumer stands at `taken`.
    #[inline]
    pub(crate) fn due(&mut self, pending: u32, taken: u32, flag: bool, now: impl FnOnce() -> u64) -> bool {
        if pending == 0 {
            return false;
        }
        if !self.zero_copy || flag {
            return true;
        }
        let now = now();
        if taken != self.taken {
            (self.taken, self.since) = (taken, now);
        } else if now.wrapping_sub(self.since) > STILL_TICKS {
            self.since = now;
            return true;
        }
        false
    }

    /// Whether a call that is due is to be held back, as the last ones moved nothing.
    #[inline]
    pub(crate) fn held_back(&mut self) -> bool {
        let held = self.hold > 0;
        if held {
            self.hold -= 1;
        }
        held
    }

    /// Learns from a call: whether it moved anything.
    #[inline]
    pub(crate) fn called(&mut self, moved: bool) {
        if moved {
            (self.hold, self.vain) = (0, 1);
        } else {
            self.hold = self.vain - 1;
            self.vain = (self.vain * 2).min(HOLD_MAX);
        }
    }
}

/// Notices a ring that nobody takes from, although it was rung for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standstill {
    watching: bool,
    /// Rings since the consumer moved, its index then, and when that was.
    rings: u32,
    taken: u32,
    since: u64,
}

impl Standstill {
    /// Rings in vain, and ticks, before it is one: a virtual processor may be away for a while.
    const RINGS: u32 = 16;
    const TICKS: u64 = 16 * STILL_TICKS;

    pub(crate) fn new(watching: bool) -> Self {
        Self { watching, rings: 0, taken: 0, since: 0 }
    }

    /// Watches anew.
    pub(crate) fn rearm(&mut self) {
        (self.watching, self.rings) = (true, 0);
    }

    /// Told before each ring how many entries wait and how many were ever taken; true once, where the ring stands still.
    #[inline]
    pub(crate) fn is_seen(&mut self, pending: u32, taken: u32, now: impl FnOnce() -> u64) -> bool {
        if !self.watching || pending == 0 {
            self.rings = 0;
            return false;
        }
        if self.rings == 0 || taken != self.taken {
            (self.rings, self.taken, self.since) = (1, taken, now());
            return false;
        }
        self.rings = self.rings.saturating_add(1);
        self.watching = self.rings < Self::RINGS || now().wrapping_sub(self.since) < Self::TICKS;
        !self.watching
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_mode_calls_while_the_consumer_is_behind_and_never_on_an_idle_turn() {
        let mut push = Bellpush::new(false);
        for flag in [false, true] {
            assert!(!push.due(0, 7, flag, || unreachable!()));
            assert!(push.due(1, 7, flag, || unreachable!()));
        }
    }

    #[test]
    fn zero_copy_calls_when_asked_and_after_a_while_when_not() {
        let mut push = Bellpush::new(true);
        assert!(push.due(1, 5, true, || unreachable!()));
        assert!(!push.due(1, 5, false, || 1));
        assert!(!push.due(1, 5, false, || STILL_TICKS));
        assert!(push.due(1, 5, false, || STILL_TICKS + 2));
        assert!(!push.due(1, 5, false, || STILL_TICKS + 3), "once, then it waits again");
        assert!(!push.due(1, 6, false, || 9 * STILL_TICKS), "it moved");
    }

    #[test]
    fn calls_in_vain_are_spaced_out_and_a_move_ends_that() {
        let mut push = Bellpush::new(false);
        let mut calls = 0;
        for _ in 0..1000 {
            if !push.held_back() {
                push.called(false);
                calls += 1;
            }
        }
        assert!((15..=25).contains(&calls), "{calls}");
        while push.held_back() {}
        push.called(true);
        assert!(!push.held_back());
    }

    #[test]
    fn a_standstill_is_seen_once_after_many_rings_and_some_time() {
        let mut standstill = Standstill::new(true);
        let long = Standstill::TICKS;
        assert!((0..1000).all(|n| !standstill.is_seen(1, 7, || n)), "time has hardly passed");
        assert!(standstill.is_seen(1, 7, || long + 1));
        assert!(!standstill.is_seen(1, 7, || 2 * long), "once");
        standstill.rearm();
        assert!((0..1000).all(|_| !standstill.is_seen(1, 7, || 2 * long)));
        assert!(standstill.is_seen(1, 7, || 3 * long + 1), "and again when told to");

        let mut standstill = Standstill::new(true);
        assert!((0..1000).all(|n| !standstill.is_seen(1, n, || u64::from(n) * long)), "it moves");
        assert!((0..1000).all(|n| !standstill.is_seen(n % 2, 1000, || u64::from(n) * long)), "it runs empty");
        assert!(!Standstill::new(false).is_seen(1, 0, || unreachable!()));
    }
}
