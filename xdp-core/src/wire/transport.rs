//! Past IP, of either version.

use super::checksum::Pseudo;
use super::ethernet::EtherType;
use super::ipv4::{Ipv4, Protocol};
use super::ipv6::Ipv6;
use super::{Bytes, Icmp, Icmpv6, Network, Tcp, Udp};

/// What an IP packet carries past its header, options and extension headers.
#[derive(Debug)]
pub struct Transport<B: Bytes> {
    /// What `payload` is.
    pub protocol: Protocol,
    /// The addresses, for its checksum.
    pub pseudo: Pseudo,
    /// Whether the packet is whole and its destination the final one. Otherwise its header may be missing, and its
    /// checksum cannot be told.
    pub whole: bool,
    /// The bytes, without Ethernet's padding.
    pub payload: B,
}

impl<B: Bytes> Network<B> {
    /// What lies past the IP header. `None`: not IP, or cut off.
    #[inline]
    pub fn into_transport(self) -> Option<Transport<B>> {
        match self.ether_type {
            EtherType::IPV4 => {
                let ipv4 = Ipv4::split(self.payload)?;
                Some(Transport {
                    protocol: ipv4.protocol(),
                    pseudo: ipv4.pseudo(),
                    whole: !ipv4.is_fragment(),
                    payload: ipv4.into_payload(),
                })
            }
            EtherType::IPV6 => {
                let ipv6 = Ipv6::split(self.payload)?;
                let pseudo = ipv6.pseudo();
                let upper = ipv6.into_upper()?;
                let whole = !upper.fragment && !upper.routed;
                Some(Transport { protocol: upper.protocol, pseudo, whole, payload: upper.payload })
            }
            _ => None,
        }
    }
}

impl<B: Bytes> Transport<B> {
    /// Whether the checksum of UDP, TCP, ICMP or ICMPv6 is right, or absent where it may be. Cost: one pass over the
    /// payload.
    ///
    /// `None`: another protocol, a packet that is not whole, or a header cut off.
    #[inline]
    pub fn is_checksum_valid(&self) -> Option<bool> {
        if !self.whole {
            return None;
        }
        match self.protocol {
            Protocol::UDP => Some(Udp::view(&self.payload)?.is_checksum_valid(self.pseudo)),
            Protocol::TCP => Some(Tcp::view(&self.payload)?.is_checksum_valid(self.pseudo)),
            Protocol::ICMP if !self.pseudo.is_ipv6() => Some(Icmp::view(&self.payload)?.is_checksum_valid()),
            Protocol::ICMPV6 if self.pseudo.is_ipv6() => {
                Some(Icmpv6::view(&self.payload)?.is_checksum_valid(self.pseudo))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Ethernet;
    use crate::wire::tests::{ARP_REQUEST, ECHO_REQUEST, ECHO_REQUEST_V6, IPV6_EXTENDED, TCP_SYN};

    fn transport(packet: &[u8]) -> Option<Transport<&[u8]>> {
        Ethernet::view(packet)?.into_network()?.into_transport()
    }

    #[test]
    fn the_transport_of_either_version_is_found_and_verified() {
        for (packet, protocol, len) in [
            (&TCP_SYN[..], Protocol::TCP, 40),
            (&ECHO_REQUEST, Protocol::ICMP, 12),
            (&ECHO_REQUEST_V6, Protocol::ICMPV6, 12),
            (&IPV6_EXTENDED, Protocol::UDP, 12),
        ] {
            let found = transport(packet).unwrap();
            assert_eq!((found.protocol, found.payload.len(), found.whole), (protocol, len, true));
            assert_eq!(found.is_checksum_valid(), Some(true));
            let mut damaged = packet.to_vec();
            let end = found.payload.as_ptr() as usize - packet.as_ptr() as usize + len;
            damaged[end - 1] ^= 0x10;
            assert_eq!(transport(&damaged).unwrap().is_checksum_valid(), Some(false));
        }
        assert!(transport(&ARP_REQUEST).is_none());
    }

    #[test]
    fn what_cannot_be_verified_is_not_said_to_be_wrong() {
        let mut packet = TCP_SYN;
        packet[20] = 0x20; // more fragments
        let found = transport(&packet).unwrap();
        assert_eq!((found.whole, found.is_checksum_valid()), (false, None));
        packet = TCP_SYN;
        packet[23] = Protocol::ICMPV6.0; // not over IPv4
        assert_eq!(transport(&packet).unwrap().is_checksum_valid(), None);
        packet[23] = 132; // SCTP
        assert_eq!(transport(&packet).unwrap().is_checksum_valid(), None);
    }
}
