//! The whole path over real AF_XDP sockets, on veth pairs in namespaces of this process's own. Without the privilege
//! each test says that it is skipped.
//!
//! A packet that a socket sends into a veth end is in the far end's rx ring when the kick returns, so most of this runs
//! both hosts in one thread and needs no waiting; where something takes time, the wait has an end that fails.

mod common;

use common::*;
use core::net::Ipv4Addr;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::panic::catch_unwind;
use std::thread::{self, sleep};
use std::time::Instant;
use xdp_core::ring::KernelRing;
use xdp_core::uapi::{XDP_TXMD_FLAGS_CHECKSUM, XDP_TXMD_FLAGS_TIMESTAMP};
use xdp_core::{
    BusyPoll, Clock, Ended, Errno, Far, Frame, Idle, Layout, Mode, Outbox, Registration, RingReceiver,
    RingTransmitter, Stage, State, Stop, Transmit, Umem, Verdict, Worker, XskConfig, XskFar, ZeroCopy, ticks,
};

type XskWorker<'u, S, const N: usize = 1> =
    Worker<'u, RingReceiver<'u, KernelRing>, RingTransmitter<'u, KernelRing>, XskFar, S, N>;

/// A worker on queue 0 of an interface, with all of a UMEM's frames.
fn worker<'u, S: Stage>(side: &Side, umem: &'u Umem, config: &XskConfig, stage: S) -> XskWorker<'u, S> {
    let port = side.bind(&mut Registration::new(umem), 0, config).unwrap();
    Worker::new([port], stage, umem.take_frames().unwrap())
}

/// What there is to tell of a worker that did not do as it should.
fn told<S: Stage>(worker: &XskWorker<'_, S>) -> String {
    let lost = (worker.sending(), worker.broken());
    format!("{lost:?} {:?}, {:?}", worker.counters(), worker.far()[0].xsk().statistics())
}

/// Turns both until `a` has seen `count` packets, and everything sent was finished.
fn turn_until_back<'u, S: Stage>(a: &mut XskWorker<'u, Host>, b: &mut XskWorker<'u, S>, count: usize) {
    b.turn(); // offers frames to receive into
    let start = Instant::now();
    while a.stage().seen.len() < count || a.sending() + b.sending() > 0 {
        a.turn();
        b.turn();
        assert!(
            start.elapsed() < LONG,
            "{} of {count} came back: {}, {}",
            a.stage().seen.len(),
            told(a),
            told(b)
        );
    }
    assert_eq!(a.stage().seen.len(), count);
    assert!(a.is_conserved() && b.is_conserved());
    assert_eq!((a.broken(), b.broken()), (0, 0));
}

/// Waits for a worker to end by itself, and stops it if it does not.
fn ended<T>(handle: thread::ScopedJoinHandle<'_, T>, stop: &Stop) -> T {
    let start = Instant::now();
    while !handle.is_finished() && start.elapsed() < LONG {
        sleep(Duration::from_millis(1));
    }
    stop.set();
    handle.join().unwrap()
}

#[test]
fn packets_of_every_length_come_back_intact_and_in_order() {
    for mode in [Mode::Native, Mode::Skb] {
        let Some(bed) = Bed::new() else { return };
        let (near, far) = (umem(), umem());
        let a = bed.a.bind(&mut Registration::new(&near).mode(mode), 0, &config()).unwrap();
        let b = bed.b.bind(&mut Registration::new(&far).mode(mode), 0, &config()).unwrap();
        let sent: Vec<_> = (0..1437).map(|n| packet(n, 64 + n as usize)).collect();
        let mut a = Worker::new([a], Host::sending(sent.clone()), near.take_frames().unwrap());
        let mut b = Worker::new([b], reflect, far.take_frames().unwrap());
        turn_until_back(&mut a, &mut b, sent.len());
        assert!(
            a.stage().seen.iter().map(|(_, packet)| packet).eq(&sent),
            "{mode}: {:?}",
            a.stage().numbers()
        );
        assert_eq!((b.counters().forwarded(), b.counters().tx_full), (1437, 0), "{mode}");
    }
}

#[test]
fn a_lone_packet_is_not_held_back() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let mut a = worker(&bed.a, &near, &config(), Host::default());
    let mut b = worker(&bed.b, &far, &config(), reflect);
    a.turn();
    b.turn();
    let mut turns = vec![];
    for n in 0..100 {
        let before = a.counters().turns;
        a.stage_mut().to_send.push_back((0, packet(n, 64)));
        until("one packet is there and back", || {
            a.turn();
            b.turn();
            a.stage().seen.len() > n as usize
        });
        turns.push(a.counters().turns - before);
    }
    // Sent in the first and received in the second, unless the kernel is busy elsewhere in between.
    turns.sort();
    assert_eq!(turns[50], 2, "{turns:?}");
}

