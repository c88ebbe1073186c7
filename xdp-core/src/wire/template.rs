//! Whole packets to send: written once, then changed where they differ.

use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};

use super::ethernet::{EtherType, Ethernet, Mac};
use super::ipv4::{Ipv4, Protocol};
use super::udp::Udp;
use super::{Fields, Icmp, Tag, ethernet, icmp, ipv4, udp, vlan};

/// The smallest Ethernet frame, without its check sequence, in bytes.
pub const PACKET_SIZE_MIN: usize = 60;

/// A UDP packet over IPv4: what a pinger and a generator send.
///
/// Its bytes are those on the wire but for the check sequence, which the card adds. All checksums are right.
///
/// ```
/// use xdp_core::wire::{Pattern, Probe, Udp, UdpTemplate, probe};
///
/// let template = UdpTemplate { packet_size: 64, pattern: Pattern::Byte(0), ..UdpTemplate::default() };
/// let mut packet = [0; 64];
/// assert_eq!(template.write(&mut packet), Ok(64));
///
/// // From then on, a packet is a copy, and costs what differs.
/// let mut frame = packet;
/// let probe = Probe { session: 1, sequence: 2, ticks: 3 };
/// let mut udp = Udp::parse(&mut frame[template.udp_offset()..]).unwrap();
/// assert!(udp.replace(0, &[0; probe::LEN], &probe.to_bytes()));
/// assert_eq!(Probe::read(udp.payload()), Some(probe));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpTemplate {
    /// The sender's card.
    pub source_mac: Mac,
    /// The receiver's card.
    pub destination_mac: Mac,
    /// The sender.
    pub source: SocketAddrV4,
    /// The receiver.
    pub destination: SocketAddrV4,
    /// The VLAN, 0 to 4094, if the packet is to have a tag.
    pub vlan: Option<u16>,
    /// Bytes of the whole packet, the tag included: from 60, up to 65,549 (65,553 with a tag).
    pub packet_size: usize,
    /// What the payload is filled with.
    pub pattern: Pattern,
}

/// An ICMP echo request over IPv4: a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoTemplate {
    /// The sender's card.
    pub source_mac: Mac,
    /// The receiver's card.
    pub destination_mac: Mac,
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
    /// The VLAN, 0 to 4094, if the packet is to have a tag.
    pub vlan: Option<u16>,
    /// Whose ping it is.
    pub identifier: u16,
    /// Which ping it is.
    pub sequence: u16,
    /// Bytes of the whole packet, the tag included: from 60, up to 65,549 (65,553 with a tag).
    pub packet_size: usize,
    /// What the payload is filled with.
    pub pattern: Pattern,
}

/// What a payload is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pattern {
    /// The same byte all over.
    Byte(u8),
    /// 0, 1, 2, … 255, 0, …: a byte out of place is seen.
    #[default]
    Counting,
}

/// Why a template describes no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateError {
    /// The size is none a packet can have.
    PacketSize {
        /// The size asked for, in bytes.
        asked: usize,
        /// The largest there is, in bytes.
        max: usize,
    },
    /// There is too little room to write to.
    Room {
        /// The room there is, in bytes.
        room: usize,
        /// The packet's size, in bytes.
        packet_size: usize,
    },
    /// There is no VLAN of this number.
    Vlan(u16),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PacketSize { asked, max } => {
                write!(f, "packet size {asked}: choose one from {PACKET_SIZE_MIN} to {max} bytes")
            }
            Self::Room { room, packet_size } => {
                write!(
                    f,
                    "packet size {packet_size} does not fit in {room} bytes: choose a smaller packet or larger chunks"
                )
            }
            Self::Vlan(id) => write!(f, "VLAN {id}: choose one from 1 to 4094, or 0 for a priority tag"),
        }
    }
}

impl core::error::Error for TemplateError {}

impl Pattern {
    fn fill(self, payload: &mut [u8]) {
        match self {
            Self::Byte(byte) => payload.fill(byte),
            Self::Counting => payload.iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8),
        }
    }
}

impl Default for UdpTemplate {
    /// 64 bytes from 10.0.0.1 to 10.0.0.2, port 9 (discard) to port 9, between two local addresses.
    fn default() -> Self {
        Self {
            source_mac: Mac([2, 0, 0, 0, 0, 1]),
            destination_mac: Mac([2, 0, 0, 0, 0, 2]),
            source: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 9),
            destination: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 9),
            vlan: None,
            packet_size: 64,
            pattern: Pattern::Counting,
        }
    }
}

impl Default for EchoTemplate {
    /// 98 bytes from 10.0.0.1 to 10.0.0.2, between two local addresses.
    fn default() -> Self {
        Self {
            source_mac: Mac([2, 0, 0, 0, 0, 1]),
            destination_mac: Mac([2, 0, 0, 0, 0, 2]),
            source: Ipv4Addr::new(10, 0, 0, 1),
            destination: Ipv4Addr::new(10, 0, 0, 2),
            vlan: None,
            identifier: 1,
            sequence: 1,
            packet_size: 98,
            pattern: Pattern::Counting,
        }
    }
}

