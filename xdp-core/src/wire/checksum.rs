//! The Internet checksum: sums, differences, and checksums that a veth sender left unfinished.
//!
//! The sum is RFC 1071's, in ones' complement over 16-bit words. It has no order, so that swapping two addresses or
//! two ports changes none, and no byte order, so that it is taken in the host's, 32 bits at a time. A checksum is
//! its complement; data and checksum together sum to 0xffff.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::ethernet::Ethernet;
use super::ipv4::Protocol;
use super::tcp::Tcp;
use super::transport::Transport;
use super::udp::Udp;

/// A sum over bytes, not yet folded to 16 bits.
///
/// Good for 4 GiB; a packet has less.
///
/// ```
/// use xdp_core::wire::Sum;
/// let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
/// assert_eq!(Sum::of(&header).checksum(), 0xb861);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64); // of 32-bit words in the host's byte order

/// The addresses of an IP packet, which the checksums of UDP, TCP and ICMPv6 cover.
#[derive(Clone, Copy, Debug)]
pub struct Pseudo {
    addresses: Sum,
    ipv6: bool,
}

/// What a change of some bytes does to a sum over them (RFC 1624, equation 3).
#[must_use = "a checksum that covers what was changed is wrong until it is told"]
#[derive(Clone, Copy, Debug)]
pub struct Delta(Sum);

/// What [`finish_checksum`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finished {
    /// The checksum was not one left unfinished. It may be right, wrong, or absent (UDP over IPv4).
    NotNeeded,
    /// The checksum was unfinished, and is right now.
    Done,
    /// No whole UDP or TCP packet: a fragment, a routing header that hides the true destination, another protocol.
    NotApplicable,
}

impl Sum {
    /// Of nothing.
    #[inline]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Over `bytes`, the last one padded with a zero where their number is odd.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        Self::new().over(bytes)
    }

    /// Goes on over `bytes`. Only the last piece of what is summed may have an odd length.
    #[inline]
    pub fn over(self, bytes: &[u8]) -> Self {
        Self(self.0 + sum(bytes))
    }

    /// [`over`](Self::over), unrolled for a header.
    #[inline(always)]
    pub fn over_array<const N: usize>(self, bytes: &[u8; N]) -> Self {
        let mut words = bytes.chunks_exact(4);
        let sum = words.by_ref().fold(self.0, |sum, bytes| sum + word(bytes));
        Self(sum + tail(words.remainder()))
    }

    /// Goes on over a 16-bit number, big-endian on the wire.
    #[inline]
    pub const fn over_u16(self, value: u16) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// Goes on over a 32-bit number, big-endian on the wire.
    #[inline]
    pub const fn over_u32(self, value: u32) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// Leaves a 16-bit number out again, where the rest is not all zeros: cheaper than a zero in its place, which
    /// the processor is slow to read back in a wider word.
    #[inline]
    pub(super) const fn less_u16(self, value: u16) -> Self {
        self.over_u16(!value)
    }

    /// The sum in 16 bits, not complemented. Zero only over nothing but zeros.
    #[inline]
    pub const fn fold(self) -> u16 {
        // Each half added to the other: the upper one gets the carry out of the lower, which is its own, come around.
        let sum = (self.0.wrapping_add(self.0.rotate_right(32)) >> 32) as u32;
        let sum = (sum.wrapping_add(sum.rotate_right(16)) >> 16) as u16;
        u16::from_be(sum)
    }

    /// The checksum of what was summed: the folded sum's complement.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether what was summed, its checksum included, is intact.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }

    /// The sum as it is when what was summed begins at an odd place: each word with its bytes swapped.
    #[inline]
    const fn at_odd(self) -> Self {
        Self(self.fold().swap_bytes().to_be() as u64)
    }
}

/// The sum of 32-bit words, below 2^34.
fn sum(bytes: &[u8]) -> u64 {
    let mut blocks = bytes.chunks_exact(32);
    let mut lanes = [0_u64; 8];
    for block in &mut blocks {
        for (lane, bytes) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += word(bytes);
        }
    }
    let mut words = blocks.remainder().chunks_exact(4);
    let sum = words.by_ref().fold(lanes.iter().sum::<u64>(), |sum, bytes| sum + word(bytes))
        + tail(words.remainder());
    (sum & 0xffff_ffff) + (sum >> 32)
}

