//! The raw system calls of the host's control plane, one thin function each; `xdp_umem::sys` holds the others.

use alloc::vec::Vec;
use core::ffi::{CStr, c_int, c_ulong};
use core::mem::{MaybeUninit, size_of};
use core::ptr;
use std::os::fd::{AsRawFd, BorrowedFd};
use xdp_umem::{Errno, Fd};

/// The kernel's -1 as an [`Errno`].
fn check(returned: c_int) -> Result<c_int, Errno> {
    if returned < 0 { Err(Errno::last()) } else { Ok(returned) }
}

/// As [`check`], for calls that return a length.
fn check_len(returned: isize) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| Errno::last())
}

/// `unshare`, of the calling thread. `flags` may be `CLONE_NEWNET` and `CLONE_NEWNS`.
pub(crate) fn unshare(flags: c_int) -> Result<(), Errno> {
    // SAFETY: no memory is passed; neither flag touches this process's memory or descriptors.
    check(unsafe { libc::unshare(flags & (libc::CLONE_NEWNET | libc::CLONE_NEWNS)) }).map(drop)
}

/// `setns`, of the calling thread, into a network namespace.
pub(crate) fn setns_net(fd: &Fd) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(fd.raw(), libc::CLONE_NEWNET) }).map(drop)
}

/// `NS_GET_NSTYPE`: which kind of namespace a descriptor is of, as a `CLONE_NEW` flag. `ENOTTY` if of none. Since
/// Linux 4.11.
pub(crate) fn namespace_kind(fd: &Fd) -> Result<c_int, Errno> {
    const NS_GET_NSTYPE: c_ulong = 0xb703;
    // SAFETY: this command takes no memory, and other files do not know its number.
    check(unsafe { libc::ioctl(fd.raw(), NS_GET_NSTYPE as _) })
}

/// `mount`, without data. A missing `source` or `kind` is passed as a null pointer.
pub(crate) fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
) -> Result<(), Errno> {
    let source = source.map_or(ptr::null(), CStr::as_ptr);
    let kind = kind.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: live C strings or null pointers, which the kernel takes for "none"; no data.
    check(unsafe { libc::mount(source, target.as_ptr(), kind, flags, ptr::null()) }).map(drop)
}

/// `umount2` with `MNT_DETACH`: gone from the tree at once, gone for good with its last user.
pub(crate) fn unmount(target: &CStr) -> Result<(), Errno> {
    // SAFETY: a live C string.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }).map(drop)
}

/// `send`, to where the socket is connected (a netlink socket: to the kernel).
pub(crate) fn send(fd: &Fd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the slice is live and as long as said.
    check_len(unsafe { libc::send(fd.raw(), bytes.as_ptr().cast(), bytes.len(), 0) })
}

/// `recv`. Returns the length of the whole message, which is more than the buffer's when it was cut (`MSG_TRUNC`).
pub(crate) fn receive(fd: &Fd, bytes: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the slice is live, writable and as long as said.
    check_len(unsafe { libc::recv(fd.raw(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_TRUNC) })
}

/// `connect` of an IPv4 socket, so that [`send`] goes there and [`receive`] takes only what comes from there.
pub(crate) fn connect_ipv4(fd: &Fd, address: core::net::Ipv4Addr) -> Result<(), Errno> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    let len = size_of::<libc::sockaddr_in>() as u32;
    // SAFETY: the address is live for its size.
    check(unsafe { libc::connect(fd.raw(), (&raw const address).cast(), len) }).map(drop)
}

/// `flock`, exclusive: waits for it, or takes it at once or not at all (`EAGAIN`: somebody holds it).
pub(crate) fn lock(fd: BorrowedFd<'_>, wait: bool) -> Result<(), Errno> {
    let how = if wait { libc::LOCK_EX } else { libc::LOCK_EX | libc::LOCK_NB };
    // SAFETY: no memory is passed.
    check(unsafe { libc::flock(fd.as_raw_fd(), how) }).map(drop)
}

/// `struct ethtool_drvinfo` of `linux/ethtool.h`.
#[repr(C)]
struct DrvInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved2: [u8; 12],
    n_priv_flags: u32,
    n_stats: u32,
    testinfo_len: u32,
    eedump_len: u32,
    regdump_len: u32,
}
const _: () = assert!(size_of::<DrvInfo>() == 196, "as the kernel lays it out");

/// `ETHTOOL_GDRVINFO` on an interface: driver, firmware and bus, each padded with zeros.
pub(crate) fn driver_info(fd: &Fd, interface: &[u8; 16]) -> Result<[[u8; 32]; 3], Errno> {
    const ETHTOOL_GDRVINFO: u32 = 3;
    let mut info = DrvInfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        fw_version: [0; 32],
        bus_info: [0; 32],
        erom_version: [0; 32],
        reserved2: [0; 12],
        n_priv_flags: 0,
        n_stats: 0,
        testinfo_len: 0,
        eedump_len: 0,
        regdump_len: 0,
    };
    // SAFETY: live, and as large as this command writes.
    unsafe { ethtool(fd, interface, (&raw mut info).cast()) }?;
    Ok([info.driver, info.fw_version, info.bus_info])
}

