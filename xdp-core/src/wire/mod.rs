//! Packet headers, read and changed in place.
//!
//! A header is a view of the bytes it stands in: `parse` checks once that they are there and long enough, and what
//! follows neither checks nor panics. A view holds its header as a reference to an array, and what the header
//! carries as its [`payload`](Ethernet::payload): the bytes of the next header, cut where a length field says so, so
//! that the padding of a short Ethernet frame never reaches UDP.
//!
//! Each header comes in two borrows. `parse` takes `&mut [u8]` and gives the one that can be changed; `view` takes
//! `&[u8]` and gives one to read. Whatever does not parse is `None`: a stage drops it, and counts. Numbers are
//! in the host's byte order on our side of every method, lengths are in bytes.
//!
//! Setters keep the checksum *of their own header* right, by difference ([RFC 1624]). What a change does to a
//! checksum further in (UDP and TCP cover the IP addresses) is returned as a [`Delta`].
//!
//! Nothing here allocates, makes a system call, or needs more than `core`.
//!
//! ```
//! use xdp_core::wire::{Ethernet, EtherType, Ipv4, Protocol, Udp};
//!
//! /// Sends a UDP packet back where it came from.
//! fn reflect(packet: &mut [u8]) -> Option<()> {
//!     let mut ethernet = Ethernet::parse(packet)?;
//!     ethernet.swap_addresses();
//!     let mut network = ethernet.into_network()?; // past any VLAN tags
//!     if network.ether_type != EtherType::IPV4 {
//!         return None;
//!     }
//!     let mut ipv4 = Ipv4::parse(network.payload)?;
//!     if ipv4.protocol() != Protocol::UDP || ipv4.is_fragment() {
//!         return None;
//!     }
//!     ipv4.swap_addresses();
//!     Udp::parse(ipv4.payload_mut())?.swap_ports(); // no checksum changes: a sum has no order
//!     Some(())
//! }
//! # let template = xdp_core::wire::UdpTemplate::default();
//! # let mut packet = [0; 64];
//! # template.write(&mut packet).unwrap();
//! # assert_eq!(reflect(&mut packet), Some(()));
//! # assert_eq!(Ethernet::view(&packet).unwrap().destination(), template.source_mac);
//! ```
//!
//! [RFC 1624]: https://www.rfc-editor.org/rfc/rfc1624

#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Deref;

/// Gives a view its two ways in and its three ways on.
///
/// The type needs a field `payload: B` and a private `fn split(bytes: B) -> Option<Self>`.
macro_rules! borrows {
    ($name:ident, $none:literal) => {
        impl<'a> $name<&'a mut [u8]> {
            /// A view to change the header in place.
            ///
            #[doc = concat!("`None`: ", $none)]
            #[inline]
            pub fn parse(bytes: &'a mut [u8]) -> Option<Self> {
                Self::split(bytes)
            }
        }

        impl<'a> $name<&'a [u8]> {
            /// A view to read the header.
            ///
            #[doc = concat!("`None`: ", $none)]
            #[inline]
            pub fn view(bytes: &'a [u8]) -> Option<Self> {
                Self::split(bytes)
            }
        }

        impl<B: Bytes> $name<B> {
            /// What the header carries.
            #[inline]
            pub fn payload(&self) -> &[u8] {
                &self.payload
            }

            /// What the header carries, for as long as the bytes themselves are borrowed.
            #[inline]
            pub fn into_payload(self) -> B {
                self.payload
            }
        }

        impl $name<&mut [u8]> {
            /// What the header carries, to be changed.
            #[inline]
            pub fn payload_mut(&mut self) -> &mut [u8] {
                self.payload
            }
        }
    };
}

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod probe;
pub mod tcp;
pub mod template;
pub mod transport;
pub mod udp;
pub mod vlan;