/// Four bytes in the host's byte order.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into()
}

/// Up to three bytes, padded with zeros.
#[inline(always)]
fn tail(bytes: &[u8]) -> u64 {
    match *bytes {
        [] => 0,
        [a] => u32::from_ne_bytes([a, 0, 0, 0]).into(),
        [a, b] => u32::from_ne_bytes([a, b, 0, 0]).into(),
        [a, b, c, ..] => u32::from_ne_bytes([a, b, c, 0]).into(),
    }
}

impl Pseudo {
    /// Of an IPv4 packet.
    #[inline]
    pub fn v4(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self {
            addresses: Sum::new().over_array(&source.octets()).over_array(&destination.octets()),
            ipv6: false,
        }
    }

    /// Of an IPv6 packet; `destination` is the final one, if there is a routing header.
    #[inline]
    pub fn v6(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self {
            addresses: Sum::new().over_array(&source.octets()).over_array(&destination.octets()),
            ipv6: true,
        }
    }

    /// The sum over the whole pseudo header: the addresses, and `len` bytes of `protocol`, header included.
    ///
    /// [Folded](Sum::fold), this is what Linux leaves in the checksum field of a packet whose checksum is for
    /// the card to finish.
    #[inline]
    pub fn sum(self, protocol: Protocol, len: u16) -> Sum {
        self.addresses.over_u16(protocol.0.into()).over_u16(len)
    }

    /// Whether the addresses are IPv6's: UDP must have a checksum there.
    #[inline]
    pub fn is_ipv6(self) -> bool {
        self.ipv6
    }
}

impl Delta {
    /// From nothing changed.
    #[inline]
    pub const fn none() -> Self {
        Self(Sum(0))
    }

    /// A 16-bit number changed, at an even place.
    #[inline]
    pub const fn u16(from: u16, to: u16) -> Self {
        Self(Sum::new().over_u16(!from).over_u16(to))
    }

    /// A 32-bit number or an IPv4 address changed, at an even place.
    #[inline]
    pub const fn u32(from: u32, to: u32) -> Self {
        Self(Sum::new().over_u32(!from).over_u32(to))
    }

    /// Bytes changed, at an even place.
    #[inline]
    pub fn bytes<const N: usize>(from: &[u8; N], to: &[u8; N]) -> Self {
        let (from, to) = (from.chunks_exact(4), to.chunks_exact(4));
        let last = u64::from(!(tail(from.remainder()) as u32)) + tail(to.remainder());
        let sum = from.zip(to).fold(last, |sum, (from, to)| sum + u64::from(!(word(from) as u32)) + word(to));
        Self(Sum(sum))
    }

    /// The same change one byte further on.
    #[inline]
    pub(super) const fn at_odd(self) -> Self {
        Self(self.0.at_odd())
    }

    /// This change, and another.
    #[inline]
    pub const fn and(self, other: Self) -> Self {
        Self(Sum(self.0.0 + other.0.0))
    }

    /// The checksum after the change. Wrong stays wrong by as much as it was.
    ///
    /// The same as a new one over the changed data, but for one case: over nothing but zeros that is 0xffff and this
    /// is 0. No header of IPv4, UDP, TCP or ICMPv6 is that (an ICMP echo reply can be: [`Icmp::reply`] sees to it).
    ///
    /// [`Icmp::reply`]: super::Icmp::reply
    #[inline]
    pub const fn apply(self, checksum: u16) -> u16 {
        Sum(self.0.0).over_u16(!checksum).checksum()
    }
}

/// The checksum after a 16-bit number it covers changed. See [`Delta::apply`].
#[inline]
pub const fn update_u16(checksum: u16, from: u16, to: u16) -> u16 {
    Delta::u16(from, to).apply(checksum)
}

/// The checksum after a 32-bit number it covers changed. See [`Delta::apply`].
#[inline]
pub const fn update_u32(checksum: u16, from: u32, to: u32) -> u16 {
    Delta::u32(from, to).apply(checksum)
}

