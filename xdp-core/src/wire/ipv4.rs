//! IPv4.

use core::fmt;
use core::net::Ipv4Addr;

use super::checksum::{Delta, Pseudo, Sum};
use super::{Bytes, Fields};

/// Bytes of the header without options.
pub const LEN: usize = 20;

/// What an IP packet carries: IPv4's protocol, IPv6's next header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

/// An IPv4 header: 20 bytes, and up to 40 of options.
///
/// The checksum is not verified on the way in (cards do): see [`is_checksum_valid`](Self::is_checksum_valid).
#[derive(Debug)]
pub struct Ipv4<B: Bytes> {
    header: B::Array<LEN>,
    options: B,
    payload: B,
}

borrows!(Ipv4, "another version, or a header or a packet longer than the bytes there are.");

impl Protocol {
    /// ICMP, of IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP, of IPv6.
    pub const ICMPV6: Self = Self(58);
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("ICMP"),
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::ICMPV6 => f.write_str("ICMPv6"),
            Self(number) => write!(f, "protocol {number}"),
        }
    }
}

impl<B: Bytes> Ipv4<B> {
    /// Bytes of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        LEN + self.options.len()
    }

    /// The options, padded to a multiple of 4 bytes.
    #[inline]
    pub fn options(&self) -> &[u8] {
        &self.options
    }

    /// Differentiated services (6 bits) and congestion (2).
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.header.u8_at::<1>()
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> u16 {
        self.header.u16_at::<2>()
    }

    /// Which fragments belong together.
    #[inline]
    pub fn identification(&self) -> u16 {
        self.header.u16_at::<4>()
    }

    /// Whether the packet must not be cut on its way.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.header.u16_at::<6>() & 0x4000 != 0
    }

    /// Whether more fragments follow this one.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.header.u16_at::<6>() & 0x2000 != 0
    }

    /// Where in the whole packet's payload this one's belongs, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        (self.header.u16_at::<6>() & 0x1fff) << 3
    }

    /// Whether this is a part of a packet: of its payload's header only the first part has a piece, of its checksum
    /// none has all.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.header.u16_at::<6>() & 0x3fff != 0
    }

    /// Hops left.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.header.u8_at::<8>()
    }

    /// What the payload is.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        Protocol(self.header.u8_at::<9>())
    }

    /// The header's checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        self.header.u16_at::<10>()
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.header.array_at::<12, 4>())
    }

    /// The receiver's address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.header.array_at::<16, 4>())
    }

    /// The addresses, for the checksum of the payload.
    #[inline]
    pub fn pseudo(&self) -> Pseudo {
        Pseudo::v4(self.source(), self.destination())
    }

    /// Whether the header's checksum is right.
    #[inline]
    pub fn is_checksum_valid(&self) -> bool {
        self.sum().is_valid()
    }

    #[inline]
    fn sum(&self) -> Sum {
        let sum = Sum::new().over_array(&self.header);
        if self.options.is_empty() { sum } else { sum.over(&self.options) }
    }

    #[inline]
    pub(super) fn split(bytes: B) -> Option<Self> {
        let (header, rest) = bytes.split_array::<LEN>()?;
        let (version, words) = (header.u8_at::<0>() >> 4, header.u8_at::<0>() & 15);
        let (header_len, total_len) = (usize::from(words) * 4, usize::from(header.u16_at::<2>()));
        if version != 4 || header_len < LEN || total_len < header_len {
            return None;
        }
        let (inside, _padding) = rest.split_bytes(total_len - LEN)?;
        let (options, payload) = inside.split_bytes(header_len - LEN)?;
        Some(Self { header, options, payload })
    }
}

impl Ipv4<&mut [u8]> {
    /// Sets differentiated services and congestion.
    #[inline]
    pub fn set_traffic_class(&mut self, to: u8) {
        self.change::<0>(self.header.u16_at::<0>() & 0xff00 | u16::from(to));
    }

