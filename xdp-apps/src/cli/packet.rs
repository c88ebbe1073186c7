//! Packet: the template that `ping` and `generate` send, from what was typed and what the host knows.
#![forbid(unsafe_code)]

use super::args::{Addresses, Pace};
use super::failure::Failure;
use super::plan::{self, Plan};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use xdp_core::wire::UdpTemplate;

/// Addresses of the benchmark network (RFC 2544), for a host that has none.
const SRC_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const DST_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// What a worker sends, from `src_port`.
pub(crate) fn template(
    plan: &Plan,
    worker: usize,
    addresses: &Addresses,
    packet_size: u32,
    src_port: u16,
) -> Result<UdpTemplate, Failure> {
    let interface = plan.interface(worker, 0);
    let dst_ip = addresses.dst_ip.unwrap_or(DST_IP);
    let destination_mac = match addresses.dst_mac {
        Some(mac) => mac,
        None => plan::neighbour(plan, interface, dst_ip)?.ok_or_else(|| {
            Failure::usage(format!(
                "send to {dst_ip}: {} has no neighbour of that address; give --dst-mac, or --dst-ip of one that answers to `ping`",
                interface.name
            ))
        })?,
    };
    let no_mac = || Failure::usage(format!("send from {}: it has no MAC address; give --src-mac", interface.name));
    let source_mac = addresses.src_mac.or(interface.mac).ok_or_else(no_mac)?;
    let src_ip = match addresses.src_ip {
        Some(ip) => ip,
        None => plan::own_address(plan, interface)?.unwrap_or(SRC_IP),
    };
    Ok(UdpTemplate {
        // the wire's addresses and the host's are one type's bytes
        source_mac: source_mac.0.into(),
        destination_mac: destination_mac.0.into(),
        source: SocketAddrV4::new(src_ip, src_port),
        destination: SocketAddrV4::new(dst_ip, addresses.port),
        vlan: addresses.vlan,
        packet_size: packet_size as usize,
        ..UdpTemplate::default()
    })
}

/// Time between two packets of one of `workers`; zero for as fast as it goes, which is also what nothing typed means.
pub(crate) fn interval(pace: &Pace, workers: usize) -> Duration {
    let together = match (pace.interval, pace.rate) {
        (Some(interval), _) => interval,
        (None, Some(rate)) => Duration::from_nanos(1_000_000_000 / rate),
        (None, None) => Duration::ZERO,
    };
    together * workers as u32
}

/// A worker's part of a number of packets; the first takes what does not divide.
pub(crate) fn share(count: u64, workers: usize, worker: usize) -> u64 {
    let workers = workers as u64;
    count / workers + if worker == 0 { count % workers } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_shared_out_without_a_remainder() {
        for (count, workers) in [(10, 3), (1, 2), (0, 1), (1_000_001, 4)] {
            assert_eq!((0..workers).map(|worker| share(count, workers, worker)).sum::<u64>(), count);
        }
    }

    #[test]
    fn a_rate_is_that_of_all_workers_together() {
        let pace = Pace { interval: None, rate: Some(100_000) };
        assert_eq!(interval(&pace, 2), Duration::from_micros(20));
        let pace = Pace { interval: Some(Duration::from_millis(1)), rate: None };
        assert_eq!(interval(&pace, 1), Duration::from_millis(1));
        assert_eq!(interval(&Pace { interval: None, rate: None }, 1), Duration::ZERO);
    }
}