/// The longest mask of cores we ask for: what the largest kernel configuration has (`NR_CPUS` 8192).
const MASK_WORDS: usize = 8192 / 64;

/// `sched_getaffinity`: the cores a thread may run on, ascending. Thread 0 is the calling one.
pub(crate) fn affinity(thread: libc::pid_t) -> Result<Vec<usize>, Errno> {
    let mut mask = [0u64; MASK_WORDS];
    let len = size_of::<[u64; MASK_WORDS]>();
    // SAFETY: the mask is live and as long as said; an array of u64 is as good a bit mask as `cpu_set_t`.
    check(unsafe { libc::sched_getaffinity(thread, len, mask.as_mut_ptr().cast()) })?;
    let bits = mask
        .iter()
        .enumerate()
        .flat_map(|(at, word)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit));
    Ok(bits.collect())
}

/// The core the calling thread runs on at this moment (`sched_getcpu`; no system call where the vDSO has it).
pub(crate) fn current_core() -> Result<usize, Errno> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::sched_getcpu() }).map(|core| core as usize)
}

/// The effective user id.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: no memory is passed, and the call cannot fail.
    unsafe { libc::geteuid() }
}

/// `getrlimit(RLIMIT_MEMLOCK)`: the soft and the hard limit, in bytes.
pub(crate) fn memlock_limit() -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live and writable.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// `setrlimit(RLIMIT_MEMLOCK)`, both in bytes.
pub(crate) fn set_memlock_limit(soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is live.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }).map(drop)
}

/// `uname`'s release, such as `6.18.44`, as bytes without the closing zero.
pub(crate) fn kernel_release() -> Result<Vec<u8>, Errno> {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: room for one `utsname`, which is what the kernel writes.
    check(unsafe { libc::uname(name.as_mut_ptr()) })?;
    // SAFETY: zeroed, then written; arrays of bytes, of which every pattern is a value.
    let name = unsafe { name.assume_init() };
    Ok(name.release.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect())
}

/// An ethtool command on an interface, by the old ioctl.
///
/// # Safety
/// `data` is live, begins with the command's number, and is as large as that command reads and writes.
unsafe fn ethtool(fd: &Fd, interface: &[u8; 16], data: *mut libc::c_char) -> Result<(), Errno> {
    const SIOCETHTOOL: c_ulong = 0x8946;
    let mut request = libc::ifreq {
        ifr_name: interface.map(|byte| byte as libc::c_char),
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data },
    };
    // SAFETY: `request` is live, and what it points to is the caller's promise.
    check(unsafe { libc::ioctl(fd.raw(), SIOCETHTOOL as _, &raw mut request) }).map(drop)
}