pub use arp::Arp;
pub use checksum::{Delta, Finished, Pseudo, Sum, finish_checksum};
pub use ethernet::{EtherType, Ethernet, Mac};
pub use icmp::{Icmp, Icmpv6};
pub use ipv4::{Ipv4, Protocol};
pub use ipv6::{Ipv6, Upper};
pub use probe::Probe;
pub use tcp::Tcp;
pub use template::{EchoTemplate, Pattern, TemplateError, UdpTemplate};
pub use transport::Transport;
pub use udp::Udp;
pub use vlan::{Network, Tag, Vlan};

/// The borrow a view stands on: `&[u8]` to read, `&mut [u8]` to change. Sealed.
pub trait Bytes: Deref<Target = [u8]> + fmt::Debug + Sized + sealed::Sealed {
    /// The same borrow, of an array.
    type Array<const N: usize>: Deref<Target = [u8; N]> + fmt::Debug;
    #[doc(hidden)]
    fn split_array<const N: usize>(self) -> Option<(Self::Array<N>, Self)>;
    #[doc(hidden)]
    fn split_bytes(self, at: usize) -> Option<(Self, Self)>;
}

impl<'a> Bytes for &'a [u8] {
    type Array<const N: usize> = &'a [u8; N];

    #[inline(always)]
    fn split_array<const N: usize>(self) -> Option<(&'a [u8; N], Self)> {
        self.split_first_chunk()
    }

    #[inline(always)]
    fn split_bytes(self, at: usize) -> Option<(Self, Self)> {
        self.split_at_checked(at)
    }
}

impl<'a> Bytes for &'a mut [u8] {
    type Array<const N: usize> = &'a mut [u8; N];

    #[inline(always)]
    fn split_array<const N: usize>(self) -> Option<(&'a mut [u8; N], Self)> {
        self.split_first_chunk_mut()
    }

    #[inline(always)]
    fn split_bytes(self, at: usize) -> Option<(Self, Self)> {
        self.split_at_mut_checked(at)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for &[u8] {}
    impl Sealed for &mut [u8] {}
}

/// Big-endian fields of a header, at places the compiler checks.
trait Fields {
    fn u8_at<const AT: usize>(&self) -> u8;
    fn u16_at<const AT: usize>(&self) -> u16;
    fn u32_at<const AT: usize>(&self) -> u32;
    fn array_at<const AT: usize, const LEN: usize>(&self) -> [u8; LEN];
    fn put_u8<const AT: usize>(&mut self, value: u8);
    fn put_u16<const AT: usize>(&mut self, value: u16);
    fn put_array<const AT: usize, const LEN: usize>(&mut self, value: [u8; LEN]);
}

impl<const N: usize> Fields for [u8; N] {
    #[inline(always)]
    fn u8_at<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N) };
        self[AT]
    }

    #[inline(always)]
    fn u16_at<const AT: usize>(&self) -> u16 {
        u16::from_be_bytes(self.array_at::<AT, 2>())
    }

    #[inline(always)]
    fn u32_at<const AT: usize>(&self) -> u32 {
        u32::from_be_bytes(self.array_at::<AT, 4>())
    }

    #[inline(always)]
    fn array_at<const AT: usize, const LEN: usize>(&self) -> [u8; LEN] {
        const { assert!(AT + LEN <= N) };
        let mut value = [0; LEN];
        value.copy_from_slice(&self[AT..AT + LEN]);
        value
    }

    #[inline(always)]
    fn put_u8<const AT: usize>(&mut self, value: u8) {
        const { assert!(AT < N) };
        self[AT] = value;
    }

    #[inline(always)]
    fn put_u16<const AT: usize>(&mut self, value: u16) {
        self.put_array::<AT, 2>(value.to_be_bytes());
    }

    #[inline(always)]
    fn put_array<const AT: usize, const LEN: usize>(&mut self, value: [u8; LEN]) {
        const { assert!(AT + LEN <= N) };
        self[AT..AT + LEN].copy_from_slice(&value);
    }
}

#[cfg(test)]
mod tests;
