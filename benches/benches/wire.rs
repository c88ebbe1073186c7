//! Headers in place: what a stage pays per packet. The bytes are in the nearest cache.

use core::hint::black_box;
use core::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use xdp_core::wire::{
    EchoTemplate, EtherType, Ethernet, Finished, Ipv4, Pattern, Probe, Protocol, Sum, Udp, UdpTemplate,
    finish_checksum, icmp, probe,
};

/// A packet the optimizer knows nothing about.
fn udp_packet(packet_size: usize) -> Vec<u8> {
    let mut packet = vec![0; packet_size];
    UdpTemplate { packet_size, ..UdpTemplate::default() }.write(&mut packet).expect("a size there is");
    black_box(packet)
}

/// The port a packet is for, through three headers.
fn destination_port(packet: &[u8]) -> Option<u16> {
    let ethernet = Ethernet::view(packet)?;
    if ethernet.ether_type() != EtherType::IPV4 {
        return None;
    }
    let ipv4 = Ipv4::view(ethernet.payload())?;
    if ipv4.protocol() != Protocol::UDP || ipv4.is_fragment() {
        return None;
    }
    Some(Udp::view(ipv4.payload())?.destination_port())
}

/// Sends a UDP packet back.
fn reflect(packet: &mut [u8]) -> Option<()> {
    let mut ethernet = Ethernet::parse(packet)?;
    if ethernet.ether_type() != EtherType::IPV4 {
        return None;
    }
    ethernet.swap_addresses();
    let mut ipv4 = Ipv4::parse(ethernet.payload_mut())?;
    ipv4.swap_addresses();
    Udp::parse(ipv4.payload_mut())?.swap_ports();
    Some(())
}

fn headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    let mut packet = udp_packet(64);

    group.bench_function("parse/eth-ipv4-udp", |b| {
        b.iter(|| destination_port(black_box(&packet)).expect("a UDP packet"));
    });
    group.bench_function("swap/mac", |b| {
        b.iter(|| Ethernet::parse(black_box(&mut packet)).expect("an Ethernet frame").swap_addresses());
    });
    group.bench_function("reflect/udp", |b| {
        b.iter(|| reflect(black_box(&mut packet)).expect("a UDP packet"));
    });
    group.bench_function("set_ttl/ipv4", |b| {
        let mut ttl = 0_u8;
        b.iter(|| {
            ttl = ttl.wrapping_add(1);
            Ipv4::parse(black_box(&mut packet[14..])).expect("an IPv4 packet").set_ttl(ttl);
        });
    });
    // A frame from the pool: the template copied, then the probe written, with and without reading what it replaces.
    let template: [u8; 64] = {
        let mut template = [0; 64];
        let zeros = UdpTemplate { pattern: Pattern::Byte(0), ..UdpTemplate::default() };
        zeros.write(&mut template).expect("a size there is");
        black_box(template)
    };
    let mut frame = [0; 64];
    let mut next = Probe { session: 1, sequence: 0, ticks: 0 };
    let mut probe = || {
        next = Probe { sequence: next.sequence.wrapping_add(1), ticks: next.ticks + 77, ..next };
        next.to_bytes()
    };
    group.bench_function("copy/template", |b| b.iter(|| *black_box(&mut frame) = template));
    group.bench_function("copy-overwrite/probe", |b| {
        b.iter(|| {
            let frame = black_box(&mut frame);
            *frame = template;
            assert!(Udp::parse(&mut frame[34..]).expect("a UDP packet").overwrite(0, &probe()));
        });
    });
    group.bench_function("copy-replace/probe", |b| {
        b.iter(|| {
            let frame = black_box(&mut frame);
            *frame = template;
            assert!(Udp::parse(&mut frame[34..]).expect("a UDP packet").replace(
                0,
                &[0; probe::LEN],
                &probe()
            ));
        });
    });

    let mut ping = vec![0; 98];
    EchoTemplate::default().write(&mut ping).expect("a size there is");
    group.bench_function("answer/ping", |b| {
        b.iter(|| {
            // Back to a ping by hand, so that every round answers one.
            ping[34] = icmp::ECHO_REQUEST;
            assert!(icmp::answer(black_box(&mut ping)));
        });
    });
    group.finish();
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    for size in [20, 64, 256, 1500] {
        let bytes = black_box(vec![0x5a; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("checksum", format!("bytes={size}")), &bytes, |b, bytes| {
            b.iter(|| Sum::of(black_box(bytes)).checksum());
        });
    }
    for size in [64, 1514] {
        let mut packet = udp_packet(size);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("finish_checksum/finished={size}"), |b| {
            b.iter(|| assert_eq!(finish_checksum(black_box(&mut packet)), Finished::NotNeeded));
        });
        let ipv4 = Ipv4::view(&packet[14..]).expect("an IPv4 packet");
        let unfinished = ipv4.pseudo().sum(Protocol::UDP, ipv4.payload().len() as u16).fold().to_be_bytes();
        group.bench_function(format!("finish_checksum/unfinished={size}"), |b| {
            b.iter(|| {
                packet[40..42].copy_from_slice(&unfinished);
                assert_eq!(finish_checksum(black_box(&mut packet)), Finished::Done);
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    headers(&mut criterion);
    checksums(&mut criterion);
    criterion.final_summary();
}