impl UdpTemplate {
    /// Where in the packet the UDP header is, in bytes from its beginning.
    #[inline]
    pub const fn udp_offset(&self) -> usize {
        link_len(self.vlan) + ipv4::LEN
    }

    /// Bytes of payload.
    #[inline]
    pub const fn payload_len(&self) -> usize {
        self.packet_size.saturating_sub(self.udp_offset() + udp::LEN)
    }

    /// Writes the packet to the beginning of `room`. Returns its size, [`packet_size`](Self::packet_size).
    ///
    /// # Errors
    /// A size or a VLAN there is none of, or too little room. Nothing is written then.
    pub fn write(&self, room: &mut [u8]) -> Result<usize, TemplateError> {
        let Self { source_mac, destination_mac, source, destination, vlan, packet_size, pattern } = *self;
        let link = Link { source: source_mac, destination: destination_mac, vlan };
        write(room, packet_size, link, *source.ip(), *destination.ip(), Protocol::UDP, |bytes, pseudo| {
            let len = bytes.len() as u16;
            if let Some(header) = bytes.first_chunk_mut::<{ udp::LEN }>() {
                header.put_u16::<0>(source.port());
                header.put_u16::<2>(destination.port());
                header.put_u16::<4>(len);
            }
            if let Some(mut udp) = Udp::parse(bytes) {
                pattern.fill(udp.payload_mut());
                udp.fill_checksum(pseudo);
            }
        })
    }
}

impl EchoTemplate {
    /// Writes the packet to the beginning of `room`. Returns its size, [`packet_size`](Self::packet_size).
    ///
    /// # Errors
    /// A size or a VLAN there is none of, or too little room. Nothing is written then.
    pub fn write(&self, room: &mut [u8]) -> Result<usize, TemplateError> {
        let link = Link { source: self.source_mac, destination: self.destination_mac, vlan: self.vlan };
        write(room, self.packet_size, link, self.source, self.destination, Protocol::ICMP, |bytes, _| {
            if let Some(header) = bytes.first_chunk_mut::<{ icmp::LEN }>() {
                header.put_u16::<0>(u16::from_be_bytes([icmp::ECHO_REQUEST, 0]));
                header.put_u16::<4>(self.identifier);
                header.put_u16::<6>(self.sequence);
            }
            if let Some(mut icmp) = Icmp::parse(bytes) {
                self.pattern.fill(icmp.payload_mut());
                icmp.fill_checksum();
            }
        })
    }
}

/// The two ends of a link, and the VLAN.
struct Link {
    source: Mac,
    destination: Mac,
    vlan: Option<u16>,
}

/// Bytes of Ethernet header and tag.
const fn link_len(vlan: Option<u16>) -> usize {
    match vlan {
        Some(_) => ethernet::LEN + vlan::LEN,
        None => ethernet::LEN,
    }
}

