//! Pinger: how long packets take, there and back.

use super::{Finite, OptionError, build};
use crate::samples::{Sample, Writer};
use xdp_core::wire::{Ethernet, Mac, Probe, Protocol, Udp, UdpTemplate, probe};
use xdp_core::{Clock, Frame, Outbox, Stage, Transmit, Verdict, ticks};

/// A packet sent so much after it was to be sent, in nanoseconds, is late.
pub const LATE_NS: u64 = 50_000;
/// A packet not back for so long, in nanoseconds, is lost, or for [`TIMEOUT_INTERVALS`], whichever is longer.
pub const TIMEOUT_NS: u64 = 1_000_000_000;
/// See [`TIMEOUT_NS`].
pub const TIMEOUT_INTERVALS: u64 = 5;

/// Packets a turn, at most: what came back is looked at in between.
const BURST: u64 = 64;

/// Sends probes to a [`Reflector`](super::Reflector), and takes the time until each is back.
///
/// **Open loop.** The schedule is fixed at the first turn: packet *i* is to be sent at *start + i × interval*, whatever became of
/// those before it. One that could not be sent on time is sent as soon as it can be, and its time counts from when it was to be sent
/// ([`Sample::from_intended`]): a pinger that was held up does not hide it (what is known as coordinated omission). Sent later
/// than [`LATE_NS`] after its time, it is counted as late.
///
/// **Closed loop.** With an interval of 0 a packet is sent whenever fewer than `in_flight` are on their way: with one, ping-pong.
/// There is no schedule then, and nothing is late.
///
/// **In flight** are packets sent after the last one that came back: `in_flight` at most, so that no ring on the way overflows.
/// What was overtaken by a later packet is not in flight, but still awaited.
///
/// **Stamps.** One right before a packet is written and queued, one when its reply reaches the stage. Nothing is allocated in
/// between.
///
/// A reply is a probe of our session, addressed to our card, behind any VLAN tags; one that is not whole or whose contents changed
/// counts as damaged, and as lost. Everything else is left to the next stage.
///
/// ```
/// use xdp_apps::{samples, stages::{PingOptions, Pinger, Reflector}};
/// use xdp_core::{Clock, Layout, Umem, Worker, sim, ticks};
/// let clock = Clock::with_frequency(2_500_000_000); // for real times: Clock::calibrated
/// let (writer, mut reader) = samples::channel(100);
/// let options = PingOptions { count: Some(100), in_flight: 4, ..PingOptions::default() };
/// let pinger = Pinger::new(options, clock, writer)?;
///
/// let (a, b) = (Umem::heap(Layout::new(2048, 512)?), Umem::heap(Layout::new(2048, 512)?));
/// let ((port_a, mut wire_a), (port_b, mut wire_b)) = (sim::link(&a), sim::link(&b));
/// let mut a = Worker::new([port_a], pinger, a.take_frames().unwrap());
/// let mut b = Worker::new([port_b], Reflector::default(), b.take_frames().unwrap());
/// while !a.stage_mut().is_done(ticks()) {
///     a.turn();
///     b.turn();
///     wire_a.collect().iter().for_each(|packet| wire_b.inject(packet));
///     wire_b.collect().iter().for_each(|packet| wire_a.inject(packet));
/// }
/// assert_eq!((a.stage().counts().received, a.stage().counts().lost), (100, 0));
/// let mut samples = Vec::new();
/// assert_eq!(reader.drain_into(&mut samples), 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pinger {
    /// Written with an empty probe.
    packet: Box<[u8]>,
    udp_offset: usize,
    port: u8,
    session: u32,
    /// Where replies go.
    address: Mac,
    verify: bool,
    in_flight_max: u64,
    /// All in ticks.
    interval: u64,
    late_after: u64,
    timeout: u64,
    /// When the first packet was to be sent; none before the first turn.
    start: Option<u64>,
    /// As of the last turn.
    now: u64,
    /// Numbers of packets: the first; the first that is measured; the one after the last.
    first: u64,
    measured: u64,
    end: u64,
    /// The number sent next.
    next: u64,
    /// Those from here to `next` are in flight. All before are back, written off, or in `overtaken`.
    front: u64,
    /// When each of those in flight was sent, by the lower bits of its number.
    sent: Box<[u64]>,
    overtaken: Overtaken,
    counts: PingCounts,
    recorder: Writer,
}

