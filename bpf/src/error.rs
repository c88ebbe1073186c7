//! The one error of this crate's calls into the kernel.

#![forbid(unsafe_code)]

use crate::insn::AssembleError;
use crate::{Attached, Holder, Mode};
use alloc::string::String;
use core::fmt;
use xdp_umem::Errno;

/// Why a map, a program or a link could not be made or changed. Its text ends with the likely remedy.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttachError {
    /// A system call was refused.
    System {
        /// What was tried: `load`, `attach to`, ...
        operation: &'static str,
        /// With what: `program xdp_redirect`, `veth0 (native)`, ...
        object: String,
        /// The kernel's reason.
        errno: Errno,
        /// What it most likely means, and what to do.
        remedy: &'static str,
    },
    /// The verifier found fault with a program.
    Verifier {
        /// The program's name.
        program: String,
        /// `EACCES` or `EINVAL`, mostly.
        errno: Errno,
        /// The last lines of its log.
        log: String,
    },
    /// A program is attached already.
    Busy {
        /// The interface and the mode: `veth0 (native)`.
        object: String,
        /// The interface alone.
        interface: String,
        /// `EBUSY`, or `EEXIST` when it is in the other mode.
        errno: Errno,
        /// The program in the way, where it could be found.
        attached: Option<Attached>,
    },
    /// The rules do not fit into a program.
    Assemble(AssembleError),
}

impl AttachError {
    /// The kernel's reason, if the kernel was asked.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { errno, .. } | Self::Verifier { errno, .. } | Self::Busy { errno, .. } => {
                Some(*errno)
            }
            Self::Assemble(_) => None,
        }
    }

    pub(crate) fn system(
        operation: &'static str,
        object: String,
        errno: Errno,
        remedy: &'static str,
    ) -> Self {
        let remedy = match errno {
            Errno::EPERM => "it needs CAP_BPF and CAP_NET_ADMIN in the initial user namespace; run as root",
            Errno::ENOMEM => "the kernel is out of memory; free some",
            Errno::EMFILE => "this process has too many open files; raise its limit with ulimit -n",
            Errno::ENOSYS => "this kernel was built without CONFIG_BPF_SYSCALL; use one that has it",
            _ => remedy,
        };
        Self::System { operation, object, errno, remedy }
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { operation, object, errno, remedy } => {
                write!(f, "{operation} {object}: {errno}; {remedy}")
            }
            Self::Verifier { program, errno: errno @ Errno::E2BIG, log } => {
                write!(
                    f,
                    "load program {program}: {errno}; too many ways through it for the verifier, use fewer rules:\n{log}"
                )
            }
            Self::Verifier { program, errno, log } => {
                write!(
                    f,
                    "load program {program}: {errno}; the kernel's verifier refuses it, please report this:\n{log}"
                )
            }
            Self::Busy { object, errno, attached: None, .. } => write!(
                f,
                "attach to {object}: {errno}; another program is attached, or an upper device (a bond) has one: detach it"
            ),
            Self::Busy { object, interface, errno, attached: Some(attached) } => {
                write!(f, "attach to {object}: {errno}; {attached} is already attached: ")?;
                let off = match attached.mode {
                    Some(Mode::Native) => "xdpdrv off",
                    Some(Mode::Skb) => "xdpgeneric off",
                    None => "xdpoffload off",
                };
                match attached.holder {
                    Holder::Netlink => write!(f, "detach it with `ip link set dev {interface} {off}`"),
                    Holder::Link { id } => write!(
                        f,
                        "end the process that holds bpf link {id} (its /proc/PID/fdinfo says link_id {id}), or unpin the link"
                    ),
                    Holder::Unknown => {
                        write!(
                            f,
                            "end the program that put it there, or try `ip link set dev {interface} {off}`"
                        )
                    }
                }
            }
            Self::Assemble(error) => write!(f, "compile the rules: {error}"),
        }
    }
}

impl core::error::Error for AttachError {}

impl From<AssembleError> for AttachError {
    fn from(error: AssembleError) -> Self {
        Self::Assemble(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn busy(attached: Option<Attached>) -> String {
        let (object, interface) = ("veth0 (native)".into(), "veth0".into());
        AttachError::Busy { object, interface, errno: Errno::EBUSY, attached }.to_string()
    }

    #[test]
    fn a_program_in_the_way_is_named_with_how_to_remove_it() {
        let attached = |holder| Attached { mode: Some(Mode::Skb), id: 12, name: Some("foo".into()), holder };
        assert_eq!(
            busy(Some(attached(Holder::Netlink))),
            "attach to veth0 (native): EBUSY; program `foo` (id 12, skb) is already attached: \
             detach it with `ip link set dev veth0 xdpgeneric off`"
        );
        assert!(
            busy(Some(attached(Holder::Link { id: 5 }))).contains("end the process that holds bpf link 5")
        );
        assert!(busy(None).ends_with("detach it"));
    }

    #[test]
    fn missing_privilege_says_which() {
        let error = AttachError::system("create", "XSKMAP of 4 entries".into(), Errno::EPERM, "unused");
        assert_eq!(
            error.to_string(),
            "create XSKMAP of 4 entries: EPERM; it needs CAP_BPF and CAP_NET_ADMIN in the initial user namespace; run as root"
        );
    }
}
