//! The world says no: what was tried, on what, why it failed, and what would help.
#![forbid(unsafe_code)]

use alloc::string::String;
use core::fmt;
use xdp_bpf::AttachError;
use xdp_umem::Errno;

/// A set-up step that was refused. Its text names the operation, its object, the errno and the likely remedy:
/// "bind eth0 queue 3: EBUSY; another socket has this queue".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A socket could not be made ready.
    Socket {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why it failed.
        errno: Errno,
        /// What would help; empty where that cannot be told.
        remedy: String,
    },
    /// The XDP program could not be loaded or attached.
    Attach(AttachError),
    /// The interface could not be read.
    #[cfg(feature = "std")]
    Netdev(crate::netdev::Error),
}

impl Error {
    pub(crate) fn new(
        operation: &'static str,
        object: impl Into<String>,
        errno: Errno,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Socket { operation, object: object.into(), errno, remedy: remedy.into() }
    }

    /// The kernel's reason, where the kernel was asked.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Socket { errno, .. } => Some(*errno),
            Self::Attach(error) => error.errno(),
            #[cfg(feature = "std")]
            Self::Netdev(error) => Some(error.errno()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { operation, object, errno, remedy } => {
                write!(f, "{operation} {object}: {errno}")?;
                if remedy.is_empty() { Ok(()) } else { write!(f, "; {remedy}") }
            }
            Self::Attach(error) => error.fmt(f),
            #[cfg(feature = "std")]
            Self::Netdev(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<AttachError> for Error {
    fn from(error: AttachError) -> Self {
        Self::Attach(error)
    }
}

#[cfg(feature = "std")]
impl From<crate::netdev::Error> for Error {
    fn from(error: crate::netdev::Error) -> Self {
        Self::Netdev(error)
    }
}
