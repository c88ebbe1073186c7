//! Every stage over simulated ports: known packets byte for byte, and every count exact.

extern crate alloc;

use alloc::sync::Arc;
use core::iter::repeat_n;
use core::net::{Ipv4Addr, SocketAddrV4};
use xdp_apps::samples::{self, Reader, Sample};
use xdp_apps::stages::{
    Bypass, Count, Filter, Forwarder, ForwarderOptions, Generator, GeneratorOptions, LATE_NS, OptionError,
    Pace, PingCounts, PingOptions, Pinger, Reflector, Sink, Traffic, Until,
};
use xdp_core::ring::HeapRing;
use xdp_core::sim::{self, Bell, Config, Wire};
use xdp_core::wire::{Ethernet, Mac, Pattern, Probe, Udp, UdpTemplate};
use xdp_core::{
    Clock, Ended, Idle, Layout, RingReceiver, RingSizes, RingTransmitter, Rules, Stage, Stop, Umem, Verdict,
    Worker, ticks,
};

type SimWorker<'u, S, const N: usize = 1> =
    Worker<'u, RingReceiver<'u, Arc<HeapRing>>, RingTransmitter<'u, Arc<HeapRing>>, Bell, S, N>;

fn umem() -> Umem {
    Umem::heap(Layout::new(2048, 1024).unwrap())
}

/// A worker of `N` ports and the wires behind them, turned once so that it receives.
fn bed<S: Stage, const N: usize>(umem: &Umem, stage: S) -> (SimWorker<'_, S, N>, [Wire<'_>; N]) {
    let mut wires = Vec::new();
    let ports = [(); N].map(|()| {
        let (port, wire) = sim::link(umem);
        wires.push(wire);
        port
    });
    let mut worker = Worker::new(ports, stage, umem.take_frames().unwrap());
    worker.turn();
    (worker, wires.try_into().unwrap())
}

/// What `stage` makes of one packet: what leaves by port 0.
fn through(stage: impl Stage, packet: &[u8]) -> Vec<Vec<u8>> {
    let umem = umem();
    let (mut worker, [mut wire]) = bed(&umem, stage);
    wire.inject(packet);
    worker.turn();
    let sent = wire.collect();
    worker.turn();
    assert!(worker.is_conserved());
    sent
}

/// Bytes out of digits, spaces left out.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<_> = digits.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

// Computed apart from this project: "hello, wire" from 10.1.0.1 (fd00::1) port 5000 to 10.1.0.2 (fd00::2) port 7.
const UDP: &str = "02000000000b 02000000000a 0800 4500002712344000 4011148e 0a010001 0a010002 13880007 0013a54c 68656c6c6f2c2077697265";
const UDP_BACK: &str = "02000000000a 02000000000b 0800 4500002712344000 4011148e 0a010002 0a010001 00071388 0013a54c 68656c6c6f2c2077697265";
const UDP_UNFINISHED: &str = "02000000000b 02000000000a 0800 4500002712344000 4011148e 0a010001 0a010002 13880007 00131429 68656c6c6f2c2077697265";
const UDP_V6: &str = "02000000000b 02000000000a 86dd 6000000000131140 fd000000000000000000000000000001 fd000000000000000000000000000002 13880007 0013bf4c 68656c6c6f2c2077697265";
const UDP_V6_BACK: &str = "02000000000a 02000000000b 86dd 6000000000131140 fd000000000000000000000000000002 fd000000000000000000000000000001 00071388 0013bf4c 68656c6c6f2c2077697265";
const PING: &str = "02000000000b 02000000000a 0800 4500002712344000 4001149e 0a010001 0a010002 0800c49b 00770005 68656c6c6f2c2077697265";
const PING_BACK: &str = "02000000000a 02000000000b 0800 4500002712344000 4001149e 0a010002 0a010001 0000cc9b 00770005 68656c6c6f2c2077697265";
const PING_V6: &str = "02000000000b 02000000000a 86dd 6000000000133a40 fd000000000000000000000000000001 fd000000000000000000000000000002 80005249 00770005 68656c6c6f2c2077697265";
const PING_V6_BACK: &str = "02000000000a 02000000000b 86dd 6000000000133a40 fd000000000000000000000000000002 fd000000000000000000000000000001 81005149 00770005 68656c6c6f2c2077697265";

/// The packet with a VLAN tag put in.
fn tagged(packet: &str) -> Vec<u8> {
    let mut packet = hex(packet);
    packet.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    packet
}

/// The packet with its Ethernet addresses swapped and nothing else.
fn addresses_swapped(packet: &[u8]) -> Vec<u8> {
    [&packet[6..12], &packet[..6], &packet[12..]].concat()
}

#[test]
fn the_reflector_turns_udp_and_pings_round_byte_for_byte() {
    for (packet, back) in [(UDP, UDP_BACK), (UDP_V6, UDP_V6_BACK), (PING, PING_BACK), (PING_V6, PING_V6_BACK)]
    {
        assert_eq!(through(Reflector::default(), &hex(packet)), [hex(back)]);
        assert_eq!(through(Reflector::new(false), &hex(packet)), [hex(back)]);
        assert_eq!(through(Reflector::default(), &tagged(packet)), [tagged(back)], "behind a VLAN tag");
        let padded = [hex(packet), vec![0xee; 7]].concat();
        assert_eq!(
            through(Reflector::default(), &padded),
            [[hex(back), vec![0xee; 7]].concat()],
            "padding stays"
        );
    }
}

#[test]
fn the_reflector_swaps_the_ethernet_addresses_of_everything_else() {
    let changed = |at: usize, to: u8| {
        let mut packet = hex(UDP);
        packet[at] = to;
        packet
    };
    let others = [
        changed(12, 0x88),                             // another ethertype
        changed(20, 0x20),                             // a fragment
        changed(23, 6),                                // TCP
        changed(39, 1),                                // a UDP header with a length that lies
        hex(PING_BACK),                                // a reply
        hex("ffffffffffff 02000000000a 0806 0001 08"), // ARP, cut off
        hex("02000000000b 02000000000a 0800"),         // nothing behind the header
    ];
    let umem = umem();
    let (mut worker, [mut wire]) = bed(&umem, Reflector::default());
    for packet in &others {
        wire.inject(packet);
        worker.turn();
        assert_eq!(wire.collect(), [addresses_swapped(packet)]);
    }
    assert_eq!(worker.stage().counts().turned, 0);
    wire.inject(&others[6][..13]);
    worker.turn();
    assert!(wire.collect().is_empty(), "shorter than an Ethernet header");
    assert_eq!((worker.counters().dropped, worker.counters().forwarded()), (1, 7));
}

