//! ICMP and ICMPv6, and the answer to a ping.

use super::checksum::{Delta, Pseudo, Sum};
use super::ethernet::{EtherType, Ethernet};
use super::ipv4::{Ipv4, Protocol};
use super::ipv6::Ipv6;
use super::{Bytes, Fields};

/// Bytes of the header of either.
pub const LEN: usize = 8;
/// ICMP type: a ping's answer.
pub const ECHO_REPLY: u8 = 0;
/// ICMP type: a ping.
pub const ECHO_REQUEST: u8 = 8;
/// ICMPv6 type: a ping.
pub const ECHO_REQUEST_V6: u8 = 128;
/// ICMPv6 type: a ping's answer.
pub const ECHO_REPLY_V6: u8 = 129;

/// An ICMP message: 8 bytes of header.
#[derive(Debug)]
pub struct Icmp<B: Bytes> {
    header: B::Array<LEN>,
    payload: B,
}

/// An ICMPv6 message: 8 bytes of header.
#[derive(Debug)]
pub struct Icmpv6<B: Bytes> {
    header: B::Array<LEN>,
    payload: B,
}

borrows!(Icmp, "fewer than 8 bytes.");
borrows!(Icmpv6, "fewer than 8 bytes.");

/// What the two have in common.
macro_rules! message {
    ($name:ident, $request:ident) => {
        impl<B: Bytes> $name<B> {
            /// What kind of message this is: its type.
            #[inline]
            pub fn kind(&self) -> u8 {
                self.header.u8_at::<0>()
            }

            /// Which one of its kind.
            #[inline]
            pub fn code(&self) -> u8 {
                self.header.u8_at::<1>()
            }

            /// The checksum.
            #[inline]
            pub fn checksum(&self) -> u16 {
                self.header.u16_at::<2>()
            }

            /// Whose ping this is; of a meaning of its own in other messages.
            #[inline]
            pub fn identifier(&self) -> u16 {
                self.header.u16_at::<4>()
            }

            /// Which ping this is; of a meaning of its own in other messages.
            #[inline]
            pub fn sequence(&self) -> u16 {
                self.header.u16_at::<6>()
            }

            /// Whether this is a ping.
            #[inline]
            pub fn is_echo_request(&self) -> bool {
                self.header.u16_at::<0>() == u16::from_be_bytes([$request, 0])
            }

            #[inline]
            fn split(bytes: B) -> Option<Self> {
                let (header, payload) = bytes.split_array()?;
                Some(Self { header, payload })
            }
        }
    };
}

message!(Icmp, ECHO_REQUEST);
message!(Icmpv6, ECHO_REQUEST_V6);

impl<B: Bytes> Icmp<B> {
    /// Whether the checksum is right. Cost: one pass over the message.
    #[inline]
    pub fn is_checksum_valid(&self) -> bool {
        self.sum().is_valid()
    }

    #[inline]
    fn sum(&self) -> Sum {
        Sum::new().over_array(&self.header).over(&self.payload)
    }
}

impl Icmp<&mut [u8]> {
    /// Makes this ping the answer to it, and sets the checksum by difference: what was damaged is still found
    /// damaged, by the pinger. False, and nothing changed, if this is no ping.
    #[inline]
    pub fn reply(&mut self) -> bool {
        if !self.is_echo_request() {
            return false;
        }
        const TO_REPLY: Delta =
            Delta::u16(u16::from_be_bytes([ECHO_REQUEST, 0]), u16::from_be_bytes([ECHO_REPLY, 0]));
        let mut checksum = TO_REPLY.apply(self.checksum());
        self.header.put_u16::<0>(0);
        if checksum == 0 {
            // One packet in 65,536: over nothing but zeros the checksum is all ones, not zero.
            self.header.put_u16::<2>(0);
            if self.sum().fold() == 0 {
                checksum = 0xffff;
            }
        }
        self.header.put_u16::<2>(checksum);
        true
    }

    /// Computes the checksum anew. Cost: one pass over the message.
    #[inline]
    pub fn fill_checksum(&mut self) {
        self.header.put_u16::<2>(0); // not less_u16: all the rest may be zeros
        let checksum = self.sum().checksum();
        self.header.put_u16::<2>(checksum);
    }
}

