//! Filter: lets some packets pass.

use xdp_core::{Frame, Rules, Stage, Verdict};

/// Lets a packet pass to the next stage where its predicate holds, and has another verdict on all others.
///
/// ```
/// use xdp_apps::stages::{Filter, Reflector};
/// use xdp_core::{Rules, Stage, Verdict};
/// // By the rules of the XDP program, in user space:
/// let rules: Rules = "udp port 7 or icmp".parse().unwrap();
/// let echo = Filter::new(rules).then(Reflector::default());
/// // By a closure; what is longer goes out by port 1:
/// let short = Filter::new(|packet: &[u8]| packet.len() <= 128).otherwise(Verdict::Redirect(1));
/// # let _ = (echo, short);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Filter<P> {
    predicate: P,
    otherwise: Verdict,
}

/// What a [`Filter`] asks of a packet: [`Rules`], or any `FnMut(&[u8]) -> bool`.
pub trait Predicate {
    /// Whether the packet is to pass. Its bytes begin with the Ethernet header; of a packet of several chunks they are the first
    /// one's.
    fn holds(&mut self, packet: &[u8]) -> bool;
}

impl<F: FnMut(&[u8]) -> bool> Predicate for F {
    #[inline]
    fn holds(&mut self, packet: &[u8]) -> bool {
        self(packet)
    }
}

impl Predicate for Rules {
    #[inline]
    fn holds(&mut self, packet: &[u8]) -> bool {
        self.matches(packet)
    }
}

impl<P: Predicate> Filter<P> {
    /// Passes what `predicate` holds for, and drops the rest.
    pub const fn new(predicate: P) -> Self {
        Self { predicate, otherwise: Verdict::Drop }
    }

    /// Has `verdict` on the rest instead.
    pub fn otherwise(mut self, verdict: Verdict) -> Self {
        self.otherwise = verdict;
        self
    }
}

impl<P: Predicate> Stage for Filter<P> {
    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        if self.predicate.holds(frame) { Verdict::Next } else { self.otherwise }
    }
}
