//! Clock: ticks now, nanoseconds later.

/// The CPU's time-stamp counter, now: a few nanoseconds, no system call, not ordered with what is around it.
///
/// On x86-64 `rdtsc`, on aarch64 `cntvct_el0`, elsewhere `CLOCK_MONOTONIC` in nanoseconds (a system call).
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU that Linux runs user code on lets it read the counter.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(target_arch = "aarch64")]
    {
        let ticks: u64;
        // SAFETY: Linux lets user code read the virtual counter; nothing else is touched.
        unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack)) };
        return ticks;
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: room for the time.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}

/// Turns ticks into nanoseconds and back.
///
/// ```
/// use xdp_core::{Clock, ticks};
/// let clock = Clock::with_frequency(2_500_000_000);
/// assert_eq!(clock.to_ns(2_500), 1_000);
/// assert_eq!(clock.to_ticks(1_000), 2_500);
/// let start = ticks();
/// assert!(ticks() >= start);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Ticks a second.
    frequency: u64,
    /// Nanoseconds a tick, and ticks a nanosecond, as 32.32 fixed point.
    ns_per_tick: u64,
    ticks_per_ns: u64,
}

/// Half of the last place: results are rounded to the nearest.
const HALF: u128 = 1 << 31;

impl Clock {
    /// A clock whose frequency, in Hz, is known. Panics on one below 1 MHz.
    pub const fn with_frequency(frequency: u64) -> Self {
        assert!(frequency >= 1_000_000, "a counter slower than 1 MHz measures no packet");
        let ns_per_tick = ((1_000_000_000u128 << 32) / frequency as u128) as u64;
        let ticks_per_ns = (((frequency as u128) << 32) / 1_000_000_000) as u64;
        Self { frequency, ns_per_tick, ticks_per_ns }
    }

    /// Measures the counter against the system's clock: quanta does, once a process, where the processor says that its
    /// counter never changes pace; elsewhere (many virtual machines do not pass that on) quanta takes another clock, and we
    /// measure for 50 ms.
    ///
    /// # Cost
    /// Up to 200 ms the first time.
    #[cfg(feature = "std")]
    pub fn calibrated() -> Self {
        let quanta = quanta::Clock::new();
        let before = ticks();
        let raw = quanta.raw();
        if raw.wrapping_sub(before) > ticks().wrapping_sub(before) {
            return Self::measured(core::time::Duration::from_millis(50));
        }
        const SPAN: u64 = 1 << 40;
        let ns = quanta.delta_as_nanos(0, SPAN).max(1);
        Self::with_frequency((u128::from(SPAN) * 1_000_000_000 / u128::from(ns)) as u64)
    }

    /// Measures the counter against the system's monotonic clock for this long. Either end is known as well as the two can
    /// be read together, some 50 ns.
    #[cfg(feature = "std")]
    fn measured(span: core::time::Duration) -> Self {
        let together = || {
            let reading = || {
                let before = ticks();
                let instant = std::time::Instant::now();
                let after = ticks();
                (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), instant)
            };
            let (_, ticks, instant) = (0..32).map(|_| reading()).min_by_key(|(took, ..)| *took).expect("32");
            (ticks, instant)
        };
        let (start, start_instant) = together();
        std::thread::sleep(span);
        let (end, end_instant) = together();
        let ns = end_instant.duration_since(start_instant).as_nanos().max(1);
        let frequency = u128::from(end.wrapping_sub(start)) * 1_000_000_000 / ns;
        Self::with_frequency((frequency as u64).max(1_000_000))
    }

    /// Ticks a second.
    pub const fn frequency(&self) -> u64 {
        self.frequency
    }

    /// Nanoseconds in so many ticks, to within 0.3 ns a second.
    #[inline]
    pub const fn to_ns(&self, ticks: u64) -> u64 {
        ((ticks as u128 * self.ns_per_tick as u128 + HALF) >> 32) as u64
    }

    /// Ticks in so many nanoseconds.
    #[inline]
    pub const fn to_ticks(&self, ns: u64) -> u64 {
        ((ns as u128 * self.ticks_per_ns as u128 + HALF) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_goes_there_and_back_within_a_microsecond() {
        let clock = Clock::with_frequency(2_596_993_000);
        let day = 86_400_000_000_000;
        assert!(clock.to_ns(clock.to_ticks(day)).abs_diff(day) < 100_000);
        let second = clock.to_ns(2_596_993_000);
        assert!(second.abs_diff(1_000_000_000) <= 1);
    }

    #[cfg(feature = "std")]
    #[test]
    fn what_we_measure_ourselves_agrees_with_quanta_where_both_can() {
        let measured = Clock::measured(core::time::Duration::from_millis(50)).frequency();
        let calibrated = Clock::calibrated().frequency();
        assert!(measured.abs_diff(calibrated) < calibrated / 500, "{measured} against {calibrated}");
    }

    #[cfg(feature = "std")]
    #[test]
    fn calibration_agrees_with_the_system_clock() {
        extern crate std;
        let clock = Clock::calibrated();
        let (start, instant) = (ticks(), std::time::Instant::now());
        std::thread::sleep(core::time::Duration::from_millis(50));
        let (ns, real) = (clock.to_ns(ticks() - start), instant.elapsed().as_nanos() as u64);
        assert!(ns.abs_diff(real) < real / 100, "{ns} against {real}");
    }
}
