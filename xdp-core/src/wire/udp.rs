//! UDP.

use super::checksum::{Delta, Pseudo, Sum};
use super::ipv4::Protocol;
use super::{Bytes, Fields};

/// Bytes of the header.
pub const LEN: usize = 8;

/// A UDP header: 8 bytes.
///
/// A checksum of zero stands for none, which IPv4 allows; one that comes out as zero is sent as 0xffff, which
/// is the same number in ones' complement.
#[derive(Debug)]
pub struct Udp<B: Bytes> {
    header: B::Array<LEN>,
    payload: B,
}

borrows!(Udp, "fewer than 8 bytes, or a length below 8 or beyond the bytes there are.");

impl<B: Bytes> Udp<B> {
    /// The sender's port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        self.header.u16_at::<0>()
    }

    /// The receiver's port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        self.header.u16_at::<2>()
    }

    /// Bytes of header and payload.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a packet is never empty: the header counts")]
    pub fn len(&self) -> u16 {
        self.header.u16_at::<4>()
    }

    /// The checksum, 0 for none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        self.header.u16_at::<6>()
    }

    /// Whether the checksum is right, or absent where it may be. Cost: one pass over the packet.
    #[inline]
    pub fn is_checksum_valid(&self, pseudo: Pseudo) -> bool {
        if self.checksum() == 0 { !pseudo.is_ipv6() } else { self.sum(pseudo).is_valid() }
    }

    /// What a sender leaves in the checksum field for a card to finish.
    #[inline]
    pub(super) fn unfinished(&self, pseudo: Pseudo) -> u16 {
        pseudo.sum(Protocol::UDP, self.len()).fold()
    }

    #[inline]
    fn sum(&self, pseudo: Pseudo) -> Sum {
        pseudo.sum(Protocol::UDP, self.len()).over_array(&self.header).over(&self.payload)
    }

    #[inline]
    fn split(bytes: B) -> Option<Self> {
        let (header, rest) = bytes.split_array::<LEN>()?;
        let (payload, _beyond) = rest.split_bytes(usize::from(header.u16_at::<4>()).checked_sub(LEN)?)?;
        Some(Self { header, payload })
    }
}

impl Udp<&mut [u8]> {
    /// Sets the sender's port, and the checksum by difference.
    #[inline]
    pub fn set_source_port(&mut self, to: u16) {
        let delta = Delta::u16(self.source_port(), to);
        self.header.put_u16::<0>(to);
        self.apply(delta);
    }

    /// Sets the receiver's port, and the checksum by difference.
    #[inline]
    pub fn set_destination_port(&mut self, to: u16) {
        let delta = Delta::u16(self.destination_port(), to);
        self.header.put_u16::<2>(to);
        self.apply(delta);
    }

    /// Makes the sender's port the receiver's and the other way round. The checksum does not change.
    #[inline]
    pub fn swap_ports(&mut self) {
        let (source, destination) = (self.header.array_at::<0, 2>(), self.header.array_at::<2, 2>());
        self.header.put_array::<0, 2>(destination);
        self.header.put_array::<2, 2>(source);
    }

    /// Overwrites payload from byte `at` on, and sets the checksum by difference: cheaper than anew as soon as
    /// less than half of the payload changes.
    ///
    /// False, and nothing changed, if `new` reaches past the payload.
    #[inline]
    pub fn overwrite<const N: usize>(&mut self, at: usize, new: &[u8; N]) -> bool {
        match self.payload.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(&old) => self.replace(at, &old, new),
            None => false,
        }
    }

    /// [`overwrite`](Self::overwrite) where the caller knows the `old` bytes, say of a template just copied: reading
    /// them back so soon would wait for the copy.
    ///
    /// The checksum comes out wrong if they are others.
    #[inline]
    pub fn replace<const N: usize>(&mut self, at: usize, old: &[u8; N], new: &[u8; N]) -> bool {
        let Some(place) = self.payload.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>()) else {
            return false;
        };
        debug_assert_eq!(place, old, "the bytes to be replaced");
        *place = *new;
        let delta = Delta::bytes(old, new);
        self.apply(if at % 2 == 0 { delta } else { delta.at_odd() });
        true
    }

    /// Takes a change of what the checksum covers (an IP address) into it. An absent checksum stays absent.
    #[inline]
    pub fn apply(&mut self, delta: Delta) {
        let checksum = self.checksum();
        if checksum != 0 {
            self.header.put_u16::<6>(never_zero(delta.apply(checksum)));
        }
    }

    /// Computes the checksum anew. Cost: one pass over the packet.
    #[inline]
    pub fn fill_checksum(&mut self, pseudo: Pseudo) {
        let checksum = self.sum(pseudo).less_u16(self.checksum()).checksum();
        self.header.put_u16::<6>(never_zero(checksum));
    }

    /// Sends the packet without a checksum, which only IPv4 allows.
    #[inline]
    pub fn clear_checksum(&mut self) {
        self.header.put_u16::<6>(0);
    }
}

