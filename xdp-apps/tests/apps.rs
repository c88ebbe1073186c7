//! The program at work: hosts in namespaces, veth pairs between them, real sockets. Skipped, and said so, without privileges.

mod common;

use common::{Ended, Host, Running, alone_and_privileged, has_two_cores, run, wire};
use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use serde_json::Value;
use std::hash::DefaultHasher;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;
use xdp_apps::results::SCHEMA;
use xdp_core::netdev::{Interface, ethtool, icmp};
use xdp_core::{
    Clock, Frame, Layout, Outbox, RegionOptions, Registration, Stage, Transmit, Umem, Verdict, Worker,
    XskConfig, cpu, ticks,
};

const MTU: u32 = 1500;

fn mac(interface: &Interface) -> String {
    interface.mac.unwrap().to_string()
}

/// The rows of a document, which is checked against the schema.
fn rows(ended: &Ended) -> Vec<Value> {
    let document: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    fits(&schema, &schema, &document, "document").unwrap();
    document["rows"].as_array().unwrap().clone()
}

/// Whether a value is what a schema describes, as far as our schema's words go.
fn fits(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        return fits(root, &root["$defs"][name.rsplit('/').next().unwrap()], value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|choice| fits(root, choice, value, at).is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{at}: fits {fitting} choices: {value}")) };
    }
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("a type our schema does not have: {other}"),
    };
    match &schema["type"] {
        Value::Null => (),
        Value::Array(kinds) if kinds.iter().any(is) => (),
        kind @ Value::String(_) if is(kind) => (),
        kind => return Err(format!("{at}: not {kind}: {value}")),
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{at}: {value}"));
    }
    if schema["enum"].as_array().is_some_and(|some| !some.contains(value)) {
        return Err(format!("{at}: {value}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            return Err(format!("{at}: no {name}"));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => fits(root, schema, value, &format!("{at}.{name}"))?,
            None if schema["additionalProperties"] == false => return Err(format!("{at}: has {name}")),
            None => (),
        }
    }
    for value in value.as_array().into_iter().flatten() {
        fits(root, &schema["items"], value, &format!("{at}[]"))?;
    }
    Ok(())
}

fn sum(rows: &[Value], word: &str) -> u64 {
    rows.iter().map(|row| row[word].as_u64().unwrap_or_else(|| panic!("no {word} in {row}"))).sum()
}

fn all_conserved(rows: &[Value]) -> bool {
    rows.iter().all(|row| row["workers"].as_array().unwrap().iter().all(|worker| worker["conserved"] == true))
}

/// Pings and reflects over `queues` queues; `rate` in packets a second.
fn ping_against_reflect(mode: &str, queues: u32, count: &str, rate: &str) {
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, queues, MTU);
    let all = format!("0-{}", queues - 1);
    // One core an end: where an end has two workers, they take turns on it.
    let cores = cpu::allowed().unwrap();
    let (first, last) = (cores[0].to_string(), cores[cores.len() - 1].to_string());
    let far = &wire.far.name;
    let reflect = Running::start(&[
        "reflect",
        "--netns",
        b.name(),
        "--iface",
        far,
        "--queues",
        &all,
        "--mode",
        mode,
        "--cpu",
        &last,
        "--json",
    ]);
    let ping = run(&[
        "ping",
        "--netns",
        a.name(),
        "--iface",
        &wire.near.name,
        "--queues",
        &all,
        "--mode",
        mode,
        "--cpu",
        &first,
        "--dst-mac",
        &mac(&wire.far),
        "--count",
        count,
        "--rate",
        rate,
        "--json",
    ]);
    assert_eq!(ping.code, Some(0), "{ping:?}");
    let reflect = reflect.interrupt();
    assert_eq!(reflect.code, Some(130), "{reflect:?}");
    let (ping, reflect) = (rows(&ping), rows(&reflect));
    assert_eq!((ping.len(), reflect.len()), (queues as usize, queues as usize));
    let count = count.parse().unwrap();
    assert_eq!((sum(&ping, "sent"), sum(&ping, "received")), (count, count));
    for word in ["lost", "duplicated", "reordered", "damaged", "samples_lost"] {
        assert_eq!(sum(&ping, word), 0, "{word}");
    }
    // Those to warm up come beside the others, and whatever the hosts say to each other.
    assert!(
        sum(&reflect, "received") >= count + 1000
            && reflect.iter().all(|row| row["received"].as_u64() > Some(0))
    );
    assert!(all_conserved(&ping) && all_conserved(&reflect));
    assert_eq!(ping[0]["mode"], mode);
    assert!(!a.has_program(&wire.near) && !b.has_program(&wire.far));
}

