//! Hostile packets: no view of a header panics or leads out of the packet, what is changed in place verifies where it
//! did before, and what a template writes reads back.

#![no_main]

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use xdp_core::wire::{
    Arp, Ethernet, Finished, Icmp, Icmpv6, Ipv4, Ipv6, Mac, Pattern, Probe, Protocol, Pseudo, Sum, Tag, Tcp,
    Transport, Udp, UdpTemplate, Vlan, arp, finish_checksum, icmp, vlan,
};

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    sum(bytes);
    answer_ping(bytes);
    answer_arp(bytes);
    finish(bytes);
    tag(bytes);
    change(bytes);
    let _ = template(&mut Unstructured::new(bytes)); // too few bytes for one: the end of this input
});

fn transport(packet: &[u8]) -> Option<Transport<&[u8]>> {
    Ethernet::view(packet)?.into_network()?.into_transport()
}

/// Whether an IPv4 header, if there is one, and what is inside verify, as far as can be told.
fn verify(packet: &[u8]) -> (Option<bool>, Option<bool>) {
    let ipv4 = Ethernet::view(packet)
        .and_then(Ethernet::into_network)
        .and_then(|network| Ipv4::view(network.payload));
    let inside = transport(packet);
    (ipv4.map(|ipv4| ipv4.is_checksum_valid()), inside.and_then(|inside| inside.is_checksum_valid()))
}

fn inside(payload: &[u8], bytes: &[u8]) {
    assert!(bytes.as_ptr_range().start <= payload.as_ptr_range().start);
    assert!(payload.as_ptr_range().end <= bytes.as_ptr_range().end);
}

/// Every header anywhere, whatever the bytes are meant to be. (A view's `Debug` shows its bytes: all are touched.)
fn read(bytes: &[u8]) {
    let pseudo = transport(bytes).map_or(Pseudo::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()), |inner| {
        inside(inner.payload, bytes);
        inner.pseudo
    });
    for at in [0, 14, 18, 22, 34] {
        let Some(bytes) = bytes.get(at..) else { break };
        if let Some(ethernet) = Ethernet::view(bytes) {
            let _ = (ethernet.destination().is_multicast(), ethernet.source().is_local());
            if let Some(network) = ethernet.network() {
                inside(network.payload, bytes);
            }
        }
        if let Some(vlan) = Vlan::view(bytes) {
            assert_eq!(vlan.control() & 0xfff, vlan.id());
            inside(vlan.payload(), bytes);
        }
        if let Some(arp) = Arp::view(bytes) {
            let _ = (arp.operation(), arp.sender_mac(), arp.sender(), arp.target_mac(), arp.target());
        }
        if let Some(ipv4) = Ipv4::view(bytes) {
            assert_eq!(ipv4.header_len() + ipv4.payload().len(), ipv4.total_len().into());
            let _ = (
                ipv4.is_checksum_valid(),
                ipv4.fragment_offset(),
                ipv4.dont_fragment(),
                ipv4.traffic_class(),
            );
            inside(ipv4.options(), bytes);
            inside(ipv4.payload(), bytes);
        }
        if let Some(ipv6) = Ipv6::view(bytes) {
            assert_eq!(ipv6.payload().len(), ipv6.payload_len().into());
            let _ = (ipv6.flow_label(), ipv6.traffic_class(), ipv6.hop_limit());
            if let Some(upper) = ipv6.upper() {
                inside(upper.payload, bytes);
            }
        }
        if let Some(udp) = Udp::view(bytes) {
            assert_eq!(udp.payload().len() + 8, udp.len().into());
            let _ = (udp.source_port(), udp.destination_port(), udp.is_checksum_valid(pseudo));
            inside(udp.payload(), bytes);
            if let Some(probe) = Probe::read(udp.payload()) {
                assert_eq!(probe.to_bytes(), udp.payload()[..18]);
            }
        }
        if let Some(tcp) = Tcp::view(bytes) {
            let _ = (
                tcp.sequence(),
                tcp.acknowledgement(),
                tcp.flags(),
                tcp.window(),
                tcp.is_checksum_valid(pseudo),
            );
            inside(tcp.options(), bytes);
            inside(tcp.payload(), bytes);
        }
        if let Some(icmp) = Icmp::view(bytes) {
            let _ = (icmp.kind(), icmp.code(), icmp.identifier(), icmp.sequence(), icmp.is_checksum_valid());
            inside(icmp.payload(), bytes);
        }
        if let Some(icmp) = Icmpv6::view(bytes) {
            let _ = icmp.is_checksum_valid(pseudo);
            inside(icmp.payload(), bytes);
        }
    }
}