#[test]
fn an_unfinished_checksum_comes_back_finished_unless_told_to_leave_it() {
    let umem = umem();
    let (mut worker, [mut wire]) = bed(&umem, Reflector::default());
    for packet in [UDP_UNFINISHED, UDP] {
        wire.inject(&hex(packet));
        worker.turn();
        assert_eq!(wire.collect(), [hex(UDP_BACK)]);
    }
    let counts = worker.stage().counts();
    assert_eq!((counts.turned, counts.checksums_finished), (2, 1));

    let mut left = hex(UDP_BACK);
    left[40..42].copy_from_slice(&[0x14, 0x29]);
    assert_eq!(through(Reflector::new(false), &hex(UDP_UNFINISHED)), [left]);
}

#[test]
fn the_forwarder_sends_each_port_out_by_its_pair() {
    let umem = umem();
    let (mut worker, mut wires) = bed::<_, 4>(&umem, Forwarder::new(ForwarderOptions::default()));
    for (port, wire) in wires.iter_mut().enumerate() {
        wire.inject(&[&hex(UDP)[..], &[port as u8]].concat());
    }
    worker.turn();
    for (port, wire) in wires.iter_mut().enumerate() {
        assert_eq!(wire.collect(), [[&hex(UDP)[..], &[port as u8 ^ 1]].concat()], "port {port}");
    }
    assert_eq!(worker.counters().forwarded(), 4);
}

#[test]
fn the_forwarder_writes_addresses_and_finishes_checksums() {
    let umem = umem();
    let options = ForwarderOptions {
        dst_mac: Some(Mac([2, 0, 0, 0, 0, 0xdd])),
        src_mac: Some(Mac([2, 0, 0, 0, 0, 0x55])),
        finish_checksums: true,
    };
    let (mut worker, [mut left, mut right]) = bed(&umem, Forwarder::new(options));
    let mut right_way = hex(UDP);
    right_way[..12].copy_from_slice(&hex("0200000000dd 020000000055"));
    left.inject(&hex(UDP_UNFINISHED));
    left.inject(&hex(UDP));
    left.inject(&hex(UDP)[..13]); // too short to have addresses
    worker.turn();
    assert_eq!(right.collect(), [right_way.clone(), right_way.clone()]);
    let counts = worker.stage().counts();
    assert_eq!((counts.checksums_finished, counts.too_short, worker.counters().dropped), (1, 1, 1));

    *worker.stage_mut() = Forwarder::new(ForwarderOptions { finish_checksums: false, ..options });
    left.inject(&hex(UDP_UNFINISHED));
    worker.turn();
    right_way[40..42].copy_from_slice(&[0x14, 0x29]);
    assert_eq!(right.collect(), [right_way]);
}

#[test]
fn a_port_without_a_pair_is_counted_and_does_not_stop_the_others() {
    let umem = umem();
    let (mut worker, mut wires) = bed::<_, 3>(&umem, Forwarder::new(ForwarderOptions::default()));
    wires[2].inject(&hex(UDP));
    wires[0].inject(&hex(UDP));
    worker.turn();
    assert_eq!((wires[1].collect().len(), wires[2].collect().len()), (1, 0));
    assert_eq!((worker.counters().no_such_port, worker.counters().forwarded()), (1, 1));
    assert!(worker.is_conserved());
}

#[test]
fn the_sink_counts_packets_of_several_chunks_whole() {
    let umem = umem();
    let (mut worker, [mut wire]) = bed(&umem, Count::default().then(Sink::default()));
    for len in [60, 1514, 5000] {
        wire.inject(&vec![0; len]);
    }
    worker.turn();
    assert_eq!(worker.stage().1.counts(), Traffic { packets: 3, bytes: 6574 });
    assert_eq!(worker.stage().0.counts(), worker.stage().1.counts());
    assert_eq!((worker.counters().dropped, wire.collect().len()), (3, 0));
    assert!(worker.is_conserved());
}

#[test]
fn a_filter_passes_what_its_rules_or_its_closure_say() {
    let umem = umem();
    let rules: Rules = "udp port 7".parse().unwrap();
    let long = |packet: &[u8]| packet.len() > 60;
    let stage =
        Filter::new(rules).then(Filter::new(long).otherwise(Verdict::Redirect(1))).then(Reflector::default());
    let (mut worker, [mut left, mut right]) = bed(&umem, stage);
    for packet in [UDP, UDP_V6, PING, UDP_BACK] {
        left.inject(&hex(packet));
    }
    worker.turn();
    assert_eq!(left.collect(), [hex(UDP_V6_BACK)], "both hold");
    assert_eq!(right.collect(), [hex(UDP)], "too short");
    assert_eq!(worker.counters().dropped, 2, "no UDP, and another port");
}

#[test]
fn a_bypass_takes_its_time_for_each_packet() {
    const TICKS: u64 = 100_000;
    let umem = umem();
    let (mut worker, [mut wire]) = bed(&umem, Bypass(TICKS).then(Reflector::default()));
    (0..5).for_each(|_| wire.inject(&hex(UDP)));
    let start = ticks();
    worker.turn();
    assert!(ticks() - start >= 5 * TICKS);
    assert_eq!(wire.collect(), vec![hex(UDP_BACK); 5]);
}

#[test]
fn the_generator_sends_its_template_and_no_more_than_it_was_told() {
    let template = UdpTemplate { packet_size: 1514, pattern: Pattern::Byte(0x5a), ..UdpTemplate::default() };
    let mut packet = vec![0; 1514];
    template.write(&mut packet).unwrap();
    let options = GeneratorOptions { template, count: Some(100), burst: 7, ..GeneratorOptions::default() };
    let umem = umem();
    let (mut worker, [mut wire]) = bed(&umem, Generator::new(options).unwrap());
    assert_eq!(worker.stage().sent(), 7, "a burst a turn");
    let mut sent = wire.collect();
    // What comes in lands in frames that are then sent from: no trace of it may be left.
    while !worker.stage().is_done() {
        wire.inject(&[0xee; 1700]);
        worker.turn();
        sent.append(&mut wire.collect());
    }
    (0..4).for_each(|_| assert_eq!(worker.turn(), 0));
    sent.append(&mut wire.collect());
    assert_eq!((worker.stage().sent(), sent.len()), (100, 100));
    assert!(sent.iter().all(|sent| *sent == packet));
    assert!(worker.drain(10) && worker.is_conserved());
}