#[test]
fn every_probe_comes_back_once_from_another_process() {
    let Some(_alone) = alone_and_privileged() else { return };
    if has_two_cores() {
        ping_against_reflect("native", 1, "20000", "40000");
        ping_against_reflect("skb", 1, "5000", "10000");
    }
}

#[test]
fn two_queues_have_two_workers_and_lose_nothing() {
    let Some(_alone) = alone_and_privileged() else { return };
    if has_two_cores() {
        ping_against_reflect("native", 2, "20000", "40000");
    }
}

#[test]
fn a_reflector_that_is_not_there_makes_every_probe_a_loss_and_the_exit_code_says_so() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 1, MTU);
    let ended = run(&[
        "ping",
        "--netns",
        a.name(),
        "--iface",
        &wire.near.name,
        "--dst-mac",
        &mac(&wire.far),
        "--count",
        "10",
        "--warm-up",
        "0",
        "--json",
    ]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let rows = rows(&ended);
    assert_eq!((sum(&rows, "sent"), sum(&rows, "received"), sum(&rows, "lost")), (10, 0, 10));
    assert!(rows[0]["rtt_us"].is_null());
}

#[test]
fn what_one_host_generates_another_drops_and_both_count_alike() {
    let Some(_alone) = alone_and_privileged() else { return };
    if !has_two_cores() {
        return;
    }
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 1, MTU);
    let drop = Running::start(&[
        "drop",
        "--netns",
        b.name(),
        "--iface",
        &wire.far.name,
        "--match",
        "udp port 7777",
        "--count",
        "50000",
        "--duration",
        "20s",
        "--ring-size",
        "65536",
        "--json",
    ]);
    let generate = run(&[
        "generate",
        "--netns",
        a.name(),
        "--iface",
        &wire.near.name,
        "--dst-mac",
        &mac(&wire.far),
        "--port",
        "7777",
        "--count",
        "50k",
        "--rate",
        "50k",
        "--packet-size",
        "100",
        "--json",
    ]);
    assert_eq!(generate.code, Some(0), "{generate:?}");
    let drop = drop.wait(Duration::from_secs(25));
    assert_eq!(drop.code, Some(0), "{drop:?}");
    let (generate, drop) = (rows(&generate), rows(&drop));
    assert_eq!((sum(&generate, "sent"), sum(&drop, "received")), (50_000, 50_000));
    assert_eq!(sum(&drop, "bytes"), 5_000_000);
    assert!(generate[0]["mode"].is_null(), "it has no program");
    assert!(all_conserved(&generate) && all_conserved(&drop));
}

#[test]
fn an_interrupt_takes_the_program_off_and_a_kill_leaves_none_either() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 1, MTU);
    let arguments = ["reflect", "--netns", b.name(), "--iface", &wire.far.name];
    for signal in ["INT", "TERM", "HUP"] {
        let reflect = Running::start(&arguments);
        assert!(b.has_program(&wire.far));
        reflect.signal(signal);
        let ended = reflect.wait(Duration::from_secs(10));
        assert_eq!(ended.code, Some(130), "{ended:?}");
        assert!(ended.stdout.contains("every frame accounted for"), "{ended:?}");
        assert!(!b.has_program(&wire.far));
    }
    let mut reflect = Running::start(&arguments);
    assert!(b.has_program(&wire.far));
    assert_eq!(reflect.kill().code, None);
    // The kernel closes a killed process's descriptors; what hangs on them may go a moment later.
    let deadline = Instant::now() + Duration::from_secs(5);
    while b.has_program(&wire.far) {
        assert!(Instant::now() < deadline, "a program stayed behind");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_pinger_interrupted_waits_for_what_is_on_its_way_unless_interrupted_again() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 1, MTU);
    let address = mac(&wire.far);
    let arguments = [
        "ping",
        "--netns",
        a.name(),
        "--iface",
        &wire.near.name,
        "--dst-mac",
        &address,
        "--warm-up",
        "0",
        "--json",
    ];
    let ping = Running::start(&arguments);
    thread::sleep(Duration::from_millis(50));
    let ended = ping.interrupt();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let rows = rows(&ended);
    assert!(sum(&rows, "sent") > 0);
    assert_eq!(sum(&rows, "sent"), sum(&rows, "lost"), "nobody answers");

    let ping = Running::start(&arguments);
    thread::sleep(Duration::from_millis(50));
    ping.signal("INT");
    thread::sleep(Duration::from_millis(100)); // two that are pending are one
    let ended = ping.interrupt();
    assert_eq!((ended.code, &ended.stdout[..]), (Some(130), ""), "{ended:?}");
    assert!(!a.has_program(&wire.near));
}

