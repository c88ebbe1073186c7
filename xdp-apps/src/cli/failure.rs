//! Failure: why a command did not do what it was asked, in one line, with the exit code of that kind of reason.
#![forbid(unsafe_code)]

use std::fmt;
use std::process::ExitCode;
use xdp_core::{AttachError, Errno, LayoutError, netdev};

/// What a command's exit code says; one table for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Done, nothing amiss.
    Done = 0,
    /// It went wrong while it ran.
    Runtime = 1,
    /// What was asked for makes no sense, or names what is not there.
    Usage = 2,
    /// A privilege, a feature or a part of the environment is missing.
    Environment = 3,
    /// It finished, but not whole: packets were lost, steps could not be undone.
    Incomplete = 4,
    /// SIGINT, SIGTERM or SIGHUP came.
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// One line, "what: why; remedy", and an exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    text: String,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Code::Usage, text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which kind of reason an errno is, where nothing more is known than that set-up met it.
fn code_of(errno: Errno) -> Code {
    match errno {
        Errno::EPERM | Errno::EACCES => Code::Environment,
        // the kernel or the driver has no such thing
        Errno::EOPNOTSUPP
        | Errno::ENOPROTOOPT
        | Errno::ENOSYS
        | Errno::EAFNOSUPPORT
        | Errno::EPROTONOSUPPORT => Code::Environment,
        // the memory-lock limit, or memory itself
        Errno::ENOBUFS | Errno::ENOMEM => Code::Environment,
        // names what is not there, or asks for what cannot be
        Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EINVAL | Errno::ERANGE | Errno::EMSGSIZE => {
            Code::Usage
        }
        _ => Code::Runtime,
    }
}

impl From<xdp_core::Error> for Failure {
    fn from(error: xdp_core::Error) -> Self {
        let code = match &error {
            // ENOENT from a bind is a device that lacks what zero-copy needs
            xdp_core::Error::Socket { errno: Errno::ENOENT, .. } => Code::Environment,
            // the verifier's EINVAL or EACCES is a bug of ours, or a kernel not met before
            xdp_core::Error::Attach(AttachError::Verifier { .. }) => Code::Runtime,
            xdp_core::Error::Attach(AttachError::Assemble(_)) => Code::Usage,
            _ => error.errno().map_or(Code::Runtime, code_of),
        };
        Self::new(code, error.to_string())
    }
}

impl From<netdev::Error> for Failure {
    fn from(error: netdev::Error) -> Self {
        Self::new(code_of(error.errno()), error.to_string())
    }
}

impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        Self::usage(error.to_string())
    }
}
