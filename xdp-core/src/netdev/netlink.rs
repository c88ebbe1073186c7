//! Netlink: a builder of requests, a parser of answers, and a socket that matches the two.
//!
//! The parser takes any bytes: what does not fit in its bounds ends the iteration, nothing panics and nothing
//! is read past its end. Numbers are in the host's byte order unless an attribute says otherwise.
#![forbid(unsafe_code)]

use super::{Error, sys};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;
use xdp_umem::{Errno, Fd};

/// `NLM_F_REQUEST | NLM_F_ACK`: do it and say whether it was done. For [`Request::new`].
pub const ACKED: u16 = NLM_F_REQUEST | NLM_F_ACK;
/// `NLM_F_REQUEST | NLM_F_DUMP`: list everything. For [`Request::new`].
pub const DUMP: u16 = NLM_F_REQUEST | 0x300;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL`: make one that is not there. For [`Request::new`].
pub const CREATE: u16 = ACKED | 0x400 | 0x200;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE`: make one, or change it. For [`Request::new`].
pub const REPLACE: u16 = ACKED | 0x400 | 0x100;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

const fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// A request being put together: a header, then attributes, some holding others.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// An empty message of this type and these flags ([`ACKED`], [`DUMP`], [`CREATE`], [`REPLACE`]).
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { bytes }
    }

    /// A generic netlink message: the family's id, its command and version.
    pub fn generic(family: u16, flags: u16, command: u8, version: u8) -> Self {
        Self::new(family, flags).raw(&[command, version, 0, 0])
    }

    /// Bytes as they are: the fixed header of a family. Padded to 4 bytes.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// An attribute of any bytes.
    ///
    /// # Panics
    /// If it is longer than an attribute can say (65531 bytes).
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len() + ATTRIBUTE).expect("an attribute's length fits in 16 bits");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// An attribute without a value, whose presence is the value.
    #[must_use]
    pub fn flag(self, kind: u16) -> Self {
        self.bytes(kind, &[])
    }

    /// An 8-bit attribute.
    #[must_use]
    pub fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// A 32-bit attribute.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A 64-bit attribute.
    #[must_use]
    pub fn u64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A string attribute, closed by a zero.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// An attribute that holds what `fill` adds.
    ///
    /// # Panics
    /// If that is longer than an attribute can say.
    #[must_use]
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let len = u16::try_from(filled.bytes.len() - start).expect("a nest's length fits in 16 bits");
        filled.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled
    }

    /// What follows the header so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    /// The finished message.
    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }
}

/// One message of an answer, inside its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: of the request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The messages in `bytes`, up to the first that does not fit.
    pub fn parse(bytes: &'a [u8]) -> Messages<'a> {
        Messages { rest: bytes }
    }
}

/// The messages of a buffer: see [`Message::parse`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let rest = self.rest;
        self.rest = &[];
        let len = u32::from_ne_bytes(field(rest, 0)?) as usize;
        let message = Message {
            kind: u16::from_ne_bytes(field(rest, 4)?),
            flags: u16::from_ne_bytes(field(rest, 6)?),
            sequence: u32::from_ne_bytes(field(rest, 8)?),
            payload: rest.get(HEADER..len)?,
        };
        self.rest = rest.get(aligned(len)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes of a message or of a nest, up to the first that does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes after the first `skip` bytes (the family's fixed header); none if there are not so many.
    pub fn parse(payload: &'a [u8], skip: usize) -> Self {
        Self { rest: payload.get(aligned(skip)..).unwrap_or_default() }
    }

    /// The first attribute of that kind.
    pub fn find(mut self, kind: u16) -> Option<Attribute<'a>> {
        Iterator::find(&mut self, |attribute| attribute.kind == kind)
    }

    /// A number: see [`Attribute::uint`].
    pub fn uint(self, kind: u16) -> Option<u64> {
        self.find(kind)?.uint()
    }

    /// A number of at most 32 bits.
    pub fn u32(self, kind: u16) -> Option<u32> {
        self.uint(kind)?.try_into().ok()
    }

    /// A string: see [`Attribute::text`].
    pub fn text(self, kind: u16) -> Option<&'a str> {
        self.find(kind)?.text()
    }

    /// What a nest holds; nothing if it is not there.
    pub fn nest(self, kind: u16) -> Self {
        self.find(kind).map_or(Self { rest: &[] }, |attribute| attribute.nested())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let rest = self.rest;
        self.rest = &[];
        let len = usize::from(u16::from_ne_bytes(field(rest, 0)?));
        let kind = u16::from_ne_bytes(field(rest, 2)?) & NLA_TYPE_MASK;
        let value = rest.get(ATTRIBUTE..len)?;
        self.rest = rest.get(aligned(len)..).unwrap_or_default();
        Some(Attribute { kind, value })
    }
}

