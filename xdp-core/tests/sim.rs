//! The loop over the simulated kernel: late, stingy, lossy and straggling, by seed. Frames and order are kept.

use xdp_core::sim::{self, Config, Model, SimPort, Temper, Wire};
use xdp_core::{
    Far, Frame, Kicked, Layout, Outbox, Overload, Port, RingSizes, Stage, State, Transmit, Umem, Verdict,
    Want, Worker,
};

const SEEDS: u64 = 200;

fn layout() -> Layout {
    Layout::new(2048, 256).unwrap()
}

fn small(seed: u64, model: Model, need_wakeup: bool, temper: Temper) -> Config {
    let rings = RingSizes { fill: 16, rx: 16, tx: 16, completion: 16 };
    // Next to a wrap, and at one.
    let first_index = u32::MAX - (seed % 40) as u32;
    Config { rings, first_index, model, need_wakeup, temper, seed }
}

/// A packet with its number in it, of a length that varies with it.
fn packet(number: u32, longest: usize) -> Vec<u8> {
    let mut packet = vec![number as u8; 60 + number as usize * 997 % (longest - 60)];
    packet[..4].copy_from_slice(&number.to_be_bytes());
    packet
}

fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[..4].try_into().unwrap())
}

fn is_intact(packet: &[u8]) -> bool {
    packet[4..].iter().all(|&byte| byte == number(packet) as u8)
}

fn reflect(_: &mut Frame<'_>) -> Verdict {
    Verdict::Tx
}

fn cross(frame: &mut Frame<'_>) -> Verdict {
    Verdict::Redirect(1 - frame.port())
}

fn every_kernel() -> impl Iterator<Item = (Model, bool)> {
    Model::ALL.into_iter().flat_map(|model| [(model, true), (model, false)])
}

#[test]
fn order_and_frames_are_kept_by_every_kernel_at_its_worst() {
    for (model, need_wakeup) in every_kernel() {
        for seed in 0..SEEDS {
            let temper = Temper { lossy: 0, ..Temper::BAD };
            let umem = Umem::heap(layout());
            let (port, mut wire) = sim::link_with(&umem, &small(seed, model, need_wakeup, temper));
            let mut worker = Worker::new([port], reflect, umem.take_frames().unwrap())
                .burst(1 + seed as u32 % 8)
                .overload(Overload::Limit);
            let mut seen = Vec::new();
            for n in 0..200 {
                wire.queue(&packet(n, 1792));
                wire.step();
                worker.turn();
                assert!(worker.is_conserved(), "{model:?} seed {seed}");
                seen.extend(wire.collect());
            }
            for _ in 0..10_000 {
                if seen.len() == 200 {
                    break;
                }
                worker.turn();
                seen.extend(wire.collect());
            }
            let what = format!("{model:?}, need_wakeup {need_wakeup}, seed {seed}: {:?}", wire.stats());
            assert_eq!(worker.counters().tx_full, 0, "{what}");
            assert!(seen.iter().all(|packet| is_intact(packet)), "{what}");
            assert!(seen.iter().map(|packet| number(packet)).eq(0..200), "{what}, got {}", seen.len());
            assert_eq!(worker.broken(), 0, "{what}");
        }
    }
}

#[test]
fn what_is_lost_is_counted_and_the_rest_keeps_its_order() {
    for (model, need_wakeup) in every_kernel() {
        for seed in 0..SEEDS / 4 {
            let umem = Umem::heap(layout());
            let (port, mut wire) = sim::link_with(&umem, &small(seed, model, need_wakeup, Temper::BAD));
            let mut worker = Worker::new([port], reflect, umem.take_frames().unwrap());
            let mut seen = Vec::new();
            for n in 0..300 {
                wire.queue(&packet(n, 1792));
                worker.turn();
                seen.extend(wire.collect());
            }
            for _ in 0..5_000 {
                worker.turn();
                seen.extend(wire.collect());
            }
            let (stats, counters) = (*wire.stats(), *worker.counters());
            let what = format!("{model:?} seed {seed}: {stats:?} {counters:?}");
            assert_eq!(stats.delivered + stats.lost_in, 300, "{what}");
            assert_eq!(counters.received, stats.delivered, "{what}");
            assert_eq!(counters.forwarded(), stats.sent, "{what}");
            assert_eq!(seen.len() as u64, stats.sent - stats.lost_out, "{what}");
            assert!(seen.windows(2).all(|pair| number(&pair[0]) < number(&pair[1])), "{what}");
            assert_eq!(worker.sending(), 0, "everything was finished: {what}");
            assert!(worker.is_conserved());
        }
    }
}