#[test]
fn the_generator_spreads_over_ports_and_a_full_one_does_not_stop_the_others() {
    let options =
        GeneratorOptions { port: 1, ports: 2, count: Some(1000), burst: 1, ..GeneratorOptions::default() };
    let umem = umem();
    let (mut worker, mut wires) = bed::<_, 3>(&umem, Generator::new(options).unwrap());
    for n in 1..20 {
        worker.turn();
        let sent = wires.each_mut().map(|wire| wire.collect().len());
        assert_eq!(sent.iter().sum::<usize>(), if n == 1 { 2 } else { 1 });
    }
    assert_eq!([0, 1, 2].map(|port| wires[port].stats().sent), [0, 10, 10]);

    // Nobody takes what port 1 sends: its ring fills up, port 2 goes on.
    while !worker.stage().is_done() {
        worker.turn();
        wires[2].step();
    }
    worker.turn();
    assert_eq!(worker.counters().refused, 0, "what has no room is not tried");
    assert_eq!(worker.sending(), 64);
    assert_eq!(wires[2].stats().sent, 1000 - 64 - 10);
}

#[test]
fn a_paced_generator_keeps_its_schedule_through_a_stall() {
    // A tick is less than a nanosecond or two wherever this runs, so 2,000,000 are a moment and no more.
    const INTERVAL: u64 = 2_000_000;
    let pace = Pace::Interval(INTERVAL);
    let options = GeneratorOptions { pace, count: Some(30), ..GeneratorOptions::default() };
    let umem = umem();
    let before = ticks();
    let (mut worker, [mut wire]) = bed(&umem, Generator::new(options).unwrap());
    let after = ticks();
    let mut sent = 1;
    while !worker.stage().is_done() {
        let earliest = ticks();
        worker.turn();
        let latest = ticks();
        wire.step();
        sent = worker.stage().sent();
        assert!(sent <= 1 + (latest - before) / INTERVAL, "none before its time");
        assert!(sent >= 30.min(1 + (earliest - after) / INTERVAL), "and each as soon as it can be");
        if sent == 10 {
            while ticks() - earliest < 5 * INTERVAL {
                core::hint::spin_loop();
            }
        }
    }
    assert_eq!(sent, 30);
}

#[test]
fn a_worker_sleeps_until_its_generator_is_due_and_ends_with_it() {
    let clock = Clock::calibrated();
    let pace = Pace::Interval(clock.to_ticks(2_000_000));
    let options = GeneratorOptions { pace, count: Some(20), ..GeneratorOptions::default() };
    let (umem, stop) = (umem(), Stop::new());
    let stage = Until::done(Generator::new(options).unwrap(), &stop);
    let (port, mut wire) = sim::link(&umem);
    let mut worker = Worker::new([port], stage, umem.take_frames().unwrap()).idle(Idle::Poll, &clock);
    let start = ticks();
    assert_eq!(worker.run(&stop), Ended::Stopped);
    assert!(clock.to_ns(ticks() - start) >= 19 * 2_000_000);
    assert_eq!(worker.stage().stage.sent(), 20);
    assert!(worker.counters().sleeps > 0, "{:?}", worker.counters());
    assert_eq!(wire.collect().len(), 20);
}

// The pinger.

/// Ticks for a second of 10^9 of them: what is lost is known after a third of one.
const FAST: Clock = Clock::with_frequency(1_000_000_000);

/// A pinger and a reflector, and the wires between them in the test's hands.
struct Pair<'u> {
    pinger: SimWorker<'u, Pinger>,
    reflector: SimWorker<'u, Reflector>,
    wires: (Wire<'u>, Wire<'u>),
    reader: Reader,
}

impl<'u> Pair<'u> {
    fn new(umems: &'u (Umem, Umem), options: PingOptions, clock: Clock) -> Self {
        let (writer, reader) = samples::channel(100_000);
        let pinger = Pinger::new(options, clock, writer).unwrap();
        let rings = RingSizes { fill: 256, rx: 256, tx: 256, completion: 256 };
        let config = Config { rings, ..Config::default() };
        let (port_a, wire_a) = sim::link_with(&umems.0, &config);
        let (port_b, wire_b) = sim::link_with(&umems.1, &config);
        let mut pair = Self {
            pinger: Worker::new([port_a], pinger, umems.0.take_frames().unwrap()),
            reflector: Worker::new([port_b], Reflector::default(), umems.1.take_frames().unwrap()),
            wires: (wire_a, wire_b),
            reader,
        };
        pair.reflector.turn();
        pair
    }

    /// One turn of the pinger: takes in what was `deliver`ed, and sends. Returns what it sent.
    fn requests(&mut self) -> Vec<Vec<u8>> {
        self.pinger.turn();
        self.wires.0.collect()
    }

    /// What the reflector makes of these.
    fn reflect(&mut self, requests: &[Vec<u8>]) -> Vec<Vec<u8>> {
        requests.iter().for_each(|packet| self.wires.1.inject(packet));
        self.reflector.turn();
        let mut replies = self.wires.1.collect();
        while replies.len() < requests.len() {
            self.reflector.turn();
            replies.append(&mut self.wires.1.collect());
        }
        replies
    }

    fn deliver(&mut self, replies: &[Vec<u8>]) {
        replies.iter().for_each(|packet| self.wires.0.inject(packet));
    }

    /// A turn of each, nothing lost.
    fn round(&mut self) {
        let requests = self.requests();
        let replies = self.reflect(&requests);
        self.deliver(&replies);
    }

    /// Turns without replies until the pinger gave up on all it awaits, or sent again.
    fn time_out(&mut self) -> Vec<Vec<u8>> {
        loop {
            let requests = self.requests();
            if !requests.is_empty() || self.is_done() {
                return requests;
            }
        }
    }