/// One attribute: its kind without the nest and byte order bits, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// What it is, in the numbers of its family.
    pub kind: u16,
    /// Its bytes, without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// A number of 1, 2, 4 or 8 bytes; `None` for any other length.
    pub fn uint(self) -> Option<u64> {
        match *self.value {
            [a] => Some(a.into()),
            [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
            [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d]).into()),
            _ => self.value.try_into().ok().map(u64::from_ne_bytes),
        }
    }

    /// A string up to its first zero; `None` if it is not UTF-8.
    pub fn text(self) -> Option<&'a str> {
        core::str::from_utf8(self.value.split(|byte| *byte == 0).next()?).ok()
    }

    /// What it holds, taken for a nest.
    pub fn nested(self) -> Attributes<'a> {
        Attributes { rest: self.value }
    }
}

/// A fixed number of bytes at an offset, if there are so many.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The kernel's no: its errno and, where it gave one, its sentence (`NETLINK_EXT_ACK`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub errno: Errno,
    /// The kernel's sentence, or nothing.
    pub said: String,
}

impl Refusal {
    /// As an [`Error`] of this operation on that object.
    pub(crate) fn of(self, operation: &'static str, object: impl Into<String>) -> Error {
        Error::new(operation, object, self.errno).saying(self.said)
    }

    /// Reads a `struct nlmsgerr`, or the number that ends a dump; `None` if it is an acknowledgement.
    fn parse(message: &Message<'_>) -> Option<Self> {
        let code = field(message.payload, 0).map_or(-Errno::EPROTO.raw(), i32::from_ne_bytes);
        if code == 0 {
            return None;
        }
        // the failed request is repeated, whole or (NLM_F_CAPPED) only its header; then come the attributes
        let repeated = match message.kind {
            NLMSG_DONE => 0,
            _ if message.flags & NLM_F_CAPPED != 0 => HEADER,
            _ => field(message.payload, 4).map_or(0, u32::from_ne_bytes) as usize,
        };
        let told = message.flags & NLM_F_ACK_TLVS != 0;
        let attributes = Attributes::parse(message.payload, 4usize.saturating_add(repeated));
        let said = if told { attributes.text(NLMSGERR_ATTR_MSG) } else { None };
        Some(Self {
            errno: Errno::from_raw(code.saturating_neg()),
            said: said.unwrap_or_default().to_string(),
        })
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, said: String::new() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = if self.said.is_empty() { String::new() } else { format!(" ({})", self.said) };
        write!(f, "{}{words}", self.errno)
    }
}

/// One message of an answer, kept: its type and what followed the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `nlmsg_type`.
    pub kind: u16,
    /// What followed the header.
    pub payload: Vec<u8>,
}

/// A netlink socket in the namespace where it was opened, one request at a time.
#[derive(Debug)]
pub struct Socket {
    fd: Fd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A dump the kernel interrupted because the list changed under it is asked for so many times.
    const DUMP_TRIES: u32 = 16;
    /// What the kernel puts in one message of a dump at most, and twice that.
    const BUFFER: usize = 64 << 10;

    /// A socket of rtnetlink (`NETLINK_ROUTE`), in the calling thread's namespace. Four system calls.
    pub fn route() -> Result<Self, Error> {
        Self::open(libc::NETLINK_ROUTE)
    }

    /// A socket of generic netlink (`NETLINK_GENERIC`), in the calling thread's namespace. Four system calls.
    pub fn generic() -> Result<Self, Error> {
        Self::open(libc::NETLINK_GENERIC)
    }