/// Writes Ethernet, tag and IPv4 around what `inside` writes.
fn write(
    room: &mut [u8],
    packet_size: usize,
    link: Link,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: Protocol,
    inside: impl FnOnce(&mut [u8], super::Pseudo),
) -> Result<usize, TemplateError> {
    let link_len = link_len(link.vlan);
    let max = link_len + usize::from(u16::MAX);
    if packet_size < PACKET_SIZE_MIN || packet_size > max {
        return Err(TemplateError::PacketSize { asked: packet_size, max });
    }
    if let Some(id @ 4095..) = link.vlan {
        return Err(TemplateError::Vlan(id));
    }
    let too_little = TemplateError::Room { room: room.len(), packet_size };
    let packet = room.get_mut(..packet_size).ok_or(too_little)?;
    let mut ethernet = Ethernet::parse(packet).ok_or(too_little)?;
    ethernet.set_destination(link.destination);
    ethernet.set_source(link.source);
    ethernet.set_ether_type(if link.vlan.is_some() { EtherType::VLAN } else { EtherType::IPV4 });
    let mut rest = ethernet.into_payload();
    if let Some(id) = link.vlan {
        let (tag, inner) = rest.split_first_chunk_mut::<{ vlan::LEN }>().ok_or(too_little)?;
        tag.put_u16::<0>(Tag::new(id).control);
        tag.put_u16::<2>(EtherType::IPV4.0);
        rest = inner;
    }
    let total_len = (packet_size - link_len) as u16;
    let header = rest.first_chunk_mut::<{ ipv4::LEN }>().ok_or(too_little)?;
    *header = [0; ipv4::LEN];
    header.put_u8::<0>(0x45);
    header.put_u16::<2>(total_len);
    header.put_u16::<6>(0x4000); // not to be cut, so that it needs no identification
    header.put_u8::<8>(64);
    header.put_u8::<9>(protocol.0);
    header.put_array::<12, 4>(source.octets());
    header.put_array::<16, 4>(destination.octets());
    let mut ipv4 = Ipv4::parse(rest).ok_or(too_little)?;
    ipv4.fill_checksum();
    let pseudo = ipv4.pseudo();
    inside(ipv4.payload_mut(), pseudo);
    Ok(packet_size)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;
    use crate::wire::tests::hex;
    use crate::wire::{Probe, probe};

    #[test]
    fn the_default_packet_is_byte_exact() {
        let mut packet = [0xee; 70];
        assert_eq!(UdpTemplate::default().write(&mut packet), Ok(64));
        let headers: [u8; 42] = hex(b"020000000002 020000000001 0800
              4500 0032 0000 4000 40 11 26b9 0a000001 0a000002
              0009 0009 001e 7d24");
        assert_eq!(packet[..42], headers);
        assert!(packet[42..64].iter().enumerate().all(|(i, byte)| *byte == i as u8));
        assert_eq!(packet[64..], [0xee; 6]);
    }

    #[test]
    fn every_size_gives_a_packet_that_verifies() {
        for vlan in [None, Some(0), Some(4094)] {
            for packet_size in (60..200).chain([1514, 1518, 65_549]) {
                let template =
                    UdpTemplate { vlan, packet_size, pattern: Pattern::Byte(0xa5), ..Default::default() };
                let mut packet = vec![0xee; packet_size];
                assert_eq!(template.write(&mut packet), Ok(packet_size));
                let network = Ethernet::view(&packet).unwrap().into_network().unwrap();
                assert_eq!(network.ether_type, EtherType::IPV4);
                assert_eq!(network.tags[0].map(Tag::id), vlan);
                let ipv4 = Ipv4::view(network.payload).unwrap();
                assert!(ipv4.is_checksum_valid());
                let udp = Udp::view(ipv4.payload()).unwrap();
                assert!(udp.checksum() != 0 && udp.is_checksum_valid(ipv4.pseudo()));
                assert_eq!(udp.payload().len(), template.payload_len());
                assert!(udp.payload().iter().all(|byte| *byte == 0xa5));
                assert_eq!(packet[template.udp_offset()..][..2], [0, 9]);
            }
        }
    }

    #[test]
    fn a_ping_verifies_and_is_answered() {
        for vlan in [None, Some(5)] {
            for packet_size in [60, 61, 98, 1514] {
                let template = EchoTemplate { vlan, packet_size, sequence: 0xfffe, ..Default::default() };
                let mut packet = vec![0xee; packet_size];
                assert_eq!(template.write(&mut packet), Ok(packet_size));
                assert!(icmp::answer(&mut packet));
                let ethernet = Ethernet::view(&packet).unwrap();
                assert_eq!(ethernet.destination(), template.source_mac);
                let ipv4 = Ipv4::view(ethernet.into_network().unwrap().payload).unwrap();
                let icmp = Icmp::view(ipv4.payload()).unwrap();
                assert!(ipv4.is_checksum_valid() && icmp.is_checksum_valid());
                assert_eq!((icmp.kind(), icmp.identifier(), icmp.sequence()), (0, 1, 0xfffe));
            }
        }
    }

    #[test]
    fn a_probe_fits_the_smallest_packet() {
        let mut smallest = UdpTemplate { packet_size: PACKET_SIZE_MIN, ..Default::default() };
        assert_eq!(smallest.payload_len(), probe::LEN);
        smallest.vlan = Some(1);
        smallest.packet_size += vlan::LEN;
        assert_eq!(smallest.payload_len(), probe::LEN);
        let mut packet = [0; 64];
        smallest.write(&mut packet).unwrap();
        let probe = Probe { session: u32::MAX, sequence: 0, ticks: u64::MAX };
        let mut udp = Udp::parse(&mut packet[smallest.udp_offset()..]).unwrap();
        assert!(udp.overwrite(0, &probe.to_bytes()));
        let ipv4 = Ipv4::view(&packet[18..]).unwrap();
        let udp = Udp::view(ipv4.payload()).unwrap();
        assert!(udp.is_checksum_valid(ipv4.pseudo()));
        assert_eq!(Probe::read(udp.payload()), Some(probe));
    }

    #[test]
    fn what_is_no_packet_is_refused_with_the_remedy() {
        let write = |template: UdpTemplate| {
            let mut room = [7; 100];
            let error = template.write(&mut room).unwrap_err();
            assert_eq!(room, [7; 100], "nothing is written");
            error.to_string()
        };
        let default = UdpTemplate::default();
        assert_eq!(
            write(UdpTemplate { packet_size: 59, ..default }),
            "packet size 59: choose one from 60 to 65549 bytes"
        );
        assert_eq!(
            write(UdpTemplate { packet_size: 65_554, vlan: Some(1), ..default }),
            "packet size 65554: choose one from 60 to 65553 bytes"
        );
        assert!(write(UdpTemplate { packet_size: 101, ..default }).contains("does not fit in 100 bytes"));
        assert!(write(UdpTemplate { vlan: Some(4095), ..default }).contains("VLAN 4095"));
    }
}