#[test]
fn every_idle_policy_answers_and_only_the_sleeping_ones_sleep() {
    let clock = Clock::calibrated();
    for (idle, sleeps) in
        [(Idle::Spin, false), (Idle::Pause, false), (Idle::Poll, true), (Idle::Adaptive, true)]
    {
        let Some(bed) = Bed::new() else { return };
        let (near, far) = (umem(), umem());
        let mut a = worker(&bed.a, &near, &config(), Host::default());
        let mut b = worker(&bed.b, &far, &config(), reflect).idle(idle, &clock);
        a.turn();
        b.turn();
        let stop = Stop::new();
        let (b, mut times) = thread::scope(|scope| {
            let handle = scope.spawn(|| {
                assert_eq!(b.run(&stop), Ended::Stopped);
                b
            });
            let mut times = vec![];
            for n in 0..30 {
                sleep(Duration::from_millis(2));
                let start = Instant::now();
                a.stage_mut().to_send.push_back((0, packet(n, 100)));
                while a.stage().seen.len() <= n as usize && start.elapsed() < LONG {
                    a.turn();
                }
                times.push(start.elapsed());
                if a.stage().seen.len() <= n as usize {
                    break; // lost: said below
                }
            }
            stop.set();
            (handle.join().unwrap(), times)
        });
        assert_eq!(a.stage().numbers(), (0..30).collect::<Vec<_>>(), "{idle:?}");
        // A sleeper that nobody wakes wakes by itself after 100 ms. A busy machine is slow now and then, not mostly.
        times.sort();
        assert!(times[15] < Duration::from_millis(50), "{idle:?}: {times:?}");
        assert_eq!(b.counters().sleeps > 0, sleeps, "{idle:?}: {:?}", b.counters());
        if idle == Idle::Poll {
            assert!(b.counters().turns < 1000, "it sleeps, it does not spin: {:?}", b.counters());
        }
        assert!(b.is_conserved());
    }
}

#[test]
fn a_sleeping_worker_wakes_for_a_stage_that_is_due() {
    struct Ticker {
        next: u64,
        every: u64,
        sent: u32,
    }
    impl Stage for Ticker {
        fn process(&mut self, _: &mut Frame<'_>) -> Verdict {
            Verdict::Drop
        }
        fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
            if ticks() >= self.next && out.copy(0, &packet(self.sent, 100)) {
                (self.sent, self.next) = (self.sent + 1, self.next + self.every);
            }
        }
        fn due(&self) -> Option<u64> {
            Some(self.next)
        }
    }
    let Some(bed) = Bed::new() else { return };
    let clock = Clock::calibrated();
    let (near, far) = (umem(), umem());
    let every = clock.to_ticks(5_000_000);
    let ticker = Ticker { next: ticks() + every, every, sent: 0 };
    let mut a = worker(&bed.a, &near, &config(), ticker).idle(Idle::Poll, &clock);
    let mut b = worker(&bed.b, &far, &config(), Host::default());
    b.turn();
    let stop = Stop::new();
    let a = thread::scope(|scope| {
        let handle = scope.spawn(|| {
            a.run(&stop);
            a
        });
        let start = Instant::now();
        while b.stage().seen.len() < 20 && start.elapsed() < LONG {
            b.turn();
            sleep(Duration::from_micros(500));
        }
        stop.set();
        handle.join().unwrap()
    });
    assert!(b.stage().numbers().iter().copied().eq(0..b.stage().seen.len() as u32));
    assert!(b.stage().seen.len() >= 20, "a packet every 5 ms, not one every 100 ms");
    assert!(a.counters().sleeps > 0, "{:?}", a.counters());
}

#[test]
fn need_wakeup_makes_no_difference_in_copy_mode() {
    for need_wakeup in [true, false] {
        let Some(bed) = Bed::new() else { return };
        let (near, far) = (umem(), umem());
        let config = XskConfig { need_wakeup, ..config() };
        let sent = (0..500).map(|n| packet(n, 64));
        let mut a = worker(&bed.a, &near, &config, Host::sending(sent));
        let mut b = worker(&bed.b, &far, &config, reflect);
        turn_until_back(&mut a, &mut b, 500);
        let granted = b.far()[0].xsk().granted();
        assert_eq!((granted.zero_copy, granted.need_wakeup), (false, false), "the flag means nothing here");
    }
}

#[test]
fn layouts_of_every_kind_carry_packets() {
    for layout in [
        Layout::new(2048, 1024).unwrap().with_headroom(128).unwrap(),
        Layout::new(4096, 1024).unwrap().with_headroom(1000).unwrap(),
        Layout::unaligned(3000, 1024).unwrap(),
        Layout::unaligned(2049, 1024).unwrap().with_headroom(40).unwrap(),
    ] {
        let Some(bed) = Bed::new() else { return };
        let (near, far) = (umem_of(layout), umem_of(layout));
        let sent: Vec<_> = (0..3000).map(|n| packet(n, 64 + n as usize % 1437)).collect();
        let mut a = worker(&bed.a, &near, &config(), Host::sending(sent.clone()));
        let mut b = worker(&bed.b, &far, &config(), reflect);
        turn_until_back(&mut a, &mut b, sent.len());
        assert!(a.stage().seen.iter().map(|(_, packet)| packet).eq(&sent), "{layout:?}");
        assert_eq!(a.stage().headroom, layout.packet_start() as usize, "{layout:?}");
    }
}