/// Finishes the checksum of a UDP or TCP packet that its sender left to the card (`CHECKSUM_PARTIAL`), as a kernel
/// stack does whose packets reach us over veth or virtio without ever passing a card.
///
/// Such a packet carries the folded sum of its pseudo header where the checksum goes, and nothing else tells it from
/// a finished one. So the field is compared with that sum. Where they differ, nothing is touched. Where they are equal,
/// the right checksum is computed over the whole packet and written.
///
/// A finished packet whose checksum happens to equal the sum (one in 65,535) is summed too, and is not harmed:
/// there is one right checksum, so the one computed is the one it has, and the answer is
/// [`NotNeeded`](Finished::NotNeeded). Hence also: finishing twice is finishing once, and verifying first would buy nothing.
/// What remains is a packet *damaged* on a real wire whose wrong checksum equals the sum: one in 65,535 of the
/// damaged ones is passed on as good. Where packets come off a card, switch this off.
///
/// Ethernet with up to two VLAN tags, IPv4 and IPv6 with extension headers are seen through. Only the outermost
/// UDP or TCP header is looked at: one left unfinished inside a tunnel stays so. Segments larger than the link (GSO)
/// are not cut. Cost: the headers and the addresses; for an unfinished packet, one pass over its bytes.
///
/// Where in the kernel: `skb_checksum_help` in `net/core/dev.c` does this for packets it hands to a card that can't.
#[inline]
pub fn finish_checksum(packet: &mut [u8]) -> Finished {
    finish(packet).unwrap_or(Finished::NotApplicable)
}