/// What to ping, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingOptions {
    /// The packet: addresses, ports, VLAN, size. Its first 18 bytes of payload become the probe. No longer than
    /// [`Layout::packet_max`](xdp_core::Layout::packet_max): a packet that does not fit a frame ends the pinger with nothing sent.
    pub template: UdpTemplate,
    /// Which of the worker's ports to ping by.
    pub port: u8,
    /// Packets to send and measure; no end before [`Pinger::stop`], if not given.
    pub count: Option<u64>,
    /// Packets to send before these, on the same schedule, that are neither measured nor counted.
    pub warm_up: u64,
    /// Between two packets, in [`ticks`]; 0 for as fast as `in_flight` allows.
    pub interval_ticks: u64,
    /// Packets on their way at once, at most. At least 1, and fewer than the smallest ring on the way holds.
    pub in_flight: u32,
    /// Tells our probes from those of other pingers and of earlier runs: choose it at random.
    pub session: u32,
    /// The first packet's number, of which the probe carries the lower 32 bits. Samples count from 0 nonetheless.
    pub first: u64,
    /// Whether the checksum of each reply is verified: one pass over its bytes, after its time was taken.
    pub verify: bool,
}

impl Default for PingOptions {
    /// The default template by port 0, ping-pong, verified, without end.
    fn default() -> Self {
        Self {
            template: UdpTemplate::default(),
            port: 0,
            count: None,
            warm_up: 0,
            interval_ticks: 0,
            in_flight: 1,
            session: 1,
            first: 0,
            verify: true,
        }
    }
}

/// What a pinger counts: packets, those to warm up left out. Once it is done, *sent = received + lost*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PingCounts {
    /// Queued to be sent.
    pub sent: u64,
    /// Back, each counted once.
    pub received: u64,
    /// Not back in time: [`TIMEOUT_NS`].
    pub lost: u64,
    /// Back once more.
    pub duplicated: u64,
    /// Of those received: back after one that was sent later.
    pub reordered: u64,
    /// Of those sent: more than [`LATE_NS`] after their time, as the pinger was held up, by others on its core or by `in_flight`.
    pub late: u64,
    /// Packets that were no reply to one of ours.
    pub foreign: u64,
    /// Replies that were not what was sent: a wrong checksum, or contents that changed. They count as lost.
    pub damaged: u64,
    /// Replies that came after they were counted as lost. They stay lost.
    pub overdue: u64,
}

impl Pinger {
    /// One that does what `options` say and writes its samples to `recorder`. `clock` turns the bounds on what is late and lost into
    /// ticks.
    ///
    /// # Errors
    /// A template that describes no packet, or one too small for a probe (18 bytes of payload).
    pub fn new(options: PingOptions, clock: Clock, recorder: Writer) -> Result<Self, OptionError> {
        let PingOptions { template, interval_ticks: interval, first, .. } = options;
        let mut packet = build(&template)?;
        let empty = Udp::parse(&mut packet[template.udp_offset()..])
            .is_some_and(|mut udp| udp.overwrite(0, &[0; probe::LEN]));
        if !empty {
            let min = template.packet_size + probe::LEN - template.payload_len();
            return Err(OptionError::TooSmall { packet_size: template.packet_size, min });
        }
        let timeout = clock.to_ticks(TIMEOUT_NS).max(interval.saturating_mul(TIMEOUT_INTERVALS));
        let in_flight_max = u64::from(options.in_flight.max(1));
        let measured = first.saturating_add(options.warm_up);
        Ok(Self {
            packet,
            udp_offset: template.udp_offset(),
            port: options.port,
            session: options.session,
            address: template.source_mac,
            verify: options.verify,
            in_flight_max,
            interval,
            late_after: clock.to_ticks(LATE_NS),
            timeout,
            start: None,
            now: 0,
            first,
            measured,
            end: options.count.map_or(u64::MAX, |count| measured.saturating_add(count)),
            next: first,
            front: first,
            // Not zeros: written, so that the pages are there.
            sent: vec![u64::MAX; in_flight_max.next_power_of_two() as usize].into(),
            overtaken: Overtaken::new(timeout.checked_div(interval).unwrap_or(0)),
            counts: PingCounts::default(),
            recorder,
        })
    }

    /// What was counted so far.
    pub const fn counts(&self) -> PingCounts {
        self.counts
    }