#[test]
fn an_interface_removed_in_mid_run_ends_it_with_a_word() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (a, b) = (Host::new(), Host::new());
    let wire = wire(&a, &b, 1, MTU);
    let reflect =
        Running::start(&["reflect", "--netns", b.name(), "--iface", &wire.far.name, "--idle", "poll"]);
    b.run(|| wire.far.delete()).unwrap();
    let ended = reflect.wait(Duration::from_secs(10));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.why().contains("the interface is gone"), "{ended:?}");
}

/// Sends numbered packets on a schedule, but for those that would overrun a receiver kept from its core.
struct Source<'a> {
    next: u64,
    count: u64,
    stream: u8,
    interval: u64,
    start: u64,
    arrived: &'a AtomicU64,
}

/// Packets on their way at once: no ring has fewer entries.
const WINDOW: u64 = 1024;

const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
const LEN: usize = 200;

/// Packet `number` of a stream: each byte follows from both.
fn packet(stream: u8, number: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..14].copy_from_slice(&HEADER);
    bytes[14] = stream;
    bytes[16..24].copy_from_slice(&number.to_be_bytes());
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(stream);
    for chunk in bytes[24..].chunks_mut(8) {
        state = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    bytes
}

impl Stage for Source<'_> {
    fn process(&mut self, _: &mut Frame<'_>) -> Verdict {
        Verdict::Drop
    }

    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        if self.start == 0 {
            self.start = ticks();
        }
        let end = self.count.min(self.arrived.load(Relaxed) + WINDOW);
        while self.next < end && ticks().wrapping_sub(self.start) >= self.next * self.interval {
            if !out.copy(0, &packet(self.stream, self.next)) {
                break;
            }
            self.next += 1;
        }
    }
}

/// Expects numbered packets, whole and in their order.
struct Checker<'a> {
    stream: u8,
    next: u64,
    wrong: u64,
    arrived: &'a AtomicU64,
}

impl Stage for Checker<'_> {
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        let bytes: &[u8] = frame;
        if bytes.get(12..14) == Some(&HEADER[12..]) {
            self.wrong += u64::from(bytes != packet(self.stream, self.next));
            self.next += 1;
            self.arrived.store(self.next, Relaxed);
        }
        Verdict::Drop
    }
}

