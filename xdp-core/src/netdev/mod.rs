//! The host's side of a dataplane: interfaces, namespaces, queues and drivers; read, set, and put back.
//!
//! | Module | Knows |
//! |---|---|
//! | [`namespace`] | network namespaces: make one, run in one |
//! | [`link`](mod@link) | interfaces: what they are; addresses, MTU, up and down; veth pairs |
//! | [`route`] | routes and neighbours, and which interface must not be touched |
//! | [`genl`] | what a driver can do for XDP; queues and NAPI instances |
//! | [`ethtool`] | driver, channels, rings, coalescing, RSS, offloads |
//! | [`steer`] | rules that send a flow to a queue |
//! | [`facts`] | everything about one interface that decides what a measurement on it means |
//! | [`journal`], [`change`] | changes recorded on disk before they are made, and undone |
//! | [`tune`] | all of these settings, and NAPI's, as such changes |
//! | [`packet`] | frames sent through the kernel as they are |
//! | [`icmp`] | a round trip through the kernel's own stack, the baseline |
//! | [`netlink`] | the messages that most of this is said in |
//!
//! A thread lives in one network namespace. Everything here acts in that of the *calling thread*; another
//! one is reached by [`Namespace::run`]. Interface indexes collide between namespaces, so an [`Interface`]
//! remembers where it was read and refuses to act elsewhere.
//!
//! A setting that a driver does not have is a [`Setting::Unsupported`], not an error; what a kernel is too
//! old to say is `None`.
//!
//! Which knob is read, set, verified and put back how, and where there is such a thing: see [`tune`].
//!
//! Two hosts and the wire between them, gone at the end of the scope:
//!
//! ```
//! use core::time::Duration;
//! use xdp_core::cpu::{self, Cap};
//! use xdp_core::netdev::{End, Namespace, NewLink, icmp};
//!
//! # fn main() -> Result<(), xdp_core::netdev::Error> {
//! if !cpu::missing(&[Cap::SysAdmin, Cap::NetAdmin, Cap::NetRaw])?.is_empty() {
//!     return Ok(()); // see the error of any call below
//! }
//! let (left, right) = (Namespace::anonymous()?, Namespace::anonymous()?);
//! let ends = (End::new("a").in_namespace(&left), End::new("b").in_namespace(&right));
//! let [a, b] = NewLink::veth(ends.0, ends.1).queues(2).create_pair()?;
//! for (host, end, ip) in [(&left, &a, "198.18.0.1"), (&right, &b, "198.18.0.2")] {
//!     host.run(|| end.add_address(ip.parse().unwrap(), 24).and_then(|()| end.set_up(true)))??;
//! }
//! left.run(|| a.wait_operational(Duration::from_secs(5)))??;
//! let ping = || icmp::ping([198, 18, 0, 2].into(), 3, Duration::from_millis(1), Duration::from_secs(3));
//! let round_trips_ns = left.run(ping)??;
//! assert!(round_trips_ns.iter().all(Option::is_some));
//! # Ok(())
//! # }
//! ```

pub mod change;
pub mod ethtool;
pub mod facts;
pub mod genl;
pub mod icmp;
pub mod journal;
pub mod link;
pub mod namespace;
pub mod netlink;
mod new_link;
pub mod packet;
pub mod route;
pub mod steer;
pub(crate) mod sys;
pub mod tune;

pub use crate::wire::Mac;
pub use link::{End, Interface, NewLink};
pub use namespace::Namespace;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use xdp_umem::Errno;

/// Why the host could not be read or set: the operation, its object, the kernel's [`Errno`] and words, and
/// what would likely help.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    operation: &'static str,
    object: String,
    errno: Errno,
    said: String,
    remedy: Cow<'static, str>,
}

impl Error {
    /// `operation` on `object` failed for `errno`, with the usual remedy of that errno.
    pub(crate) fn new(operation: &'static str, object: impl Into<String>, errno: Errno) -> Self {
        Self { operation, object: object.into(), errno, said: String::new(), remedy: usual_remedy(errno) }
    }

    /// As [`new`](Self::new), from an error of the standard library.
    pub(crate) fn io(operation: &'static str, object: impl Into<String>, error: &std::io::Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        let known = error.raw_os_error().is_some();
        let said = if known { String::new() } else { error.to_string() };
        Self { said, ..Self::new(operation, object, errno) }
    }

    /// With the words that came with the errno.
    pub(crate) fn saying(mut self, said: impl Into<String>) -> Self {
        self.said = said.into();
        self
    }