#[test]
fn packets_of_9_kb_come_back_whole_to_the_kernels_own_stack() {
    let Some(bed) = Bed::with(1, 9000) else { return };
    let far = umem();
    let mut longest = 0;
    let stage = |frame: &mut Frame<'_>| {
        longest = longest.max(frame.chunks());
        reflect(frame)
    };
    let mut b = worker(&bed.b, &far, &XskConfig { multi_buffer: true, ..config() }, stage);
    b.turn();
    let mut stack = bed.a.on(|a| common::sys::packet_socket(&a, OURS));
    let mut room = vec![0; 10_000];
    for (n, len) in (0..).zip([60, 1500, 1793, 3584, 3585, 5000, 9000, 9014].repeat(20)) {
        let sent = packet(n, len);
        stack.write_all(&sent).unwrap();
        until("the packet is back", || {
            b.turn();
            match stack.read(&mut room) {
                Ok(read) => {
                    assert!(room[..read] == sent, "packet {n} of {len} bytes came back as {read} other ones");
                    true
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) => panic!("{error}"),
            }
        });
    }
    until("everything was finished", || b.drain(1));
    assert_eq!((b.counters().forwarded(), b.broken()), (160, 0));
    assert!(b.is_conserved());
    drop(b);
    assert_eq!(longest, 6, "9014 bytes in pieces of 1792");
}

#[test]
fn two_queues_and_two_workers_share_one_umem() {
    const COUNT: u32 = 500;
    let Some(bed) = Bed::with(2, 1500) else { return };
    let (near, far) = (umem(), umem());
    let bind = |side: &Side, umem| {
        let mut registration = Registration::new(umem);
        let ports = [0, 1].map(|queue| side.bind(&mut registration, queue, &config()).unwrap());
        assert_eq!(registration.attachments().count(), 1, "one program for both queues");
        ports
    };
    let mut a = Worker::new(bind(&bed.a, &near), Host::default(), near.take_frames().unwrap());
    let mut shares = far.take_frames().unwrap().split(2).into_iter();
    let workers = bind(&bed.b, &far).map(|port| Worker::new([port], reflect, shares.next().unwrap()));
    a.stage_mut().to_send.extend((0..COUNT).map(|n| ((n % 2) as u8, packet(n, 64 + n as usize))));
    let stop = Stop::new();
    let clock = Clock::calibrated();
    let workers = thread::scope(|scope| {
        let handles = workers.map(|mut worker| {
            worker.turn();
            let (stop, clock) = (&stop, &clock);
            scope.spawn(move || {
                let mut worker = worker.idle(Idle::Adaptive, clock);
                worker.run(stop);
                worker
            })
        });
        let start = Instant::now();
        while a.stage().seen.len() < COUNT as usize && start.elapsed() < LONG {
            a.turn();
        }
        stop.set();
        handles.map(|handle| handle.join().unwrap())
    });
    for port in [0, 1] {
        let back = a.stage().seen.iter().filter(|(queue, _)| *queue == port);
        let numbers: Vec<_> = back.map(|(_, packet)| number(packet)).collect();
        let expected: Vec<_> = (u32::from(port)..COUNT).step_by(2).collect();
        assert_eq!(numbers, expected, "queue {port} to queue {port}, in order");
    }
    for worker in &workers {
        assert_eq!(worker.counters().forwarded(), u64::from(COUNT / 2), "each queue to its own worker");
        assert!(worker.is_conserved());
    }
}

#[test]
fn a_forwarder_between_two_interfaces_moves_the_chunk_and_copies_nothing() {
    struct Forward {
        received: Vec<*const u8>,
        finished: Vec<*const u8>,
    }
    impl Stage for Forward {
        fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
            if !is_ours(frame) {
                return Verdict::Drop;
            }
            self.received.push(frame.as_ptr());
            Verdict::Redirect(1 - frame.port())
        }
        fn finished(&mut self, frame: &Frame<'_>) {
            self.finished.push(frame.as_ptr());
        }
    }
    let Some(bed) = Bed::new() else { return };
    let [b2, c] = bed.third();
    let (near, middle, far) = (umem(), umem(), umem());
    let mut registration = Registration::new(&middle);
    let ports = [&bed.b, &b2].map(|side| side.bind(&mut registration, 0, &config()).unwrap());
    assert_eq!(registration.attachments().count(), 2, "one program an interface");
    let stage = Forward { received: vec![], finished: vec![] };
    let mut forwarder = Worker::new(ports, stage, middle.take_frames().unwrap());
    forwarder.turn();
    let (there, back): (Vec<_>, Vec<_>) =
        (0..1000).map(|n| (packet(n, 64 + n as usize), packet(n + 5000, 64 + n as usize))).unzip();
    let mut a = worker(&bed.a, &near, &config(), Host::sending(there.clone()));
    let mut c = worker(&c, &far, &config(), Host::sending(back.clone()));
    c.turn();
    until("everything crossed", || {
        a.turn();
        forwarder.turn();
        c.turn();
        a.stage().seen.len() + c.stage().seen.len() == 2000 && forwarder.sending() == 0
    });
    assert!(c.stage().seen.iter().map(|(_, packet)| packet).eq(&there), "in order, intact");
    assert!(a.stage().seen.iter().map(|(_, packet)| packet).eq(&back), "in order, intact");
    let Forward { received, finished } = forwarder.stage();
    let sorted = |pointers: &Vec<_>| {
        let mut pointers = pointers.clone();
        pointers.sort();
        pointers
    };
    assert_eq!(sorted(received), sorted(finished), "what is sent lies where it was received");
    assert!(forwarder.is_conserved());
}