/// Packets through `forward` from one host to another, over `queues` queues with a worker each, compared byte by byte. How many:
/// `XDP_TEST_PACKETS`, at 100,000 a second.
fn forwards_intact_and_in_order(queues: u32) {
    let count: u64 = std::env::var("XDP_TEST_PACKETS").map_or(30_000, |count| count.parse().unwrap());
    let (x, f, y) = (Host::new(), Host::new(), Host::new());
    let (left, right) = (wire(&x, &f, queues, MTU), wire(&f, &y, queues, MTU));
    let cores = cpu::allowed().unwrap();
    let all = format!("0-{}", queues - 1);
    let forward = Running::start(&[
        "forward",
        "--netns",
        f.name(),
        "--iface",
        &left.far.name,
        "--iface",
        &right.near.name,
        "--queues",
        &all,
        "--cpu",
        &cores[cores.len() - 1].to_string(),
        "--json",
    ]);

    // Both ends in one thread: the forwarder has the other core.
    let layout = Layout::new(2048, 16_384).unwrap();
    let memories = [0; 2].map(|_| Umem::new(layout, &RegionOptions::default()).unwrap());
    let [from, to] = &memories;
    let bind = |host: &Host, umem, interface: &Interface| {
        host.run(|| {
            let mut registration = Registration::new(umem);
            let bind = |queue| registration.bind(&interface.name, queue, &XskConfig::default()).unwrap();
            (0..queues).map(bind).collect::<Vec<_>>()
        })
    };
    let clock = Clock::calibrated();
    let each = count / u64::from(queues);
    let interval = clock.to_ticks(10_000 * u64::from(queues));
    let (sending, receiving) = (bind(&x, from, &left.near), bind(&y, to, &right.far));
    let arrived = [const { AtomicU64::new(0) }; 2];
    let mut sources: Vec<_> = sending
        .into_iter()
        .zip(from.take_frames().unwrap().split(queues as usize))
        .zip(&arrived)
        .zip(0..)
        .map(|(((port, frames), arrived), stream)| {
            let source = Source { next: 0, count: each, stream, interval, start: 0, arrived };
            Worker::new([port], source, frames)
        })
        .collect();
    let mut checkers: Vec<_> = receiving
        .into_iter()
        .zip(to.take_frames().unwrap().split(queues as usize))
        .zip(&arrived)
        .zip(0..)
        .map(|(((port, frames), arrived), stream)| {
            Worker::new([port], Checker { stream, next: 0, wrong: 0, arrived }, frames)
        })
        .collect();
    cpu::pin(cores[0]).unwrap();
    for checker in &mut checkers {
        checker.turn(); // lends frames, before there is anything to receive
    }
    let deadline = Instant::now() + Duration::from_micros(count * 10) + Duration::from_secs(5);
    while checkers.iter().any(|checker| checker.stage().next < each) && Instant::now() < deadline {
        for _ in 0..64 {
            sources.iter_mut().for_each(|source| {
                source.turn();
            });
            checkers.iter_mut().for_each(|checker| {
                checker.turn();
            });
        }
    }
    for (source, checker) in sources.iter().zip(&checkers) {
        assert_eq!(source.stage().next, each, "{:?}", source.counters());
        let stage = checker.stage();
        assert_eq!((stage.next, stage.wrong), (each, 0), "{:?}", checker.far()[0].xsk().statistics());
        assert!(source.is_conserved() && checker.is_conserved());
    }
    let forward = forward.interrupt();
    assert_eq!(forward.code, Some(130), "{forward:?}");
    let rows = rows(&forward);
    assert_eq!(rows.len(), queues as usize);
    assert!(
        rows.iter().all(|row| row["sent"].as_u64() >= Some(each)),
        "a worker had nothing to do: {rows:?}"
    );
    assert!(all_conserved(&rows));
    println!("{count} packets intact and in order over {queues} queue(s)");
}

#[test]
fn what_is_forwarded_between_two_interfaces_is_whole_and_in_order() {
    let Some(_alone) = alone_and_privileged() else { return };
    if has_two_cores() {
        // A thread of its own, which is pinned.
        thread::spawn(|| forwards_intact_and_in_order(1)).join().unwrap();
    }
}

#[test]
fn two_workers_forward_two_queues_each_in_its_order() {
    let Some(_alone) = alone_and_privileged() else { return };
    if has_two_cores() {
        thread::spawn(|| forwards_intact_and_in_order(2)).join().unwrap();
    }
}

/// Sends `len` bytes from one host to another by TCP. The digests on both sides, and how long it took.
fn transfer(from: &Host, to: &Host, address: Ipv4Addr, len: usize) -> (u64, u64, Duration) {
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(20));
    let start = Instant::now();
    let (listening, port) = mpsc::channel();
    let (received, sent) = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            to.run(move || {
                let listener = TcpListener::bind((address, 0)).unwrap();
                listening.send(listener.local_addr().unwrap().port()).unwrap();
                let mut stream = listener.accept().unwrap().0;
                stream.set_read_timeout(TIMEOUT).unwrap();
                let (mut digest, mut buffer) = (DefaultHasher::new(), vec![0; 1 << 16]);
                loop {
                    match stream.read(&mut buffer).unwrap() {
                        0 => return digest.finish(),
                        read => digest.write(&buffer[..read]),
                    }
                }
            })
        });
        let sender = scope.spawn(|| {
            from.run(move || {
                let mut stream = TcpStream::connect((address, port.recv().unwrap())).unwrap();
                stream.set_write_timeout(TIMEOUT).unwrap();
                let (mut digest, mut left, mut state) = (DefaultHasher::new(), len, 1_u64);
                let mut buffer = vec![0_u8; 1 << 16];
                while left > 0 {
                    for chunk in buffer.chunks_exact_mut(8) {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        chunk.copy_from_slice(&state.to_le_bytes());
                    }
                    let part = &buffer[..left.min(buffer.len())];
                    // The receiver's digest is of the stream, in whatever pieces: so is this one.
                    digest.write(part);
                    stream.write_all(part).unwrap();
                    left -= part.len();
                }
                stream.shutdown(Shutdown::Write).unwrap();
                let _ = stream.read(&mut [0]);
                digest.finish()
            })
        });
        (receiver.join().unwrap(), sender.join().unwrap())
    });
    (sent, received, start.elapsed())
}

