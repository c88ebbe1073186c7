//! What the tests of several headers share, and the tests of all of them together.

use alloc::vec::Vec;

use super::*;

/// Bytes written down in hexadecimal, with blanks anywhere.
pub(super) const fn hex<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let (mut digits, mut at) = (0, 0);
    while at < text.len() {
        let digit = match text[at] {
            b'0'..=b'9' => text[at] - b'0',
            b'a'..=b'f' => text[at] - b'a' + 10,
            b' ' | b'\n' => 16,
            _ => panic!("no hexadecimal digit"),
        };
        if digit < 16 {
            bytes[digits / 2] = bytes[digits / 2] << 4 | digit;
            digits += 1;
        }
        at += 1;
    }
    assert!(digits == 2 * N, "as many digits as the array takes");
    bytes
}

/// Who has 10.0.0.2? Tell 10.0.0.1.
pub(super) const ARP_REQUEST: [u8; 42] = hex(b"ffffffffffff 02000000000a 0806
    0001 0800 06 04 0001 02000000000a 0a000001 000000000000 0a000002");

/// The same with two tags: 802.1ad VLAN 100 of priority 5, 802.1Q VLAN 200 that may be dropped.
pub(super) const DOUBLE_TAGGED: [u8; 50] = hex(b"ffffffffffff 02000000000a 88a8 a064 8100 10c8 0806
    0001 0800 06 04 0001 02000000000a 0a000001 000000000000 0a000002");

/// 10.0.0.1 pings 10.0.0.2 with four bytes; padded to 60.
pub(super) const ECHO_REQUEST: [u8; 60] = hex(b"02000000000b 02000000000a 0800
    4500 0020 0001 0000 40 01 66da 0a000001 0a000002
    08 00 06fa 1234 0001 70696e67
    0000000000000000000000000000");

/// fd00::1 pings fd00::2 with four bytes.
pub(super) const ECHO_REQUEST_V6: [u8; 66] = hex(b"02000000000b 02000000000a 86dd
    60000000 000c 3a 40 fd000000000000000000000000000001 fd000000000000000000000000000002
    80 00 94ae 1234 0001 70696e67");

/// 172.16.10.99 opens a connection to 172.16.10.12: maximum segment size, selective acknowledgement, time stamps, scale.
pub(super) const TCP_SYN: [u8; 74] = hex(b"02000000000b 02000000000a 0800
    4500 003c 1c46 4000 40 06 b1e6 ac100a63 ac100a0c
    8bec 0050 5f31ebc8 00000000 a0 02 faf0 2707 0000
    020405b4 0402 080a0001e24000000000 01 030307");

/// fd00::1 sends fd00::2 four bytes of UDP behind hop-by-hop and destination options.
pub(super) const IPV6_EXTENDED: [u8; 82] = hex(b"02000000000b 02000000000a 86dd
    6b8abcde 001c 00 3f fd000000000000000000000000000001 fd000000000000000000000000000002
    3c 00 01 04 00000000
    11 00 01 04 00000000
    0fa0 1389 000c 1de2 61626364");

const ALL: [&[u8]; 6] =
    [&ARP_REQUEST, &DOUBLE_TAGGED, &ECHO_REQUEST, &ECHO_REQUEST_V6, &TCP_SYN, &IPV6_EXTENDED];

/// A small seeded generator (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Reads bytes as every header there is, calls all that a view offers, and follows each payload once. Returns how
/// many headers they could be.
fn read_as_everything(bytes: &[u8]) -> usize {
    let mut parsed = 0;
    let pseudo = Pseudo::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let mut count = |is: Option<usize>| {
        parsed += usize::from(is.is_some());
        assert!(is.is_none_or(|inside| inside <= bytes.len()), "no payload is longer than its packet");
    };
    count(Ethernet::view(bytes).map(|ethernet| {
        let _ = (ethernet.destination(), ethernet.source(), ethernet.ether_type(), ethernet.network());
        ethernet.payload().len()
    }));
    count(Vlan::view(bytes).map(|vlan| {
        let _ = (vlan.control(), vlan.id(), vlan.ether_type());
        vlan.payload().len()
    }));
    count(Arp::view(bytes).map(|arp| {
        let _ = (arp.operation(), arp.sender_mac(), arp.sender(), arp.target_mac(), arp.target());
        arp.payload().len()
    }));
    count(Ipv4::view(bytes).map(|ipv4| {
        let _ = (ipv4.identification(), ipv4.ttl(), ipv4.traffic_class(), ipv4.is_checksum_valid());
        let _ = (ipv4.fragment_offset(), ipv4.protocol(), ipv4.pseudo(), ipv4.options());
        assert_eq!(usize::from(ipv4.total_len()), ipv4.header_len() + ipv4.payload().len());
        ipv4.payload().len()
    }));
    count(Ipv6::view(bytes).map(|ipv6| {
        let _ =
            (ipv6.flow_label(), ipv6.traffic_class(), ipv6.hop_limit(), ipv6.next_header(), ipv6.pseudo());
        assert_eq!(usize::from(ipv6.payload_len()), ipv6.payload().len());
        ipv6.upper().map_or(0, |upper| upper.payload.len())
    }));
    count(Udp::view(bytes).map(|udp| {
        let _ = (udp.source_port(), udp.destination_port(), udp.is_checksum_valid(pseudo));
        assert_eq!(usize::from(udp.len()), 8 + udp.payload().len());
        udp.payload().len()
    }));
    count(Tcp::view(bytes).map(|tcp| {
        let _ = (tcp.source_port(), tcp.destination_port(), tcp.sequence(), tcp.acknowledgement());
        let _ = (tcp.flags(), tcp.window(), tcp.options(), tcp.is_checksum_valid(pseudo));
        tcp.payload().len()
    }));
    count(Icmp::view(bytes).map(|icmp| {
        let _ = (icmp.kind(), icmp.code(), icmp.identifier(), icmp.sequence(), icmp.is_checksum_valid());
        icmp.payload().len()
    }));
    count(Icmpv6::view(bytes).map(|icmp| {
        let _ = (icmp.kind(), icmp.code(), icmp.is_checksum_valid(pseudo));
        icmp.payload().len()
    }));
    count(Probe::read(bytes).map(|probe| probe.number(7).min(1) as usize));
    parsed
}

/// Changes bytes as every header there is, by all that a view offers.
fn change_as_everything(bytes: &mut [u8]) {
    let pseudo = Pseudo::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    finish_checksum(bytes);
    icmp::answer(bytes);
    arp::answer(bytes, [10, 0, 0, 2].into(), Mac::default());
    vlan::pop(bytes);
    vlan::push(bytes, Tag::new(1));
    if let Some(mut ethernet) = Ethernet::parse(bytes) {
        ethernet.swap_addresses();
        ethernet.network_mut();
    }
    if let Some(mut vlan) = Vlan::parse(bytes) {
        vlan.set_id(1);
    }
    if let Some(mut arp) = Arp::parse(bytes) {
        arp.reply(Mac::BROADCAST);
    }
    if let Some(mut ipv6) = Ipv6::parse(bytes) {
        ipv6.swap_addresses();
        ipv6.decrement_hop_limit();
        let _ = ipv6.set_source(core::net::Ipv6Addr::LOCALHOST);
        ipv6.upper_mut();
    }
    if let Some(mut ipv4) = Ipv4::parse(bytes) {
        ipv4.swap_addresses();
        ipv4.decrement_ttl();
        let _ = ipv4.set_destination([1, 2, 3, 4].into());
        ipv4.fill_checksum();
        assert!(ipv4.is_checksum_valid());
    }
    if let Some(mut udp) = Udp::parse(bytes) {
        udp.swap_ports();
        udp.overwrite(3, &[1; 5]);
        udp.fill_checksum(pseudo);
        assert!(udp.is_checksum_valid(pseudo));
    }
    if let Some(mut tcp) = Tcp::parse(bytes) {
        tcp.set_source_port(1);
        tcp.fill_checksum(pseudo);
        assert!(tcp.is_checksum_valid(pseudo));
    }
    if let Some(mut icmp) = Icmp::parse(bytes) {
        icmp.reply();
        icmp.fill_checksum();
    }
    if let Some(mut icmp) = Icmpv6::parse(bytes) {
        icmp.reply();
        icmp.fill_checksum(pseudo);
        assert!(icmp.is_checksum_valid(pseudo));
    }
}

#[test]
fn a_packet_cut_off_anywhere_and_read_from_anywhere_panics_nowhere() {
    let mut parsed = 0;
    for packet in ALL {
        for start in 0..=packet.len() {
            for end in start..=packet.len() {
                parsed += read_as_everything(&packet[start..end]);
                change_as_everything(&mut packet[start..end].to_vec());
            }
        }
    }
    assert!(parsed > 10_000, "the test reads headers, not only refusals: {parsed}");
}

#[test]
fn random_bytes_and_damaged_packets_panic_nowhere() {
    let mut random = Random(1);
    for round in 0..30_000 {
        let mut bytes = match round % 2 {
            0 => {
                let len = random.below(100);
                random.bytes(len)
            }
            _ => ALL[random.below(ALL.len())].to_vec(),
        };
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        read_as_everything(&bytes);
        change_as_everything(&mut bytes);
    }
}

#[test]
fn a_header_cut_off_is_no_header() {
    fn shortest(parses: impl Fn(&[u8]) -> bool, packet: &[u8]) -> usize {
        let shortest =
            (0..=packet.len()).find(|len| parses(&packet[..*len])).expect("the whole packet parses");
        assert!((shortest..=packet.len()).all(|len| parses(&packet[..len])), "longer ones do, too");
        shortest
    }
    assert_eq!(shortest(|bytes| Ethernet::view(bytes).is_some(), &TCP_SYN), 14);
    assert_eq!(shortest(|bytes| Vlan::view(bytes).is_some(), &DOUBLE_TAGGED[14..]), 4);
    assert_eq!(shortest(|bytes| Arp::view(bytes).is_some(), &ARP_REQUEST[14..]), 28);
    assert_eq!(
        shortest(|bytes| Ipv4::view(bytes).is_some(), &ECHO_REQUEST[14..]),
        32,
        "what its length says"
    );
    assert_eq!(
        shortest(|bytes| Ipv6::view(bytes).is_some(), &IPV6_EXTENDED[14..]),
        68,
        "what its length says"
    );
    assert_eq!(
        shortest(|bytes| Udp::view(bytes).is_some(), &IPV6_EXTENDED[70..]),
        12,
        "what its length says"
    );
    assert_eq!(shortest(|bytes| Tcp::view(bytes).is_some(), &TCP_SYN[34..]), 40, "with its options");
    assert_eq!(shortest(|bytes| Icmp::view(bytes).is_some(), &ECHO_REQUEST[34..]), 8);
    let network = |bytes: &[u8]| Ethernet::view(bytes).is_some_and(|ethernet| ethernet.network().is_some());
    assert_eq!(shortest(network, &DOUBLE_TAGGED[..]), 22);
}

#[test]
fn the_payload_outlives_the_view() {
    fn udp_payload(packet: &mut [u8]) -> Option<&mut [u8]> {
        let network = Ethernet::parse(packet)?.into_network()?;
        let upper = Ipv6::parse(network.payload)?.into_upper()?;
        Some(Udp::parse(upper.payload)?.into_payload())
    }
    let mut packet = IPV6_EXTENDED;
    let payload = udp_payload(&mut packet).unwrap();
    assert_eq!(payload, b"abcd");
    payload.fill(0);
    assert_eq!(packet[78..], [0; 4]);
}