    /// Replies whose sample found the recorder's ring full: they were received, but are in no result.
    pub const fn samples_lost(&self) -> u64 {
        self.recorder.lost()
    }

    /// Whether every packet was sent and, as of `now` in [`ticks`], is back or lost. The counts are final then.
    #[inline]
    pub fn is_done(&mut self, now: u64) -> bool {
        self.next >= self.end && {
            self.write_off(now);
            self.front == self.next && self.overtaken.awaited().is_none()
        }
    }

    /// Sends no more; it is done once what is on its way is back or lost.
    pub fn stop(&mut self) {
        self.end = self.end.min(self.next);
    }

    /// When packet `number` is to be sent.
    #[inline]
    fn intended(&self, number: u64) -> u64 {
        let start = self.start.unwrap_or(self.now);
        start.wrapping_add(self.interval.wrapping_mul(number.wrapping_sub(self.first)))
    }

    /// Whether the next packet is to be sent, as far as the schedule goes.
    #[inline]
    fn is_time(&self, now: u64) -> bool {
        self.interval == 0 || now.wrapping_sub(self.intended(self.next)) as i64 >= 0
    }

    #[inline]
    fn slot(&mut self, number: u64) -> &mut u64 {
        let mask = self.sent.len() - 1;
        &mut self.sent[number as usize & mask]
    }

    /// Gives up on what was awaited long enough.
    #[inline]
    fn write_off(&mut self, now: u64) {
        let is_over = |sent: u64, timeout: u64| now.wrapping_sub(sent) as i64 >= timeout as i64;
        while self.overtaken.awaited().is_some_and(|sent| is_over(sent, self.timeout)) {
            self.lose_overtaken();
        }
        while self.front < self.next && is_over(*self.slot(self.front), self.timeout) {
            self.lose_overtaken_if_full();
            self.overtaken.push(self.front, 0, Fate::Lost);
            self.counts.lost += u64::from(self.front >= self.measured);
            self.front += 1;
        }
    }

    #[cold]
    fn lose_overtaken(&mut self) {
        let number = self.overtaken.lose();
        self.counts.lost += u64::from(number >= self.measured);
    }

    /// The list forgets its oldest when full: what is awaited must not be forgotten.
    #[cold]
    fn lose_overtaken_if_full(&mut self) {
        if self.overtaken.is_full() {
            self.lose_overtaken();
        }
    }

    /// Sends the next packet, stamped `now`. Whether it was queued.
    #[inline]
    fn send<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>, now: u64) -> bool {
        let Self { packet, udp_offset, .. } = &*self;
        let probe = Probe { session: self.session, sequence: self.next as u32, ticks: now };
        let mut fits = true;
        let queued = out.send(self.port, |frame| {
            fits = frame.write(packet);
            fits && frame
                .get_mut(*udp_offset..)
                .and_then(Udp::parse)
                .is_some_and(|mut udp| udp.replace(0, &[0; probe::LEN], &probe.to_bytes()))
        });
        if !queued {
            if !fits {
                self.stop();
            }
            return false;
        }
        if self.next >= self.measured {
            self.counts.sent += 1;
            let behind = now.wrapping_sub(self.intended(self.next));
            self.counts.late += u64::from(self.interval > 0 && behind > self.late_after);
        }
        *self.slot(self.next) = now;
        self.next += 1;
        true
    }

    /// A packet that arrived `now`.
    #[inline]
    fn judge(&mut self, packet: &[u8], now: u64) -> Verdict {
        let Some((probe, whole)) = self.read(packet) else {
            self.counts.foreign += 1;
            return Verdict::Next;
        };
        let number = probe.number(self.next);
        if number < self.first || number >= self.next {
            self.counts.foreign += 1; // never sent
            return Verdict::Next;
        }
        let measured = u64::from(number >= self.measured);
        if !whole {
            self.counts.damaged += measured;
            return Verdict::Drop;
        }
        let sent = if number >= self.front {
            let sent = *self.slot(number);
            if sent != probe.ticks {
                self.counts.damaged += measured;
                return Verdict::Drop;
            }
            while self.front < number {
                self.overtake();
            }
            self.front = number + 1;
            sent
        } else {
            match self.overtaken.find(number) {
                Some(Entry { fate: Fate::Awaited, sent, .. }) if sent != probe.ticks => {
                    self.counts.damaged += measured;
                    return Verdict::Drop;
                }
                Some(Entry { fate: Fate::Awaited, sent, .. }) => {
                    self.overtaken.set_back(number);
                    self.counts.reordered += measured;
                    sent
                }
                Some(Entry { fate: Fate::Lost, .. }) => {
                    self.counts.overdue += measured;
                    return Verdict::Drop;
                }
                Some(Entry { fate: Fate::Back, .. }) | None => {
                    self.counts.duplicated += measured;
                    return Verdict::Drop;
                }
            }
        };
        if measured > 0 {
            self.counts.received += 1;
            let intended = if self.interval == 0 { sent } else { self.intended(number) };
            let sequence = number - self.measured;
            self.recorder.write(Sample { sequence, intended, sent, received: now });
        }
        Verdict::Drop
    }

    /// The probe in a reply of ours, and whether its packet's checksum is right.
    #[inline]
    fn read(&self, packet: &[u8]) -> Option<(Probe, bool)> {
        let ethernet = Ethernet::view(packet)?;
        if ethernet.destination() != self.address {
            return None;
        }
        let transport = ethernet.into_network()?.into_transport()?;
        if transport.protocol != Protocol::UDP || !transport.whole {
            return None;
        }
        let udp = Udp::view(transport.payload)?;
        let probe = Probe::read(udp.payload())?;
        let whole = !self.verify || udp.is_checksum_valid(transport.pseudo);
        (probe.session == self.session).then_some((probe, whole))
    }

    /// The first packet in flight is not any more, as a later one is back: it is awaited nonetheless.
    #[cold]
    fn overtake(&mut self) {
        self.lose_overtaken_if_full();
        let sent = *self.slot(self.front);
        self.overtaken.push(self.front, sent, Fate::Awaited);
        self.front += 1;
    }
}

