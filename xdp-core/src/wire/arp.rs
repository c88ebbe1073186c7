//! ARP for IPv4 over Ethernet.

use core::net::Ipv4Addr;

use super::ethernet::{EtherType, Ethernet, Mac};
use super::{Bytes, Fields};

/// Bytes of the message.
pub const LEN: usize = 28;
/// Operation: who has this address?
pub const REQUEST: u16 = 1;
/// Operation: I have.
pub const REPLY: u16 = 2;

/// An ARP message: 28 bytes.
#[derive(Debug)]
pub struct Arp<B: Bytes> {
    header: B::Array<LEN>,
    payload: B,
}

borrows!(Arp, "fewer than 28 bytes, or not about IPv4 over Ethernet.");

impl<B: Bytes> Arp<B> {
    /// [`REQUEST`], [`REPLY`], or a rarer one.
    #[inline]
    pub fn operation(&self) -> u16 {
        self.header.u16_at::<6>()
    }

    /// Whose message this is.
    #[inline]
    pub fn sender_mac(&self) -> Mac {
        Mac(self.header.array_at::<8, 6>())
    }

    /// Whose message this is. 0.0.0.0 in a probe for a free address.
    #[inline]
    pub fn sender(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.header.array_at::<14, 4>())
    }

    /// Whom a reply is for; of no meaning in a request.
    #[inline]
    pub fn target_mac(&self) -> Mac {
        Mac(self.header.array_at::<18, 6>())
    }

    /// The address asked for.
    #[inline]
    pub fn target(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.header.array_at::<24, 4>())
    }

    #[inline]
    fn split(bytes: B) -> Option<Self> {
        const IPV4_OVER_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
        let (header, payload) = bytes.split_array::<LEN>()?;
        (header.array_at::<0, 6>() == IPV4_OVER_ETHERNET).then_some(Self { header, payload })
    }
}

impl Arp<&mut [u8]> {
    /// Makes this request the reply to it: the address asked for is at `mac`.
    #[inline]
    pub fn reply(&mut self, mac: Mac) {
        let target = self.header.array_at::<24, 4>();
        let sender = self.header.array_at::<8, 10>();
        self.header.put_u16::<6>(REPLY);
        self.header.put_array::<8, 6>(mac.0);
        self.header.put_array::<14, 4>(target);
        self.header.put_array::<18, 10>(sender);
    }
}

/// Makes an Ethernet frame that asks for `address` the answer that it is at `mac`. VLAN tags stay.
///
/// False, and nothing changed, if the frame is anything else.
#[inline]
pub fn answer(packet: &mut [u8], address: Ipv4Addr, mac: Mac) -> bool {
    let Some(mut ethernet) = Ethernet::parse(packet) else { return false };
    let Some(network) = ethernet.network_mut() else { return false };
    if network.ether_type != EtherType::ARP {
        return false;
    }
    let Some(mut arp) = Arp::parse(network.payload) else { return false };
    if arp.operation() != REQUEST || arp.target() != address {
        return false;
    }
    let asker = arp.sender_mac();
    arp.reply(mac);
    ethernet.set_destination(asker);
    ethernet.set_source(mac);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::{ARP_REQUEST, DOUBLE_TAGGED, hex};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[test]
    fn a_request_is_read() {
        let arp = Arp::view(&ARP_REQUEST[14..]).unwrap();
        assert_eq!(arp.operation(), REQUEST);
        assert_eq!((arp.sender_mac(), arp.sender()), (Mac([2, 0, 0, 0, 0, 0xa]), Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!((arp.target_mac(), arp.target()), (Mac::default(), ADDRESS));
    }

    #[test]
    fn the_answer_is_byte_exact() {
        let mut packet = ARP_REQUEST;
        assert!(answer(&mut packet, ADDRESS, MAC));
        assert_eq!(
            packet,
            hex(b"02000000000a 02000000000b 0806  0001 0800 06 04 0002
                  02000000000b 0a000002 02000000000a 0a000001")
        );
    }

    #[test]
    fn a_tagged_request_gets_a_tagged_answer() {
        let mut packet = DOUBLE_TAGGED;
        assert!(answer(&mut packet, ADDRESS, MAC));
        assert_eq!(packet[12..22], DOUBLE_TAGGED[12..22]);
        assert_eq!(Arp::view(&packet[22..]).unwrap().operation(), REPLY);
    }

    #[test]
    fn only_a_request_for_our_address_is_answered() {
        let mut packet = ARP_REQUEST;
        assert!(!answer(&mut packet, Ipv4Addr::new(10, 0, 0, 3), MAC));
        packet[21] = 2; // a reply
        assert!(!answer(&mut packet, ADDRESS, MAC));
        packet[21] = 1;
        packet[19] = 16; // hardware addresses of another length
        assert!(Arp::view(&packet[14..]).is_none());
        packet[19] = 4;
        packet[18] = 6;
        packet[12..14].copy_from_slice(&[0x08, 0x00]);
        let before = packet;
        assert!(!answer(&mut packet, ADDRESS, MAC));
        assert_eq!(packet, before);
    }
}