/// Sends packets of its own, and notes what comes back.
struct Source {
    left: u32,
    back: Vec<u32>,
}

impl Stage for Source {
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.back.push(number(frame));
        Verdict::Drop
    }

    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        while self.left > 0 && out.copy(0, &packet(self.left, 1000)) {
            self.left -= 1;
        }
    }
}

#[test]
fn a_stage_sends_packets_of_its_own_and_waits_for_room() {
    for seed in 0..50 {
        let umem = Umem::heap(layout());
        let temper = Temper { lossy: 0, ..Temper::BAD };
        let (port, mut wire) = sim::link_with(&umem, &small(seed, Model::Copy, true, temper));
        let source = Source { left: 500, back: vec![] };
        let mut worker = Worker::new([port], source, umem.take_frames().unwrap());
        let mut turns = 0;
        while worker.stage().back.len() < 500 {
            worker.turn();
            for packet in wire.collect() {
                wire.queue(&packet);
            }
            turns += 1;
            assert!(turns < 100_000, "seed {seed}: it stands still at {:?}", worker.counters());
        }
        assert!(worker.stage().back.iter().copied().eq((1..=500).rev()));
        assert_eq!(worker.counters().originated, 500);
        assert!(worker.is_conserved());
    }
}

fn two_ports<'u>(umem: &'u Umem, config: &Config) -> ([SimPort<'u>; 2], [Wire<'u>; 2]) {
    let (one, left) = sim::link_with(umem, config);
    let (other, right) = sim::link_with(umem, &Config { seed: config.seed + 1, ..*config });
    ([one, other], [left, right])
}

#[test]
fn two_ports_cross_in_one_pass_without_a_copy() {
    for seed in 0..SEEDS {
        let umem = Umem::heap(layout());
        let temper = Temper { lossy: 0, ..Temper::BAD };
        let (ports, [mut left, mut right]) = two_ports(&umem, &small(seed, Model::I40e, true, temper));
        let mut worker = Worker::new(ports, cross, umem.take_frames().unwrap()).overload(Overload::Limit);
        let (mut at_left, mut at_right) = (vec![], vec![]);
        for n in 0..5_000 {
            if n < 300 {
                left.queue(&packet(n, 1500));
                if n % 3 == 0 {
                    right.queue(&packet(n, 1500));
                }
            }
            worker.turn();
            at_left.extend(left.collect());
            at_right.extend(right.collect());
            if at_left.len() == 100 && at_right.len() == 300 {
                break;
            }
        }
        assert_eq!(worker.counters().tx_full, 0, "seed {seed}");
        assert!(at_right.iter().map(|p| number(p)).eq(0..300), "seed {seed}: {}", at_right.len());
        assert!(at_left.iter().map(|p| number(p)).eq((0..300).step_by(3)), "seed {seed}");
    }
}

#[test]
fn one_port_that_is_down_does_not_keep_the_other_from_being_served() {
    let umem = Umem::heap(layout());
    let (ports, [mut left, mut right]) = two_ports(&umem, &small(7, Model::Copy, true, Temper::default()));
    let mut worker = Worker::new(ports, reflect, umem.take_frames().unwrap());
    right.set_state(State::Down);
    for n in 0..100 {
        left.queue(&packet(n, 1500));
        right.queue(&packet(n, 1500));
        worker.turn();
        left.step();
    }
    worker.turn();
    assert_eq!(left.collect().len(), 100);
    right.set_state(State::Up);
    for _ in 0..100 {
        worker.turn();
        right.step();
    }
    assert_eq!(right.collect().len(), 100, "and it goes on when it is back");
    assert!(worker.is_conserved());
}

#[test]
fn a_full_tx_ring_drops_and_counts_or_waits_as_told() {
    for (overload, dropped) in [(Overload::Drop, true), (Overload::Limit, false)] {
        let umem = Umem::heap(layout());
        let config = small(1, Model::Copy, true, Temper::default());
        let (ports, [mut left, mut right]) = two_ports(&umem, &config);
        let mut worker = Worker::new(ports, cross, umem.take_frames().unwrap()).overload(overload);
        // The right side does nothing for a while: its tx ring of 16 fills.
        for n in 0..64 {
            left.queue(&packet(n, 100));
            worker.turn();
            left.step();
        }
        let full = worker.counters().tx_full;
        assert_eq!(full > 0, dropped, "{overload:?}: {full}");
        let mut arrived = 0;
        for _ in 0..100 {
            worker.turn();
            left.step();
            arrived += right.collect().len() as u64;
        }
        assert_eq!(arrived + worker.counters().tx_full, 64);
        assert!(worker.is_conserved());
    }
}