/// Two kernel stacks whose only way to each other is our forwarder: echoes, and 100 MB by TCP.
fn carries_kernel_stacks(mode: &str) {
    const LEN: usize = 100_000_000;
    let (x, f, y) = (Host::new(), Host::new(), Host::new());
    let (left, right) = (wire(&x, &f, 1, MTU), wire(&f, &y, 1, MTU));
    let (here, there) = (Ipv4Addr::new(198, 18, 7, 1), Ipv4Addr::new(198, 18, 7, 2));
    for (host, interface, ip) in [(&x, &left.near, here), (&y, &right.far, there)] {
        host.run(|| {
            interface.add_address(IpAddr::V4(ip), 24).unwrap();
            if mode == "skb" {
                // Aggregates are longer than a chunk. In native mode a veth gives this up by itself.
                interface.set_features(ethtool::TSO, false).unwrap();
            }
        });
    }
    let forward = Running::start(&[
        "forward",
        "--netns",
        f.name(),
        "--iface",
        &left.far.name,
        "--iface",
        &right.near.name,
        "--mode",
        mode,
        "--json",
    ]);
    let echoes = x.run(|| icmp::ping(there, 100, Duration::from_millis(2), Duration::from_secs(2))).unwrap();
    assert!(echoes.iter().all(Option::is_some), "{echoes:?}");
    let (sent, received, time) = transfer(&x, &y, there, LEN);
    assert_eq!(sent, received, "the digests differ");
    let forward = forward.interrupt();
    assert_eq!(forward.code, Some(130), "{forward:?}");
    let rows = rows(&forward);
    assert!(sum(&rows, "checksums_finished") > 0, "veth senders leave checksums unfinished");
    assert!(sum(&rows, "sent") as usize > LEN / 1500 && all_conserved(&rows));
    println!(
        "{mode}: 100 echoes, {LEN} bytes by TCP in {time:?}, {} checksums finished",
        sum(&rows, "checksums_finished")
    );
}

#[test]
fn kernel_stacks_reach_each_other_through_the_forwarder_in_native_mode() {
    let Some(_alone) = alone_and_privileged() else { return };
    carries_kernel_stacks("native");
}

#[test]
fn kernel_stacks_reach_each_other_through_the_forwarder_in_skb_mode() {
    let Some(_alone) = alone_and_privileged() else { return };
    carries_kernel_stacks("skb");
}

#[test]
fn in_skb_mode_aggregates_longer_than_a_chunk_are_dropped_and_counted() {
    let Some(_alone) = alone_and_privileged() else { return };
    let (x, f, y) = (Host::new(), Host::new(), Host::new());
    let (left, right) = (wire(&x, &f, 1, MTU), wire(&f, &y, 1, MTU));
    let (here, there) = (Ipv4Addr::new(198, 18, 8, 1), Ipv4Addr::new(198, 18, 8, 2));
    x.run(|| left.near.add_address(IpAddr::V4(here), 24)).unwrap();
    y.run(|| right.far.add_address(IpAddr::V4(there), 24)).unwrap();
    let forward = Running::start(&[
        "forward",
        "--netns",
        f.name(),
        "--iface",
        &left.far.name,
        "--iface",
        &right.near.name,
        "--mode",
        "skb",
        "--json",
    ]);
    // Enough to make aggregates of; the receiver never reads, for what arrives is not the point.
    let listener = y.run(|| TcpListener::bind((there, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let mut stream = x.run(|| TcpStream::connect((there, port)).unwrap());
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = stream.write_all(&[7; 1 << 20]);
    let rows = rows(&forward.interrupt());
    let socket = &rows[0]["workers"][0]["sockets"][0];
    assert!(socket["rx_dropped"].as_u64() > Some(0), "{socket}");
}
