//! VLAN tags of IEEE 802.1Q and 802.1ad.
//!
//! A tag is four bytes between the addresses and the type of an Ethernet frame. Cards may keep it out of the
//! packet (rx VLAN offload): switch that off where tags are to be seen.

use super::ethernet::{self, EtherType};
use super::{Bytes, Fields};

/// Bytes of a tag: what [`push`] needs in front of the packet and [`pop`] leaves there.
pub const LEN: usize = 4;

/// A tag by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// [`EtherType::VLAN`] or [`EtherType::QINQ`].
    pub kind: EtherType,
    /// Priority (3 bits), drop eligible (1), VLAN (12).
    pub control: u16,
}

/// A tag in place: what follows an [`EtherType`] that [is a tag](EtherType::is_tag).
#[derive(Debug)]
pub struct Vlan<B: Bytes> {
    header: B::Array<LEN>,
    payload: B,
}

/// What an Ethernet frame carries past its VLAN tags.
#[derive(Debug)]
pub struct Network<B: Bytes> {
    /// The tags, the outer one first.
    pub tags: [Option<Tag>; 2],
    /// What `payload` is. [A tag](EtherType::is_tag) if there were more than two.
    pub ether_type: EtherType,
    /// The bytes after the last tag read; Ethernet's padding, too.
    pub payload: B,
}

borrows!(Vlan, "fewer than 4 bytes.");

impl Tag {
    /// A plain 802.1Q tag of priority 0. An id has 12 bits; higher ones are cut off.
    #[inline]
    pub const fn new(id: u16) -> Self {
        Self { kind: EtherType::VLAN, control: id & 0x0fff }
    }

    /// The VLAN: 1 to 4094; 0 is none (a priority only), 4095 reserved.
    #[inline]
    pub const fn id(self) -> u16 {
        self.control & 0x0fff
    }

    /// The priority, 0 to 7.
    #[inline]
    pub const fn priority(self) -> u8 {
        (self.control >> 13) as u8
    }

    /// Whether a congested switch may drop this one first.
    #[inline]
    pub const fn drop_eligible(self) -> bool {
        self.control & 0x1000 != 0
    }
}

impl<B: Bytes> Vlan<B> {
    /// Priority, drop eligible and VLAN in one.
    #[inline]
    pub fn control(&self) -> u16 {
        self.header.u16_at::<0>()
    }

    /// The VLAN.
    #[inline]
    pub fn id(&self) -> u16 {
        self.control() & 0x0fff
    }

    /// What follows this tag: another one, too.
    #[inline]
    pub fn ether_type(&self) -> EtherType {
        EtherType(self.header.u16_at::<2>())
    }

    #[inline]
    fn split(bytes: B) -> Option<Self> {
        let (header, payload) = bytes.split_array()?;
        Some(Self { header, payload })
    }
}

impl Vlan<&mut [u8]> {
    /// Sets the VLAN; the priority stays. An id has 12 bits; higher ones are cut off.
    #[inline]
    pub fn set_id(&mut self, to: u16) {
        self.header.put_u16::<0>(self.control() & 0xf000 | to & 0x0fff);
    }

    /// Sets priority, drop eligible and VLAN in one.
    #[inline]
    pub fn set_control(&mut self, to: u16) {
        self.header.put_u16::<0>(to);
    }
}

impl<B: Bytes> Network<B> {
    /// Reads up to two tags. `None`: cut off within a tag.
    #[inline]
    pub(super) fn read(ether_type: EtherType, payload: B) -> Option<Self> {
        let mut network = Self { tags: [None; 2], ether_type, payload };
        for i in 0..2 {
            if !network.ether_type.is_tag() {
                break;
            }
            let vlan = Vlan::split(network.payload)?;
            network.tags[i] = Some(Tag { kind: network.ether_type, control: vlan.control() });
            network.ether_type = vlan.ether_type();
            network.payload = vlan.payload;
        }
        Some(network)
    }
}

