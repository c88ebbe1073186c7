//! TCP.

use core::fmt;
use core::ops::BitOr;

use super::checksum::{Delta, Pseudo, Sum};
use super::ipv4::Protocol;
use super::{Bytes, Fields};

/// Bytes of the header without options.
pub const LEN: usize = 20;

/// What a TCP segment says besides its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

/// A TCP header: 20 bytes, and up to 40 of options.
#[derive(Debug)]
pub struct Tcp<B: Bytes> {
    header: B::Array<LEN>,
    options: B,
    payload: B,
}

borrows!(Tcp, "a header longer than the bytes there are, or shorter than 20.");

impl Flags {
    /// The sender has no more bytes.
    pub const FIN: Self = Self(1);
    /// Sequence numbers begin here.
    pub const SYN: Self = Self(2);
    /// The connection is broken off.
    pub const RST: Self = Self(4);
    /// To be handed to the program at once.
    pub const PSH: Self = Self(8);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(16);
    /// The urgent pointer counts.
    pub const URG: Self = Self(32);
    /// Congestion was met on the way (RFC 3168).
    pub const ECE: Self = Self(64);
    /// The sender has slowed down (RFC 3168).
    pub const CWR: Self = Self(128);

    /// Whether all of `others` are set.
    #[inline]
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut set = (0..8).filter(|bit| self.0 & 1 << bit != 0).map(|bit| NAMES[bit]);
        f.write_str(set.next().unwrap_or("none"))?;
        set.try_for_each(|name| write!(f, "|{name}"))
    }
}

impl<B: Bytes> Tcp<B> {
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

    /// The number of the first byte of the payload, or of the flag that stands for one.
    #[inline]
    pub fn sequence(&self) -> u32 {
        self.header.u32_at::<4>()
    }

    /// The number of the byte the sender waits for.
    #[inline]
    pub fn acknowledgement(&self) -> u32 {
        self.header.u32_at::<8>()
    }

    /// Bytes of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        LEN + self.options.len()
    }

    /// What the segment says.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags(self.header.u8_at::<13>())
    }

    /// How much the sender will take, in units the handshake settled.
    #[inline]
    pub fn window(&self) -> u16 {
        self.header.u16_at::<14>()
    }

    /// The checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        self.header.u16_at::<16>()
    }

    /// The options, padded to a multiple of 4 bytes.
    #[inline]
    pub fn options(&self) -> &[u8] {
        &self.options
    }

    /// Whether the checksum is right. Cost: one pass over the segment.
    #[inline]
    pub fn is_checksum_valid(&self, pseudo: Pseudo) -> bool {
        self.sum(pseudo).is_valid()
    }

    /// What a sender leaves in the checksum field for a card to finish.
    #[inline]
    pub(super) fn unfinished(&self, pseudo: Pseudo) -> u16 {
        self.pseudo_sum(pseudo).fold()
    }

    #[inline]
    fn pseudo_sum(&self, pseudo: Pseudo) -> Sum {
        // TCP has no length of its own; IP's is below 2^16.
        pseudo.sum(Protocol::TCP, (self.header_len() + self.payload.len()) as u16)
    }

    #[inline]
    fn sum(&self, pseudo: Pseudo) -> Sum {
        self.pseudo_sum(pseudo).over_array(&self.header).over(&self.options).over(&self.payload)
    }

    #[inline]
    fn split(bytes: B) -> Option<Self> {
        let (header, rest) = bytes.split_array::<LEN>()?;
        let header_len = usize::from(header.u8_at::<12>() >> 4) * 4;
        let (options, payload) = rest.split_bytes(header_len.checked_sub(LEN)?)?;
        Some(Self { header, options, payload })
    }
}

impl Tcp<&mut [u8]> {
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

    /// Takes a change of what the checksum covers (an IP address) into it.
    #[inline]
    pub fn apply(&mut self, delta: Delta) {
        self.header.put_u16::<16>(delta.apply(self.checksum()));
    }

    /// Computes the checksum anew. Cost: one pass over the segment.
    #[inline]
    pub fn fill_checksum(&mut self, pseudo: Pseudo) {
        let checksum = self.sum(pseudo).less_u16(self.checksum()).checksum();
        self.header.put_u16::<16>(checksum);
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use core::net::Ipv4Addr;

    use super::*;
    use crate::wire::Ipv4;
    use crate::wire::tests::{Random, TCP_SYN};

    #[test]
    fn a_header_is_read() {
        let ipv4 = Ipv4::view(&TCP_SYN[14..]).unwrap();
        let tcp = Tcp::view(ipv4.payload()).unwrap();
        assert_eq!((tcp.source_port(), tcp.destination_port()), (35_820, 80));
        assert_eq!((tcp.sequence(), tcp.acknowledgement(), tcp.window()), (0x5f31_ebc8, 0, 64_240));
        assert_eq!((tcp.header_len(), tcp.flags(), tcp.options().len()), (40, Flags::SYN, 20));
        assert!(tcp.payload().is_empty());
        assert!(tcp.is_checksum_valid(ipv4.pseudo()));
    }

    #[test]
    fn header_lengths_that_lie_are_refused() {
        let mut bytes = [0; 60];
        for words in 0..=15 {
            bytes[12] = words << 4;
            assert_eq!(Tcp::view(&bytes).is_some(), words >= 5);
            assert_eq!(Tcp::view(&bytes[..40]).is_some(), (5..=10).contains(&words));
        }
    }

    #[test]
    fn every_change_keeps_the_checksum_right() {
        let mut random = Random(1);
        for _ in 0..3_000 {
            let len = 20 + random.below(80);
            let mut bytes = random.bytes(len);
            bytes[12] = 5 << 4;
            let address = |random: &mut Random| Ipv4Addr::from(random.next() as u32);
            let (from, to) = (address(&mut random), address(&mut random));
            let mut tcp = Tcp::parse(&mut bytes).unwrap();
            tcp.fill_checksum(Pseudo::v4(from, to));
            tcp.set_source_port(random.next() as u16);
            tcp.set_destination_port(random.next() as u16);
            tcp.swap_ports();
            let other = address(&mut random);
            tcp.apply(Delta::u32(from.to_bits(), other.to_bits()));
            assert!(tcp.is_checksum_valid(Pseudo::v4(other, to)));
            let updated = tcp.checksum();
            tcp.fill_checksum(Pseudo::v4(to, other));
            assert_eq!(tcp.checksum(), updated);
        }
    }

    #[test]
    fn flags_show_their_names() {
        assert_eq!(format!("{:?} {:?}", Flags::SYN | Flags::ACK, Flags(0)), "SYN|ACK none");
        assert!(
            (Flags::SYN | Flags::ACK).contains(Flags::ACK) && !Flags::ACK.contains(Flags::SYN | Flags::ACK)
        );
    }
}
