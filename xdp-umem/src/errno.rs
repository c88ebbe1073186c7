//! Errno: why a system call failed, by name.

use core::fmt;

/// Why a system call failed: the kernel's `errno`, which knows its name.
///
/// Shown as its name (`EBUSY`); `{:#}` adds the number and the kernel's words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident $text:literal)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self(libc::$name);)*

            /// Its name and meaning, if it is one this crate knows.
            const fn words(self) -> Option<(&'static str, &'static str)> {
                match self.0 {
                    $(libc::$name => Some((stringify!($name), $text)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM "operation not permitted"
    ENOENT "no such file or object"
    ESRCH "no such process"
    EINTR "interrupted by a signal"
    EIO "input/output error"
    ENXIO "no such device or address"
    E2BIG "argument too long"
    EBADF "bad file descriptor"
    ECHILD "no child process"
    EAGAIN "try again"
    ENOMEM "out of memory"
    EACCES "permission denied"
    EFAULT "bad address"
    EBUSY "device or resource busy"
    EEXIST "already exists"
    EXDEV "cross-device link"
    ENODEV "no such device"
    ENOTDIR "not a directory"
    EISDIR "is a directory"
    EINVAL "invalid argument"
    ENFILE "too many open files in the system"
    EMFILE "too many open files"
    ENOTTY "not a terminal, or no such control"
    EFBIG "file too large"
    ENOSPC "no space left"
    EROFS "read-only file system"
    EPIPE "broken pipe"
    ERANGE "out of range"
    ENAMETOOLONG "name too long"
    ENOSYS "no such system call"
    ELOOP "too many symbolic links"
    ENOLINK "link has been severed"
    EPROTO "protocol error"
    EOVERFLOW "value too large"
    EILSEQ "illegal byte sequence"
    ENOTSOCK "not a socket"
    EDESTADDRREQ "destination address required"
    EMSGSIZE "message too long"
    EPROTOTYPE "wrong protocol for the socket"
    ENOPROTOOPT "no such socket option"
    EPROTONOSUPPORT "protocol not supported"
    ESOCKTNOSUPPORT "socket type not supported"
    EOPNOTSUPP "operation not supported"
    EAFNOSUPPORT "address family not supported"
    EADDRINUSE "address in use"
    EADDRNOTAVAIL "address not available"
    ENETDOWN "network is down"
    ENETUNREACH "network unreachable"
    ENOBUFS "no buffer space"
    ENOTCONN "not connected"
    ETIMEDOUT "timed out"
    ECONNREFUSED "connection refused"
    EHOSTUNREACH "no route to host"
    EALREADY "already in progress"
    ECANCELED "cancelled"
}

impl Errno {
    /// The calling thread's `errno`, just after a call that failed.
    pub fn last() -> Self {
        // SAFETY: libc's pointer to this thread's errno is always valid to read.
        Self(unsafe { *libc::__errno_location() })
    }

    /// An errno by its number, as a netlink error message or `SO_ERROR` carries it (positive).
    pub const fn from_raw(errno: i32) -> Self {
        Self(errno)
    }

    /// Its number, positive.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// Its name, such as `"EBUSY"`, if this crate knows it.
    pub const fn name(self) -> Option<&'static str> {
        match self.words() {
            Some((name, _)) => Some(name),
            None => None,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some((name, text)) if f.alternate() => write!(f, "{name} ({}, {text})", self.0),
            Some((name, _)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn it_knows_its_name_and_shows_a_number_it_does_not_know() {
        assert_eq!(format!("{}", Errno::EBUSY), "EBUSY");
        assert_eq!(format!("{:#}", Errno::EBUSY), "EBUSY (16, device or resource busy)");
        assert_eq!(format!("{}", Errno::from_raw(4000)), "errno 4000");
    }
}