#[test]
fn a_queue_is_bound_again_ten_times_soon_after_it_was_closed() {
    let Some(bed) = Bed::new() else { return };
    let (near, mut far) = (umem(), umem());
    let mut a = worker(&bed.a, &near, &config(), Host::default());
    let mut times = vec![];
    for n in 0..10 {
        let start = Instant::now();
        let mut b = worker(&bed.b, &far, &config(), reflect);
        times.push(start.elapsed());
        b.turn();
        a.stage_mut().to_send.push_back((0, packet(n, 100)));
        until("a packet is back", || {
            a.turn();
            b.turn();
            a.stage().seen.len() > n as usize
        });
        drop(b);
        assert!(!bed.b.carries_program(), "the last port dropped takes the program off");
        assert!(far.recover(), "and nothing holds on to the UMEM");
    }
    assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
    println!("bound again after {times:?}");
}

#[test]
fn the_last_port_takes_the_program_off_even_where_the_registration_lives_on() {
    let Some(bed) = Bed::new() else { return };
    let umem = umem();
    let mut registration = Registration::new(&umem);
    let port = bed.b.bind(&mut registration, 0, &config()).unwrap();
    assert!(bed.b.carries_program());
    drop(port);
    assert!(!bed.b.carries_program());
    assert_eq!(registration.attachments().count(), 0);
    let _again = bed.b.bind(&mut registration, 0, &config()).unwrap();
    assert!(bed.b.carries_program(), "and the next one puts it on again");
}

#[test]
fn a_queue_that_is_taken_is_refused_with_the_remedy_and_free_when_let_go() {
    let Some(bed) = Bed::new() else { return };
    let (one, other) = (umem(), umem());
    let first = bed.b.bind(&mut Registration::new(&one), 0, &config()).unwrap();
    let config = XskConfig { bind_timeout_ms: 40, ..config() };
    let (start, refused) =
        (Instant::now(), bed.b.bind(&mut Registration::new(&other).send_only(), 0, &config));
    let error = refused.unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EBUSY));
    assert_eq!(
        error.to_string(),
        format!(
            "bind {} queue 0: EBUSY; another socket has this queue, and had it for 40 ms: stop the other program, \
             or take another queue",
            bed.b.name
        )
    );
    assert!(start.elapsed() >= Duration::from_millis(40), "it waited as long as it was told to");
    let error = bed.b.bind(&mut Registration::new(&other), 0, &config).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EBUSY), "the program that is attached: {error}");
    drop(first);
    assert!(bed.b.bind(&mut Registration::new(&other), 0, &common::config()).is_ok());
}

#[test]
fn what_is_not_there_is_refused_before_anything_is_changed() {
    let Some(bed) = Bed::with(1, 2000) else { return };
    let umem = umem();
    let mut registration = Registration::new(&umem);
    let error = bed.b.bind(&mut registration, 1, &config()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EINVAL));
    assert!(error.to_string().ends_with("queue 1: EINVAL; it has 1, numbered from 0"), "{error}");
    let missing = bed.a.namespace.run(|| registration.bind("no-such-one", 0, &config())).unwrap();
    assert_eq!(missing.unwrap_err().errno(), Some(Errno::ENODEV));
    let error = bed.b.bind(&mut registration, 0, &config()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EMSGSIZE));
    assert!(error.to_string().contains("2014 bytes does not fit a chunk of 2048"), "{error}");
    assert!(error.to_string().contains("--chunk-size 4096"), "{error}");
    assert!(!bed.b.carries_program());
    assert_eq!(registration.attachments().count(), 0);
    let larger = umem_of(Layout::new(4096, 1024).unwrap());
    assert!(bed.b.bind(&mut Registration::new(&larger), 0, &config()).is_ok());
}

#[test]
fn zero_copy_required_is_refused_on_veth_and_leaves_nothing_attached() {
    let Some(bed) = Bed::new() else { return };
    let umem = umem();
    let mut registration = Registration::new(&umem);
    let config = XskConfig { zero_copy: ZeroCopy::Require, ..config() };
    let error = bed.b.bind(&mut registration, 0, &config).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP));
    assert!(error.to_string().ends_with("take --zero-copy=prefer or --copy"), "{error}");
    assert!(!bed.b.carries_program());
    for zero_copy in [ZeroCopy::Prefer, ZeroCopy::Off] {
        let port = bed.b.bind(&mut registration, 0, &XskConfig { zero_copy, ..config }).unwrap();
        assert!(!port.far.xsk().granted().zero_copy, "and what was granted instead is said");
    }
}

