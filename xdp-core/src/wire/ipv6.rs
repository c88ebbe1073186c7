//! IPv6 and its extension headers.

use core::net::Ipv6Addr;

use super::checksum::{Delta, Pseudo};
use super::ipv4::Protocol;
use super::{Bytes, Fields};

/// Bytes of the fixed header.
pub const LEN: usize = 40;
/// Extension headers that are walked past before giving up.
pub const EXTENSIONS_MAX: usize = 8;

/// An IPv6 header: 40 bytes.
#[derive(Debug)]
pub struct Ipv6<B: Bytes> {
    header: B::Array<LEN>,
    payload: B,
}

/// What an IPv6 packet carries past its extension headers.
#[derive(Debug)]
pub struct Upper<B: Bytes> {
    /// What `payload` is.
    pub protocol: Protocol,
    /// Whether this is a part of a packet: of its payload's header only the first part has a piece, of its checksum
    /// none has all.
    pub fragment: bool,
    /// Whether a routing header has stops left: the header's destination is then the next stop, and no checksum
    /// covers it.
    pub routed: bool,
    /// The bytes after the last extension header.
    pub payload: B,
}

borrows!(Ipv6, "another version, or a packet longer than the bytes there are.");

impl<B: Bytes> Ipv6<B> {
    /// Differentiated services (6 bits) and congestion (2).
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (self.header.u16_at::<0>() >> 4) as u8
    }

    /// The flow label, 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        self.header.u32_at::<0>() & 0xf_ffff
    }

    /// Bytes after this header. 0 in a jumbogram, whose payload is empty here.
    #[inline]
    pub fn payload_len(&self) -> u16 {
        self.header.u16_at::<4>()
    }

    /// What comes next: an extension header, too.
    #[inline]
    pub fn next_header(&self) -> Protocol {
        Protocol(self.header.u8_at::<6>())
    }

    /// Hops left.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.header.u8_at::<7>()
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.header.array_at::<8, 16>())
    }

    /// The receiver's address, or the next stop's.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.header.array_at::<24, 16>())
    }

    /// The addresses, for the checksum of what is inside; not if it is [`routed`](Upper::routed).
    #[inline]
    pub fn pseudo(&self) -> Pseudo {
        Pseudo::v6(self.source(), self.destination())
    }

    /// What lies past the extension headers.
    ///
    /// Those walked past are hop-by-hop and destination options, routing, fragment, authentication, mobility, host
    /// identity and shim6. Encrypted payload and "no next header" are protocols like others: 50 and 59. `None`: cut off
    /// within an extension header, or more than [`EXTENSIONS_MAX`] of them.
    #[inline]
    pub fn upper(&self) -> Option<Upper<&[u8]>> {
        Upper::walk(self.next_header(), &self.payload)
    }

    /// [`upper`](Self::upper), for as long as the bytes themselves are borrowed.
    #[inline]
    pub fn into_upper(self) -> Option<Upper<B>> {
        Upper::walk(self.next_header(), self.payload)
    }

    #[inline]
    pub(super) fn split(bytes: B) -> Option<Self> {
        let (header, rest) = bytes.split_array::<LEN>()?;
        if header.u8_at::<0>() >> 4 != 6 {
            return None;
        }
        let (payload, _padding) = rest.split_bytes(header.u16_at::<4>().into())?;
        Some(Self { header, payload })
    }
}

impl Ipv6<&mut [u8]> {
    /// [`upper`](Self::upper), to be changed.
    #[inline]
    pub fn upper_mut(&mut self) -> Option<Upper<&mut [u8]>> {
        Upper::walk(self.next_header(), &mut *self.payload)
    }

    /// Sets differentiated services and congestion.
    #[inline]
    pub fn set_traffic_class(&mut self, to: u8) {
        self.header.put_u16::<0>(self.header.u16_at::<0>() & 0xf00f | u16::from(to) << 4);
    }

    /// Sets the hops left.
    #[inline]
    pub fn set_hop_limit(&mut self, to: u8) {
        self.header.put_u8::<7>(to);
    }

    /// Takes one hop off, as a router does. False, and nothing changed, if the packet has come as far as it may.
    #[inline]
    pub fn decrement_hop_limit(&mut self) -> bool {
        let hops = self.hop_limit();
        if hops > 1 {
            self.set_hop_limit(hops - 1);
        }
        hops > 1
    }

    /// Sets the sender's address. The change is for the checksum of what is inside.
    #[inline]
    pub fn set_source(&mut self, to: Ipv6Addr) -> Delta {
        let delta = Delta::bytes(&self.header.array_at::<8, 16>(), &to.octets());
        self.header.put_array::<8, 16>(to.octets());
        delta
    }