#[test]
fn a_packet_for_a_port_that_is_not_there_is_counted() {
    let umem = Umem::heap(layout());
    let (port, mut wire) = sim::link(&umem);
    let stage = |_: &mut Frame<'_>| Verdict::Redirect(9);
    let mut worker = Worker::new([port], stage, umem.take_frames().unwrap());
    worker.turn();
    wire.inject(&packet(1, 100));
    worker.turn();
    assert_eq!(worker.counters().no_such_port, 1);
    assert!(worker.is_conserved());
}

#[test]
fn a_stage_that_panics_loses_no_frame_and_doubles_none() {
    for seed in 0..50 {
        let umem = Umem::heap(layout());
        let (port, mut wire) = sim::link_with(&umem, &small(seed, Model::Copy, true, Temper::default()));
        let mut count = 0;
        let stage = |_: &mut Frame<'_>| {
            count += 1;
            assert!(count % 3 != 2, "a stage that panics at every third packet");
            Verdict::Tx
        };
        let mut worker = Worker::new([port], stage, umem.take_frames().unwrap());
        worker.turn();
        for n in 0..9 {
            wire.queue(&packet(n, 500));
        }
        wire.step();
        let mut panics = 0;
        for _ in 0..20 {
            let turned = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| worker.turn()));
            panics += u32::from(turned.is_err());
            assert!(worker.is_conserved(), "after {panics} panics");
        }
        assert_eq!(panics, 3);
        let seen: Vec<u32> = wire.collect().iter().map(|packet| number(packet)).collect();
        assert_eq!(seen, [0, 2, 3, 5, 6, 8], "the packets it panicked at are dropped, no other");
        assert_eq!((worker.counters().received, worker.counters().forwarded()), (6, 6));
        worker.turn();
        assert_eq!(worker.sending(), 0);
    }
}

#[test]
fn packets_of_several_frames_cross_whole() {
    for seed in 0..100 {
        let umem = Umem::heap(layout());
        let temper = Temper { lossy: 0, stingy: 0, ..Temper::BAD };
        let (ports, [mut left, mut right]) = two_ports(&umem, &small(seed, Model::Copy, true, temper));
        let mut chunks = 0;
        let stage = |frame: &mut Frame<'_>| {
            chunks += frame.chunks();
            cross(frame)
        };
        let mut worker = Worker::new(ports, stage, umem.take_frames().unwrap()).burst(1);
        let (mut arrived, mut full) = (vec![], 0);
        for n in 0..4_000 {
            if n % 50 == 0 && n < 2000 {
                left.queue(&packet(n / 50, 9000));
            }
            worker.turn();
            left.step();
            arrived.extend(right.collect());
            assert!(worker.is_conserved(), "seed {seed}");
            full = worker.counters().tx_full;
        }
        assert_eq!(full, 0);
        assert!(arrived.iter().enumerate().all(|(n, p)| *p == packet(n as u32, 9000)), "seed {seed}");
        assert_eq!(arrived.len(), 40);
        drop(worker);
        assert!(chunks > 40, "{chunks}");
    }
}

#[test]
fn unaligned_chunks_and_headroom_make_no_difference() {
    for layout in [
        Layout::unaligned(3001, 200).unwrap(),
        Layout::new(4096, 200).unwrap().with_headroom(1000).unwrap(),
        Layout::unaligned(2048, 200).unwrap().with_headroom(64).unwrap(),
    ] {
        let umem = Umem::heap(layout);
        let (port, mut wire) = sim::link_with(&umem, &small(3, Model::Copy, true, Temper::default()));
        let mut worker = Worker::new([port], reflect, umem.take_frames().unwrap());
        let mut arrived = vec![];
        // Often enough that an address which crept by an offset would leave its chunk.
        for n in 0..3_000 {
            wire.queue(&packet(n, 1500));
            worker.turn();
            arrived.extend(wire.collect());
        }
        for _ in 0..5 {
            worker.turn();
            arrived.extend(wire.collect());
        }
        assert_eq!(arrived.len(), 3_000);
        assert!(arrived.iter().all(|packet| is_intact(packet)));
        assert_eq!(worker.broken(), 0);
        assert!(worker.drain(5), "and odd addresses, which come back one less, are known again");
    }
}

