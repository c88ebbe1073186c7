//! `bpf(2)`, one thin function for each command, and two calls for rtnetlink.
//!
//! Attributes end after the last field that is used here, and the rest of a structure newer than the kernel is zero, which
//! every kernel accepts whatever its own size (`bpf_check_uarg_tail_zero` in `kernel/bpf/syscall.c`); so `E2BIG` never
//! means that a structure is too long, and nothing is tried twice.

use crate::insn::Insn;
use core::ffi::{CStr, c_int, c_long};
use xdp_umem::{Errno, Fd};

const BPF_MAP_CREATE: c_int = 0;
const BPF_MAP_UPDATE_ELEM: c_int = 2;
const BPF_MAP_DELETE_ELEM: c_int = 3;
const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_TEST_RUN: c_int = 10;
const BPF_PROG_GET_FD_BY_ID: c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;
const BPF_LINK_CREATE: c_int = 28;
const BPF_LINK_UPDATE: c_int = 29;
const BPF_LINK_GET_FD_BY_ID: c_int = 30;
const BPF_LINK_GET_NEXT_ID: c_int = 31;
const BPF_LINK_DETACH: c_int = 34;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_LINK_TYPE_XDP: u32 = 6;

/// `BPF_F_XDP_HAS_FRAGS`: the program may meet packets of several buffers. Since Linux 5.18.
pub(crate) const XDP_HAS_FRAGS: u32 = 1 << 5;
/// `BPF_F_REPLACE` of a link's update: only if the expected program is there.
const REPLACE: u32 = 1 << 2;

/// A name as the kernel keeps it.
pub(crate) type Name = [u8; 16];

/// A name as the kernel wants it: 15 bytes at most, a NUL behind them. Longer ones are cut.
pub(crate) fn name(name: &str) -> Name {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bytes
}

/// Bytes that `bpf(2)` reads as its attributes.
///
/// # Safety
/// `repr(C)` without padding, laid out as a member of `union bpf_attr`.
unsafe trait Attr {}

macro_rules! attr {
    ($(#[$doc:meta])* $name:ident $len:literal { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Default)]
        struct $name { $($field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $len && 0 $(+ size_of::<$type>())* == $len, "no padding");
        // SAFETY: `repr(C)`, integers only, and the assertion shows that they fill it.
        unsafe impl Attr for $name {}
    };
}

attr!(MapCreate 44 {
    map_type: u32, key_size: u32, value_size: u32, max_entries: u32, map_flags: u32, inner_map_fd: u32, numa_node: u32,
    map_name: Name,
});
attr!(MapElem 32 { map_fd: u32, zero: u32, key: u64, value: u64, flags: u64, });
attr!(ProgLoad 72 {
    prog_type: u32, insn_cnt: u32, insns: u64, license: u64, log_level: u32, log_size: u32, log_buf: u64, kern_version: u32,
    prog_flags: u32, prog_name: Name, prog_ifindex: u32, expected_attach_type: u32,
});
attr!(ProgTestRun 48 {
    prog_fd: u32, retval: u32, data_size_in: u32, data_size_out: u32, data_in: u64, data_out: u64, repeat: u32, duration: u32,
    ctx_size_in: u32, ctx_size_out: u32,
});
attr!(ById 12 { id: u32, next_id: u32, open_flags: u32, });
attr!(ObjInfo 16 { bpf_fd: u32, info_len: u32, info: u64, });
attr!(LinkCreate 16 { prog_fd: u32, target_ifindex: u32, attach_type: u32, flags: u32, });
attr!(LinkUpdate 16 { link_fd: u32, new_prog_fd: u32, flags: u32, old_prog_fd: u32, });
attr!(LinkDetach 4 { link_fd: u32, });

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: Name,
}
const _: () = assert!(size_of::<ProgInfo>() == 80, "as struct bpf_prog_info up to its name");

/// The head of `struct bpf_link_info`, for a link of XDP.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct LinkInfo {
    kind: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    zero: u32,
    pub(crate) ifindex: u32,
    zero_too: u32,
}
const _: () = assert!(size_of::<LinkInfo>() == 24, "as struct bpf_link_info up to its union");

impl LinkInfo {
    pub(crate) fn is_xdp(&self) -> bool {
        self.kind == BPF_LINK_TYPE_XDP
    }
}

/// An XSKMAP: made here only, so that keys and values of four bytes are certain.
#[derive(Debug)]
pub(crate) struct MapFd(Fd);

