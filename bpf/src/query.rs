//! Which program is on an interface, and what holds it there.

#![forbid(unsafe_code)]

use crate::sys::{self, LinkFd};
use crate::{AttachError, Mode, Program};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::fmt;
use xdp_umem::Errno;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
const HEADER: usize = 16; // struct nlmsghdr
const IFINFO: usize = 16; // struct ifinfomsg
/// More than a link's message ever takes without virtual functions, which are not asked for (bytes).
const MESSAGE: usize = 64 << 10;
/// Links looked at in search of the one that holds a program.
const LINKS: usize = 4096;

/// A program found on an interface.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Where it runs; `None` for one offloaded to the hardware.
    pub mode: Option<Mode>,
    /// The program's id.
    pub id: u32,
    /// The program's name, where we may look (`CAP_SYS_ADMIN`).
    pub name: Option<String>,
    /// What holds it there.
    pub holder: Holder,
}

/// What holds a program on an interface.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// The interface itself: attached through netlink, it stays until somebody takes it off.
    Netlink,
    /// A bpf link: it goes when the link's last holder does, a process or a pin.
    Link {
        /// The link's id.
        id: u32,
    },
    /// We may not look (`CAP_SYS_ADMIN`).
    Unknown,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("program ")?;
        match self.name.as_deref() {
            Some(name) if !name.is_empty() => write!(f, "`{name}` (id {}, ", self.id)?,
            _ => write!(f, "{} (", self.id)?,
        }
        match self.mode {
            Some(mode) => write!(f, "{mode})"),
            None => f.write_str("hardware)"),
        }
    }
}

/// The program on an interface of this thread's network namespace, the native one before the skb one; they exclude each other.
///
/// Needs no privilege to see that there is one, `CAP_SYS_ADMIN` for its name and holder. Four system calls if there is none;
/// some for each bpf link in the system if there is one.
///
/// # Errors
/// `ENODEV` for an interface that is not there.
pub fn attached(ifindex: u32) -> Result<Option<Attached>, AttachError> {
    let ids = program_ids(ifindex).map_err(|errno| {
        let remedy = match errno {
            Errno::ENODEV => "no such interface in this network namespace; check the name and the namespace",
            _ => "the kernel's answer was not understood; try again",
        };
        AttachError::system("ask about", format!("interface {ifindex}"), errno, remedy)
    })?;
    let Some((mode, id)) = ids else { return Ok(None) };
    let name = Program::by_id(id).ok().map(|program| program.name().into());
    Ok(Some(Attached { mode, id, name, holder: holder(ifindex, id) }))
}

/// The program's id and mode, by rtnetlink: `IFLA_XDP` of `RTM_GETLINK`.
fn program_ids(ifindex: u32) -> Result<Option<(Option<Mode>, u32)>, Errno> {
    if ifindex == 0 || i32::try_from(ifindex).is_err() {
        return Err(Errno::ENODEV); // the kernel would call the question malformed
    }
    let socket = xdp_umem::sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    sys::send(&socket, &request(ifindex))?;
    let mut message = vec![0; MESSAGE];
    let len = loop {
        match sys::receive(&socket, &mut message) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    parse_link(message.get(..len).ok_or(Errno::EMSGSIZE)?)
}

/// `RTM_GETLINK` for one interface.
fn request(ifindex: u32) -> [u8; HEADER + IFINFO] {
    let mut message = [0; HEADER + IFINFO];
    message[0..4].copy_from_slice(&((HEADER + IFINFO) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message[HEADER + 4..HEADER + 8].copy_from_slice(&ifindex.to_ne_bytes());
    message
}

fn parse_link(message: &[u8]) -> Result<Option<(Option<Mode>, u32)>, Errno> {
    match half(message, 4).ok_or(Errno::EPROTO)? {
        NLMSG_ERROR => {
            let error = word(message, HEADER).ok_or(Errno::EPROTO)? as i32;
            return Err(Errno::from_raw(
                error.checked_neg().filter(|errno| *errno > 0).unwrap_or(libc::EPROTO),
            ));
        }
        RTM_NEWLINK => {}
        _ => return Err(Errno::EPROTO),
    }
    let attributes = message.get(HEADER + IFINFO..).ok_or(Errno::EPROTO)?;
    let Some(xdp) = attribute(attributes, IFLA_XDP) else { return Ok(None) };
    let id = |kind| attribute(xdp, kind).and_then(|value| word(value, 0));
    Ok([
        (Some(Mode::Native), IFLA_XDP_DRV_PROG_ID),
        (Some(Mode::Skb), IFLA_XDP_SKB_PROG_ID),
        (None, IFLA_XDP_HW_PROG_ID),
    ]
    .into_iter()
    .find_map(|(mode, kind)| Some((mode, id(kind)?))))
}

/// The value of the first attribute of a kind.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (len, kind) = (usize::from(half(rest, 0)?), half(rest, 2)? & 0x3fff);
        let value = rest.get(4..len)?; // also ends what a length below 4 would make endless
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

/// The link that holds a program on an interface, if one does.
fn holder(ifindex: u32, prog_id: u32) -> Holder {
    let mut id = 0;
    for _ in 0..LINKS {
        id = match LinkFd::next_id(id) {
            Ok(id) => id,
            Err(Errno::ENOENT) => return Holder::Netlink,
            Err(_) => return Holder::Unknown,
        };
        // A link may go, or be a kind that tells nothing, between two calls.
        let Ok(info) = LinkFd::by_id(id).and_then(|link| link.info()) else { continue };
        if info.is_xdp() && info.ifindex == ifindex && info.prog_id == prog_id {
            return Holder::Link { id };
        }
    }
    Holder::Unknown
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(((4 + value.len()) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let mut message = Vec::from(request(1));
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend(attributes);
        message
    }

    #[test]
    fn an_answer_names_the_program_and_its_mode() {
        let id = |kind, id: u32| attr(kind, &id.to_ne_bytes());
        let name = attr(3, b"veth0\0");
        let link = |xdp: &[u8]| answer(RTM_NEWLINK, &[name.clone(), attr(IFLA_XDP | 0x8000, xdp)].concat());
        assert_eq!(parse_link(&answer(RTM_NEWLINK, &name)), Ok(None));
        assert_eq!(parse_link(&link(&attr(2, &[0]))), Ok(None));
        let skb = [attr(2, &[2]), id(4, 9), id(IFLA_XDP_SKB_PROG_ID, 9)].concat();
        assert_eq!(parse_link(&link(&skb)), Ok(Some((Some(Mode::Skb), 9))));
        assert_eq!(parse_link(&link(&id(IFLA_XDP_DRV_PROG_ID, 7))), Ok(Some((Some(Mode::Native), 7))));
        assert_eq!(parse_link(&link(&id(IFLA_XDP_HW_PROG_ID, 5))), Ok(Some((None, 5))));
    }

    #[test]
    fn an_error_and_a_broken_answer_are_errors() {
        let mut refusal = answer(NLMSG_ERROR, &[]);
        refusal[HEADER..HEADER + 4].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert_eq!(parse_link(&refusal), Err(Errno::ENODEV));
        refusal[HEADER..HEADER + 4].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert_eq!(parse_link(&refusal), Err(Errno::EPROTO));
        assert_eq!(parse_link(&[]), Err(Errno::EPROTO));
        // Lengths that run on, or nowhere, end the search.
        for len in [0u16, 3, 200] {
            assert_eq!(parse_link(&answer(RTM_NEWLINK, &[len.to_ne_bytes(), [0; 2]].concat())), Ok(None));
        }
    }
}