#[test]
fn an_idle_port_is_never_kicked_and_a_busy_one_once_a_turn() {
    let umem = Umem::heap(layout());
    let (port, mut wire) = sim::link(&umem);
    let mut worker = Worker::new([port], reflect, umem.take_frames().unwrap());
    (0..1000).for_each(|_| assert_eq!(worker.turn(), 0));
    assert_eq!(wire.calls(), 0, "copy mode: no system call without a packet");
    for n in 0..20 {
        wire.queue(&packet(n, 100));
    }
    wire.step();
    worker.turn();
    wire.step();
    (0..1000).for_each(|_| assert_eq!(worker.turn(), 0));
    assert_eq!(
        wire.calls(),
        1,
        "20 packets in one turn: one call, and none while they are merely unfinished"
    );
    assert_eq!(wire.collect().len(), 20);
}

#[test]
fn our_reflector_answers_at_once_in_every_driver_model() {
    for (model, need_wakeup) in every_kernel() {
        let umem = Umem::heap(layout());
        let (port, mut wire) = sim::link_with(&umem, &small(1, model, need_wakeup, Temper::default()));
        let mut worker = Worker::new([port], reflect, umem.take_frames().unwrap());
        worker.turn();
        for n in 0..10 {
            wire.inject(&packet(n, 100));
            worker.turn();
            let answers = wire.collect();
            assert_eq!(answers, [packet(n, 100)], "{model:?}, need_wakeup {need_wakeup}: within the step");
        }
    }
}

/// A far side that nobody kicks: the application fault behind the paper's outlier (zero-copy, no polling mechanism).
struct NoKick<F>(F);

impl<F: Far> Far for NoKick<F> {
    fn kick(&mut self, _: Want) -> Kicked {
        Kicked::IDLE
    }

    fn check(&mut self) -> State {
        self.0.check()
    }

    fn state(&self) -> State {
        self.0.state()
    }
}

/// In which of ten steps, a packet arriving at each, the replies to the first five left; none for one that never did.
fn replies_without_a_kick(model: Model) -> Vec<Option<usize>> {
    let umem = Umem::heap(layout());
    let (port, mut wire) = sim::link_with(&umem, &small(1, model, true, Temper::default()));
    let port = Port::new(port.rx, port.tx, NoKick(port.far));
    let mut worker = Worker::new([port], reflect, umem.take_frames().unwrap());
    worker.turn();
    let mut left = vec![None; 10];
    for step in 0..10 {
        wire.inject(&packet(step as u32, 100)); // the card's interrupt
        worker.turn(); // the reply is in the tx ring, and nobody is told
        for reply in wire.collect() {
            left[number(&reply) as usize] = Some(step);
        }
    }
    left.truncate(5);
    left
}

#[test]
fn without_a_kick_each_driver_fails_in_its_own_way() {
    // i40e looks at the tx ring only at the start of a poll, which the next packet brings: a lag of one interval.
    assert_eq!(replies_without_a_kick(Model::I40e), [1, 2, 3, 4, 5].map(Some));
    // igb with paired vectors was seen to answer at once: its poll runs once more after it received.
    assert_eq!(replies_without_a_kick(Model::Igb), [0, 1, 2, 3, 4].map(Some));
    // virtio_net sends from a poll of its own, and copy mode only inside the call: they never answer.
    assert_eq!(replies_without_a_kick(Model::Virtio), [None; 5]);
    assert_eq!(replies_without_a_kick(Model::Copy), [None; 5]);
}

#[test]
fn a_forgotten_worker_costs_its_frames_until_the_umem_is_recovered() {
    let mut umem = Umem::heap(layout());
    {
        let (port, _wire) = sim::link(&umem);
        let worker = Worker::new([port], reflect, umem.take_frames().unwrap());
        core::mem::forget(worker);
    }
    assert!(umem.take_frames().is_none());
    assert!(umem.recover(), "no socket is registered, and `&mut` proves that no frame lives");
    assert_eq!(umem.take_frames().unwrap().len(), 256);
}

#[test]
#[should_panic(expected = "frames are too few: 1 offered + 64 in tx rings + 1 in hand = 66")]
fn too_few_frames_are_refused_with_the_sum() {
    let umem = Umem::heap(Layout::new(2048, 65).unwrap());
    let (port, _wire) = sim::link(&umem);
    let _ = Worker::new([port], reflect, umem.take_frames().unwrap());
}