/// Adds a tag: `grown` is an Ethernet frame to whose front [`LEN`] bytes of headroom were just added. Their old
/// contents do not matter; the new tag becomes the outer one.
///
/// False, and nothing changed, if `grown` is too short to hold an Ethernet header and a tag.
#[inline]
pub fn push(grown: &mut [u8], tag: Tag) -> bool {
    let Some(header) = grown.first_chunk_mut::<{ ethernet::LEN + LEN }>() else { return false };
    let addresses = header.array_at::<4, 12>();
    header.put_array::<0, 12>(addresses);
    header.put_u16::<12>(tag.kind.0);
    header.put_u16::<14>(tag.control);
    true
}

/// Takes the outer tag off: the Ethernet frame then begins [`LEN`] bytes further on, and the caller moves its start
/// there.
///
/// `None`, and nothing changed, if the outermost header is no tag.
#[inline]
pub fn pop(packet: &mut [u8]) -> Option<Tag> {
    let header = packet.first_chunk_mut::<{ ethernet::LEN + LEN }>()?;
    let tag = Tag { kind: EtherType(header.u16_at::<12>()), control: header.u16_at::<14>() };
    if !tag.kind.is_tag() {
        return None;
    }
    let addresses = header.array_at::<0, 12>();
    header.put_array::<4, 12>(addresses);
    Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Ethernet;
    use crate::wire::tests::DOUBLE_TAGGED;

    #[test]
    fn two_tags_are_read_outer_first() {
        let network = Ethernet::view(&DOUBLE_TAGGED).unwrap().into_network().unwrap();
        let [Some(outer), Some(inner)] = network.tags else { panic!("{network:?}") };
        assert_eq!(
            (outer.kind, outer.id(), outer.priority(), outer.drop_eligible()),
            (EtherType::QINQ, 100, 5, false)
        );
        assert_eq!(
            (inner.kind, inner.id(), inner.priority(), inner.drop_eligible()),
            (EtherType::VLAN, 200, 0, true)
        );
        assert_eq!(network.ether_type, EtherType::ARP);
        assert_eq!(network.payload, &DOUBLE_TAGGED[22..]);
    }

    #[test]
    fn a_third_tag_is_left_alone() {
        let mut packet = [0; 26];
        for at in [12, 16, 20] {
            packet[at..at + 2].copy_from_slice(&[0x81, 0x00]);
        }
        let network = Ethernet::view(&packet).unwrap().into_network().unwrap();
        assert_eq!(network.ether_type, EtherType::VLAN);
        assert_eq!(network.payload.len(), 4);
    }

    #[test]
    fn a_pushed_tag_comes_off_again() {
        let mut bytes = [0xee; 64];
        let packet: [u8; 60] = core::array::from_fn(|i| i as u8);
        bytes[LEN..].copy_from_slice(&packet);
        let tag = Tag { kind: EtherType::QINQ, control: 0xa064 };
        assert!(push(&mut bytes, tag));
        assert_eq!(bytes[..12], packet[..12]);
        assert_eq!(bytes[12..16], [0x88, 0xa8, 0xa0, 0x64]);
        assert_eq!(bytes[16..], packet[12..]);
        assert_eq!(pop(&mut bytes), Some(tag));
        assert_eq!(bytes[LEN..], packet);
        assert_eq!(pop(&mut bytes[LEN..]), None, "no tag is left");
        assert_eq!(bytes[LEN..], packet);
    }

    #[test]
    fn too_short_a_packet_takes_no_tag() {
        let mut bytes = [7; 17];
        assert!(!push(&mut bytes, Tag::new(1)));
        assert_eq!(pop(&mut bytes), None);
        assert_eq!(bytes, [7; 17]);
    }

    #[test]
    fn a_new_id_keeps_the_priority() {
        let mut packet = DOUBLE_TAGGED;
        let mut ethernet = Ethernet::parse(&mut packet).unwrap();
        Vlan::parse(ethernet.payload_mut()).unwrap().set_id(0xf123);
        assert_eq!(packet[14..16], [0xa1, 0x23]);
        let mut inner = Vlan::parse(&mut packet[18..]).unwrap();
        inner.set_id(1);
        assert_eq!(inner.control(), 0x1001, "and whether it may be dropped");
        inner.set_control(0xe002);
        assert_eq!(packet[18..20], [0xe0, 0x02]);
        assert_eq!(Tag::new(0xf123).control, 0x0123);
    }
}
