//! Reflector: sends packets back.

use xdp_core::wire::{
    EtherType, Ethernet, Finished, Icmp, Icmpv6, Ipv4, Ipv6, Protocol, Udp, finish_checksum,
};
use xdp_core::{Frame, Stage, Verdict};

/// Sends every packet back by the port it came in by, its Ethernet addresses swapped.
///
/// UDP over IPv4 and IPv6 goes back with its IP addresses and ports swapped, an ICMP or ICMPv6 echo request as the reply
/// to it; both with right checksums, behind up to two VLAN tags. Whatever else comes (fragments, TCP, ARP, packets of
/// several chunks) is changed in its Ethernet header only. What is shorter than that header is dropped. A packet to a group
/// goes back with the group's address as its sender's, which a bridge on the way drops.
///
/// UDP checksums that a veth or virtio sender left to its card are finished first, unless that is switched off: the way back
/// leads past no card either, and the sender's own stack would refuse the packet.
#[derive(Clone, Copy, Debug)]
pub struct Reflector {
    finish_checksums: bool,
    counts: ReflectCounts,
}

/// What a reflector counts. How many packets it sent back, [`Counters::forwarded`](xdp_core::Counters::forwarded) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReflectCounts {
    /// UDP packets and pings turned round; the rest had their Ethernet addresses swapped only.
    pub turned: u64,
    /// Unfinished checksums finished.
    pub checksums_finished: u64,
}

impl Default for Reflector {
    /// One that finishes checksums.
    fn default() -> Self {
        Self::new(true)
    }
}

impl Reflector {
    /// One that finishes unfinished checksums, or leaves them. Switch it off where packets come off a real wire: there a damaged
    /// checksum may look unfinished, once in 65,535.
    pub fn new(finish_checksums: bool) -> Self {
        Self { finish_checksums, counts: ReflectCounts::default() }
    }

    /// What was counted so far.
    pub const fn counts(&self) -> ReflectCounts {
        self.counts
    }
}

impl Stage for Reflector {
    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        let packet: &mut [u8] = frame;
        if self.finish_checksums && finish_checksum(packet) == Finished::Done {
            self.counts.checksums_finished += 1;
        }
        let Some(mut ethernet) = Ethernet::parse(packet) else { return Verdict::Drop };
        ethernet.swap_addresses();
        if ethernet.into_network().is_some_and(|network| match network.ether_type {
            EtherType::IPV4 => turn_v4(network.payload).is_some(),
            EtherType::IPV6 => turn_v6(network.payload).is_some(),
            _ => false,
        }) {
            self.counts.turned += 1;
        }
        Verdict::Tx
    }
}

#[inline]
fn turn_v4(packet: &mut [u8]) -> Option<()> {
    let mut ipv4 = Ipv4::parse(packet)?;
    if ipv4.is_fragment() {
        return None;
    }
    match ipv4.protocol() {
        Protocol::UDP => Udp::parse(ipv4.payload_mut())?.swap_ports(),
        Protocol::ICMP => Icmp::parse(ipv4.payload_mut())?.reply().then_some(())?,
        _ => return None,
    }
    ipv4.swap_addresses(); // no checksum changes: a sum has no order
    Some(())
}

#[inline]
fn turn_v6(packet: &mut [u8]) -> Option<()> {
    let mut ipv6 = Ipv6::parse(packet)?;
    let upper = ipv6.upper_mut()?;
    if upper.fragment || upper.routed {
        return None;
    }
    match upper.protocol {
        Protocol::UDP => Udp::parse(upper.payload)?.swap_ports(),
        Protocol::ICMPV6 => Icmpv6::parse(upper.payload)?.reply().then_some(())?,
        _ => return None,
    }
    ipv6.swap_addresses();
    Some(())
}