/// Zero would say that there is no checksum.
#[inline]
const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use alloc::vec::Vec;

    use super::*;
    use crate::wire::tests::{Random, hex};

    fn pseudo() -> Pseudo {
        Pseudo::v4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
    }

    fn packet(random: &mut Random, payload: usize) -> Vec<u8> {
        let mut bytes = random.bytes(LEN + payload);
        bytes[4..6].copy_from_slice(&((LEN + payload) as u16).to_be_bytes());
        bytes
    }

    #[test]
    fn a_header_is_read() {
        let bytes: [u8; 13] = hex(b"1234 0007 000b 0000 686921 eeee");
        let mut filled = bytes;
        let mut udp = Udp::parse(&mut filled).unwrap();
        assert_eq!((udp.source_port(), udp.destination_port(), udp.len()), (0x1234, 7, 11));
        assert_eq!(udp.payload(), b"hi!", "bytes beyond the length are not payload");
        udp.fill_checksum(pseudo());
        let by_hand =
            0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 0x0011 + 0x000b + 0x1234 + 0x0007 + 0x000b + 0x6869 + 0x2100;
        assert_eq!(udp.checksum(), !(by_hand as u16));
        assert!(udp.is_checksum_valid(pseudo()));
        assert_eq!(filled[8..], bytes[8..]);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut bytes = packet(&mut Random(1), 4);
        assert!(Udp::view(&bytes).is_some());
        for (len, ok) in [(0, false), (7, false), (8, true), (12, true), (13, false)] {
            bytes[5] = len;
            assert_eq!(Udp::view(&bytes).is_some(), ok, "{len}");
        }
    }

    #[test]
    fn a_checksum_of_zero_means_none_over_ipv4_and_is_wrong_over_ipv6() {
        let mut bytes = packet(&mut Random(2), 4);
        let mut udp = Udp::parse(&mut bytes).unwrap();
        udp.clear_checksum();
        assert!(udp.is_checksum_valid(pseudo()));
        assert!(!udp.is_checksum_valid(Pseudo::v6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST)));
        udp.set_source_port(1);
        assert!(udp.overwrite(0, &[1, 2, 3, 4]));
        assert_eq!(udp.checksum(), 0, "none stays none");
    }

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
        let mut bytes = [0, 0, 0, 0, 0, 10, 0, 0, 0, 0];
        let mut udp = Udp::parse(&mut bytes).unwrap();
        udp.fill_checksum(pseudo());
        let rest = udp.checksum(); // what is missing to a sum of 0xffff
        udp.payload_mut().copy_from_slice(&rest.to_be_bytes());
        udp.fill_checksum(pseudo());
        assert_eq!(udp.checksum(), 0xffff);
        assert!(udp.is_checksum_valid(pseudo()));
        assert!(udp.overwrite(0, &[0, 0]));
        assert_eq!(udp.checksum(), rest);
        assert!(udp.overwrite(0, &rest.to_be_bytes()));
        assert_eq!(udp.checksum(), 0xffff, "by difference too");
    }

    #[test]
    fn every_change_keeps_the_checksum_right() {
        let mut random = Random(3);
        for _ in 0..5_000 {
            let len = 32 + random.below(40);
            let mut bytes = packet(&mut random, len);
            let mut udp = Udp::parse(&mut bytes).unwrap();
            udp.fill_checksum(pseudo());
            udp.set_source_port(random.next() as u16);
            udp.set_destination_port(random.next() as u16);
            udp.swap_ports();
            let at = random.below(len - 31);
            match random.below(4) {
                0 => assert!(udp.overwrite(at, &[random.next() as u8; 1])),
                1 => {
                    let old: [u8; 8] = *udp.payload()[at..].first_chunk().unwrap();
                    assert!(udp.replace(at, &old, &random.next().to_be_bytes()));
                }
                2 => assert!(udp.overwrite(at, &<[u8; 18]>::try_from(random.bytes(18)).unwrap())),
                _ => assert!(udp.overwrite(at, &<[u8; 32]>::try_from(random.bytes(32)).unwrap())),
            }
            assert!(udp.is_checksum_valid(pseudo()));
            let updated = udp.checksum();
            udp.fill_checksum(pseudo());
            assert_eq!(udp.checksum(), updated);
        }
    }

    #[test]
    fn nothing_is_written_past_the_payload() {
        let mut bytes = packet(&mut Random(4), 10);
        let before = bytes.clone();
        let mut udp = Udp::parse(&mut bytes).unwrap();
        assert!(!udp.overwrite(3, &[0; 8]));
        assert!(!udp.overwrite(11, &[0; 1]));
        assert!(!udp.overwrite(usize::MAX, &[0; 1]));
        assert!(!udp.replace(3, &[0; 8], &[0; 8]));
        assert_eq!(bytes, before);
        assert!(Udp::parse(&mut bytes).unwrap().overwrite(2, &[0; 8]));
    }
}
