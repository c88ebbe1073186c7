//! Links: a program on an interface for as long as somebody holds the link's descriptor.

#![forbid(unsafe_code)]

use crate::sys::LinkFd;
use crate::{AttachError, Program, attached};
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use xdp_umem::{Errno, Fd};

/// Where on a packet's way the program runs. Always said: left to the kernel, a driver without XDP would get the slow way unasked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// In the driver, before there is an skb (`XDP_FLAGS_DRV_MODE`). The fast one; not every driver has it.
    Native,
    /// In the network core, on skbs (`XDP_FLAGS_SKB_MODE`). Works on every interface.
    Skb,
}

impl Mode {
    const fn flags(self) -> u32 {
        match self {
            Self::Skb => 2,
            Self::Native => 4,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Skb => "skb",
        })
    }
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        match text {
            "native" => Ok(Self::Native),
            "skb" => Ok(Self::Skb),
            _ => Err(ModeError(text.into())),
        }
    }
}

/// A word that names no mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModeError(String);

impl fmt::Display for ModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no mode; say native or skb", self.0)
    }
}

impl core::error::Error for ModeError {}

/// A program on an interface. The kernel takes it off when the last descriptor is closed: on drop, and however the process ends.
///
/// Never let go of one while a zero-copy socket is bound to the interface: virtio_net does not survive it.
#[derive(Debug)]
pub struct Link {
    fd: LinkFd,
    id: u32,
    ifindex: u32,
    mode: Mode,
}

impl Link {
    /// Attaches `program` to an interface of this thread's network namespace, which messages call `interface`. Two system calls; more
    /// after a refusal, to find out who is in the way. Since Linux 5.9 (`net/core/dev.c`, `bpf_xdp_link_attach`).
    ///
    /// # Errors
    /// [`AttachError::Busy`] for `EBUSY`, and for `EEXIST` (in the other mode). `EOPNOTSUPP`: no native XDP here. `ERANGE`, `EINVAL`: the MTU is
    /// too large for native mode. `ENOSPC`: a veth whose peer sends on more queues than this end receives on. `ENOTCONN`: a veth
    /// without its peer. `ENODEV`: no such interface (the kernel says `EINVAL`).
    pub fn attach(program: &Program, ifindex: u32, mode: Mode, interface: &str) -> Result<Self, AttachError> {
        let object = || format!("{interface} ({mode})");
        let fd = LinkFd::create(program.prog_fd(), ifindex, mode.flags()).map_err(|errno| match errno {
            Errno::EBUSY | Errno::EEXIST => AttachError::Busy {
                object: object(),
                interface: interface.into(),
                errno,
                attached: attached(ifindex).ok().flatten(),
            },
            _ => {
                // The kernel says EINVAL for an interface that is not there, and drivers for settings they do not like.
                let gone = matches!(attached(ifindex), Err(error) if error.errno() == Some(Errno::ENODEV));
                let errno = if errno == Errno::EINVAL && gone { Errno::ENODEV } else { errno };
                AttachError::system("attach to", object(), errno, remedy(mode, errno))
            }
        })?;
        let info = fd
            .info()
            .map_err(|errno| AttachError::system("read back", object(), errno, "try another kernel"))?;
        Ok(Self { fd, id: info.id, ifindex, mode })
    }

    /// Puts `program` in the place of the one that is on: no packet meets neither. One system call.
    ///
    /// # Errors
    /// `ENOLINK` after the device went away or the link was detached; `EINVAL` for a program that the interface cannot take.
    pub fn update(&self, program: &Program) -> Result<(), AttachError> {
        self.update_from(program, None)
    }

    /// As [`update`](Self::update), if `old` is the one that is on.
    ///
    /// # Errors
    /// As [`update`](Self::update), and `EPERM` if another one is on.
    pub fn replace(&self, old: &Program, program: &Program) -> Result<(), AttachError> {
        self.update_from(program, Some(old))
    }

    /// Takes the program off now, although the descriptor stays. One system call. Since Linux 5.9.
    ///
    /// # Errors
    /// `EINVAL`, `ENOLINK` on kernels that refuse it for a device that went away.
    pub fn detach(&self) -> Result<(), AttachError> {
        self.fd.detach().map_err(|errno| self.error("detach", errno, "the device is gone: drop the link"))
    }

    /// Its number in the kernel, as `bpftool link` shows it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The interface it was attached to.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The mode it was attached in.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Its descriptor: whoever else holds a copy keeps the program on.
    pub fn fd(&self) -> &Fd {
        self.fd.fd()
    }

    fn update_from(&self, program: &Program, old: Option<&Program>) -> Result<(), AttachError> {
        self.fd.update(program.prog_fd(), old.map(Program::prog_fd)).map_err(|errno| match errno {
            Errno::EPERM => AttachError::System {
                operation: "update",
                object: self.object(),
                errno,
                remedy: "another program than the expected one is attached; look who changed it",
            },
            Errno::ENOLINK => {
                self.error("update", errno, "the device is gone, or the link was detached; attach again")
            }
            _ => self.error(
                "update",
                errno,
                "the driver does not take this program; load it as the first one was loaded",
            ),
        })
    }

    fn error(&self, operation: &'static str, errno: Errno, remedy: &'static str) -> AttachError {
        AttachError::system(operation, self.object(), errno, remedy)
    }

    fn object(&self) -> String {
        format!("link {} on interface {} ({})", self.id, self.ifindex, self.mode)
    }
}

fn remedy(mode: Mode, errno: Errno) -> &'static str {
    match (mode, errno) {
        (_, Errno::ENODEV) => "no such interface in this network namespace; check the name and the namespace",
        (Mode::Native, Errno::EOPNOTSUPP) => {
            "the driver has no native XDP, or not with its present settings (LRO, GRO_HW); use mode skb"
        }
        (Mode::Native, Errno::ERANGE) => {
            "the MTU (on a veth: the peer's) is too large for native mode; lower it to 3498, ask for frags, or use mode skb"
        }
        (Mode::Native, Errno::EINVAL) => {
            "the driver refuses, most often because of the MTU; lower it to 3498, ask for frags, or use mode skb"
        }
        (Mode::Native, Errno::ENOSPC) => {
            "too few queues: a veth's peer sends on more queues than this end receives on, or the driver has none to spare for XDP; \
             make the numbers equal, or use mode skb"
        }
        (Mode::Native, Errno::ENOTCONN) => "the veth has no peer any more; make the pair anew",
        (Mode::Skb, Errno::EOPNOTSUPP | Errno::EINVAL) => {
            "the interface takes no program here; check its type"
        }
        (Mode::Native, _) => "the driver refuses; see the kernel log, or use mode skb",
        (Mode::Skb, _) => "see the kernel log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_mode_is_shown_as_it_is_written() {
        for mode in [Mode::Native, Mode::Skb] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!("drv".parse::<Mode>().unwrap_err().to_string(), "`drv` is no mode; say native or skb");
    }
}