/// `ETHTOOL_GRXFHINDIR`: which receive queue each hash bucket goes to. `EOPNOTSUPP` without such a table.
pub(crate) fn indirection(fd: &Fd, interface: &[u8; 16]) -> Result<Vec<u32>, Errno> {
    const ETHTOOL_GRXFHINDIR: u32 = 0x38;
    const LEN_MAX: u32 = 1 << 16;
    let ask = |len: u32| {
        let mut words = alloc::vec![0u32; 2 + len as usize];
        (words[0], words[1]) = (ETHTOOL_GRXFHINDIR, len);
        // SAFETY: a command, a length and room for so many entries; the kernel writes exactly as many, or, told 0, none.
        unsafe { ethtool(fd, interface, words.as_mut_ptr().cast()) }.map(|()| words)
    };
    let len = ask(0)?[1];
    if len == 0 || len > LEN_MAX {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(ask(len)?.split_off(2))
}

/// `ETHTOOL_SRXFHINDIR`: sets the table, whole; an empty one asks for the driver's own.
pub(crate) fn set_indirection(fd: &Fd, interface: &[u8; 16], table: &[u32]) -> Result<(), Errno> {
    const ETHTOOL_SRXFHINDIR: u32 = 0x39;
    let len = u32::try_from(table.len()).map_err(|_| Errno::EINVAL)?;
    let mut words = alloc::vec![ETHTOOL_SRXFHINDIR, len];
    words.extend_from_slice(table);
    // SAFETY: a command, a length and so many entries, which is what the kernel reads.
    unsafe { ethtool(fd, interface, words.as_mut_ptr().cast()) }
}

/// `struct ethtool_rx_flow_spec` as bytes: a receive rule. See `netdev::steer` for what is where.
pub(crate) type FlowSpec = [u8; 168];

/// `struct ethtool_rxnfc`, with room for the places of rules behind it.
#[repr(C, align(8))]
struct RxNfc {
    cmd: u32,
    flow_type: u32,
    data: u64,
    spec: FlowSpec,
    rule_count: u32,
    places: [u32; RxNfc::PLACES],
}
const _: () = assert!(
    core::mem::offset_of!(RxNfc, spec) == 16
        && core::mem::offset_of!(RxNfc, rule_count) == 184
        && core::mem::offset_of!(RxNfc, places) == 188
        && size_of::<RxNfc>() >= 192,
    "as the kernel lays it out"
);

impl RxNfc {
    /// More rules than any driver's table holds that we know.
    const PLACES: usize = 16385;

    fn new(cmd: u32, spec: FlowSpec) -> alloc::boxed::Box<Self> {
        alloc::boxed::Box::new(Self {
            cmd,
            flow_type: 0,
            data: 0,
            spec,
            rule_count: Self::PLACES as u32,
            places: [0; Self::PLACES],
        })
    }

    fn run(&mut self, fd: &Fd, interface: &[u8; 16]) -> Result<(), Errno> {
        self.rule_count = Self::PLACES as u32;
        // SAFETY: at least as large as the kernel's struct, and `rule_count` says how much room `places` has.
        unsafe { ethtool(fd, interface, (&raw mut *self).cast()) }
    }
}

/// `ETHTOOL_GRXCLSRLALL`: the places taken in the table of receive rules, and how many it has (0: the driver does not say).
pub(crate) fn rule_places(fd: &Fd, interface: &[u8; 16]) -> Result<(Vec<u32>, u64), Errno> {
    const ETHTOOL_GRXCLSRLALL: u32 = 0x30;
    let mut command = RxNfc::new(ETHTOOL_GRXCLSRLALL, [0; 168]);
    command.run(fd, interface)?;
    let places = command.places.get(..command.rule_count as usize).ok_or(Errno::EPROTO)?;
    Ok((places.to_vec(), command.data & 0x7fff_ffff))
}

/// `ETHTOOL_GRXCLSRULE`: the rule at a place. `ENOENT` or `EINVAL` if there is none, as the driver likes.
pub(crate) fn rule_at(fd: &Fd, interface: &[u8; 16], place: u32) -> Result<FlowSpec, Errno> {
    const ETHTOOL_GRXCLSRULE: u32 = 0x2f;
    let mut command = RxNfc::new(ETHTOOL_GRXCLSRULE, [0; 168]);
    command.spec[160..164].copy_from_slice(&place.to_ne_bytes());
    command.run(fd, interface)?;
    Ok(command.spec)
}

/// `ETHTOOL_SRXCLSRLINS`: puts a rule where it says, over what is there.
pub(crate) fn insert_rule(fd: &Fd, interface: &[u8; 16], spec: &FlowSpec) -> Result<(), Errno> {
    const ETHTOOL_SRXCLSRLINS: u32 = 0x32;
    RxNfc::new(ETHTOOL_SRXCLSRLINS, *spec).run(fd, interface)
}

/// `ETHTOOL_SRXCLSRLDEL`: takes the rule at a place away.
pub(crate) fn delete_rule(fd: &Fd, interface: &[u8; 16], place: u32) -> Result<(), Errno> {
    const ETHTOOL_SRXCLSRLDEL: u32 = 0x31;
    let mut command = RxNfc::new(ETHTOOL_SRXCLSRLDEL, [0; 168]);
    command.spec[160..164].copy_from_slice(&place.to_ne_bytes());
    command.run(fd, interface)
}

/// `sched_setaffinity`: the cores a thread may run on from now on.
pub(crate) fn set_affinity(thread: libc::pid_t, cores: &[usize]) -> Result<(), Errno> {
    let mut mask = [0u64; MASK_WORDS];
    for core in cores {
        *mask.get_mut(core / 64).ok_or(Errno::EINVAL)? |= 1 << (core % 64);
    }
    let len = size_of::<[u64; MASK_WORDS]>();
    // SAFETY: the mask is live and as long as said; an array of u64 is as good a bit mask as `cpu_set_t`.
    check(unsafe { libc::sched_setaffinity(thread, len, mask.as_ptr().cast()) }).map(drop)
}

/// `BPF_OBJ_GET`: opens what is pinned at a path. `EPERM` without the privilege, `EINVAL` if it is no such file.
pub(crate) fn open_pinned(path: &CStr) -> Result<Fd, Errno> {
    const BPF_OBJ_GET: c_int = 7;
    /// The head of `union bpf_attr` for this command.
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    const BPF_F_RDONLY: u32 = 1 << 3;
    let open = |file_flags| {
        let attr = Attr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags };
        // SAFETY: the attributes and the C string they point to are live, and the size is theirs.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<Attr>()) };
        let fd = check(fd as c_int)?;
        // SAFETY: just opened, close-on-exec by this command's own rule, and nobody else has it.
        Ok(unsafe { Fd::from_raw(fd) })
    };
    // links and programs refuse the flag, maps may refuse without it
    open(0).or_else(|_: Errno| open(BPF_F_RDONLY))
}