/// A program: made here only.
#[derive(Debug)]
pub(crate) struct ProgFd(Fd);

/// A link: made here only.
#[derive(Debug)]
pub(crate) struct LinkFd(Fd);

impl MapFd {
    /// `BPF_MAP_CREATE` of an XSKMAP.
    pub(crate) fn create(map_name: Name, max_entries: u32) -> Result<Self, Errno> {
        let map_type = BPF_MAP_TYPE_XSKMAP;
        let mut attr =
            MapCreate { map_type, key_size: 4, value_size: 4, max_entries, map_name, ..Default::default() };
        // SAFETY: no addresses, and a descriptor comes back.
        unsafe { bpf_fd(BPF_MAP_CREATE, &mut attr) }.map(Self)
    }

    /// `BPF_MAP_UPDATE_ELEM`: a socket for a key.
    pub(crate) fn update(&self, key: u32, socket: &Fd) -> Result<(), Errno> {
        let value = raw(socket);
        let (key, value) = (&raw const key as u64, &raw const value as u64);
        let mut attr = MapElem { map_fd: raw(&self.0), key, value, ..Default::default() };
        // SAFETY: key and value are live for the four bytes that an XSKMAP reads of each.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// `BPF_MAP_DELETE_ELEM`.
    pub(crate) fn delete(&self, key: u32) -> Result<(), Errno> {
        let mut attr = MapElem { map_fd: raw(&self.0), key: &raw const key as u64, ..Default::default() };
        // SAFETY: the key is live for the four bytes that an XSKMAP reads.
        unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) }.map(drop)
    }

    pub(crate) fn fd(&self) -> &Fd {
        &self.0
    }
}

impl ProgFd {
    /// `BPF_PROG_LOAD` of an XDP program; the verifier's words go to `log`, none if it is empty.
    pub(crate) fn load(
        name: Name,
        insns: &[Insn],
        license: &CStr,
        flags: u32,
        log: &mut [u8],
    ) -> Result<Self, Errno> {
        let mut attr = ProgLoad {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: u32::try_from(insns.len()).map_err(|_| Errno::E2BIG)?,
            insns: insns.as_ptr() as u64,
            license: license.as_ptr() as u64,
            prog_flags: flags,
            prog_name: name,
            expected_attach_type: BPF_XDP,
            ..Default::default()
        };
        if !log.is_empty() {
            attr.log_level = 1;
            attr.log_size = u32::try_from(log.len()).map_err(|_| Errno::EINVAL)?;
            attr.log_buf = log.as_mut_ptr() as u64;
        }
        // SAFETY: instructions, license and log are live and as long as said; the kernel writes the log alone.
        unsafe { bpf_fd(BPF_PROG_LOAD, &mut attr) }.map(Self)
    }

    /// `BPF_PROG_GET_FD_BY_ID`.
    pub(crate) fn by_id(id: u32) -> Result<Self, Errno> {
        // SAFETY: no addresses, and a descriptor comes back.
        unsafe { bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut ById { id, ..Default::default() }) }.map(Self)
    }

    /// `BPF_OBJ_GET_INFO_BY_FD`: the program's id and name.
    pub(crate) fn info(&self) -> Result<(u32, Name), Errno> {
        let mut info = ProgInfo::default();
        // SAFETY: as `struct bpf_prog_info`; its addresses and counts are zero, so that no array is asked for.
        unsafe { obj_info(&self.0, &mut info) }?;
        Ok((info.id, info.name))
    }

    /// `BPF_PROG_TEST_RUN`. Returns the verdict, how many bytes of `out` were written, and the nanoseconds of one run.
    pub(crate) fn test_run(
        &self,
        packet: &[u8],
        out: &mut [u8],
        repeat: u32,
    ) -> Result<(u32, usize, u32), Errno> {
        let len = |len| u32::try_from(len).map_err(|_| Errno::EINVAL);
        let mut attr = ProgTestRun {
            prog_fd: raw(&self.0),
            data_size_in: len(packet.len())?,
            data_size_out: len(out.len())?,
            data_in: packet.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat,
            ..Default::default()
        };
        // SAFETY: the packet is live to read, `out` to write, each as long as said.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut attr) }?;
        Ok((attr.retval, attr.data_size_out as usize, attr.duration))
    }

    pub(crate) fn fd(&self) -> &Fd {
        &self.0
    }
}