    /// Sets the hops left.
    #[inline]
    pub fn set_ttl(&mut self, to: u8) {
        self.change::<8>(u16::from(to) << 8 | self.header.u16_at::<8>() & 0x00ff);
    }

    /// Takes one hop off, as a router does. False, and nothing changed, if the packet has come as far as it may.
    #[inline]
    pub fn decrement_ttl(&mut self) -> bool {
        let ttl = self.ttl();
        if ttl > 1 {
            self.set_ttl(ttl - 1);
        }
        ttl > 1
    }

    /// Sets the sender's address. The change is for the checksum of the UDP or TCP packet inside, if it is the first
    /// fragment or whole.
    #[inline]
    pub fn set_source(&mut self, to: Ipv4Addr) -> Delta {
        let delta = Delta::u32(self.source().to_bits(), to.to_bits());
        self.header.put_array::<12, 4>(to.octets());
        self.header.put_u16::<10>(delta.apply(self.checksum()));
        delta
    }

    /// Sets the receiver's address. The change is for the checksum of the UDP or TCP packet inside, if it is the first
    /// fragment or whole.
    #[inline]
    pub fn set_destination(&mut self, to: Ipv4Addr) -> Delta {
        let delta = Delta::u32(self.destination().to_bits(), to.to_bits());
        self.header.put_array::<16, 4>(to.octets());
        self.header.put_u16::<10>(delta.apply(self.checksum()));
        delta
    }

    /// Makes the sender the receiver and the other way round. No checksum changes.
    #[inline]
    pub fn swap_addresses(&mut self) {
        let (source, destination) = (self.header.array_at::<12, 4>(), self.header.array_at::<16, 4>());
        self.header.put_array::<12, 4>(destination);
        self.header.put_array::<16, 4>(source);
    }

    /// Computes the header's checksum anew.
    #[inline]
    pub fn fill_checksum(&mut self) {
        let checksum = self.sum().less_u16(self.checksum()).checksum();
        self.header.put_u16::<10>(checksum);
    }

