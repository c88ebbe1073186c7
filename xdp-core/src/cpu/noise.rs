//! Noise: what keeps a core from a thread that only wants to run (as hwnoise and osnoise ask the kernel itself).
#![forbid(unsafe_code)]

use super::{pin, steal_ns, word};
use crate::netdev::Error;
use crate::{Clock, ticks};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use std::fs;
use std::path::Path;

/// The gaps a spinning thread met on one core: times between two readings of the clock that it was not there for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Noise {
    /// The core.
    pub core: usize,
    /// For how long it spun, in nanoseconds.
    pub spun_ns: u64,
    /// How often it looked at the clock.
    pub looks: u64,
    /// The least time between two looks: what the loop itself takes, in nanoseconds.
    pub shortest_ns: u64,
    /// Gaps of at least each of [`Noise::BOUNDS_NS`]: one of 60 us is in all three.
    pub gaps: [u64; 3],
    /// The sum of all gaps of at least the first bound, in nanoseconds: what was taken from us.
    pub lost_ns: u64,
    /// The longest gaps, the longest first.
    pub longest: Vec<Gap>,
    /// What a hypervisor took from the core meanwhile, in steps of 10 ms, where it tells.
    pub stolen_ns: Option<u64>,
    /// What interrupted the core meanwhile and how often, the most frequent first.
    pub interrupts: Vec<(String, u64)>,
    /// How often the kernel gave the core to another thread.
    pub preempted: Option<u64>,
}

/// One gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// When it began, in nanoseconds after the start.
    pub at_ns: u64,
    /// How long it was, in nanoseconds.
    pub len_ns: u64,
}

impl Noise {
    /// What counts as a gap, in nanoseconds: 1, 5 and 50 microseconds.
    pub const BOUNDS_NS: [u64; 3] = [1_000, 5_000, 50_000];
    /// How many of the longest are kept.
    const LONGEST: usize = 10;

    /// Spins on a core for so long, on a thread of its own. The core is busy meanwhile, and whatever else wants it waits or
    /// shows up as a gap.
    ///
    /// # Errors
    /// `EINVAL` if the core is not allowed.
    pub fn measure(core: usize, duration: Duration) -> Result<Self, Error> {
        let clock = Clock::calibrated();
        std::thread::scope(|scope| {
            let spinner = scope.spawn(|| {
                pin(core)?;
                Ok(Self::spin(core, &clock, duration))
            });
            spinner.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        })
    }

