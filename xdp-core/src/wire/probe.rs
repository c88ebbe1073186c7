//! The pinger's own header, in the payload of its packets.

use super::Fields;

/// Which packet of which pinger this is, and when it was sent: 18 bytes, so that it fits the smallest Ethernet frame
/// (60 bytes without its check sequence, of which Ethernet, IPv4 and UDP take 42).
///
/// Big-endian throughout: magic and version (2 bytes), session (4), sequence (4), ticks (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which pinger's. Chosen at its start, so that a late packet of an earlier run is not counted.
    pub session: u32,
    /// The lower half of the packet's number: see [`number`](Self::number).
    pub sequence: u32,
    /// When the packet was really sent, in the sender's ticks. When it was to be sent, the pinger knows by its number.
    pub ticks: u64,
}

/// Bytes of a probe.
pub const LEN: usize = 18;
/// Twelve bits that say it is a probe, four for this layout's version.
pub const MAGIC: u16 = 0xafd1;

impl Probe {
    /// The probe as it stands in a payload.
    #[inline]
    pub fn to_bytes(self) -> [u8; LEN] {
        // In registers until whole: a checksum reads it in other words than it has fields.
        let head = u128::from(MAGIC) << 112
            | u128::from(self.session) << 80
            | u128::from(self.sequence) << 48
            | u128::from(self.ticks >> 16);
        let mut bytes = [0; LEN];
        bytes.put_array::<0, 16>(head.to_be_bytes());
        bytes.put_u16::<16>(self.ticks as u16);
        bytes
    }

    /// The probe at the beginning of a payload. `None`: too short, no probe, or one of another version.
    #[inline]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes = payload.first_chunk::<LEN>()?;
        (bytes.u16_at::<0>() == MAGIC).then(|| Self {
            session: bytes.u32_at::<2>(),
            sequence: bytes.u32_at::<6>(),
            ticks: u64::from_be_bytes(bytes.array_at::<10, 8>()),
        })
    }

    /// The packet's whole number: of those that end in its sequence, the one closest to `near` (say, the number to be
    /// sent next). Right as long as no packet is away while 2^31 others are sent: at 100 million a second, 21 s.
    ///
    /// Of a hostile packet the number may be any; from `near` it is never further than 2^31.
    #[inline]
    pub const fn number(self, near: u64) -> u64 {
        let ahead = self.sequence.wrapping_sub(near as u32) as i32;
        near.wrapping_add_signed(ahead as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::{Random, hex};

    const PROBE: Probe = Probe { session: 0x0102_0304, sequence: 0x0506_0708, ticks: 0x090a_0b0c_0d0e_0f10 };

    #[test]
    fn the_bytes_are_as_documented() {
        assert_eq!(PROBE.to_bytes(), hex(b"afd1 01020304 05060708 090a0b0c0d0e0f10"));
        assert_eq!(Probe::read(&PROBE.to_bytes()), Some(PROBE));
    }

    #[test]
    fn other_payloads_are_no_probes() {
        let bytes = PROBE.to_bytes();
        for len in 0..LEN {
            assert_eq!(Probe::read(&bytes[..len]), None);
        }
        for bit in 0..16 {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Probe::read(&other), None, "bit {bit}");
        }
    }

    #[test]
    fn a_number_survives_the_wrap_of_its_lower_half() {
        let mut random = Random(1);
        for next in [0, 1, 1 << 31, u64::from(u32::MAX), 1 << 32, (1 << 40) + 5, u64::MAX - 3] {
            for _ in 0..1_000 {
                let sent = next.wrapping_sub(random.next() % (1 << 31));
                let probe = Probe { sequence: sent as u32, ..PROBE };
                assert_eq!(probe.number(next), sent);
            }
        }
    }
}
