//! Ethernet II: the two addresses and what follows them.

use core::fmt;
use core::str::FromStr;

use super::vlan::Network;
use super::{Bytes, Fields};

/// An Ethernet address. Shown and read as `02:00:00:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

/// What an Ethernet frame carries: the number after its addresses, or after a VLAN tag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherType(pub u16);

/// The header of an Ethernet frame: 14 bytes.
#[derive(Debug)]
pub struct Ethernet<B: Bytes> {
    header: B::Array<LEN>,
    payload: B,
}

/// Bytes of the header.
pub const LEN: usize = 14;

/// The text was no Ethernet address: six pairs of hexadecimal digits with colons or dashes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseMacError;

borrows!(Ethernet, "fewer than 14 bytes.");

impl Mac {
    /// To everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// A locally administered unicast address with `id` in its last four bytes.
    pub const fn local(id: u32) -> Self {
        let [a, b, c, d] = id.to_be_bytes();
        Self([0x02, 0, a, b, c, d])
    }

    /// A locally administered unicast address nobody else has: its other 40 bits are random.
    #[cfg(feature = "std")]
    pub fn random() -> Self {
        use core::hash::{BuildHasher, Hasher};
        // The standard library seeds each of these differently, from the kernel's randomness.
        let [_, _, _, a, b, c, d, e] =
            std::collections::hash_map::RandomState::new().build_hasher().finish().to_be_bytes();
        Self([0x02, a, b, c, d, e])
    }

    /// Whether this is the broadcast address.
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a & b & c & d & e & f == 0xff
    }

    /// Whether this is a group's address (the broadcast address is one), and so never a sender's.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether somebody other than the maker of a card gave this address, as for every veth.
    #[inline]
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 == 2
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let digit = |c: u8| (c as char).to_digit(16).map(|digit| digit as u8).ok_or(ParseMacError);
        let text: &[u8; 17] = text.as_bytes().try_into().map_err(|_| ParseMacError)?;
        let between = text[2];
        if between != b':' && between != b'-' {
            return Err(ParseMacError);
        }
        let mut mac = [0; 6];
        for (i, byte) in mac.iter_mut().enumerate() {
            if i > 0 && text[3 * i - 1] != between {
                return Err(ParseMacError);
            }
            *byte = digit(text[3 * i])? << 4 | digit(text[3 * i + 1])?;
        }
        Ok(Self(mac))
    }
}

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no Ethernet address; write six pairs of hexadecimal digits: 02:00:00:00:00:01")
    }
}

impl core::error::Error for ParseMacError {}

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// A VLAN tag of IEEE 802.1Q.
    pub const VLAN: Self = Self(0x8100);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// An outer VLAN tag of IEEE 802.1ad.
    pub const QINQ: Self = Self(0x88a8);
    /// For experiments of one's own (IEEE 802, local experimental 1).
    pub const EXPERIMENTAL: Self = Self(0x88b5);

    /// Whether a VLAN tag follows.
    #[inline]
    pub const fn is_tag(self) -> bool {
        matches!(self, Self::VLAN | Self::QINQ)
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4 => f.write_str("IPv4"),
            Self::ARP => f.write_str("ARP"),
            Self::VLAN => f.write_str("802.1Q"),
            Self::IPV6 => f.write_str("IPv6"),
            Self::QINQ => f.write_str("802.1ad"),
            Self(number) => write!(f, "{number:#06x}"),
        }
    }
}

impl<B: Bytes> Ethernet<B> {
    /// The receiver's address.
    #[inline]
    pub fn destination(&self) -> Mac {
        Mac(self.header.array_at::<0, 6>())
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> Mac {
        Mac(self.header.array_at::<6, 6>())
    }

    /// What follows the addresses: a VLAN tag, too. A number under 0x600 is a length (IEEE 802.3), not a type.
    #[inline]
    pub fn ether_type(&self) -> EtherType {
        EtherType(self.header.u16_at::<12>())
    }

    /// What lies past the VLAN tags, of which up to two are read. `None`: cut off within a tag.
    #[inline]
    pub fn network(&self) -> Option<Network<&[u8]>> {
        Network::read(self.ether_type(), &self.payload)
    }

    /// [`network`](Self::network), for as long as the bytes themselves are borrowed.
    #[inline]
    pub fn into_network(self) -> Option<Network<B>> {
        Network::read(self.ether_type(), self.payload)
    }

    #[inline]
    fn split(bytes: B) -> Option<Self> {
        let (header, payload) = bytes.split_array()?;
        Some(Self { header, payload })
    }
}

impl Ethernet<&mut [u8]> {
    /// [`network`](Self::network), to be changed.
    #[inline]
    pub fn network_mut(&mut self) -> Option<Network<&mut [u8]>> {
        Network::read(self.ether_type(), &mut *self.payload)
    }