impl<B: Bytes> Icmpv6<B> {
    /// Whether the checksum is right. Cost: one pass over the message.
    #[inline]
    pub fn is_checksum_valid(&self, pseudo: Pseudo) -> bool {
        self.sum(pseudo).is_valid()
    }

    #[inline]
    fn sum(&self, pseudo: Pseudo) -> Sum {
        // ICMPv6 has no length of its own; IP's is below 2^16.
        let len = (LEN + self.payload.len()) as u16;
        pseudo.sum(Protocol::ICMPV6, len).over_array(&self.header).over(&self.payload)
    }
}

impl Icmpv6<&mut [u8]> {
    /// Makes this ping the answer to it, and sets the checksum by difference: what was damaged is still found
    /// damaged, by the pinger. False, and nothing changed, if this is no ping.
    #[inline]
    pub fn reply(&mut self) -> bool {
        if !self.is_echo_request() {
            return false;
        }
        const TO_REPLY: Delta =
            Delta::u16(u16::from_be_bytes([ECHO_REQUEST_V6, 0]), u16::from_be_bytes([ECHO_REPLY_V6, 0]));
        self.header.put_u8::<0>(ECHO_REPLY_V6);
        self.apply(TO_REPLY);
        true
    }

    /// Takes a change of what the checksum covers (an IP address) into it.
    #[inline]
    pub fn apply(&mut self, delta: Delta) {
        self.header.put_u16::<2>(delta.apply(self.checksum()));
    }

    /// Computes the checksum anew. Cost: one pass over the message.
    #[inline]
    pub fn fill_checksum(&mut self, pseudo: Pseudo) {
        let checksum = self.sum(pseudo).less_u16(self.checksum()).checksum();
        self.header.put_u16::<2>(checksum);
    }
}

/// Makes an Ethernet frame that holds a ping, of IPv4 or IPv6, the answer to it: addresses swapped, message and
/// checksum changed. VLAN tags, payload and hops left stay. Whether the ping is for us, the caller knows.
///
/// False, and nothing changed, if the frame holds anything else, a fragment, or a ping to or from a group. The cost
/// does not depend on the ping's size.
#[inline]
pub fn answer(packet: &mut [u8]) -> bool {
    let Some(mut ethernet) = Ethernet::parse(packet) else { return false };
    if ethernet.destination().is_multicast() || ethernet.source().is_multicast() {
        return false;
    }
    let answered = match ethernet.network_mut() {
        Some(network) => match network.ether_type {
            EtherType::IPV4 => answer_v4(network.payload).is_some(),
            EtherType::IPV6 => answer_v6(network.payload).is_some(),
            _ => false,
        },
        None => false,
    };
    if answered {
        ethernet.swap_addresses();
    }
    answered
}

#[inline]
fn answer_v4(packet: &mut [u8]) -> Option<()> {
    let mut ipv4 = Ipv4::parse(packet)?;
    let group = |address: core::net::Ipv4Addr| address.is_multicast() || address.is_broadcast();
    if ipv4.protocol() != Protocol::ICMP
        || ipv4.is_fragment()
        || group(ipv4.source())
        || group(ipv4.destination())
    {
        return None;
    }
    Icmp::parse(ipv4.payload_mut())?.reply().then_some(())?;
    ipv4.swap_addresses();
    Some(())
}