#[inline]
fn finish(packet: &mut [u8]) -> Option<Finished> {
    let Transport { protocol, pseudo, whole, payload } =
        Ethernet::parse(packet)?.into_network()?.into_transport()?;
    let (found, right) = match protocol {
        Protocol::UDP if whole => {
            let mut udp = Udp::parse(payload)?;
            let found = udp.checksum();
            if found == udp.unfinished(pseudo) {
                udp.fill_checksum(pseudo);
            }
            (found, udp.checksum())
        }
        Protocol::TCP if whole => {
            let mut tcp = Tcp::parse(payload)?;
            let found = tcp.checksum();
            if found == tcp.unfinished(pseudo) {
                tcp.fill_checksum(pseudo);
            }
            (found, tcp.checksum())
        }
        _ => return None,
    };
    Some(if found == right { Finished::NotNeeded } else { Finished::Done })
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::wire::tests::{IPV6_EXTENDED, Random, TCP_SYN, hex};
    use crate::wire::{Ipv4, Ipv6, UdpTemplate, ethernet, vlan};

    /// RFC 1071 word by word, as it is written there.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    #[test]
    fn rfc_1624_example() {
        // Section 4: the old equation gave 0xffff, the right one gives 0.
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn the_sum_agrees_with_one_taken_word_by_word() {
        let mut random = Random(1);
        for len in 0..=300 {
            let bytes = random.bytes(len + 3);
            for start in 0..4.min(len) {
                assert_eq!(Sum::of(&bytes[start..len]).fold(), naive(&bytes[start..len]), "{start}..{len}");
            }
        }
        for byte in [0, 0xff] {
            assert_eq!(Sum::of(&vec![byte; 65_535]).fold(), naive(&vec![byte; 65_535]));
        }
    }

    #[test]
    fn a_sum_in_even_pieces_is_the_sum_of_the_whole() {
        let mut random = Random(2);
        for _ in 0..500 {
            let len = random.below(200);
            let bytes = random.bytes(len);
            let cut = random.below(len + 1) & !1;
            assert_eq!(Sum::of(&bytes[..cut]).over(&bytes[cut..]).fold(), naive(&bytes));
        }
        let bytes: [u8; 40] = random.bytes(40).try_into().unwrap();
        assert_eq!(Sum::new().over_array(&bytes).fold(), naive(&bytes));
        assert_eq!(Sum::new().over_u16(0x0102).over_u32(0x0304_0506).fold(), naive(&[1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn a_checksum_updated_by_difference_is_the_one_computed_anew() {
        let mut random = Random(3);
        for _ in 0..20_000 {
            let mut bytes: [u8; 48] = random.bytes(48).try_into().unwrap();
            bytes[0] = 0x45; // never all zeros
            let before = bytes;
            let checksum = Sum::of(&bytes).checksum();
            let at = 2 + random.below(20) * 2;
            // Now and then words that are all ones or zeros, where ones' complement has its two zeros.
            let fill = [0, 0xff, random.next() as u8, random.next() as u8][random.below(4)];
            let updated = if random.below(2) == 0 {
                bytes[at..at + 2].copy_from_slice(&[fill, fill]);
                update_u16(
                    checksum,
                    u16::from_be_bytes([before[at], before[at + 1]]),
                    u16::from_be_bytes([fill; 2]),
                )
            } else {
                bytes[at..at + 4].copy_from_slice(&[fill, !fill, fill, 3]);
                let old: [u8; 4] = before[at..at + 4].try_into().unwrap();
                update_u32(checksum, u32::from_be_bytes(old), u32::from_be_bytes([fill, !fill, fill, 3]))
            };
            assert_eq!(updated, Sum::of(&bytes).checksum());
            let whole: &[u8; 46] = before.last_chunk().unwrap();
            assert_eq!(Delta::bytes(whole, bytes.last_chunk().unwrap()).apply(checksum), updated);
        }
    }

    #[test]
    fn changes_add_up() {
        let both = Delta::u16(1, 2).and(Delta::u32(3, 4)).and(Delta::none());
        assert_eq!(both.apply(0x1234), update_u32(update_u16(0x1234, 1, 2), 3, 4));
    }

    /// Leaves a packet's checksum as a veth sender does.
    fn unfinish(packet: &mut [u8], at: usize, pseudo: Pseudo, protocol: Protocol, len: usize) {
        let sum = pseudo.sum(protocol, len as u16).fold();
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    fn addresses(ip: &[u8]) -> Pseudo {
        match Ipv4::view(ip) {
            Some(ipv4) => ipv4.pseudo(),
            None => Ipv6::view(ip).unwrap().pseudo(),
        }
    }

    #[test]
    fn an_unfinished_checksum_is_finished_once() {
        let mut packet = TCP_SYN;
        unfinish(&mut packet, 50, addresses(&TCP_SYN[14..]), Protocol::TCP, 40);
        assert_ne!(packet, TCP_SYN);
        assert_eq!(finish_checksum(&mut packet), Finished::Done);
        assert_eq!(packet, TCP_SYN);
        assert_eq!(finish_checksum(&mut packet), Finished::NotNeeded);
        assert_eq!(packet, TCP_SYN);
    }

    /// What Linux 6.18 handed to its loopback device, which finishes checksums as little as veth does.
    const FROM_LINUX: [&[u8]; 3] = [
        &hex::<52>(
            b"000000000000 000000000000 0800 45000026f9c54000401142ff 7f000001 7f000001
              1388 1389 0012 fe25 756e66696e6973686564",
        ),
        &hex::<65>(
            b"000000000000 000000000000 86dd 600aa6b3000b1140
              00000000000000000000000000000001 00000000000000000000000000000001
              1388 1389 000b 001e 6f6464",
        ),
        &hex::<69>(
            b"000000000000 000000000000 0800 45000037ff4340004006 3d7b 7f000001 7f000001
              93ca138a1cfb92f564d8efb680180040 fe2b 0000 0101080a57cb9e0b071fd6f7616263",
        ),
    ];

    #[test]
    fn what_linux_leaves_unfinished_is_finished_right() {
        for (before, at) in FROM_LINUX.into_iter().zip([40, 60, 50]) {
            let mut packet = before.to_vec();
            assert_eq!(finish_checksum(&mut packet), Finished::Done);
            let transport =
                Ethernet::view(&packet).unwrap().into_network().unwrap().into_transport().unwrap();
            assert_eq!(transport.is_checksum_valid(), Some(true));
            // And word by word, as a receiver would.
            let ip = &packet[14..];
            let (addresses, l4) =
                if ip[0] >> 4 == 4 { (&ip[12..20], &ip[20..]) } else { (&ip[8..40], &ip[40..]) };
            let rest = [0, transport.protocol.0, 0, l4.len() as u8];
            assert_eq!(naive(&[addresses, &rest, l4].concat()), 0xffff);
            assert_eq!(packet[..at], before[..at]);
            assert_eq!(packet[at + 2..], before[at + 2..]);
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let mut packet = TCP_SYN;
        packet[50] ^= 1;
        let before = packet;
        assert_eq!(finish_checksum(&mut packet), Finished::NotNeeded);
        assert_eq!(packet, before);
    }

    #[test]
    fn extension_headers_are_seen_through_but_not_fragments_or_routes() {
        let mut packet = IPV6_EXTENDED;
        unfinish(&mut packet, 76, addresses(&IPV6_EXTENDED[14..]), Protocol::UDP, 12);
        let unfinished = packet;
        assert_eq!(finish_checksum(&mut packet), Finished::Done);
        assert_eq!(packet, IPV6_EXTENDED);

        packet = unfinished;
        packet[20] = 43; // a routing header first,
        packet[57] = 1; // with a segment left
        let before = packet;
        assert_eq!(finish_checksum(&mut packet), Finished::NotApplicable);
        packet[57] = 0;
        assert_eq!(finish_checksum(&mut packet), Finished::Done);
        packet = before;
        packet[20] = 44; // a fragment header first
        packet[57] = 1;
        assert_eq!(finish_checksum(&mut packet), Finished::NotApplicable);
    }

    #[test]
    fn fragments_and_other_protocols_are_left_alone() {
        let mut packet = TCP_SYN;
        unfinish(&mut packet, 50, addresses(&TCP_SYN[14..]), Protocol::TCP, 40);
        for (at, value) in [(20, 0x20), (21, 1), (23, 132), (12, 0), (14, 0x55)] {
            let mut other = packet;
            other[at] = value;
            let before = other;
            assert_eq!(finish_checksum(&mut other), Finished::NotApplicable, "{at}");
            assert_eq!(other, before);
        }
    }

    #[test]
    fn tagged_and_padded_udp_is_finished() {
        for vlan in [None, Some(7)] {
            let template = UdpTemplate { vlan, packet_size: 97, ..UdpTemplate::default() };
            let mut packet = [0xee; 120]; // padding that must not be summed
            template.write(&mut packet).unwrap();
            let finished = packet;
            let ip = ethernet::LEN + if vlan.is_some() { vlan::LEN } else { 0 };
            unfinish(&mut packet, ip + 26, addresses(&finished[ip..]), Protocol::UDP, 97 - ip - 20);
            assert_eq!(finish_checksum(&mut packet), Finished::Done);
            assert_eq!(packet, finished);
        }
    }

    #[test]
    fn a_finished_checksum_that_looks_unfinished_stays() {
        // Two payload bytes are chosen so that the right checksum is the pseudo header's sum.
        let mut packet = [0; 64];
        UdpTemplate { packet_size: 64, ..UdpTemplate::default() }.write(&mut packet).unwrap();
        let pseudo = addresses(&packet[14..]);
        let target = pseudo.sum(Protocol::UDP, 30).fold();
        let mut udp = Udp::parse(&mut packet[34..]).unwrap();
        udp.payload_mut()[..2].fill(0);
        udp.fill_checksum(pseudo);
        // checksum' = !(!checksum + word) must be target
        let word = Sum::new().over_u16(udp.checksum()).over_u16(!target).fold();
        udp.payload_mut()[..2].copy_from_slice(&word.to_be_bytes());
        udp.fill_checksum(pseudo);
        assert_eq!(udp.checksum(), target);
        let before = packet;
        assert_eq!(finish_checksum(&mut packet), Finished::NotNeeded);
        assert_eq!(packet, before);
    }

    #[test]
    fn udp_without_a_checksum_stays_without() {
        let mut packet = [0; 64];
        UdpTemplate::default().write(&mut packet).unwrap();
        packet[40..42].fill(0);
        assert_eq!(finish_checksum(&mut packet), Finished::NotNeeded);
        assert_eq!(packet[40..42], [0, 0]);
    }

    #[test]
    fn the_pseudo_headers_are_the_rfcs() {
        let v4 = Pseudo::v4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(v4.sum(Protocol::UDP, 12).fold(), naive(&hex::<12>(b"0a000001 0a000002 00 11 000c")));
        let v6 = Pseudo::v6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let bytes: [u8; 40] =
            hex(b"fd000000000000000000000000000001 fd000000000000000000000000000002 0000000c 00000011");
        assert_eq!(v6.sum(Protocol::UDP, 12).fold(), naive(&bytes));
        assert!(v6.is_ipv6() && !v4.is_ipv6());
    }
}