/// The fast sum is the slow one.
fn sum(bytes: &[u8]) {
    let mut slow = 0_u64;
    for pair in bytes.chunks(2) {
        slow += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while slow > 0xffff {
        slow = (slow & 0xffff) + (slow >> 16);
    }
    assert_eq!(u64::from(Sum::of(bytes).fold()), slow);
}

/// An answer verifies exactly if the ping did; whatever is no ping stays as it was.
fn answer_ping(bytes: &[u8]) {
    let mut packet = bytes.to_vec();
    if !icmp::answer(&mut packet) {
        return assert_eq!(packet, bytes);
    }
    assert_eq!(verify(&packet), verify(bytes));
    let (ping, answer) =
        (Ethernet::view(bytes).expect("a ping"), Ethernet::view(&packet).expect("an answer"));
    assert_eq!((answer.destination(), answer.source()), (ping.source(), ping.destination()));
    assert!(!icmp::answer(&mut packet), "an answer is no ping");
}

fn answer_arp(bytes: &[u8]) {
    let (mac, mut packet) = (Mac([2, 0, 0, 0, 0, 9]), bytes.to_vec());
    let network = Ethernet::view(bytes).and_then(Ethernet::into_network);
    let Some(asked) = network.and_then(|network| Arp::view(network.payload)) else {
        return assert!(!arp::answer(&mut packet, Ipv4Addr::UNSPECIFIED, mac));
    };
    if arp::answer(&mut packet, asked.target(), mac) {
        let ethernet = Ethernet::view(&packet).expect("an answer");
        let answer = Arp::view(ethernet.network().expect("an answer").payload).expect("an answer");
        assert_eq!((answer.sender(), answer.sender_mac()), (asked.target(), mac));
        assert_eq!((answer.target(), answer.target_mac()), (asked.sender(), asked.sender_mac()));
        assert_eq!((ethernet.destination(), ethernet.source()), (asked.sender_mac(), mac));
    } else {
        assert_eq!(packet, bytes);
    }
}

/// Finishing makes a packet verify, or leaves it alone; a second time changes nothing.
fn finish(bytes: &[u8]) {
    let mut packet = bytes.to_vec();
    match finish_checksum(&mut packet) {
        Finished::Done => assert_eq!(verify(&packet).1, Some(true)),
        Finished::NotNeeded | Finished::NotApplicable => assert_eq!(packet, bytes),
    }
    let once = packet.clone();
    assert_ne!(finish_checksum(&mut packet), Finished::Done);
    assert_eq!(packet, once);
}

/// A tag pushed comes off; one popped goes on again.
fn tag(bytes: &[u8]) {
    let mut grown = [&[0; vlan::LEN], bytes].concat();
    if vlan::push(&mut grown, Tag::new(77)) {
        assert_eq!(vlan::pop(&mut grown), Some(Tag::new(77)));
    }
    assert_eq!(&grown[vlan::LEN..], bytes);
    let mut packet = bytes.to_vec();
    if let Some(tag) = vlan::pop(&mut packet) {
        assert!(vlan::push(&mut packet, tag));
    }
    assert_eq!(packet, bytes);
}

/// Whatever verifies still does after every change that keeps checksums.
fn change(bytes: &[u8]) {
    let mut packet = bytes.to_vec();
    let before = verify(bytes);
    let Some(network) = Ethernet::parse(&mut packet).and_then(Ethernet::into_network) else { return };
    let fragment = Ipv4::view(&*network.payload).is_some_and(|ipv4| ipv4.is_fragment());
    if let Some(mut ipv4) = Ipv4::parse(network.payload) {
        let delta =
            ipv4.set_source([192, 0, 2, 7].into()).and(ipv4.set_destination([198, 51, 100, 200].into()));
        ipv4.set_ttl(9);
        ipv4.set_traffic_class(0xb8);
        ipv4.decrement_ttl();
        ipv4.swap_addresses();
        let protocol = ipv4.protocol();
        if protocol == Protocol::UDP && !fragment {
            if let Some(mut udp) = Udp::parse(ipv4.payload_mut()) {
                udp.apply(delta);
                udp.set_source_port(1);
                udp.swap_ports();
                udp.overwrite(1, &[9; 7]);
                udp.overwrite(2, &[0xff; 11]);
            }
        } else if protocol == Protocol::TCP && !fragment {
            if let Some(mut tcp) = Tcp::parse(ipv4.payload_mut()) {
                tcp.apply(delta);
                tcp.set_destination_port(0xffff);
                tcp.swap_ports();
            }
        }
    } else if let Some(mut ipv6) = Ethernet::parse(&mut packet)
        .and_then(Ethernet::into_network)
        .and_then(|network| Ipv6::parse(network.payload))
    {
        let delta = ipv6.set_source(Ipv6Addr::LOCALHOST).and(ipv6.set_destination(Ipv6Addr::UNSPECIFIED));
        ipv6.swap_addresses();
        ipv6.decrement_hop_limit();
        ipv6.set_traffic_class(1);
        let Some(upper) = ipv6.upper_mut() else { return };
        if upper.protocol == Protocol::ICMPV6 && !upper.fragment && !upper.routed {
            if let Some(mut icmp) = Icmpv6::parse(upper.payload) {
                icmp.apply(delta);
            }
        } else {
            return; // others were not told of the new addresses
        }
    }
    assert_eq!(verify(&packet), before);
}

/// What a template writes reads back, also when a probe is written over its payload.
fn template(input: &mut Unstructured<'_>) -> Result<()> {
    let template = UdpTemplate {
        source_mac: Mac(input.arbitrary()?),
        destination_mac: Mac(input.arbitrary()?),
        source: SocketAddrV4::new(input.arbitrary()?, input.arbitrary()?),
        destination: SocketAddrV4::new(input.arbitrary()?, input.arbitrary()?),
        vlan: input.arbitrary()?,
        packet_size: input.int_in_range(0..=2_000)?,
        pattern: if input.arbitrary()? { Pattern::Counting } else { Pattern::Byte(input.arbitrary()?) },
    };
    let mut room = [0xee; 1_600];
    let Ok(len) = template.write(&mut room) else {
        assert!(
            template.packet_size < 60
                || template.packet_size > 1_600
                || template.vlan.is_some_and(|id| id > 4094)
        );
        assert_eq!(room, [0xee; 1_600]);
        return Ok(());
    };
    assert_eq!(len, template.packet_size);
    assert!(room[len..].iter().all(|byte| *byte == 0xee));
    assert_eq!(verify(&room[..len]), (Some(true), Some(true)));
    let probe =
        Probe { session: input.arbitrary()?, sequence: input.arbitrary()?, ticks: input.arbitrary()? };
    let mut udp = Udp::parse(&mut room[template.udp_offset()..len]).expect("a UDP packet");
    assert_eq!(
        (udp.source_port(), udp.destination_port()),
        (template.source.port(), template.destination.port())
    );
    assert_eq!(udp.payload().len(), template.payload_len());
    if udp.overwrite(0, &probe.to_bytes()) {
        assert_eq!(Probe::read(udp.payload()), Some(probe));
    }
    assert_eq!(verify(&room[..len]), (Some(true), Some(true)));
    let ethernet = Ethernet::view(&room[..len]).expect("an Ethernet frame");
    assert_eq!((ethernet.source(), ethernet.destination()), (template.source_mac, template.destination_mac));
    assert_eq!(ethernet.network().expect("its tag is whole").tags[0].map(Tag::id), template.vlan);
    Ok(())
}