impl LinkFd {
    /// `BPF_LINK_CREATE` of an XDP program on an interface of this thread's network namespace; `flags` say the mode. Since
    /// Linux 5.9.
    pub(crate) fn create(program: &ProgFd, ifindex: u32, flags: u32) -> Result<Self, Errno> {
        let prog_fd = raw(&program.0);
        let mut attr = LinkCreate { prog_fd, target_ifindex: ifindex, attach_type: BPF_XDP, flags };
        // SAFETY: no addresses, and a descriptor comes back.
        unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }.map(Self)
    }

    /// `BPF_LINK_GET_FD_BY_ID`. Since Linux 5.8.
    pub(crate) fn by_id(id: u32) -> Result<Self, Errno> {
        // SAFETY: no addresses, and a descriptor comes back.
        unsafe { bpf_fd(BPF_LINK_GET_FD_BY_ID, &mut ById { id, ..Default::default() }) }.map(Self)
    }

    /// `BPF_LINK_GET_NEXT_ID`: the first link with an id above this. `ENOENT` behind the last. Since Linux 5.8.
    pub(crate) fn next_id(id: u32) -> Result<u32, Errno> {
        let mut attr = ById { id, ..Default::default() };
        // SAFETY: no addresses.
        unsafe { bpf(BPF_LINK_GET_NEXT_ID, &mut attr) }?;
        Ok(attr.next_id)
    }

    /// `BPF_OBJ_GET_INFO_BY_FD`.
    pub(crate) fn info(&self) -> Result<LinkInfo, Errno> {
        let mut info = LinkInfo::default();
        // SAFETY: as `struct bpf_link_info`; what stands where other types of link have an address is zero.
        unsafe { obj_info(&self.0, &mut info) }?;
        Ok(info)
    }

    /// `BPF_LINK_UPDATE`: another program in place of `old`, at once. `EPERM` if `old` is not there any more. Since Linux 5.9.
    pub(crate) fn update(&self, new: &ProgFd, old: Option<&ProgFd>) -> Result<(), Errno> {
        let (flags, old_prog_fd) = old.map_or((0, 0), |old| (REPLACE, raw(&old.0)));
        let mut attr = LinkUpdate { link_fd: raw(&self.0), new_prog_fd: raw(&new.0), flags, old_prog_fd };
        // SAFETY: no addresses.
        unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
    }

    /// `BPF_LINK_DETACH`: takes the program off while the link's descriptor stays. Since Linux 5.9.
    pub(crate) fn detach(&self) -> Result<(), Errno> {
        // SAFETY: no addresses.
        unsafe { bpf(BPF_LINK_DETACH, &mut LinkDetach { link_fd: raw(&self.0) }) }.map(drop)
    }

    pub(crate) fn fd(&self) -> &Fd {
        &self.0
    }
}

/// `send` of one message.
pub(crate) fn send(fd: &Fd, message: &[u8]) -> Result<(), Errno> {
    // SAFETY: the message is live and as long as said.
    let sent = unsafe { libc::send(fd.raw(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// `recv` of one message. Returns its whole length, also where that is more than `buffer` holds.
pub(crate) fn receive(fd: &Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer is live and as long as said.
    let received = unsafe { libc::recv(fd.raw(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC) };
    usize::try_from(received).map_err(|_| Errno::last())
}

fn raw(fd: &Fd) -> u32 {
    fd.raw() as u32
}

/// # Safety
/// `T` is integers, laid out as the kernel's info of this object, and what it holds of addresses and counts is zero.
unsafe fn obj_info<T>(object: &Fd, info: &mut T) -> Result<(), Errno> {
    let mut attr = ObjInfo {
        bpf_fd: raw(object),
        info_len: size_of::<T>() as u32,
        info: core::ptr::from_mut(info) as u64,
    };
    // SAFETY: the kernel writes `info_len` bytes at most, and any integers are a value (the caller's promise).
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// # Safety
/// As [`bpf`], and `command` returns a new descriptor.
unsafe fn bpf_fd<T: Attr>(command: c_int, attr: &mut T) -> Result<Fd, Errno> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: open, and nobody else has it yet.
    Ok(unsafe { Fd::from_raw(fd as c_int) })
}

/// # Safety
/// Every address in `attr` is live for what `command` reads or writes there.
unsafe fn bpf<T: Attr>(command: c_int, attr: &mut T) -> Result<c_long, Errno> {
    // SAFETY: the attributes are live for their size, without padding (`Attr`); their addresses are the caller's promise.
    let returned =
        unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_mut(attr), size_of::<T>()) };
    if returned < 0 { Err(Errno::last()) } else { Ok(returned) }
}