    /// Changes a 16-bit word, and the checksum with it. Words, for a byte just written is slow to read back in one.
    #[inline(always)]
    fn change<const AT: usize>(&mut self, to: u16) {
        let delta = Delta::u16(self.header.u16_at::<AT>(), to);
        self.header.put_u16::<AT>(to);
        self.header.put_u16::<10>(delta.apply(self.checksum()));
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::wire::tests::{ECHO_REQUEST, Random, TCP_SYN};

    /// A header of `words` words over 8 bytes of payload, with a right checksum and 3 bytes of padding after it.
    fn packet(random: &mut Random, words: usize) -> alloc::vec::Vec<u8> {
        let mut bytes = random.bytes(words * 4 + 8 + 3);
        bytes[0] = 0x40 | words as u8;
        bytes[2..4].copy_from_slice(&(words as u16 * 4 + 8).to_be_bytes());
        Ipv4::parse(&mut bytes).unwrap().fill_checksum();
        bytes
    }

    #[test]
    fn a_header_is_read() {
        let ipv4 = Ipv4::view(&TCP_SYN[14..]).unwrap();
        assert_eq!((ipv4.header_len(), ipv4.total_len(), ipv4.traffic_class()), (20, 60, 0));
        assert_eq!((ipv4.identification(), ipv4.ttl(), ipv4.protocol()), (0x1c46, 64, Protocol::TCP));
        assert!(ipv4.dont_fragment() && !ipv4.more_fragments() && !ipv4.is_fragment());
        assert_eq!(ipv4.source(), Ipv4Addr::new(172, 16, 10, 99));
        assert_eq!(ipv4.destination(), Ipv4Addr::new(172, 16, 10, 12));
        assert_eq!(ipv4.checksum(), 0xb1e6);
        assert!(ipv4.is_checksum_valid());
    }

    #[test]
    fn padding_is_no_payload() {
        let ipv4 = Ipv4::view(&ECHO_REQUEST[14..]).unwrap();
        assert_eq!(ipv4.payload().len(), 12);
        assert_eq!(ECHO_REQUEST.len() - 34, 26);
    }

    #[test]
    fn options_are_no_payload() {
        for words in 5..=15 {
            let bytes = packet(&mut Random(words as u64), words);
            let ipv4 = Ipv4::view(&bytes).unwrap();
            assert!(ipv4.is_checksum_valid());
            assert_eq!(ipv4.header_len(), words * 4);
            assert_eq!(ipv4.options(), &bytes[20..words * 4]);
            assert_eq!(ipv4.payload(), &bytes[words * 4..words * 4 + 8]);
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = packet(&mut Random(1), 6);
        assert!(Ipv4::view(&good).is_some());
        for (at, value, what) in [
            (0, 0x56, "another version"),
            (0, 0x44, "a header of 16 bytes"),
            (3, 23, "shorter than its header"),
            (3, 36, "longer than the bytes"),
            (2, 1, "much longer"),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Ipv4::view(&bad).is_none(), "{what}");
        }
    }

    #[test]
    fn fragments_are_known() {
        let mut bytes = packet(&mut Random(2), 5);
        for (word, more, offset, fragment) in [
            (0x4000_u16, false, 0, false),
            (0x2000, true, 0, true),
            (0x0001, false, 8, true),
            (0x3fff, true, 65_528, true),
        ] {
            bytes[6..8].copy_from_slice(&word.to_be_bytes());
            let ipv4 = Ipv4::view(&bytes).unwrap();
            let found = (ipv4.more_fragments(), ipv4.fragment_offset(), ipv4.is_fragment());
            assert_eq!(found, (more, offset, fragment), "{word:#x}");
        }
    }

    #[test]
    fn every_change_keeps_the_checksum_right() {
        let mut random = Random(3);
        for _ in 0..5_000 {
            let words = 5 + random.below(11);
            let mut bytes = packet(&mut random, words);
            let mut ipv4 = Ipv4::parse(&mut bytes).unwrap();
            let before = ipv4.pseudo().sum(Protocol::UDP, 8).checksum();
            let (source, destination) = (random.next() as u32, random.next() as u32);
            let changes = ipv4.set_source(source.into()).and(ipv4.set_destination(destination.into()));
            assert_eq!(changes.apply(before), ipv4.pseudo().sum(Protocol::UDP, 8).checksum());
            ipv4.set_ttl(random.next() as u8);
            ipv4.set_traffic_class(random.next() as u8);
            ipv4.swap_addresses();
            assert_eq!((ipv4.source().to_bits(), ipv4.destination().to_bits()), (destination, source));
            assert!(ipv4.is_checksum_valid());
            let updated = bytes;
            let mut anew = updated.clone();
            Ipv4::parse(&mut anew).unwrap().fill_checksum();
            assert_eq!(updated, anew);
        }
    }

    #[test]
    fn a_packet_travels_as_many_hops_as_its_ttl_says() {
        let mut bytes = packet(&mut Random(4), 5);
        let mut ipv4 = Ipv4::parse(&mut bytes).unwrap();
        ipv4.set_ttl(255);
        for left in (1..255).rev() {
            assert!(ipv4.decrement_ttl());
            assert_eq!(ipv4.ttl(), left);
            assert!(ipv4.is_checksum_valid());
        }
        assert!(!ipv4.decrement_ttl());
        assert_eq!(ipv4.ttl(), 1);
        ipv4.set_ttl(0);
        assert!(!ipv4.decrement_ttl());
        assert_eq!(ipv4.ttl(), 0);
    }

    #[test]
    fn a_damaged_header_is_noticed() {
        let good = packet(&mut Random(5), 7);
        for bit in 0..28 * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Ipv4::view(&bad).is_none_or(|ipv4| !ipv4.is_checksum_valid()), "bit {bit}");
        }
    }

    #[test]
    fn a_protocol_shows_its_name_or_number() {
        assert_eq!(format!("{:?} {:?}", Protocol::UDP, Protocol(47)), "UDP protocol 47");
    }
}