    fn is_done(&mut self) -> bool {
        self.pinger.stage_mut().is_done(ticks())
    }

    fn counts(&self) -> PingCounts {
        self.pinger.stage().counts()
    }

    fn samples(&mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        self.reader.drain_into(&mut samples);
        samples
    }

    /// Ends the test: all frames accounted for.
    fn end(&mut self) {
        assert!(self.pinger.drain(1000) || self.pinger.sending() > 0);
        assert!(self.pinger.is_conserved() && self.reflector.is_conserved());
        assert_eq!((self.pinger.broken(), self.reflector.broken()), (0, 0));
    }
}

fn umems() -> (Umem, Umem) {
    (umem(), umem())
}

/// What `counts` are, and no field besides.
fn counts(change: impl FnOnce(&mut PingCounts)) -> PingCounts {
    let mut counts = PingCounts::default();
    change(&mut counts);
    counts
}

fn sequence(packet: &[u8]) -> u32 {
    let network = Ethernet::view(packet).unwrap().into_network().unwrap();
    let transport = network.into_transport().unwrap();
    assert_eq!(transport.is_checksum_valid(), Some(true));
    Probe::read(Udp::view(transport.payload).unwrap().payload()).unwrap().sequence
}

#[test]
fn ping_pong_gives_one_sample_a_packet_in_order() {
    for (vlan, packet_size) in [(None, 60), (None, 64), (Some(7), 64), (Some(4094), 1518)] {
        let umems = umems();
        let template = UdpTemplate {
            source_mac: Mac([2, 0, 0, 0, 0, 0xaa]),
            destination_mac: Mac([2, 0, 0, 0, 0, 0xbb]),
            source: SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 1), 1234),
            destination: SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 2), 4321),
            vlan,
            packet_size,
            pattern: Pattern::Counting,
        };
        let options = PingOptions { template, count: Some(200), warm_up: 10, ..PingOptions::default() };
        let mut pair = Pair::new(&umems, options, FAST);
        let (mut rounds, start) = (0, ticks());
        while !pair.is_done() {
            let requests = pair.requests();
            assert!(requests.iter().all(|packet| packet.len() == packet_size));
            assert!(requests.iter().all(|packet| sequence(packet) == rounds));
            let replies = pair.reflect(&requests);
            pair.deliver(&replies);
            rounds += requests.len() as u32;
        }
        let end = ticks();
        assert_eq!(rounds, 210);
        assert_eq!(pair.counts(), counts(|counts| (counts.sent, counts.received) = (200, 200)));
        let samples = pair.samples();
        assert!(samples.iter().zip(0..).all(|(sample, n)| sample.sequence == n), "warm-up is left out");
        assert_eq!(samples.len(), 200);
        assert!(samples.iter().all(|sample| sample.intended == sample.sent && sample.sent < sample.received));
        assert!(samples.windows(2).all(|pair| pair[0].received <= pair[1].sent), "one at a time");
        assert!(samples.iter().all(|sample| start < sample.sent && sample.received < end));
        pair.end();
    }
}

#[test]
fn every_loss_duplicate_and_reordering_is_counted_once() {
    for (first, seed) in [(0, 1), (u64::from(u32::MAX) - 300, 2), ((1 << 40) - 100, 3)] {
        let umems = umems();
        let options = PingOptions {
            count: Some(1000),
            warm_up: 50,
            in_flight: 16,
            first,
            session: seed,
            ..PingOptions::default()
        };
        let clock = Clock::with_frequency(10_000_000_000); // nothing is lost for want of a core
        let mut pair = Pair::new(&umems, options, clock);
        let mut random = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut chance = |percent: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 33) % 100 < percent
        };
        // The numbers of the replies delivered, in order.
        let mut delivered = Vec::new();
        let mut sent = 0;
        loop {
            let requests = pair.requests();
            if requests.is_empty() {
                break;
            }
            sent += requests.len() as u64;
            let mut replies = pair.reflect(&requests);
            replies.retain(|_| !chance(10));
            let mut n = 0;
            while n < replies.len() {
                if chance(10) {
                    replies.insert(n, replies[n].clone());
                    n += 1;
                }
                if n > 0 && chance(15) {
                    replies.swap(n - 1, n);
                }
                n += 1;
            }
            let numbers = replies.iter().map(|reply| u64::from(sequence(reply).wrapping_sub(first as u32)));
            delivered.extend(numbers);
            pair.deliver(&replies);
            pair.pinger.turn(); // takes them in
        }

        assert!(!pair.is_done());
        assert!(pair.pinger.stage_mut().is_done(ticks() + clock.frequency()));

        // The same, told from the list alone.
        let mut right = counts(|counts| counts.sent = 1000);
        let (mut seen, mut highest) = (vec![false; 1050], 0);
        for &number in &delivered {
            let measured = u64::from(number >= 50);
            if seen[number as usize] {
                right.duplicated += measured;
            } else {
                right.received += measured;
                right.reordered += if number < highest { measured } else { 0 };
            }
            seen[number as usize] = true;
            highest = highest.max(number);
        }
        right.lost = seen[50..].iter().filter(|seen| !**seen).count() as u64;
        assert_eq!((sent, pair.counts()), (1050, right));
        assert!(right.lost > 50 && right.duplicated > 50 && right.reordered > 50, "{right:?}");

        let samples = pair.samples();
        let mut numbers: Vec<_> = samples.iter().map(|sample| sample.sequence as usize).collect();
        numbers.sort_unstable();
        let received: Vec<_> = (0..1000).filter(|n| seen[n + 50]).collect();
        assert_eq!(numbers, received, "a sample for each reply, once");
        pair.end();
    }
}

