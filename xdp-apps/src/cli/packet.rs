//! Packet: the template that `ping` and `generate` send, from what was typed and what the host knows.
#![forbid(unsafe_code)]

use super::args::{Addresses, Pace};
use super::failure::Failure;
use super::plan::{self, Plan};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use xdp_core::Clock;
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
    let no_mac =
        || Failure::usage(format!("send from {}: it has no MAC address; give --src-mac", interface.name));
    let source_mac = addresses.src_mac.or(interface.mac).ok_or_else(no_mac)?;
    let src_ip = match addresses.src_ip {
        Some(ip) => ip,
        None => plan::own_address(plan, interface)?.unwrap_or(SRC_IP),
    };
    Ok(UdpTemplate {
        source_mac,
        destination_mac,
        source: SocketAddrV4::new(src_ip, src_port),
        destination: SocketAddrV4::new(dst_ip, addresses.port),
        vlan: addresses.vlan,
        packet_size: packet_size as usize,
        ..UdpTemplate::default()
    })
}

/// Ticks between two packets of one of `workers`; 0 for as fast as it goes. `usual` where nothing was typed.
pub(crate) fn interval_ticks(pace: &Pace, usual: Duration, workers: usize, clock: &Clock) -> u64 {
    let ticks = match (pace.interval, pace.rate) {
        (None, Some(rate)) => return clock.frequency() * workers as u64 / rate,
        (interval, _) => clock.to_ticks(interval.unwrap_or(usual).as_nanos() as u64),
    };
    ticks * workers as u64
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
        let clock = Clock::with_frequency(2_000_000_000);
        let ticks = |interval, rate, workers| {
            interval_ticks(&Pace { interval, rate }, Duration::from_millis(1), workers, &clock)
        };
        assert_eq!(ticks(None, Some(100_000), 2), 40_000);
        assert_eq!(ticks(None, Some(14_880_000), 1), 134);
        assert_eq!(ticks(Some(Duration::from_micros(3)), None, 1), 6_000);
        assert_eq!(ticks(Some(Duration::ZERO), None, 4), 0);
        assert_eq!(ticks(None, None, 2), 4_000_000);
    }
}