#[test]
fn memory_past_the_lock_limit_is_refused_with_the_sum() {
    const TEST: &str = "memory_past_the_lock_limit_is_refused_with_the_sum";
    if let Ok(interface) = std::env::var(CHILD) {
        const IPC_LOCK: u32 = 14;
        let umem = umem_of(Layout::new(4096, 1024).unwrap());
        common::sys::limit_memlock(1 << 20);
        common::sys::drop_capability(IPC_LOCK);
        let error = Registration::new(&umem).bind(&interface, 0, &config()).unwrap_err();
        return println!("refused: {error}");
    }
    let Some(bed) = Bed::new() else { return };
    let said = bed.b.namespace.run(|| child(TEST, &bed.b.name)).unwrap().expect_err("it does not wait");
    let expected = "ENOBUFS; 4096 KiB are more than the memory-lock limit leaves, and every socket counts its UMEM anew: \
                    raise it (ulimit -l), take fewer chunks, or grant CAP_IPC_LOCK";
    assert!(said.contains("refused: ") && said.contains(expected), "{said}");
    assert!(!bed.b.carries_program());
}

#[test]
fn a_killed_process_leaves_no_program() {
    const TEST: &str = "a_killed_process_leaves_no_program";
    if let Ok(interface) = std::env::var(CHILD) {
        let umem = umem();
        let _port = Registration::new(&umem).bind(&interface, 0, &config()).unwrap();
        println!("\n{READY}");
        sleep(3 * LONG); // the parent kills us long before
        return;
    }
    let Some(bed) = Bed::new() else { return };
    let mut child = bed.b.namespace.run(|| child(TEST, &bed.b.name)).unwrap().expect("it binds and waits");
    let attached = bed.b.carries_program();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(attached);
    until("the program is gone", || !bed.b.carries_program());
    let umem = umem();
    assert!(bed.b.bind(&mut Registration::new(&umem), 0, &config()).is_ok(), "and the queue is free");
}

#[test]
fn an_interface_that_is_down_is_reported_and_what_was_queued_leaves_when_it_is_back() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let mut a = worker(&bed.a, &near, &config(), Host::default());
    let mut b = worker(&bed.b, &far, &config(), Host::default());
    a.turn();
    b.turn();
    bed.b.set_up(false);
    b.stage_mut().to_send.extend((0..10).map(|n| (0, packet(n, 100))));
    (0..1000).for_each(|_| assert_eq!(b.turn(), 0));
    assert_eq!(b.far()[0].state(), State::Down);
    assert_eq!(b.sending(), 10, "nothing was dropped");
    let calls = b.counters().kicks;
    assert_eq!(b.counters().kicks_down, calls, "{:?}", b.counters());
    assert!((2..40).contains(&calls), "1000 turns in vain made {calls} system calls");
    bed.b.set_up(true);
    bed.b.wait_operational();
    until("what was queued has left", || {
        b.turn();
        a.turn();
        b.sending() == 0 && a.stage().seen.len() == 10
    });
    assert_eq!(a.stage().numbers(), (0..10).collect::<Vec<_>>());
    assert_eq!(b.far()[0].state(), State::Up);
    assert!(a.is_conserved() && b.is_conserved());
}

#[test]
fn a_sleeping_worker_notices_that_its_interface_is_down_and_goes_on_when_it_is_back() {
    let Some(bed) = Bed::new() else { return };
    let clock = Clock::calibrated();
    let (near, far) = (umem(), umem());
    let mut a = worker(&bed.a, &near, &config(), Host::default());
    let mut b = worker(&bed.b, &far, &config(), reflect).idle(Idle::Poll, &clock);
    a.turn();
    bed.b.set_up(false);
    let stop = Stop::new();
    thread::scope(|scope| {
        let handle = scope.spawn(|| b.run(&stop));
        sleep(Duration::from_millis(300));
        stop.set();
        assert_eq!(handle.join().unwrap(), Ended::Stopped, "down is not gone");
    });
    assert_eq!(b.far()[0].state(), State::Down);
    bed.b.set_up(true);
    bed.b.wait_operational();
    a.stage_mut().to_send.push_back((0, packet(7, 100)));
    turn_until_back(&mut a, &mut b, 1);
}