#[inline]
fn answer_v6(packet: &mut [u8]) -> Option<()> {
    let mut ipv6 = Ipv6::parse(packet)?;
    if ipv6.source().is_multicast() || ipv6.destination().is_multicast() {
        return None;
    }
    let upper = ipv6.upper_mut()?;
    if upper.protocol != Protocol::ICMPV6 || upper.fragment || upper.routed {
        return None;
    }
    Icmpv6::parse(upper.payload)?.reply().then_some(())?;
    ipv6.swap_addresses();
    Some(())
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::wire::tests::{ECHO_REQUEST as PING, ECHO_REQUEST_V6 as PING_V6, Random, TCP_SYN, hex};

    #[test]
    fn a_ping_is_read() {
        let ipv4 = Ipv4::view(&PING[14..]).unwrap();
        let icmp = Icmp::view(ipv4.payload()).unwrap();
        assert_eq!(
            (icmp.kind(), icmp.code(), icmp.identifier(), icmp.sequence()),
            (ECHO_REQUEST, 0, 0x1234, 1)
        );
        assert_eq!(icmp.payload(), b"ping");
        assert!(icmp.is_echo_request() && icmp.is_checksum_valid());
    }

    #[test]
    fn the_answer_is_byte_exact() {
        let mut packet = PING;
        assert!(answer(&mut packet));
        let expected: [u8; 46] = hex(b"02000000000a 02000000000b 0800
              4500 0020 0001 0000 40 01 66da 0a000002 0a000001
              00 00 0efa 1234 0001 70696e67");
        assert_eq!(packet[..46], expected);
        assert_eq!(packet[46..], PING[46..], "padding stays");
        assert!(!answer(&mut packet), "an answer is not answered");
    }

    #[test]
    fn a_ping_over_ipv6_is_answered() {
        let mut packet = PING_V6;
        assert!(answer(&mut packet));
        let ipv6 = Ipv6::view(&packet[14..]).unwrap();
        let icmp = Icmpv6::view(ipv6.payload()).unwrap();
        assert_eq!(
            (icmp.kind(), icmp.code(), icmp.identifier(), icmp.sequence()),
            (ECHO_REPLY_V6, 0, 0x1234, 1)
        );
        assert!(icmp.is_checksum_valid(ipv6.pseudo()));
        assert_eq!(packet[..12], hex::<12>(b"02000000000a 02000000000b"));
        assert_eq!(packet[22..38], PING_V6[38..54]);
        assert_eq!(packet[38..54], PING_V6[22..38]);
    }

    #[test]
    fn an_answer_has_the_checksum_it_would_have_if_computed_anew() {
        let mut random = Random(1);
        for _ in 0..5_000 {
            let len = random.below(40);
            let mut bytes = random.bytes(8 + len);
            bytes[..2].copy_from_slice(&[ECHO_REQUEST, 0]);
            let mut icmp = Icmp::parse(&mut bytes).unwrap();
            icmp.fill_checksum();
            assert!(icmp.reply());
            let updated = icmp.checksum();
            icmp.fill_checksum();
            assert_eq!(icmp.checksum(), updated);
        }
    }

    #[test]
    fn both_zeros_of_ones_complement_are_told_apart() {
        for (word, checksum) in [([0, 0], 0xffff), ([0xff, 0xff], 0)] {
            let mut bytes = vec![ECHO_REQUEST, 0, 0, 0, word[0], word[1], 0, 0, 0];
            let mut icmp = Icmp::parse(&mut bytes).unwrap();
            icmp.fill_checksum();
            assert!(icmp.is_checksum_valid() && icmp.reply() && icmp.is_checksum_valid());
            assert_eq!(icmp.checksum(), checksum);
        }
    }

    #[test]
    fn a_damaged_ping_gets_a_damaged_answer() {
        for bit in 32..12 * 8 {
            let mut packet = PING;
            packet[34 + bit / 8] ^= 1 << (bit % 8);
            assert!(answer(&mut packet));
            assert!(!Icmp::view(&packet[34..46]).unwrap().is_checksum_valid());
        }
    }

    #[test]
    fn nothing_else_is_answered() {
        let refused = |packet: &[u8], what: &str| {
            let mut changed = packet.to_vec();
            assert!(!answer(&mut changed), "{what}");
            assert_eq!(changed, packet, "{what}");
        };
        refused(&TCP_SYN, "TCP");
        for (at, value, what) in [
            (0, 0xff, "a group's card"),
            (6, 0x03, "from a group's card"),
            (13, 0x06, "another type"),
            (20, 0x20, "a first fragment"),
            (21, 0x01, "a later fragment"),
            (23, 2, "another protocol"),
            (26, 224, "from a group"),
            (30, 239, "to a group"),
            (34, 0, "an answer"),
            (35, 1, "another code"),
            (17, 27, "seven bytes"),
        ] {
            let mut packet = PING;
            packet[at] = value;
            refused(&packet, what);
        }
        for (at, value, what) in [
            (20, 59, "nothing"),
            (22, 0xff, "from a group"),
            (38, 0xff, "to a group"),
            (54, 135, "a neighbour"),
        ] {
            let mut packet = PING_V6;
            packet[at] = value;
            refused(&packet, what);
        }
    }
}