#[test]
fn a_stall_shows_in_the_time_from_when_packets_were_to_be_sent() {
    let clock = Clock::calibrated();
    let interval = clock.to_ticks(200_000);
    let umems = umems();
    let options =
        PingOptions { count: Some(1000), interval_ticks: interval, in_flight: 200, ..PingOptions::default() };
    let mut pair = Pair::new(&umems, options, clock);
    let mut stall = None;
    while !pair.is_done() {
        if stall.is_none() && pair.counts().received >= 100 {
            let start = ticks();
            while ticks() - start < 100 * interval {
                core::hint::spin_loop();
            }
            stall = Some((start, ticks()));
        }
        pair.round();
    }
    let (stalled, resumed) = stall.unwrap();
    let samples = pair.samples();
    assert_eq!((samples.len(), pair.counts().lost), (1000, 0));
    // The schedule is what it was, whatever happened.
    assert!(samples.windows(2).all(|pair| pair[1].intended - pair[0].intended == interval));
    assert!(samples.iter().all(|sample| sample.intended <= sample.sent && sample.sent < sample.received));
    let held: Vec<_> =
        samples.iter().filter(|sample| (stalled..resumed).contains(&sample.intended)).collect();
    assert!((held.len() as u64).abs_diff((resumed - stalled) / interval) <= 1, "{}", held.len());
    for sample in &held {
        assert!(sample.sent >= resumed, "none was sent meanwhile");
        assert!(sample.from_intended() >= resumed - sample.intended);
    }
    // Told from when they were sent, most of it would not be seen.
    let longest = held.iter().map(|sample| sample.from_intended()).max().unwrap();
    assert!(longest >= 99 * interval);
    let sum = |time: fn(&Sample) -> u64| held.iter().map(|sample| time(sample)).sum::<u64>();
    assert!(sum(Sample::from_intended) >= sum(Sample::from_sent) + 40 * 100 * interval);
    let late = samples.iter().filter(|sample| sample.sent - sample.intended > clock.to_ticks(LATE_NS));
    assert_eq!(pair.counts().late, late.count() as u64);
    assert!(pair.counts().late >= 99);
    pair.end();
}