impl Stage for Pinger {
    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.judge(frame, ticks())
    }

    #[inline]
    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        self.now = ticks();
        self.start.get_or_insert(self.now);
        self.write_off(self.now);
        let room = self.in_flight_max.saturating_sub(self.next - self.front);
        let wanted = room.min(self.end.saturating_sub(self.next)).min(BURST);
        if wanted == 0 || !self.is_time(self.now) {
            return;
        }
        for _ in 0..out.room(self.port, wanted as u32) {
            let now = ticks();
            if !self.is_time(now) || !self.send(out, now) {
                return;
            }
        }
    }

    fn due(&self) -> Option<u64> {
        let may_send = self.next < self.end && self.next - self.front < self.in_flight_max;
        let send = may_send.then(|| if self.interval == 0 { self.now } else { self.intended(self.next) });
        let flying =
            || (self.front < self.next).then(|| self.sent[self.front as usize & (self.sent.len() - 1)]);
        let loss = self.overtaken.awaited().or_else(flying).map(|sent| sent.wrapping_add(self.timeout));
        match (send, loss) {
            (Some(send), Some(loss)) => Some(send.min(loss)),
            (send, loss) => send.or(loss),
        }
    }
}

impl Finite for Pinger {
    #[inline]
    fn is_done(&mut self, now: u64) -> bool {
        Self::is_done(self, now)
    }
}

/// The packets that a later one overtook, in the order of their numbers: the last so many. All others came back in order, so a
/// second reply to one of them is a duplicate.
#[derive(Debug)]
struct Overtaken {
    /// A ring; its length is a power of two.
    entries: Box<[Entry]>,
    /// How many there ever were.
    pushed: u64,
    /// The fate of those before is settled, but for this one's maybe.
    settled: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u64,
    /// In ticks.
    sent: u64,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Awaited,
    Back,
    Lost,
}

impl Overtaken {
    /// Room for as many as are sent while one is awaited, within reason: with more missing at once, the oldest is given up early.
    fn new(sent_meanwhile: u64) -> Self {
        let capacity = sent_meanwhile.clamp(1 << 14, 1 << 18).next_power_of_two();
        // Not zeros: written, so that the pages are there.
        let none = Entry { number: u64::MAX, sent: 0, fate: Fate::Back };
        Self { entries: vec![none; capacity as usize].into(), pushed: 0, settled: 0 }
    }

    #[inline]
    fn at(&self, nth: u64) -> usize {
        nth as usize & (self.entries.len() - 1)
    }

    /// When the oldest that is awaited was sent.
    #[inline]
    fn awaited(&self) -> Option<u64> {
        (self.settled < self.pushed).then(|| self.entries[self.at(self.settled)].sent)
    }