    fn spin(core: usize, clock: &Clock, duration: Duration) -> Self {
        let before = (steal_ns(core), interrupts(core), preempted());
        let bounds = Self::BOUNDS_NS.map(|ns| clock.to_ticks(ns));
        let len = clock.to_ticks(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        let (mut gaps, mut lost, mut looks, mut shortest) = ([0; 3], 0, 0u64, u64::MAX);
        let mut longest: [(u64, u64); Self::LONGEST] = [(0, 0); Self::LONGEST]; // length, when
        let start = ticks();
        let mut last = start;
        while last.wrapping_sub(start) < len {
            let now = ticks();
            let gap = now.wrapping_sub(last);
            looks += 1;
            if gap < shortest {
                shortest = gap;
            }
            // a counter read on two cores may go back: that is no gap of half an eternity
            if gap >= bounds[0] && gap < 1 << 62 {
                lost += gap;
                for (count, bound) in gaps.iter_mut().zip(bounds) {
                    *count += u64::from(gap >= bound);
                }
                let at = longest.partition_point(|one| one.0 >= gap);
                if let Some(rest) = longest.get_mut(at..) {
                    if !rest.is_empty() {
                        rest.rotate_right(1);
                        rest[0] = (gap, last.wrapping_sub(start));
                    }
                }
            }
            last = now;
        }
        let after = (steal_ns(core), interrupts(core), preempted());
        let longest = longest.iter().take_while(|one| one.0 > 0);
        Self {
            core,
            spun_ns: clock.to_ns(last.wrapping_sub(start)),
            looks,
            shortest_ns: clock.to_ns(shortest),
            gaps,
            lost_ns: clock.to_ns(lost),
            longest: longest
                .map(|&(len, at)| Gap { at_ns: clock.to_ns(at), len_ns: clock.to_ns(len) })
                .collect(),
            stolen_ns: before.0.and_then(|ns| after.0?.checked_sub(ns)),
            interrupts: more_than(&before.1, &after.1),
            preempted: before.2.and_then(|count| after.2?.checked_sub(count)),
        }
    }
}

/// How often each interrupt went to a core: its name and its count.
fn interrupts(core: usize) -> Vec<(String, u64)> {
    parse_interrupts(&fs::read_to_string("/proc/interrupts").unwrap_or_default(), core)
}

fn parse_interrupts(table: &str, core: usize) -> Vec<(String, u64)> {
    let mut lines = table.lines();
    let head: Vec<_> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
    let name = format!("CPU{core}");
    let Some(column) = head.iter().position(|one| *one == name) else { return vec![] };
    let row = |line: &str| {
        let (id, rest) = line.split_once(':')?;
        let words: Vec<_> = rest.split_ascii_whitespace().collect();
        let count = words.get(column)?.parse().ok()?;
        let numbered = id.trim().parse::<u32>().is_ok();
        // of a numbered one the chip and its own number say nothing; of the others all words are the name
        let name = words.get(head.len() + if numbered { 2 } else { 0 }..).unwrap_or_default().join(" ");
        Some((format!("{} {name}", id.trim()).trim().to_string(), count))
    };
    lines.filter_map(row).collect()
}

/// What happened between two counts, the most frequent first.
fn more_than(before: &[(String, u64)], after: &[(String, u64)]) -> Vec<(String, u64)> {
    let had = |name: &str| before.iter().find(|one| one.0 == name).map_or(0, |one| one.1);
    let mut more: Vec<_> = after
        .iter()
        .map(|(name, count)| (name.clone(), count.saturating_sub(had(name))))
        .filter(|one| one.1 > 0)
        .collect();
    more.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    more
}

/// How often the kernel took the calling thread off its core although it wanted to go on.
fn preempted() -> Option<u64> {
    let status = word(Path::new("/proc/thread-self/status"))?;
    super::value(&status, "nonvoluntary_ctxt_switches")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_core_are_read_by_the_name_of_its_column() {
        let table = "   CPU0  CPU2\n 41: 5 9 PCI-MSIX-0000:00:04.0 1-edge virtio3-rx\nLOC: 70 80 Local timer interrupts\nERR: 0\n";
        let on = |core| parse_interrupts(table, core);
        let expected = [("41 virtio3-rx".to_string(), 9), ("LOC Local timer interrupts".to_string(), 80)];
        assert_eq!(on(2), expected);
        assert_eq!(on(1), []);
        let later = [("41 virtio3-rx".to_string(), 9), ("LOC Local timer interrupts".to_string(), 90)];
        assert_eq!(more_than(&expected, &later), [("LOC Local timer interrupts".to_string(), 10)]);
    }

    #[test]
    fn a_spin_of_twenty_milliseconds_lasts_as_long_and_counts_what_it_met() {
        let core = super::super::allowed().unwrap()[0];
        let noise = Noise::measure(core, Duration::from_millis(20)).unwrap();
        assert!(noise.spun_ns >= 20_000_000 && noise.lost_ns <= noise.spun_ns, "{noise:?}");
        assert!(noise.looks > 1000 && noise.shortest_ns < 1_000, "{noise:?}");
        assert!(noise.gaps.is_sorted_by(|a, b| a >= b), "a long gap is a short one too: {noise:?}");
        assert_eq!(noise.longest.len(), (noise.gaps[0] as usize).min(Noise::LONGEST));
        assert!(noise.longest.is_sorted_by(|a, b| a.len_ns >= b.len_ns));
        assert!(noise.longest.iter().all(|gap| gap.at_ns + gap.len_ns <= noise.spun_ns + 1));
        assert_eq!(Noise::measure(1 << 40, Duration::ZERO).unwrap_err().errno(), xdp_umem::Errno::EINVAL);
    }
}