    fn open(protocol: i32) -> Result<Self, Error> {
        const NETLINK_CAP_ACK: i32 = 10;
        const NETLINK_EXT_ACK: i32 = 11;
        const TIMEOUT_S: u64 = 10;
        let open = || {
            let fd = xdp_umem::sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
            for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK] {
                xdp_umem::sys::setsockopt(&fd, libc::SOL_NETLINK, option, &1u32)?;
            }
            // the kernel always answers; should it not, an error is better than a process that hangs
            xdp_umem::sys::setsockopt(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &[TIMEOUT_S, 0])?;
            Ok(Self { fd, sequence: 0, buffer: vec![0; Self::BUFFER] })
        };
        open().map_err(|errno| Error::new("open", "netlink socket", errno))
    }

    /// Sends a request and collects its answer: all messages of a dump, else the one message, or none, that came
    /// before the acknowledgement. Two system calls, or one more for each 32 KiB of a dump.
    ///
    /// # Errors
    /// The kernel's refusal; `EPROTO` if the answer was cut or malformed; `EAGAIN` if none came in 10 s.
    pub fn ask(&mut self, request: Request) -> Result<Vec<Answer>, Refusal> {
        for _ in 0..Self::DUMP_TRIES {
            if let Some(answers) = self.ask_once(request.clone())? {
                return Ok(answers);
            }
        }
        Err(Refusal { errno: Errno::EINTR, said: "the list kept changing while it was read".to_string() })
    }

    /// As [`ask`](Self::ask), with every refusal an [`Error`] of this operation on that object.
    pub(crate) fn run(
        &mut self,
        operation: &'static str,
        object: impl Into<String>,
        request: Request,
    ) -> Result<Vec<Answer>, Error> {
        self.ask(request).map_err(|refusal| refusal.of(operation, object))
    }

    /// `None` if the dump was interrupted and must be asked for again.
    fn ask_once(&mut self, request: Request) -> Result<Option<Vec<Answer>>, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        sys::send(&self.fd, &request.finish(self.sequence))?;
        let mut answers = Vec::new();
        let mut whole = true;
        loop {
            let len = match sys::receive(&self.fd, &mut self.buffer) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            let received = self.buffer.get(..len).ok_or(Errno::EPROTO)?;
            for message in Message::parse(received).filter(|message| message.sequence == self.sequence) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match Refusal::parse(&message) {
                            Some(refusal) => Err(refusal),
                            None => Ok(whole.then_some(answers)),
                        };
                    }
                    kind => answers.push(Answer { kind, payload: message.payload.to_vec() }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_what_is_parsed() {
        let request = Request::new(16, ACKED)
            .raw(&[1, 2, 3])
            .u32(1, 7)
            .text(2, "veth0")
            .nest(3, |nest| nest.u8(1, 9).flag(2))
            .u64(4, u64::MAX);
        let bytes = request.finish(42);
        let message = Message::parse(&bytes).next().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (16, ACKED, 42));
        let attributes = Attributes::parse(message.payload, 3);
        assert_eq!(attributes.u32(1), Some(7));
        assert_eq!(attributes.text(2), Some("veth0"));
        assert_eq!(attributes.nest(3).uint(1), Some(9));
        assert!(attributes.nest(3).find(2).is_some());
        assert_eq!(attributes.uint(4), Some(u64::MAX));
        assert_eq!(attributes.u32(4), None, "too large for 32 bits");
        assert_eq!(attributes.count(), 4);
    }

    #[test]
    fn what_does_not_fit_ends_the_iteration() {
        let good = Request::new(20, ACKED).u32(1, 1).finish(1);
        let mut bytes = [good.clone(), good.clone()].concat();
        bytes[good.len()..][..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(Message::parse(&bytes).count(), 1, "a length past the end");
        bytes[good.len()..][..4].copy_from_slice(&15u32.to_ne_bytes());
        assert_eq!(Message::parse(&bytes).count(), 1, "a length less than the header's");
        assert_eq!(
            Attributes::parse(&[3, 0, 1, 0], 0).count(),
            0,
            "an attribute shorter than its own header"
        );
        assert_eq!(
            Attributes::parse(&[9, 0, 1, 0, 5], 0).count(),
            0,
            "an attribute longer than what there is"
        );
        assert_eq!(Attributes::parse(&[], 16).count(), 0, "no room for the fixed header");
    }

    #[test]
    fn a_refusal_keeps_the_kernels_words() {
        let mut payload = (-22i32).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER]);
        payload
            .extend_from_slice(&Request::new(0, 0).text(NLMSGERR_ATTR_MSG, "no such queue").bytes[HEADER..]);
        let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        let message = Message { kind: NLMSG_ERROR, flags, sequence: 1, payload: &payload };
        let refusal = Refusal::parse(&message).unwrap();
        assert_eq!(refusal.to_string(), "EINVAL (no such queue)");
        assert_eq!(Refusal::parse(&Message { payload: &[0; 20], ..message }), None);
        assert_eq!(Refusal::parse(&Message { payload: &[], ..message }).unwrap().errno, Errno::EPROTO);
    }

    #[test]
    fn no_bytes_make_the_parser_panic_or_run_for_ever() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let template =
            Request::new(16, ACKED).raw(&[0; 16]).nest(18, |n| n.text(1, "veth").u32(2, 1)).finish(1);
        let mut seen = 0usize;
        for _ in 0..20_000 {
            let mut bytes = template.clone();
            if random() % 2 == 0 {
                bytes.truncate(random() as usize % (template.len() + 1));
            }
            if let (true, Some(len)) = (random() % 2 == 0, bytes.get(..4).map(|_| bytes.len() as u32)) {
                bytes[..4].copy_from_slice(&len.to_ne_bytes());
            }
            for _ in 0..random() % 8 {
                let len = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(random() as usize % len) {
                    *byte = random() as u8;
                }
            }
            for message in Message::parse(&bytes) {
                let _ = Refusal::parse(&message);
                for attribute in Attributes::parse(message.payload, 16) {
                    seen +=
                        attribute.nested().map(|inner| usize::from(inner.text().is_some())).sum::<usize>();
                    let _ = (attribute.uint(), attribute.text());
                }
            }
        }
        assert!(seen > 1000, "the mutations must not all die at the first header: {seen}");
    }
}