#[test]
fn packets_to_a_peer_that_is_down_are_dropped_counted_and_their_frames_come_back() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let mut a = worker(&bed.a, &near, &config(), Host::sending((0..100).map(|n| packet(n, 100))));
    let mut b = worker(&bed.b, &far, &config(), reflect);
    turn_until_back(&mut a, &mut b, 100);
    bed.b.set_up(false);
    a.stage_mut().to_send.extend((100..150).map(|n| (0, packet(n, 100))));
    until("every frame is back", || {
        a.turn();
        a.stage().to_send.is_empty() && a.sending() == 0
    });
    let counters = *a.counters();
    assert_eq!(counters.kicks_dropped, 50, "one packet a kick: {counters:?}");
    assert_eq!(counters.finished, 150, "dropped counts as sent");
    assert!(a.is_conserved());
    bed.b.set_up(true);
    bed.b.wait_operational();
    bed.a.wait_operational();
    a.stage_mut().to_send.extend((150..160).map(|n| (0, packet(n, 100))));
    turn_until_back(&mut a, &mut b, 110);
    assert!(a.stage().numbers().into_iter().eq((0..100).chain(150..160)));
}

/// Sends as fast as there is room and is always due: what a worker on a device that vanishes is busiest with.
struct Flood {
    due: bool,
}

impl Stage for Flood {
    fn process(&mut self, _: &mut Frame<'_>) -> Verdict {
        Verdict::Drop
    }
    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        while out.room(0, 1) > 0 && out.copy(0, &packet(0, 64)) {}
    }
    fn due(&self) -> Option<u64> {
        self.due.then(|| ticks() + 1_000_000)
    }
}

/// Runs a worker on B until it ends as the interface is deleted under it; the UMEM is then whole again.
fn delete_under(idle: Idle, what: &str, stage: impl Stage + Send + Sync, traffic: bool) {
    let Some(bed) = Bed::new() else { return };
    let clock = Clock::calibrated();
    let (near, mut far) = (umem(), umem());
    let mut a = worker(&bed.a, &near, &config(), Host::default());
    let mut b = worker(&bed.b, &far, &config(), stage).idle(idle, &clock);
    let stop = Stop::new();
    let (reason, b, took) = thread::scope(|scope| {
        let handle = scope.spawn(|| (b.run(&stop), b));
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(30) {
            if traffic {
                a.stage_mut().to_send.push_back((0, packet(1, 100)));
                a.turn();
            }
            sleep(Duration::from_micros(100));
        }
        bed.b.delete();
        let start = Instant::now();
        let (reason, b) = ended(handle, &stop);
        (reason, b, start.elapsed())
    });
    println!("{what}, {idle:?}: ended {took:?} after the deletion");
    assert_eq!(reason, Ended::Gone, "{what}, {idle:?}: {:?}", b.counters());
    assert!(took < Duration::from_secs(2), "{what}, {idle:?}: {took:?}");
    assert!(b.is_conserved(), "{what}, {idle:?}");
    assert_eq!(b.far()[0].state(), State::Gone);
    assert!(!traffic || b.counters().received > 0);
    drop(b);
    assert!(far.recover(), "no socket is left");
    assert_eq!(far.take_frames().unwrap().len(), 1024);
}

#[test]
fn a_worker_ends_when_its_interface_is_deleted_and_its_frames_are_recovered() {
    for idle in [Idle::Spin, Idle::Pause, Idle::Poll, Idle::Adaptive] {
        delete_under(idle, "with nothing to do", |_: &mut Frame<'_>| Verdict::Drop, false);
        delete_under(idle, "answering", reflect, true);
        delete_under(idle, "with packets queued", Flood { due: false }, false);
        delete_under(idle, "with a stage always due soon", Flood { due: true }, false);
    }
}

#[test]
fn a_burst_past_the_kernels_budget_leaves_with_nobody_else_knocking() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let mut registration = Registration::new(&near);
    let port = match bed.a.bind(&mut registration, 0, &XskConfig { tx_budget: Some(32), ..config() }) {
        Err(error) if error.errno() == Some(Errno::ENOPROTOOPT) => {
            // Before 6.17 the budget is 32 anyway.
            bed.a.bind(&mut registration, 0, &config()).unwrap()
        }
        port => port.unwrap(),
    };
    let host = Host { window: 200, ..Host::sending((0..200).map(|n| packet(n, 64))) };
    let mut a = Worker::new([port], host, near.take_frames().unwrap());
    let mut b = worker(&bed.b, &far, &config(), Host::default());
    b.turn();
    a.turn();
    assert_eq!(a.counters().originated, 200, "all in one turn");
    assert!(a.sending() >= 200 - 32, "of which a kick moves 32");
    until("the rest has left", || {
        a.turn();
        a.sending() == 0
    });
    assert!((7..=10).contains(&a.counters().kicks), "{:?}", a.counters());
    until("all arrived", || {
        b.turn();
        b.stage().seen.len() == 200
    });
    assert_eq!(b.stage().numbers(), (0..200).collect::<Vec<_>>());
}