    /// With a better remedy than the usual one.
    pub(crate) fn remedy_is(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// The kernel's errno; `EPROTO` where the kernel's answer made no sense.
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// What was tried, such as `"open namespace"`.
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// What it was tried on, such as a file or an interface.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The words that came with the errno; may be empty.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// What would likely help.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// Whether the object was not there.
    pub fn is_absent(&self) -> bool {
        [Errno::ENOENT, Errno::ENODEV, Errno::ENXIO, Errno::ESRCH].contains(&self.errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, object, errno, said, remedy } = self;
        write!(f, "{operation} {object}: {errno}")?;
        if !said.is_empty() {
            write!(f, " ({said})")?;
        }
        write!(f, "; {remedy}")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Error {}

/// What mostly helps against an errno in this part of the kernel.
fn usual_remedy(errno: Errno) -> Cow<'static, str> {
    Cow::Borrowed(match errno {
        Errno::EPERM | Errno::EACCES => "run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN",
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::ESRCH => "check the name and the namespace",
        Errno::EEXIST => "remove the old one, or choose another name",
        Errno::EBUSY => "find who uses it, or bring the interface down first",
        Errno::EOPNOTSUPP => "this kernel or driver cannot do it; use another driver or leave the setting",
        Errno::ERANGE | Errno::EINVAL => "choose a value in the range that the driver allows",
        Errno::ENETDOWN => "bring the interface up first",
        Errno::EMFILE | Errno::ENFILE => "raise the limit of open files (ulimit -n)",
        Errno::ENOMEM | Errno::ENOBUFS => "free memory and try again",
        Errno::ETIMEDOUT | Errno::EAGAIN => "try again; the other side did not answer in time",
        Errno::EROFS => "remount the file system writable",
        _ => "read the kernel log (dmesg) for more",
    })
}

/// A setting, or a fact, that this driver or machine may not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    /// It has it, and this is its value.
    Value(T),
    /// It does not have it, or does not tell, for this reason.
    Unsupported(String),
}

impl<T> Setting<T> {
    /// The value, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Unsupported(_) => None,
        }
    }

    /// The value, if there is one, without taking it.
    pub const fn as_value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Unsupported(_) => None,
        }
    }

    /// Why there is no value, if there is none.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Value(_) => None,
            Self::Unsupported(reason) => Some(reason),
        }
    }

    /// The value made another one.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Setting<U> {
        match self {
            Self::Value(value) => Setting::Value(into(value)),
            Self::Unsupported(reason) => Setting::Unsupported(reason),
        }
    }

    /// What was read, whatever went wrong: a fact that cannot be told is one with a reason, never an error.
    pub(crate) fn told(answer: Result<Self, Error>) -> Self {
        answer.unwrap_or_else(|error| Self::Unsupported(error.to_string()))
    }

    /// A value, or why there is none.
    pub(crate) fn or(value: Option<T>, reason: &str) -> Self {
        value.map_or_else(|| Self::Unsupported(reason.to_string()), Self::Value)
    }

    /// Turns "the kernel does not support that here" into [`Unsupported`](Self::Unsupported); every other
    /// error stays one.
    fn of(what: &str, answer: Result<T, Error>) -> Result<Self, Error> {
        match answer {
            Ok(value) => Ok(Self::Value(value)),
            Err(error) if error.errno == Errno::EOPNOTSUPP => {
                let said = if error.said.is_empty() { "" } else { ": " };
                Ok(Self::Unsupported(format!("{what} not supported by {}{said}{}", error.object, error.said)))
            }
            Err(error) => Err(error),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => value.fmt(f),
            Self::Unsupported(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_failed_why_and_what_helps() {
        let error = Error::new("set MTU of", "veth0", Errno::EINVAL).saying("mtu less than device minimum");
        assert_eq!(
            error.to_string(),
            "set MTU of veth0: EINVAL (mtu less than device minimum); choose a value in the range that the driver allows"
        );
    }

    #[test]
    fn only_not_supported_becomes_a_value() {
        let unsupported = Error::new("read", "veth0", Errno::EOPNOTSUPP);
        let setting = Setting::<u32>::of("coalescing", Err(unsupported)).unwrap();
        assert_eq!(setting, Setting::Unsupported("coalescing not supported by veth0".to_string()));
        let other = Error::new("read", "veth0", Errno::EPERM);
        assert_eq!(Setting::<u32>::of("coalescing", Err(other)).unwrap_err().errno(), Errno::EPERM);
    }
}
