//! A round trip through the kernel's own stack: ICMP echo, the baseline everything else is compared with.
#![forbid(unsafe_code)]

use super::{Error, sys};
use crate::netdev::netlink::field;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::time::Instant;
use xdp_umem::{Errno, Fd};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Bytes of a request: the header, and as many again as ping(8) sends by default.
const REQUEST_LEN: usize = 64;

/// Sends `count` echo requests of 64 bytes, `interval` apart, and returns each one's round trip in nanoseconds, in
/// order; `None` for one that was not answered within `timeout`. From before the sending call to after the receiving
/// one, on `CLOCK_MONOTONIC`; blocking, so a wakeup is in it.
///
/// Runs in the calling thread's namespace, one request at a time. Three system calls a round trip.
///
/// # Errors
/// `EPERM` without CAP_NET_RAW, `ENETUNREACH` without a route, `ENETDOWN`.
pub fn ping(
    address: Ipv4Addr,
    count: u16,
    interval: Duration,
    timeout: Duration,
) -> Result<Vec<Option<u64>>, Error> {
    let failed = |errno| Error::new("ping", address.to_string(), errno);
    let socket = open(address).map_err(failed)?;
    // the identifier tells our answers from those of another ping on this host
    let identifier = (socket.raw() as u16).rotate_left(8) ^ std::process::id() as u16;
    let mut round_trips_ns = vec![None; usize::from(count)];
    let start = Instant::now();
    for (sequence, round_trip_ns) in (0..count).zip(&mut round_trips_ns) {
        let due = interval * u32::from(sequence);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let request = echo_request(identifier, sequence);
        let sent = Instant::now();
        sys::send(&socket, &request).map_err(failed)?;
        *round_trip_ns = wait(&socket, &request, sent, timeout).map_err(failed)?;
    }
    Ok(round_trips_ns)
}

fn open(address: Ipv4Addr) -> Result<Fd, Errno> {
    const SOL_RAW: i32 = 255;
    const ICMP_FILTER: i32 = 1;
    let socket = xdp_umem::sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?;
    let all_but_replies = !(1u32 << ECHO_REPLY);
    xdp_umem::sys::setsockopt(&socket, SOL_RAW, ICMP_FILTER, &all_but_replies)?;
    sys::connect_ipv4(&socket, address)?;
    Ok(socket)
}

/// Waits for the answer to `request`; the nanoseconds since `sent`, or `None` when the time is up.
fn wait(socket: &Fd, request: &[u8], sent: Instant, timeout: Duration) -> Result<Option<u64>, Errno> {
    let mut packet = [0; 2048];
    loop {
        let left = timeout.saturating_sub(sent.elapsed());
        // a timeout of nothing would mean to wait for ever
        let left_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
        if left_us == 0 {
            return Ok(None);
        }
        let time = [left_us / 1_000_000, left_us % 1_000_000];
        xdp_umem::sys::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)?;
        match sys::receive(socket, &mut packet) {
            Ok(len) => {
                let round_trip = sent.elapsed();
                if answers(&packet[..len.min(packet.len())], request) {
                    return Ok(Some(round_trip.as_nanos() as u64));
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn echo_request(identifier: u16, sequence: u16) -> [u8; REQUEST_LEN] {
    let mut request: [u8; REQUEST_LEN] = core::array::from_fn(|at| at as u8);
    request[..4].copy_from_slice(&[ECHO_REQUEST, 0, 0, 0]);
    request[4..6].copy_from_slice(&identifier.to_be_bytes());
    request[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    request
}

/// Whether an IPv4 packet carries the echo reply with the request's identifier, sequence and data.
fn answers(packet: &[u8], request: &[u8]) -> bool {
    let header = usize::from(packet.first().copied().unwrap_or(0) & 15) * 4;
    let reply = packet.get(header..).unwrap_or_default();
    field(reply, 0) == Some([ECHO_REPLY, 0]) && reply.get(4..) == request.get(4..)
}

/// The Internet checksum of an even number of bytes (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_nothing_and_only_its_reply_answers_it() {
        let request = echo_request(0x1234, 7);
        assert_eq!(checksum(&request), 0);
        let mut packet = vec![0u8; 20];
        packet[0] = 0x45;
        packet.extend_from_slice(&request);
        assert!(!answers(&packet, &request), "the request itself, as it comes back on lo");
        packet[20] = ECHO_REPLY;
        assert!(answers(&packet, &request));
        assert!(!answers(&packet, &echo_request(0x1234, 8)), "another one's sequence");
        assert!(!answers(&packet, &echo_request(0x1235, 7)), "another one's identifier");
        assert!(!answers(&packet[..30], &request), "cut short");
        assert!(!answers(&[], &request) && !answers(&[0x4f], &request));
    }
}