#[test]
fn a_kick_serves_a_burst_and_an_idle_turn_makes_no_system_call() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let host = Host { window: 200, ..Host::sending((0..200).map(|n| packet(n, 64))) };
    let mut a = worker(&bed.a, &near, &config(), host);
    let mut b = worker(&bed.b, &far, &config(), reflect);
    turn_until_back(&mut a, &mut b, 200);
    if let Some(budget) = a.far()[0].xsk().granted().tx_budget {
        assert_eq!(budget, 256, "as many as the ring holds, where nothing else is asked for");
        assert!(a.counters().kicks <= 2, "200 packets in one call, or one more: {:?}", a.counters());
    }
    for _ in 0..10_000 {
        a.turn();
        b.turn();
    }
    let before = (a.counters().system_calls(), b.counters().system_calls());
    (0..100_000).for_each(|_| assert_eq!(a.turn() + b.turn(), 0));
    assert_eq!((a.counters().system_calls(), b.counters().system_calls()), before);
    for n in 200..300 {
        a.stage_mut().to_send.push_back((0, packet(n, 64)));
        turn_until_back(&mut a, &mut b, n as usize + 1);
    }
    let after = (a.counters().system_calls(), b.counters().system_calls());
    assert_eq!((after.0 - before.0, after.1 - before.1), (100, 100), "one a packet where packets are lone");
}

#[test]
fn a_stage_that_panics_on_a_real_socket_loses_no_frame() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let mut a = worker(&bed.a, &near, &config(), Host::sending((0..100).map(|n| packet(n, 100))));
    let stage = |frame: &mut Frame<'_>| {
        assert!(!is_ours(frame) || number(frame) % 10 != 3, "a stage that panics at every tenth packet");
        reflect(frame)
    };
    let mut b = worker(&bed.b, &far, &config(), stage);
    b.turn();
    let mut panics = 0;
    until("all but the packets it panicked at are back", || {
        a.turn();
        panics += u32::from(catch_unwind(AssertUnwindSafe(|| b.turn())).is_err());
        assert!(b.is_conserved());
        a.stage().seen.len() == 90 && b.sending() == 0
    });
    assert_eq!(panics, 10);
    assert!(a.stage().numbers().into_iter().eq((0..100).filter(|n| n % 10 != 3)));
    assert_eq!(b.counters().forwarded(), 90, "{:?}", b.counters());
}

#[test]
fn a_software_time_stamp_comes_back_and_a_request_the_kernel_would_wedge_on_is_refused() {
    /// Sends packets with a metadata request each, and notes what `finished` finds there.
    struct Stamped {
        requests: Vec<[u64; 3]>,
        stamps: Vec<u64>,
        refused: u32,
    }
    impl Stage for Stamped {
        fn process(&mut self, _: &mut Frame<'_>) -> Verdict {
            Verdict::Drop
        }
        fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
            for request in self.requests.drain(..) {
                let sent = out.send(0, |frame| {
                    let request = request.map(u64::to_ne_bytes).concat();
                    let head = frame.head_mut();
                    let at = head.len() - request.len();
                    head[at..].copy_from_slice(&request);
                    frame.set_tx_metadata(true);
                    frame.write(&packet(1, 100))
                });
                self.refused += u32::from(!sent);
            }
        }
        fn finished(&mut self, frame: &Frame<'_>) {
            let stamp = &frame.head()[frame.headroom() - 16..][..8];
            self.stamps.push(u64::from_ne_bytes(stamp.try_into().unwrap()));
        }
    }
    let Some(bed) = Bed::new() else { return };
    let near = umem_of(Layout::new(2048, 1024).unwrap().with_tx_metadata(24).unwrap());
    let far = umem();
    let stamped = Stamped { requests: vec![], stamps: vec![], refused: 0 };
    let mut a = worker(&bed.a, &near, &config(), stamped);
    let mut b = worker(&bed.b, &far, &config(), Host::default());
    b.turn();
    let before = common::sys::tai_ns();
    a.stage_mut().requests = vec![[XDP_TXMD_FLAGS_TIMESTAMP, 0, 0]; 20];
    until("they are finished", || {
        a.turn();
        b.turn();
        a.stage().stamps.len() == 20
    });
    let after = common::sys::tai_ns();
    assert!(a.stage().stamps.iter().all(|stamp| (before..=after).contains(stamp)), "{:?}", a.stage().stamps);
    assert!(a.stage().stamps.is_sorted());

    let checksum_past_the_end = u64::from_ne_bytes([90, 0, 9, 0, 0, 0, 0, 0]);
    a.stage_mut().requests = vec![
        [1 << 63, 0, 0],
        [XDP_TXMD_FLAGS_CHECKSUM, checksum_past_the_end, 0],
        [XDP_TXMD_FLAGS_TIMESTAMP, 0, 0],
    ];
    until("the good one is finished", || {
        a.turn();
        b.turn();
        a.stage().stamps.len() == 21
    });
    assert_eq!((a.stage().refused, a.counters().refused, a.counters().kicks_failed), (2, 2, 0));
    assert_eq!(b.stage().seen.len(), 21);
    assert!(a.is_conserved() && a.sending() == 0);
}

