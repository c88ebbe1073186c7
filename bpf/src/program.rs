//! XDP programs: loaded through the verifier, and run on test packets.

#![forbid(unsafe_code)]

use crate::insn::{Insn, Reg, Size};
use crate::sys::{self, ProgFd};
use crate::{AttachError, Rules, XskMap};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;
use xdp_umem::{Errno, Fd};

const LICENSE: &CStr = c"Dual MIT/GPL";
const LOG_MIN: usize = 64 << 10; // bytes
const LOG_MAX: usize = 16 << 20; // bytes
const LOG_LINES: usize = 12; // shown
/// Room that a program may add to a packet: XDP's headroom, and tail room (bytes).
const GROWTH: usize = 256 + 4096;

/// What an XDP program answers: `enum xdp_action`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// An error: dropped, and a tracepoint fires.
    Aborted,
    /// Dropped.
    Drop,
    /// On to the kernel's network stack.
    Pass,
    /// Out of the interface it came in by.
    Tx,
    /// To where a map says: here, an AF_XDP socket.
    Redirect,
    /// None of these; the kernel drops.
    Other(u32),
}

impl From<u32> for Verdict {
    fn from(action: u32) -> Self {
        match action {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            other => Self::Other(other),
        }
    }
}

/// How a program is loaded.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LoadOptions {
    /// It may meet packets of several buffers (`BPF_F_XDP_HAS_FRAGS`), which large MTUs need in native mode. Since Linux 5.18.
    pub frags: bool,
}

impl LoadOptions {
    /// The same, for packets of several buffers or not.
    pub const fn frags(self, frags: bool) -> Self {
        Self { frags }
    }
}

/// What a program did with a test packet.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestRun {
    /// Its answer.
    pub verdict: Verdict,
    /// The packet afterwards.
    pub data: Vec<u8>,
    /// Mean duration of one run, in nanoseconds; coarse unless repeated many times.
    pub duration_ns: u32,
}

/// A program in the kernel, kept there by its descriptor and by every link it is on.
pub struct Program {
    fd: ProgFd,
    id: u32,
    name: String,
}

impl Program {
    /// Loads instructions as an XDP program, licensed "Dual MIT/GPL". `name` has up to 15 letters, digits, `_` or `.`. Two
    /// system calls; more after a refusal, to fetch the verifier's words.
    ///
    /// # Errors
    /// [`AttachError::Verifier`] with the last lines of the log; `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`; `EINVAL` for a name
    /// of other letters; `E2BIG` for no instruction, or more than a million.
    pub fn load(name: &str, insns: &[Insn], options: LoadOptions) -> Result<Self, AttachError> {
        let flags = if options.frags { sys::XDP_HAS_FRAGS } else { 0 };
        let load = |log: &mut [u8]| ProgFd::load(sys::name(name), insns, LICENSE, flags, log);
        match load(&mut []) {
            Ok(fd) => Self::from_fd(fd).map_err(|errno| refused("read back", name, errno)),
            // The verifier was never asked.
            Err(errno @ (Errno::EPERM | Errno::ENOMEM | Errno::EMFILE | Errno::ENOSYS)) => {
                Err(refused("load", name, errno))
            }
            Err(errno) => Err(explain(name, errno, load)),
        }
    }

    /// The program that redirects what `rules` match into `map`, at the receive queue's number plus `first_index`.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`AttachError::Assemble`] for thousands of rules.
    pub fn redirect(
        rules: &Rules,
        map: &XskMap,
        first_index: u32,
        options: LoadOptions,
    ) -> Result<Self, AttachError> {
        Self::load("xdp_redirect", &rules.compile(map.fd().raw(), first_index)?, options)
    }