    /// Sets the receiver's address. The change is for the checksum of what is inside.
    #[inline]
    pub fn set_destination(&mut self, to: Ipv6Addr) -> Delta {
        let delta = Delta::bytes(&self.header.array_at::<24, 16>(), &to.octets());
        self.header.put_array::<24, 16>(to.octets());
        delta
    }

    /// Makes the sender the receiver and the other way round. No checksum changes.
    #[inline]
    pub fn swap_addresses(&mut self) {
        let (source, destination) = (self.header.array_at::<8, 16>(), self.header.array_at::<24, 16>());
        self.header.put_array::<8, 16>(destination);
        self.header.put_array::<24, 16>(source);
    }
}

impl<B: Bytes> Upper<B> {
    #[inline]
    fn walk(protocol: Protocol, payload: B) -> Option<Self> {
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        let mut upper = Self { protocol, fragment: false, routed: false, payload };
        for _ in 0..=EXTENSIONS_MAX {
            // Hop-by-hop, routing, fragment, authentication, destination, mobility, host identity, shim6.
            if !matches!(upper.protocol.0, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
                return Some(upper);
            }
            // Each is at least 8 bytes long, and begins with the next one's number and its own length.
            let start = *upper.payload.first_chunk::<8>()?;
            let mut len = (usize::from(start[1]) + 1) * 8;
            match upper.protocol.0 {
                ROUTING => upper.routed |= start[3] > 0,
                FRAGMENT => {
                    // Offset or more: any bit of 13 and the last; a fragment that is the whole packet has none.
                    upper.fragment |= start.u16_at::<2>() & 0xfff9 != 0;
                    len = 8;
                    if start.u16_at::<2>() & 0xfff8 != 0 {
                        // What follows is the middle of something.
                        let (_, payload) = upper.payload.split_bytes(len)?;
                        return Some(Self { protocol: Protocol(start[0]), payload, ..upper });
                    }
                }
                AUTHENTICATION => len = (usize::from(start[1]) + 2) * 4,
                _ => {}
            }
            let (_, payload) = upper.payload.split_bytes(len)?;
            upper = Self { protocol: Protocol(start[0]), payload, ..upper };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::wire::tests::{IPV6_EXTENDED, Random};
    use crate::wire::{Icmpv6, Udp};

    /// A packet with these extension headers, each given as its number and its bytes from the second on.
    fn packet(extensions: &[(u8, &[u8])], last: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = IPV6_EXTENDED[14..54].to_vec();
        bytes[6] = extensions.first().map_or(last, |extension| extension.0);
        for (i, (_, rest)) in extensions.iter().enumerate() {
            bytes.push(extensions.get(i + 1).map_or(last, |next| next.0));
            bytes.extend_from_slice(rest);
        }
        bytes.extend_from_slice(payload);
        let len = bytes.len() as u16 - 40;
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
        bytes
    }

    #[test]
    fn a_header_is_read() {
        let ipv6 = Ipv6::view(&IPV6_EXTENDED[14..]).unwrap();
        assert_eq!((ipv6.traffic_class(), ipv6.flow_label(), ipv6.payload_len()), (0xb8, 0xabcde, 28));
        assert_eq!((ipv6.next_header(), ipv6.hop_limit()), (Protocol(0), 63));
        assert_eq!(ipv6.source(), "fd00::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(ipv6.destination(), "fd00::2".parse::<Ipv6Addr>().unwrap());
        let upper = ipv6.upper().unwrap();
        assert_eq!((upper.protocol, upper.fragment, upper.routed), (Protocol::UDP, false, false));
        assert!(Udp::view(upper.payload).unwrap().is_checksum_valid(ipv6.pseudo()));
    }

    #[test]
    fn every_kind_of_extension_header_is_walked_past() {
        let eight: &[u8] = &[0, 1, 2, 3, 4, 5, 6];
        let route: &[u8] = &[0, 4, 0, 0, 0, 0, 0];
        let fragment: &[u8] = &[0, 0, 0, 0, 0, 0, 1];
        let authentication: &[u8] = &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
        let sixteen: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let all = [
            (0, eight),
            (60, sixteen),
            (43, route),
            (44, fragment),
            (51, authentication),
            (135, eight),
            (139, eight),
            (140, eight),
        ];
        for n in 0..=all.len() {
            let bytes = packet(&all[..n], 58, b"end");
            let upper = Ipv6::view(&bytes).unwrap().into_upper().unwrap();
            assert_eq!((upper.protocol, upper.payload), (Protocol::ICMPV6, &b"end"[..]), "{n}");
            assert!(!upper.fragment && !upper.routed);
        }
        let nine: Vec<_> = [(60, eight)].into_iter().chain(all).collect();
        assert!(Ipv6::view(&packet(&nine, 58, b"end")).unwrap().upper().is_none());
        for last in [50, 59, 6] {
            assert_eq!(
                Ipv6::view(&packet(&all[..1], last, b"")).unwrap().upper().unwrap().protocol,
                Protocol(last)
            );
        }
    }

    #[test]
    fn a_fragment_is_known_and_its_middle_not_taken_for_a_header() {
        for (word, fragment) in
            [([0, 0], false), ([0, 1], true), ([0, 8], true), ([0xff, 0xf8], true), ([0, 6], false)]
        {
            let rest = [0, word[0], word[1], 0, 0, 0, 9];
            let bytes = packet(&[(44, &rest)], 17, b"payload!");
            let upper = Ipv6::view(&bytes).unwrap().into_upper().unwrap();
            assert_eq!((upper.fragment, upper.protocol), (fragment, Protocol::UDP));
            assert_eq!(upper.payload, b"payload!");
        }
        // A later part whose bytes would lead a walk astray.
        let bytes = packet(&[(44, &[0, 0, 8, 0, 0, 0, 9])], 60, &[0xff; 8]);
        let upper = Ipv6::view(&bytes).unwrap().into_upper().unwrap();
        assert_eq!((upper.protocol, upper.payload), (Protocol(60), &[0xff; 8][..]));
    }

    #[test]
    fn an_extension_header_that_is_cut_off_leads_nowhere() {
        let bytes = packet(&[(0, &[1, 0, 0, 0, 0, 0, 0])], 17, b"8 bytes.");
        assert!(Ipv6::view(&bytes).unwrap().upper().is_some_and(|upper| upper.payload.is_empty()));
        for keep in 0..16 {
            let mut bytes = bytes.clone();
            bytes[5] = keep;
            assert!(Ipv6::view(&bytes).unwrap().upper().is_none(), "{keep}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut bytes = IPV6_EXTENDED;
        bytes[18..20].copy_from_slice(&29_u16.to_be_bytes());
        assert!(Ipv6::view(&bytes[14..]).is_none());
        bytes[18..20].copy_from_slice(&0_u16.to_be_bytes());
        assert!(Ipv6::view(&bytes[14..]).unwrap().payload().is_empty());
        bytes[14] = 0x4b;
        assert!(Ipv6::view(&bytes[14..]).is_none());
    }

    #[test]
    fn changes_of_address_keep_the_inner_checksum_right() {
        let mut random = Random(1);
        for _ in 0..2_000 {
            let mut bytes = packet(&[], 58, &random.bytes(24));
            let mut ipv6 = Ipv6::parse(&mut bytes).unwrap();
            let pseudo = ipv6.pseudo();
            Icmpv6::parse(ipv6.payload_mut()).unwrap().fill_checksum(pseudo);
            let address = |random: &mut Random| Ipv6Addr::from(u128::from(random.next()) << 64 | 1);
            let (source, destination) = (address(&mut random), address(&mut random));
            let delta = ipv6.set_source(source).and(ipv6.set_destination(destination));
            assert_eq!((ipv6.source(), ipv6.destination()), (source, destination));
            ipv6.swap_addresses();
            assert_eq!((ipv6.source(), ipv6.destination()), (destination, source));
            let pseudo = ipv6.pseudo();
            let mut icmp = Icmpv6::parse(ipv6.payload_mut()).unwrap();
            icmp.apply(delta);
            assert!(icmp.is_checksum_valid(pseudo));
        }
    }

    #[test]
    fn each_field_is_written_where_it_is_read() {
        let mut bytes = IPV6_EXTENDED;
        let mut ipv6 = Ipv6::parse(&mut bytes[14..]).unwrap();
        ipv6.set_traffic_class(0x5a);
        assert_eq!((ipv6.traffic_class(), ipv6.flow_label()), (0x5a, 0xabcde));
        ipv6.set_hop_limit(2);
        assert!(ipv6.decrement_hop_limit() && !ipv6.decrement_hop_limit());
        assert_eq!(ipv6.hop_limit(), 1);
        ipv6.upper_mut().unwrap().payload.fill(0);
        assert_eq!(bytes[14], 0x65);
        assert!(bytes[70..82].iter().all(|byte| *byte == 0) && bytes[62] == 17);
    }
}