#[test]
fn what_arrives_with_nowhere_to_go_is_in_the_statistics() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let mut a = worker(&bed.a, &near, &config(), Host::sending((0..5).map(|n| packet(n, 100))));
    let b = worker(&bed.b, &far, &config(), Host::default()); // never turned: nothing to receive into
    until("they left", || {
        a.turn();
        a.counters().finished == 5
    });
    let statistics = b.far()[0].xsk().statistics().unwrap();
    assert_eq!(statistics.rx_dropped, 5, "{statistics:?}");
    assert!(statistics.rx_fill_ring_empty_descs >= 5, "{statistics:?}");
    assert_eq!(
        (statistics.rx_ring_full, statistics.rx_invalid_descs, statistics.tx_invalid_descs),
        (0, 0, 0)
    );
    let statistics = a.far()[0].xsk().statistics().unwrap();
    assert_eq!((statistics.rx_dropped, statistics.tx_invalid_descs), (0, 0), "{statistics:?}");
}

#[test]
fn what_was_granted_is_said_and_why_not_what_was_not() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let busy_poll = Some(BusyPoll { budget: 64, time_us: 20, prefer: true });
    let config = XskConfig { busy_poll, send_buffer: Some(4 << 20), ..config() };
    let mut a = worker(&bed.a, &near, &config, Host::sending((0..500).map(|n| packet(n, 64))));
    let mut b = worker(&bed.b, &far, &config, reflect);
    let granted = b.far()[0].xsk().granted();
    assert!(!granted.zero_copy);
    assert!(granted.send_buffer >= 4 << 20, "{granted:?}");
    assert_eq!(granted.rings, config.rings);
    match granted.busy_poll {
        Err(why) => assert!(why.contains("SO_INCOMING_NAPI_ID is 0"), "{why}"),
        Ok(id) => assert!(id > 0), // 6.12 and older, after the first packet
    }
    turn_until_back(&mut a, &mut b, 500);
    let plain = common::config();
    drop(b);
    let port = bed.b.bind(&mut Registration::new(&far), 0, &plain).unwrap();
    let why = port.far.xsk().granted().busy_poll.unwrap_err();
    assert!(why.starts_with("not asked for") && why.contains("NAPI"), "{why}");
}

#[test]
fn sockets_that_only_send_need_no_program() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let port = bed.a.bind(&mut Registration::new(&near).send_only(), 0, &config()).unwrap();
    let host = Host::sending((0..120).map(|n| packet(n, 200)));
    let mut a = Worker::new([port], host, near.take_frames().unwrap());
    let mut b = worker(&bed.b, &far, &config(), Host::default());
    assert!(!bed.a.carries_program());
    b.turn();
    until("all arrived", || {
        a.turn();
        b.turn();
        b.stage().seen.len() == 120 && a.sending() == 0
    });
    assert_eq!(b.stage().numbers(), (0..120).collect::<Vec<_>>());
}

#[test]
fn what_no_rule_matches_stays_with_the_hosts_own_stack() {
    const A: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
    for mode in [Mode::Native, Mode::Skb] {
        let Some(bed) = Bed::new() else { return };
        bed.a.on(|a| a.add_address(A.into(), 24).unwrap());
        bed.b.on(|b| b.add_address(B.into(), 24).unwrap());
        let socket = |side: &Side, ip, port| {
            let socket = side.namespace.run(|| UdpSocket::bind((ip, port)).unwrap()).unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket
        };
        let from = socket(&bed.a, A, 0);
        let (matched, other) = (socket(&bed.b, B, 7777), socket(&bed.b, B, 7778));
        let umem = umem();
        let mut registration = Registration::new(&umem).mode(mode).rules("udp port 7777".parse().unwrap());
        let port = bed.b.bind(&mut registration, 0, &config()).unwrap();
        let mut payloads = vec![];
        let stage = |frame: &mut Frame<'_>| {
            payloads.push(frame[42..].to_vec());
            Verdict::Drop
        };
        let mut worker = Worker::new([port], stage, umem.take_frames().unwrap());
        worker.turn();
        let mut room = [0; 100];
        for n in 0..50u8 {
            from.send_to(&[n; 20], (B, 7777)).unwrap();
            from.send_to(&[n; 30], (B, 7778)).unwrap();
            let (len, sender) = other.recv_from(&mut room).unwrap();
            assert_eq!((&room[..len], sender), (&[n; 30][..], from.local_addr().unwrap()), "{mode}");
        }
        until("the matched ones are ours", || {
            worker.turn();
            worker.counters().received >= 50
        });
        assert!(worker.is_conserved());
        drop((worker, registration));
        assert!(
            payloads.iter().map(Vec::as_slice).eq((0..50u8).map(|n| [n; 20]).collect::<Vec<_>>()),
            "{mode}"
        );
        matched.set_nonblocking(true).unwrap();
        assert_eq!(
            matched.recv(&mut room).unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "none reached the stack"
        );
        matched.set_nonblocking(false).unwrap();
        from.send_to(&[99; 20], (B, 7777)).unwrap();
        assert_eq!(matched.recv(&mut room).unwrap(), 20, "the stack has it all again once the port is gone");
    }
}