    /// The program that passes every packet to the kernel: on a veth, it arms the peer to receive what is redirected or sent back.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn pass() -> Result<Self, AttachError> {
        Self::load("xdp_pass", &[Insn::mov(Reg::R0, 2), Insn::exit()], LoadOptions { frags: true })
    }

    /// The program that drops every packet.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn drop_all() -> Result<Self, AttachError> {
        Self::load("xdp_drop", &[Insn::mov(Reg::R0, 1), Insn::exit()], LoadOptions { frags: true })
    }

    /// The program that sends every packet back out of its interface, the two MAC addresses exchanged: the least that any
    /// reflector can cost. Packets below 14 bytes are dropped.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn tx() -> Result<Self, AttachError> {
        use crate::insn::{Alu, Cond};
        use Reg::{R0, R1, R2, R3, R4, R5};
        let code = [
            Insn::load(Size::Word, R2, R1, 4), // data_end
            Insn::load(Size::Word, R1, R1, 0), // data
            Insn::mov(R0, 1),                  // XDP_DROP
            Insn::mov(R3, R1),
            Insn::alu(Alu::Add, R3, 14),
            Insn::jump(Cond::Gt, R3, R2, 9), // to the exit
            Insn::load(Size::Word, R2, R1, 0),
            Insn::load(Size::Half, R3, R1, 4),
            Insn::load(Size::Half, R4, R1, 6),
            Insn::load(Size::Word, R5, R1, 8),
            Insn::store(Size::Half, R1, 0, R4),
            Insn::store(Size::Word, R1, 2, R5),
            Insn::store(Size::Word, R1, 6, R2),
            Insn::store(Size::Half, R1, 10, R3),
            Insn::mov(R0, 3), // XDP_TX
            Insn::exit(),
        ];
        Self::load("xdp_tx", &code, LoadOptions { frags: true })
    }

    /// Its number in the kernel, as `bpftool prog` shows it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its name in the kernel.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its descriptor. Whoever holds it may attach the program to any interface of their namespace.
    pub fn fd(&self) -> &Fd {
        self.fd.fd()
    }

    pub(crate) fn prog_fd(&self) -> &ProgFd {
        &self.fd
    }

    /// Runs it on `packet` in the kernel, as on queue 0 of the namespace's loopback interface, `repeat` times; nothing is
    /// sent. One system call (`BPF_PROG_TEST_RUN`, `net/bpf/test_run.c`).
    ///
    /// # Errors
    /// `EINVAL` for a packet below 14 bytes, or too large for one buffer (about 3500 bytes); `EINTR` when a signal ends the
    /// repetition.
    pub fn test_run(&self, packet: &[u8], repeat: u32) -> Result<TestRun, AttachError> {
        let mut data = vec![0; packet.len() + GROWTH];
        let (verdict, len, duration_ns) = self.fd.test_run(packet, &mut data, repeat).map_err(|errno| {
            let remedy = match errno {
                Errno::EINVAL => "a test packet has 14 to about 3500 bytes; give one of that size",
                Errno::EINTR => "a signal came; try again",
                _ => "the kernel must have CONFIG_NET and a program of XDP; try another kernel",
            };
            let object = format!("program {} on a packet of {} bytes", self.name, packet.len());
            AttachError::system("test", object, errno, remedy)
        })?;
        data.truncate(len);
        Ok(TestRun { verdict: verdict.into(), data, duration_ns })
    }

    /// The program with this id, as far as it may be opened (`CAP_SYS_ADMIN`).
    pub(crate) fn by_id(id: u32) -> Result<Self, Errno> {
        Self::from_fd(ProgFd::by_id(id)?)
    }

    fn from_fd(fd: ProgFd) -> Result<Self, Errno> {
        let (id, name) = fd.info()?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        Ok(Self { fd, id, name })
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Loads once more, with a log as large as it needs, and keeps its end.
fn explain(name: &str, errno: Errno, load: impl Fn(&mut [u8]) -> Result<ProgFd, Errno>) -> AttachError {
    let mut log = vec![0; LOG_MIN];
    while let Err(Errno::ENOSPC) = load(&mut log) {
        if log.len() >= LOG_MAX {
            break; // since Linux 6.4 what it holds is the end
        }
        log = vec![0; log.len() * 2];
    }
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    if text.trim().is_empty() {
        return refused("load", name, errno);
    }
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    AttachError::Verifier { program: name.to_owned(), errno, log }
}

fn refused(operation: &'static str, name: &str, errno: Errno) -> AttachError {
    let remedy = match errno {
        Errno::E2BIG => "a program has 1 to 1000000 instructions; use fewer rules",
        Errno::EINVAL => {
            "a name has letters, digits, `_` and `.` only, and frags need Linux 5.18; change what is asked for"
        }
        _ => "see what the kernel log says",
    };
    AttachError::system(operation, format!("program {name}"), errno, remedy)
}