    /// Sets the receiver's address.
    #[inline]
    pub fn set_destination(&mut self, to: Mac) {
        self.header.put_array::<0, 6>(to.0);
    }

    /// Sets the sender's address.
    #[inline]
    pub fn set_source(&mut self, to: Mac) {
        self.header.put_array::<6, 6>(to.0);
    }

    /// Sets what follows the addresses.
    #[inline]
    pub fn set_ether_type(&mut self, to: EtherType) {
        self.header.put_u16::<12>(to.0);
    }

    /// Makes the sender the receiver and the other way round.
    #[inline]
    pub fn swap_addresses(&mut self) {
        let (destination, source) = (self.destination(), self.source());
        self.set_destination(source);
        self.set_source(destination);
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

    #[test]
    fn an_address_reads_back_as_it_is_shown() {
        assert_eq!(A.to_string(), "02:00:00:00:00:0a");
        assert_eq!("02:00:00:00:00:0a".parse(), Ok(A));
        assert_eq!("02-00-00-00-00-0A".parse(), Ok(A));
        for wrong in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:0g",
            "02:00-00:00:00:0a",
            "2:0:0:0:0:a:00:00",
            "02.00.00.00.00.0a",
        ] {
            assert_eq!(wrong.parse::<Mac>(), Err(ParseMacError), "{wrong}");
        }
        assert!(ParseMacError.to_string().contains("02:00:00:00:00:01"));
    }

    #[test]
    fn a_group_is_told_from_a_card() {
        assert!(Mac::BROADCAST.is_broadcast() && Mac::BROADCAST.is_multicast());
        assert!(Mac([1, 0, 0x5e, 0, 0, 1]).is_multicast() && !Mac([1, 0, 0x5e, 0, 0, 1]).is_broadcast());
        assert!(!Mac([0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]).is_broadcast());
        assert!(!A.is_multicast() && A.is_local());
        assert!(!Mac([0, 0x1b, 0x21, 0, 0, 1]).is_local());
    }

    #[test]
    fn swapping_twice_changes_nothing_and_once_only_the_addresses() {
        let mut packet = [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 0x08, 0x06, 7, 8];
        let before = packet;
        let mut ethernet = Ethernet::parse(&mut packet).unwrap();
        assert_eq!((ethernet.destination(), ethernet.source()), (B, A));
        ethernet.swap_addresses();
        assert_eq!((ethernet.destination(), ethernet.source()), (A, B));
        assert_eq!(ethernet.ether_type(), EtherType::ARP);
        assert_eq!(ethernet.payload(), [7, 8]);
        ethernet.swap_addresses();
        assert_eq!(packet, before);
    }

    #[test]
    fn each_field_is_written_where_it_is_read() {
        let mut packet = [0; 14];
        let mut ethernet = Ethernet::parse(&mut packet).unwrap();
        ethernet.set_destination(A);
        ethernet.set_source(B);
        ethernet.set_ether_type(EtherType::IPV6);
        assert_eq!(packet, [2, 0, 0, 0, 0, 0xa, 2, 0, 0, 0, 0, 0xb, 0x86, 0xdd]);
    }

    #[test]
    fn thirteen_bytes_are_no_header() {
        assert!(Ethernet::view(&[0; 13]).is_none());
        assert!(Ethernet::parse(&mut [0; 13]).is_none());
        assert!(Ethernet::view(&[0; 14]).is_some_and(|ethernet| ethernet.payload().is_empty()));
    }

    #[test]
    fn a_type_shows_its_name_or_number() {
        assert_eq!(format!("{:?} {:?}", EtherType::IPV4, EtherType(0x1234)), "IPv4 0x1234");
    }
}