    /// Whether the next one takes the place of one that is awaited.
    fn is_full(&self) -> bool {
        self.pushed - self.settled == self.entries.len() as u64
    }

    /// Adds one with a number higher than all before.
    fn push(&mut self, number: u64, sent: u64, fate: Fate) {
        debug_assert!(!self.is_full());
        let at = self.at(self.pushed);
        self.entries[at] = Entry { number, sent, fate };
        self.pushed += 1;
        self.settle();
    }

    /// Gives up on the oldest that is awaited. Returns its number.
    fn lose(&mut self) -> u64 {
        let at = self.at(self.settled);
        self.entries[at].fate = Fate::Lost;
        let number = self.entries[at].number;
        self.settle();
        number
    }

    /// The one of this number.
    fn find(&self, number: u64) -> Option<Entry> {
        self.nth(number).map(|at| self.entries[at])
    }

    /// The one of this number, awaited so far, is back.
    fn set_back(&mut self, number: u64) {
        if let Some(at) = self.nth(number) {
            self.entries[at].fate = Fate::Back;
            self.settle();
        }
    }

    fn nth(&self, number: u64) -> Option<usize> {
        let (mut low, mut high) = (self.pushed.saturating_sub(self.entries.len() as u64), self.pushed);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entries[self.at(middle)].number < number { low = middle + 1 } else { high = middle }
        }
        let at = self.at(low);
        (low < self.pushed && self.entries[at].number == number).then_some(at)
    }

    fn settle(&mut self) {
        while self.settled < self.pushed && self.entries[self.at(self.settled)].fate != Fate::Awaited {
            self.settled += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    /// Any order of overtaking, coming back and giving up, against a map that forgets nothing.
    #[test]
    fn the_list_of_the_overtaken_agrees_with_a_map() {
        let mut random = 1_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut list = Overtaken::new(0);
        let capacity = list.entries.len() as u64;
        let mut map = BTreeMap::new();
        let mut next = 0;
        for step in 0..200_000 {
            let oldest = map
                .iter()
                .find(|(_, (_, fate))| *fate == Fate::Awaited)
                .map(|(number, (sent, _))| (*number, *sent));
            assert_eq!(list.awaited(), oldest.map(|(_, sent)| sent), "step {step}");
            match draw(8) {
                0..=4 => {
                    next += 1 + draw(3);
                    if list.is_full() {
                        let number = list.lose();
                        assert_eq!(Some(number), oldest.map(|(number, _)| number));
                        map.insert(number, (map[&number].0, Fate::Lost));
                    }
                    let fate = if draw(10) == 0 { Fate::Lost } else { Fate::Awaited };
                    list.push(next, step, fate);
                    map.insert(next, (step, fate));
                    if map.len() as u64 > capacity {
                        map.pop_first(); // that far back it does forget
                    }
                }
                5 if oldest.is_some() => {
                    let number = list.lose();
                    assert_eq!(Some(number), oldest.map(|(number, _)| number));
                    map.insert(number, (map[&number].0, Fate::Lost));
                }
                _ => {
                    let number = next.saturating_sub(draw(100));
                    let found = list.find(number).map(|entry| (entry.sent, entry.fate));
                    assert_eq!(found, map.get(&number).copied());
                    if let Some((sent, Fate::Awaited)) = found {
                        list.set_back(number);
                        map.insert(number, (sent, Fate::Back));
                    }
                }
            }
        }
        assert!(list.pushed > 2 * capacity, "it wrapped");
    }

    #[test]
    fn a_full_list_gives_the_oldest_up_and_keeps_the_rest() {
        let mut list = Overtaken::new(1 << 15);
        let capacity = list.entries.len() as u64;
        assert_eq!(capacity, 1 << 15);
        (0..capacity).for_each(|number| list.push(number, number, Fate::Awaited));
        assert!(list.is_full());
        list.set_back(1);
        assert_eq!((list.lose(), list.awaited()), (0, Some(2)));
        list.push(capacity, capacity, Fate::Awaited);
        assert_eq!(list.find(0).map(|entry| entry.fate), None, "forgotten for the one added");
        assert_eq!(list.find(1).map(|entry| entry.fate), Some(Fate::Back));
        assert_eq!(list.find(capacity).map(|entry| entry.fate), Some(Fate::Awaited));
    }
}