#[test]
fn no_more_than_so_many_are_in_flight_and_what_is_held_back_goes_late() {
    let umems = umems();
    let options = PingOptions { count: Some(20), interval_ticks: 1, in_flight: 5, ..PingOptions::default() };
    let mut pair = Pair::new(&umems, options, FAST);
    let first = pair.requests();
    assert_eq!(first.iter().map(|packet| sequence(packet)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(pair.requests().is_empty());
    let due = pair.pinger.stage().due().unwrap();
    assert!(due > ticks(), "nothing to do before the first is lost");

    let replies = pair.reflect(&first);
    pair.deliver(&replies[..1]);
    pair.pinger.turn();
    assert_eq!(pair.requests().len(), 1, "one back, one more");
    let wait = ticks() + FAST.to_ticks(LATE_NS) + 20;
    while ticks() < wait {}
    pair.deliver(&replies[3..4]); // 1 and 2 were overtaken: they make room, too
    pair.pinger.turn();
    assert_eq!(pair.requests().len(), 3);
    let late = pair.counts().late;
    assert!((3..=9).contains(&late), "{late}");
    pair.deliver(&replies[1..3]);
    pair.pinger.turn();
    assert!(pair.requests().is_empty(), "and not twice");
    assert_eq!((pair.counts().received, pair.counts().reordered), (4, 2));
    pair.end();
}

#[test]
fn a_lost_packet_holds_ping_pong_up_and_no_longer_than_its_time() {
    let umems = umems();
    let options = PingOptions { count: Some(2), ..PingOptions::default() };
    let mut pair = Pair::new(&umems, options, FAST);
    let before = ticks();
    let first = pair.requests();
    let after = ticks();
    assert_eq!(first.len(), 1);
    let due = pair.pinger.stage().due().unwrap();
    assert!((before..after).contains(&(due - FAST.frequency())), "a sleeping worker wakes for it");
    let second = pair.time_out();
    assert!(ticks() - before >= FAST.frequency());
    assert_eq!((sequence(&first[0]), sequence(&second[0])), (0, 1));
    assert_eq!(pair.counts(), counts(|counts| (counts.sent, counts.lost) = (2, 1)));

    // The first comes after all: it was counted as lost, and stays so, however often it comes.
    let replies = pair.reflect(&[first, second].concat());
    pair.deliver(&[&replies[..1], &replies[..1], &replies[1..], &replies[1..]].concat());
    pair.pinger.turn();
    let right = |counts: &mut PingCounts| {
        (counts.sent, counts.received, counts.lost, counts.overdue, counts.duplicated) = (2, 1, 1, 2, 1);
    };
    assert_eq!(pair.counts(), counts(right));
    assert!(pair.is_done());
    assert_eq!(pair.pinger.stage().due(), None);
    assert_eq!(pair.samples().len(), 1);
    pair.end();
}

#[test]
fn what_is_lost_is_known_when_nobody_turns_the_pinger_any_more() {
    let umems = umems();
    let options = PingOptions { count: Some(3), in_flight: 3, ..PingOptions::default() };
    let mut pair = Pair::new(&umems, options, FAST);
    let requests = pair.requests();
    let replies = pair.reflect(&requests);
    pair.deliver(&replies[1..2]);
    pair.pinger.turn();
    let now = ticks();
    assert!(!pair.pinger.stage_mut().is_done(now));
    assert!(pair.pinger.stage_mut().is_done(now + FAST.frequency()));
    assert_eq!(pair.counts(), counts(|counts| (counts.sent, counts.received, counts.lost) = (3, 1, 2)));
}

#[test]
fn what_is_no_reply_of_ours_is_foreign_and_left_to_the_next_stage() {
    let umems = umems();
    let options = PingOptions { in_flight: 2, session: 77, ..PingOptions::default() };
    let mut pair = Pair::new(&umems, options, FAST);
    let requests = pair.requests();
    let replies = pair.reflect(&requests);
    let with_probe = |probe: Probe| {
        let mut packet = replies[0].clone();
        assert!(Udp::parse(&mut packet[34..]).unwrap().overwrite(0, &probe.to_bytes()));
        packet
    };
    let foreign = [
        hex(UDP),
        hex(PING_V6),
        vec![0; 5],
        requests[0].clone(), // our own, come around
        with_probe(Probe { session: 78, sequence: 0, ticks: 0 }),
        with_probe(Probe { session: 77, sequence: 2, ticks: 0 }), // never sent
        with_probe(Probe { session: 77, sequence: u32::MAX, ticks: 0 }),
    ];
    pair.deliver(&foreign);
    pair.pinger.turn();
    assert_eq!(pair.counts(), counts(|counts| (counts.sent, counts.foreign) = (2, 7)));
    assert_eq!(pair.pinger.counters().dropped, 7);
    pair.deliver(&replies);
    pair.pinger.turn();
    assert_eq!((pair.counts().received, pair.counts().duplicated), (2, 0), "and they harmed nothing");
}

#[test]
fn a_damaged_reply_is_seen_and_lost() {
    for verify in [true, false] {
        let umems = umems();
        let options = PingOptions { count: Some(4), in_flight: 4, verify, ..PingOptions::default() };
        let mut pair = Pair::new(&umems, options, FAST);
        let requests = pair.requests();
        let mut replies = pair.reflect(&requests);
        *replies[0].last_mut().unwrap() ^= 1; // a payload bit: the checksum tells
        let probe = Probe { session: 1, sequence: 1, ticks: 12345 };
        assert!(Udp::parse(&mut replies[1][34..]).unwrap().overwrite(0, &probe.to_bytes())); // a time: we know better
        pair.deliver(&replies);
        pair.pinger.turn();
        let (received, damaged) = if verify { (2, 2) } else { (3, 1) };
        assert_eq!((pair.counts().received, pair.counts().damaged), (received, damaged));
        assert!(pair.pinger.stage_mut().is_done(ticks() + FAST.frequency()));
        assert_eq!(pair.counts().lost, 4 - received, "sent = received + lost");
        let samples = pair.samples();
        assert!(samples.iter().all(|sample| sample.sent != 12345) && samples.len() as u64 == received);
    }
}

#[test]
fn a_full_recorder_is_counted_and_holds_nothing_up() {
    let umems = umems();
    let (writer, mut reader) = samples::channel(10);
    let options = PingOptions { count: Some(25), ..PingOptions::default() };
    let mut pair = Pair::new(&umems, PingOptions::default(), FAST);
    *pair.pinger.stage_mut() = Pinger::new(options, FAST, writer).unwrap();
    while !pair.is_done() {
        pair.round();
    }
    assert_eq!((pair.counts().received, pair.pinger.stage().samples_lost()), (25, 15));
    let mut samples = Vec::new();
    assert_eq!(reader.drain_into(&mut samples), 10);
}

#[test]
fn a_stopped_pinger_sends_no_more_and_waits_for_what_is_out() {
    let umems = umems();
    let mut pair = Pair::new(&umems, PingOptions { in_flight: 3, ..PingOptions::default() }, FAST);
    let requests = pair.requests();
    pair.pinger.stage_mut().stop();
    assert!(!pair.is_done());
    let replies = pair.reflect(&requests);
    pair.deliver(&replies);
    assert!(pair.requests().is_empty() && pair.is_done());
    assert_eq!(pair.counts(), counts(|counts| (counts.sent, counts.received) = (3, 3)));
}

#[test]
fn a_packet_that_fits_no_frame_ends_the_pinger_instead_of_hanging_it() {
    let umems = umems();
    let template = UdpTemplate { packet_size: 1900, ..UdpTemplate::default() };
    let mut pair = Pair::new(&umems, PingOptions { template, ..PingOptions::default() }, FAST);
    assert!(pair.requests().is_empty());
    assert!(pair.is_done());
    assert_eq!(pair.counts(), PingCounts::default());
    pair.end();
}

#[test]
fn options_that_describe_no_packet_are_refused_with_the_remedy() {
    let pinger = |packet_size, vlan| {
        let template = UdpTemplate { packet_size, vlan, ..UdpTemplate::default() };
        let options = PingOptions { template, ..PingOptions::default() };
        Pinger::new(options, FAST, samples::channel(1).0).map(drop)
    };
    assert_eq!(pinger(60, None), Ok(()));
    assert_eq!(pinger(64, Some(1)), Ok(()));
    let error = pinger(63, Some(1)).unwrap_err();
    assert_eq!(error, OptionError::TooSmall { packet_size: 63, min: 64 });
    assert_eq!(error.to_string(), "packet size 63 has no room for a probe: choose 64 bytes or more");
    assert_eq!(
        pinger(59, None).unwrap_err().to_string(),
        "packet size 59: choose one from 60 to 65549 bytes"
    );
    let error = pinger(usize::MAX, None).unwrap_err().to_string();
    assert_eq!(error, format!("packet size {}: choose one from 60 to 65549 bytes", usize::MAX));
    let template = UdpTemplate { vlan: Some(4095), ..UdpTemplate::default() };
    let error = Generator::new(GeneratorOptions { template, ..GeneratorOptions::default() }).unwrap_err();
    assert!(error.to_string().starts_with("VLAN 4095"), "{error}");
}

#[test]
fn a_bad_kernel_costs_packets_and_no_count_is_wrong() {
    // Late, stingy, lossy and out of order on both sides, over a thousand packets with 8 in flight.
    for seed in 1..=4 {
        let umems = umems();
        let (writer, mut reader) = samples::channel(1000);
        let options = PingOptions { count: Some(1000), in_flight: 8, ..PingOptions::default() };
        // Here 20 million ticks are a second.
        let pinger = Pinger::new(options, Clock::with_frequency(20_000_000), writer).unwrap();
        let config = Config { temper: sim::Temper::BAD, seed, ..Config::default() };
        let ((port_a, mut wire_a), (port_b, mut wire_b)) =
            (sim::link_with(&umems.0, &config), sim::link_with(&umems.1, &config));
        let mut a = Worker::new([port_a], pinger, umems.0.take_frames().unwrap());
        let mut b = Worker::new([port_b], Reflector::default(), umems.1.take_frames().unwrap());
        while !a.stage_mut().is_done(ticks()) {
            a.turn();
            b.turn();
            wire_a.collect().iter().for_each(|packet| wire_b.queue(packet));
            wire_b.collect().iter().for_each(|packet| wire_a.queue(packet));
        }
        let counts = a.stage().counts();
        assert_eq!((counts.sent, counts.received + counts.lost), (1000, 1000));
        let lost = [&wire_a, &wire_b].map(|wire| wire.stats().lost_in + wire.stats().lost_out);
        assert!(counts.lost >= lost.iter().sum::<u64>(), "{counts:?}, {lost:?}");
        assert_eq!((counts.duplicated, counts.damaged, counts.foreign), (0, 0, 0));
        let mut samples = Vec::new();
        assert_eq!(reader.drain_into(&mut samples) as u64, counts.received);
        assert!(a.is_conserved() && b.is_conserved());
    }
}

#[test]
fn a_chain_of_stages_is_one_stage() {
    let umem = umem();
    let slow = Bypass(0).then(Count::default()).then(|_: &mut xdp_core::Frame<'_>| Verdict::Tx);
    let (mut worker, [mut wire]) = bed(&umem, slow);
    repeat_n(hex(UDP), 3).for_each(|packet| wire.inject(&packet));
    worker.turn();
    assert_eq!(wire.collect(), vec![hex(UDP); 3]);
    assert_eq!(worker.stage().0.1.counts(), Traffic { packets: 3, bytes: 159 });
}

/// Counts what a thread asks of the allocator.
mod counting {
    use core::alloc::{GlobalAlloc, Layout};
    use core::cell::Cell;
    use std::alloc::System;

    thread_local!(static ASKED: Cell<u64> = const { Cell::new(0) });

    /// How often so far.
    pub(super) fn asked() -> u64 {
        ASKED.get()
    }

    struct Counted;

    // SAFETY: the system's allocator, which gets every request as it is.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ASKED.set(ASKED.get() + 1);
            // SAFETY: promised to us as we promise it.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
            ASKED.set(ASKED.get() + 1);
            // SAFETY: promised to us as we promise it.
            unsafe { System.dealloc(place, layout) }
        }
    }

    #[global_allocator]
    static COUNTED: Counted = Counted;
}

#[test]
fn no_stage_allocates_in_a_turn() {
    let before = counting::asked();
    drop(core::hint::black_box(vec![1]));
    assert_eq!(counting::asked() - before, 2, "it is counted");

    // The pinger, with losses, duplicates and reordering, and the reflector.
    let pair_umems = umems();
    let options = PingOptions { count: Some(2000), in_flight: 32, ..PingOptions::default() };
    let mut pair = Pair::new(&pair_umems, options, FAST);
    let (mut allocated, mut batches) = (0, 0);
    loop {
        let before = counting::asked();
        pair.pinger.turn();
        allocated += counting::asked() - before;
        let requests = pair.wires.0.collect();
        requests.iter().for_each(|packet| pair.wires.1.inject(packet));
        let before = counting::asked();
        pair.reflector.turn();
        allocated += counting::asked() - before;
        let mut replies = pair.wires.1.collect();
        batches += u64::from(!replies.is_empty());
        match batches % 4 {
            0 => drop(replies.pop()),
            1 => replies.reverse(),
            2 => replies.extend_from_within(..),
            _ => (),
        }
        pair.deliver(&replies);
        if pair.counts().sent == 2000 && requests.is_empty() && replies.is_empty() {
            break;
        }
    }
    let counts = pair.counts();
    assert!(counts.received > 1000 && counts.reordered > 100 && counts.duplicated > 100, "{counts:?}");

    // A generator into a filter, a count and a forwarder.
    let (umem, other) = umems();
    let (mut generator, [mut wire]) = bed(&umem, Generator::new(GeneratorOptions::default()).unwrap());
    let rules: Rules = "udp port 9".parse().unwrap();
    let chain = Filter::new(rules).then(Count::default()).then(Forwarder::new(ForwarderOptions::default()));
    let (mut chain, [mut left, mut right]) = bed(&other, chain);
    for _ in 0..100 {
        let before = counting::asked();
        generator.turn();
        allocated += counting::asked() - before;
        wire.collect().iter().for_each(|packet| left.inject(packet));
        let before = counting::asked();
        chain.turn();
        allocated += counting::asked() - before;
        right.collect();
    }
    assert!(chain.counters().forwarded() > 1000);
    assert_eq!(allocated, 0);
}

/// Over real sockets: a veth pair of which each end lies in a namespace of its own, gone with it.
mod veth {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use core::time::Duration;
    use std::io::ErrorKind;
    use std::net::UdpSocket;
    use std::thread;
    use xdp_core::cpu::{self, Cap};
    use xdp_core::netdev::{End, Interface, Namespace, NewLink, icmp};
    use xdp_core::{Mode, RegionOptions, Registration, XskConfig, XskPort};

    const LONG: Duration = Duration::from_secs(5);
    const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
    const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

    struct Side {
        namespace: Namespace,
        name: String,
        mac: Mac,
    }

    /// Two ends, both up, the near one with an address and a neighbour; `None`, said, where that takes more than we may.
    fn pair() -> Option<[Side; 2]> {
        let missing = cpu::missing(&[Cap::NetAdmin, Cap::NetRaw, Cap::SysAdmin, Cap::Bpf]).unwrap();
        if !missing.is_empty() {
            println!("skipped: without {missing:?}");
            return None;
        }
        static PAIRS: AtomicU32 = AtomicU32::new(0);
        let nth = PAIRS.fetch_add(1, Relaxed);
        let sides = ["s", "t"].map(|end| Side {
            namespace: Namespace::anonymous().unwrap(),
            name: format!("{end}{nth}x{}", std::process::id()),
            mac: Mac::random(),
        });
        let [near, far] =
            sides.each_ref().map(|side| End::new(&side.name).in_namespace(&side.namespace).mac(side.mac));
        NewLink::veth(near, far).create_pair().unwrap();
        for side in &sides {
            side.on(|interface| {
                interface.set_ipv6_autoconfigured(false).unwrap();
                interface.set_up(true).unwrap();
            });
        }
        sides[0].on(|interface| {
            interface.wait_operational(LONG).unwrap();
            interface.add_address(NEAR.into(), 24).unwrap();
            interface.add_neighbour(FAR.into(), sides[1].mac).unwrap();
        });
        Some(sides)
    }

    impl Side {
        fn on<T: Send>(&self, job: impl FnOnce(Interface) -> T + Send) -> T {
            self.namespace.run(|| job(Interface::named(&self.name).unwrap())).unwrap()
        }

        fn umem() -> Umem {
            Umem::new(Layout::new(2048, 8192).unwrap(), &RegionOptions::default()).unwrap()
        }

        fn bind<'u>(&self, umem: &'u Umem, mode: Mode) -> XskPort<'u> {
            let mut registration = Registration::new(umem).mode(mode);
            self.namespace.run(|| registration.bind(&self.name, 0, &XskConfig::default())).unwrap().unwrap()
        }
    }

    #[test]
    fn a_pinger_and_a_reflector_on_a_veth_pair_lose_nothing() {
        for mode in [Mode::Native, Mode::Skb] {
            let Some([near, far]) = pair() else { return };
            let (near_umem, far_umem) = (Side::umem(), Side::umem());
            let (writer, mut reader) = samples::channel(10_000);
            let template = UdpTemplate {
                source_mac: near.mac,
                destination_mac: far.mac,
                source: SocketAddrV4::new(NEAR, 5000),
                destination: SocketAddrV4::new(FAR, 7),
                packet_size: 128,
                ..UdpTemplate::default()
            };
            let clock = Clock::calibrated();
            let options = PingOptions {
                template,
                count: Some(5000),
                warm_up: 100,
                in_flight: 8,
                ..PingOptions::default()
            };
            let pinger = Pinger::new(options, clock, writer).unwrap();
            let (near_port, far_port) = (near.bind(&near_umem, mode), far.bind(&far_umem, mode));
            let mut pinger = Worker::new([near_port], pinger, near_umem.take_frames().unwrap());
            let mut reflector =
                Worker::new([far_port], Reflector::default(), far_umem.take_frames().unwrap());
            reflector.turn(); // lends frames before the first packet comes
            // One core for both: a turn of each.
            while !pinger.stage_mut().is_done(ticks()) {
                pinger.turn();
                reflector.turn();
            }
            let counts = pinger.stage().counts();
            assert_eq!((counts.sent, counts.received, counts.lost), (5000, 5000, 0), "{mode:?}");
            assert_eq!((counts.duplicated, counts.reordered, counts.damaged), (0, 0, 0));
            let mut samples = Vec::new();
            assert_eq!(reader.drain_into(&mut samples), 5000);
            assert!(samples.iter().zip(0..).all(|(sample, n)| sample.sequence == n));
            assert!(pinger.is_conserved() && reflector.is_conserved());
            assert_eq!(reflector.stage().counts().checksums_finished, 0, "the pinger leaves none unfinished");

            #[cfg(feature = "results")]
            {
                use xdp_apps::results::{Document, Host, Row, Transport, WorkerRow, syscalls_per_packet};
                let xsk = pinger.far()[0].xsk();
                let mut row = Row::new("A-B", Transport::AfXdp)
                    .granted(&xsk.granted(), Some(mode), &near_umem)
                    .ping(&counts, &samples, pinger.stage().samples_lost(), &clock)
                    .worker(
                        WorkerRow::new(None, pinger.is_conserved(), pinger.counters())
                            .socket(&xsk.statistics().unwrap()),
                    );
                row.syscalls_per_packet = syscalls_per_packet(pinger.counters(), counts.received);
                let granted = row.granted.as_ref().unwrap();
                assert_eq!((granted.zero_copy, granted.need_wakeup), (false, false), "veth copies");
                assert_eq!(
                    (granted.umem.chunk_size, granted.umem.chunks, granted.rings.tx),
                    (2048, 8192, 2048)
                );
                assert!(granted.busy_poll.why.as_deref().is_some_and(|why| why.starts_with("not asked for")));
                let rtt = row.ping.unwrap().rtt_us.unwrap();
                let in_order = [rtt.min, rtt.p50, rtt.p90, rtt.p99, rtt.p999, rtt.max];
                assert!(in_order.is_sorted() && rtt.min > 0.0 && rtt.max < 5e6, "{rtt:?}");
                let mut document = Document::new(Host::read(&clock));
                document.rows.push(row);
                assert!(document.to_json().contains("\"transport\": \"af_xdp\""));
            }
        }
    }

    struct SetWhenDropped<'s>(&'s Stop);

    impl Drop for SetWhenDropped<'_> {
        fn drop(&mut self) {
            self.0.set();
        }
    }

    /// Runs a reflector on the far end while `job` runs in the near one's namespace. Returns the reflector, as it was in the end.
    fn beside_a_reflector(sides: &[Side; 2], reflector: Reflector, job: impl FnOnce() + Send) -> Reflector {
        let [near, far] = sides;
        let umem = Side::umem();
        let mut worker = Worker::new([far.bind(&umem, Mode::Native)], reflector, umem.take_frames().unwrap());
        worker.turn();
        let stop = Stop::new();
        thread::scope(|scope| {
            let reflecting = scope.spawn(|| worker.run(&stop));
            {
                let _ends_it = SetWhenDropped(&stop); // also where the job fails
                near.namespace.run(job).unwrap();
            }
            assert_eq!(reflecting.join().unwrap(), Ended::Stopped);
        });
        assert!(worker.drain(1000) && worker.is_conserved());
        *worker.stage()
    }

    #[test]
    fn a_kernel_gets_its_pings_answered_and_its_datagrams_back() {
        let Some(sides) = pair() else { return };
        let reflector = beside_a_reflector(&sides, Reflector::default(), || {
            let answers = icmp::ping(FAR, 10, Duration::from_millis(1), LONG).unwrap();
            assert!(answers.iter().all(Option::is_some), "{answers:?}");
            let socket = UdpSocket::bind((NEAR, 5000)).unwrap();
            socket.connect((FAR, 7)).unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            for n in 0..20 {
                let message = vec![n; 1 + usize::from(n) * 70];
                socket.send(&message).unwrap();
                let mut answer = [0; 2000];
                let len = socket.recv(&mut answer).unwrap();
                assert_eq!(answer[..len], message);
            }
        });
        let counts = reflector.counts();
        assert_eq!(
            (counts.turned, counts.checksums_finished),
            (30, 20),
            "this kernel left each to a card there is not"
        );
    }

    #[test]
    fn a_datagram_whose_checksum_was_left_unfinished_is_refused_by_the_kernel_it_comes_back_to() {
        let Some(sides) = pair() else { return };
        let reflector = beside_a_reflector(&sides, Reflector::new(false), || {
            let socket = UdpSocket::bind((NEAR, 5000)).unwrap();
            socket.connect((FAR, 7)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket.send(b"unfinished").unwrap();
            let error = socket.recv(&mut [0; 100]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "this is why a reflector finishes them");
        });
        assert_eq!((reflector.counts().turned, reflector.counts().checksums_finished), (1, 0));
    }
}
