//! The machine a measurement runs on: cores and pinning, memory, privileges, what makes time jitter.
#![forbid(unsafe_code)]

mod host;
mod noise;
pub mod tune;

pub use host::{Core, Host, IdleState};
pub use noise::{Gap, Noise};

use crate::netdev::{Error, Interface, Namespace, sys};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use xdp_umem::Errno;

/// Pins the calling thread to one core and reads back that the kernel agreed. Three system calls.
///
/// # Errors
/// `EINVAL`, with the cores that are allowed, if this one is not (a cpuset, `taskset`, or no such core).
pub fn pin(core: usize) -> Result<(), Error> {
    let refused = |allowed: &[usize]| {
        let error = Error::new("pin to core", core.to_string(), Errno::EINVAL);
        error.saying("not granted").remedy_is(format!("choose one of the allowed cores: {}", shown(allowed)))
    };
    let allowed = allowed()?;
    if !allowed.contains(&core) || !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Err(refused(&allowed));
    }
    let granted = self::allowed()?;
    if granted == [core] { Ok(()) } else { Err(refused(&granted)) }
}

/// The cores the calling thread may run on, ascending.
pub fn allowed() -> Result<Vec<usize>, Error> {
    sys::affinity(0).map_err(|errno| Error::new("read", "the allowed cores", errno))
}

/// The cores thread `id` (as `gettid` gives it) may run on, ascending. `ESRCH` if there is no such thread.
pub fn allowed_of(thread: u32) -> Result<Vec<usize>, Error> {
    let id = i32::try_from(thread).map_err(|_| Errno::ESRCH);
    let cores = id.and_then(sys::affinity);
    cores.map_err(|errno| Error::new("read cores of thread", thread.to_string(), errno))
}

/// The core the calling thread runs on now; it may have left when you look.
pub fn current() -> Result<usize, Error> {
    sys::current_core().map_err(|errno| Error::new("read", "the current core", errno))
}

/// The core thread `id`, of any process, ran on last; `None` if there is no such thread.
pub fn last_core_of(thread: u32) -> Option<usize> {
    const PROCESSOR: usize = 39; // proc_pid_stat(5)
    stat_field(&fs::read_to_string(format!("/proc/{thread}/stat")).ok()?, PROCESSOR)?.parse().ok()
}

/// A field of `/proc/PID/stat`, counted from 1 as proc_pid_stat(5) does; not the name, which may hold anything.
pub(crate) fn stat_field(stat: &str, nth: usize) -> Option<&str> {
    const AFTER_NAME: usize = 3;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(nth.checked_sub(AFTER_NAME)?)
}

/// The cores that are switched on, ascending.
pub fn online() -> Result<Vec<usize>, Error> {
    let path = "/sys/devices/system/cpu/online";
    let text = fs::read_to_string(path).map_err(|error| Error::io("read", path, &error))?;
    Ok(cpu_list(&text))
}

/// The memory node of a core; `None` where the kernel has no NUMA, or no such core.
pub fn numa_node(core: usize) -> Option<u32> {
    let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}")).ok()?;
    let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.find_map(|name| name.strip_prefix("node")?.parse().ok())
}

/// The memory node of the device behind an interface; `None` for virtual ones, and where the kernel has no NUMA.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN: a sysfs of the calling thread's namespace is mounted for a moment.
pub fn numa_node_of(interface: &Interface) -> Result<Option<u32>, Error> {
    let name = interface.refresh()?.name;
    Namespace::current()?.with_sysfs(|sysfs| {
        let path = sysfs.join("class/net").join(&name).join("device/numa_node");
        // -1 says that the firmware did not tell
        word(&path).and_then(|text| text.parse().ok())
    })
}

/// What a measurement's header says of the machine. `None` or empty where the system does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// The processor's name.
    pub cpu_model: String,
    /// Cores switched on.
    pub cores_online: usize,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// Where the kernel takes its time from; anything but `"tsc"` makes reading it slow.
    pub clocksource: String,
    /// Whether the TSC runs at one speed whatever the core does (`constant_tsc` and `nonstop_tsc`).
    pub tsc_invariant: bool,
    /// Whether a hypervisor says that it is there.
    pub virtualised: bool,
    /// What governs core 0's frequency, if anything does.
    pub governor: Option<String>,
    /// Cores kept free of other tasks (`isolcpus`).
    pub isolated: Vec<usize>,
}

impl Machine {
    /// Reads it all; cheap, but not for the data path.
    pub fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags: Vec<_> = value(&cpuinfo, "flags").unwrap_or_default().split_ascii_whitespace().collect();
        let path = |name: &str| word(Path::new(&format!("/sys/devices/system/{name}")));
        Self {
            cpu_model: value(&cpuinfo, "model name").unwrap_or_default().to_string(),
            cores_online: online().map_or(0, |cores| cores.len()),
            kernel: kernel_release(),
            clocksource: path("clocksource/clocksource0/current_clocksource").unwrap_or_default(),
            tsc_invariant: flags.contains(&"constant_tsc") && flags.contains(&"nonstop_tsc"),
            virtualised: flags.contains(&"hypervisor"),
            governor: path("cpu/cpu0/cpufreq/scaling_governor"),
            isolated: cpu_list(&path("cpu/isolated").unwrap_or_default()),
        }
    }
}

/// The kernel's release, as `uname -r` prints it; empty if it does not say.
pub fn kernel_release() -> String {
    String::from_utf8_lossy(&sys::kernel_release().unwrap_or_default()).into_owned()
}

/// The kernel's version: the first two numbers of its release; zeros if it does not say.
pub fn kernel_version() -> (u32, u32) {
    parse_version(&kernel_release())
}

/// The time a hypervisor took from a core since boot, in nanoseconds, in steps of 10 ms; `None` for no such core.
pub fn steal_ns(core: usize) -> Option<u64> {
    steal(&fs::read_to_string("/proc/stat").ok()?, core)
}

/// One size of huge page and how many there are (`/sys/kernel/mm/hugepages`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugePages {
    /// Of one page, in bytes.
    pub size: usize,
    /// In the pool.
    pub total: u64,
    /// Of these, free; some may be promised to others.
    pub free: u64,
}

/// The sizes of huge page this kernel has, smallest first.
pub fn huge_pages() -> Vec<HugePages> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size_kib: usize = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = |file| word(&entry.path().join(file))?.parse().ok();
            Some(HugePages {
                size: size_kib << 10,
                total: count("nr_hugepages")?,
                free: count("free_hugepages")?,
            })
        })
        .collect();
    sizes.sort_by_key(|pages| pages.size);
    sizes
}

/// How the memory at an address is backed, for the whole mapping it lies in (`/proc/self/smaps`), in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backing {
    /// How long the mapping is.
    pub len: usize,
    /// The mapping's page size: more than the base page for hugetlb only.
    pub page_size: usize,
    /// How much of it is there.
    pub resident: usize,
    /// How much of it transparent huge pages hold, anonymous or of a memfd.
    pub transparent_huge: usize,
    /// How much of it is locked.
    pub locked: usize,
}

/// How the memory at `address` (a pointer as a number) is backed; `None` where nothing is mapped. Walks the page
/// tables of the whole process: milliseconds.
pub fn backing(address: usize) -> Option<Backing> {
    parse_backing(&fs::read_to_string("/proc/thread-self/smaps").ok()?, address)
}

/// How much memory may be locked, in bytes; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemlockLimit {
    /// What counts; each registration of a UMEM counts its whole size, without CAP_IPC_LOCK.
    pub soft: u64,
    /// What the soft limit may be raised to.
    pub hard: u64,
}

impl MemlockLimit {
    /// The process's limit.
    pub fn read() -> Result<Self, Error> {
        let limits = sys::memlock_limit();
        let (soft, hard) = limits.map_err(|errno| Error::new("read", "the memory lock limit", errno))?;
        Ok(Self { soft, hard })
    }

    /// Raises the soft limit to the hard one, both to no limit where CAP_SYS_RESOURCE allows it. Returns what holds then.
    pub fn raise() -> Result<Self, Error> {
        if sys::set_memlock_limit(u64::MAX, u64::MAX).is_err() {
            let Self { hard, .. } = Self::read()?;
            let raised = sys::set_memlock_limit(hard, hard);
            raised.map_err(|errno| Error::new("raise", "the memory lock limit", errno))?;
        }
        Self::read()
    }
}

macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident $kernel:literal $bit:literal)*) => {
        /// A privilege, as capabilities(7) names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Cap { $($(#[$doc])* $name = $bit,)* }

        impl Cap {
            /// The kernel's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $kernel,)* }
            }
        }
    };
}

capabilities! {
    /// Interfaces, netlink, busy polling.
    NetAdmin "CAP_NET_ADMIN" 12
    /// AF_XDP sockets.
    NetRaw "CAP_NET_RAW" 13
    /// Memory locked past the limit.
    IpcLock "CAP_IPC_LOCK" 14
    /// Namespaces and mounts.
    SysAdmin "CAP_SYS_ADMIN" 21
    /// Pinning of other processes, real-time priorities.
    SysNice "CAP_SYS_NICE" 23
    /// Limits raised past the hard ones.
    SysResource "CAP_SYS_RESOURCE" 24
    /// Performance counters.
    Perfmon "CAP_PERFMON" 38
    /// XDP programs and maps.
    Bpf "CAP_BPF" 39
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Those of `wanted` that the calling thread does not have, in that order.
pub fn missing(wanted: &[Cap]) -> Result<Vec<Cap>, Error> {
    let path = "/proc/thread-self/status";
    let status = fs::read_to_string(path).map_err(|error| Error::io("read", path, &error))?;
    let mask = value(&status, "CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let mask = mask.ok_or_else(|| Error::new("read", path, Errno::EPROTO))?;
    Ok(wanted.iter().copied().filter(|cap| mask >> *cap as u32 & 1 == 0).collect())
}

/// Keeps all cores out of deep sleep while it lives (`/dev/cpu_dma_latency`).
#[derive(Debug)]
pub struct PmQos {
    _held: File,
}

impl PmQos {
    /// No idle state that takes more than so many microseconds to leave; 0: the idle loop polls, which on a virtual
    /// machine burns the core.
    ///
    /// # Errors
    /// `EACCES` for others than root; `ENOENT` where the kernel has no such device.
    pub fn hold(latency_us: u32) -> Result<Self, Error> {
        let path = "/dev/cpu_dma_latency";
        let failed = |error: std::io::Error| Error::io("hold", path, &error);
        let latency = i32::try_from(latency_us).unwrap_or(i32::MAX);
        let mut held = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        held.write_all(&latency.to_ne_bytes()).map_err(failed)?;
        Ok(Self { _held: held })
    }
}

/// The value behind the first `name` and a colon.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// A file's text without the space around it; `None` if it is not there.
pub(crate) fn word(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

/// A list of cores as the kernel writes it (`0-3,8`); what does not parse is left out.
pub(crate) fn cpu_list(text: &str) -> Vec<usize> {
    const MOST: usize = 8192; // what the kernel can be built for (NR_CPUS)
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?.min(MOST))
    });
    ranges.flatten().collect()
}

/// Cores as the kernel writes them (`0-3,8`): ascending, ranges joined.
pub(crate) fn list_text(cores: &[usize]) -> String {
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    cores.dedup();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => ranges.push((core, core)),
        }
    }
    let shown = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(shown).collect::<Vec<_>>().join(",")
}

/// Cores for an error text.
fn shown(cores: &[usize]) -> String {
    let words: Vec<_> = cores.iter().map(ToString::to_string).collect();
    words.join(", ")
}

fn parse_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn steal(stat: &str, core: usize) -> Option<u64> {
    const TICK_NS: u64 = 10_000_000; // USER_HZ is 100 on every architecture we run on
    const STEAL: usize = 7; // user nice system idle iowait irq softirq steal
    let name = format!("cpu{core}");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '))?;
    line.split_ascii_whitespace().nth(STEAL)?.parse::<u64>().ok()?.checked_mul(TICK_NS)
}

fn parse_backing(smaps: &str, address: usize) -> Option<Backing> {
    let range = |line: &str| {
        let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    };
    let mut lines =
        smaps.lines().skip_while(|line| !range(line).is_some_and(|found| found.contains(&address)));
    let found = range(lines.next()?)?;
    let mut backing = Backing { len: found.len(), ..Backing::default() };
    for line in lines.take_while(|line| range(line).is_none()) {
        let Some((name, text)) = line.split_once(':') else { continue };
        let bytes =
            text.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) << 10;
        match name {
            "KernelPageSize" => backing.page_size = bytes,
            "Rss" | "Shared_Hugetlb" | "Private_Hugetlb" => backing.resident += bytes,
            "AnonHugePages" | "ShmemPmdMapped" => backing.transparent_huge += bytes,
            "Locked" => backing.locked = bytes,
            _ => {}
        }
    }
    Some(backing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_pinned_thread_runs_where_it_was_pinned_and_nowhere_else() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let core = *allowed().unwrap().last().unwrap();
                pin(core).unwrap();
                assert_eq!((allowed().unwrap(), current().unwrap()), (vec![core], core));
                let error = pin(core + 1).unwrap_err();
                assert_eq!(error.errno(), Errno::EINVAL);
                assert_eq!(error.remedy(), format!("choose one of the allowed cores: {core}"));
                assert!(pin(1 << 40).is_err(), "no panic for a core no mask can hold");
            });
        });
        assert_eq!(last_core_of(u32::MAX), None);
        assert!(online().unwrap().contains(&last_core_of(std::process::id()).unwrap()));
        assert_eq!(allowed_of(u32::MAX).unwrap_err().errno(), Errno::ESRCH);
        assert!(!allowed_of(std::process::id()).unwrap().is_empty());
    }

    #[test]
    fn lists_of_cores_are_read_and_rubbish_is_left_out() {
        assert_eq!(cpu_list("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(list_text(&[8, 0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(cpu_list(""), [0; 0]);
        assert_eq!(cpu_list("3-1,x,4-"), [0; 0]);
        assert!(cpu_list("0-18446744073709551615").len() <= 8193);
    }

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 2 3";
        assert_eq!((stat_field(stat, 3), stat_field(stat, 6)), (Some("S"), Some("3")));
        assert_eq!((stat_field(stat, 7), stat_field(stat, 1), stat_field("", 3)), (None, None, None));
    }

    #[test]
    fn a_release_begins_with_two_numbers() {
        assert_eq!(parse_version("6.18.44-cloud"), (6, 18));
        assert_eq!(parse_version("7.0-rc3"), (7, 0));
        assert_eq!((parse_version(""), parse_version("x.y")), ((0, 0), (0, 0)));
        assert!(kernel_version() >= (6, 1), "the oldest we support");
    }

    #[test]
    fn stolen_time_is_the_eighth_number_of_the_cores_line() {
        let stat = "cpu  1 2 3 4 5 6 7 80 9 10\ncpu1 1 2 3 4 5 6 7 8 9 10\ncpu11 0 0 0 0 0 0 0 99 0 0\n";
        assert_eq!(
            (steal(stat, 1), steal(stat, 11), steal(stat, 0)),
            (Some(80_000_000), Some(990_000_000), None)
        );
    }

    #[test]
    fn a_mapping_is_found_by_an_address_inside_it() {
        let smaps = "1000-3000 rw-p 00000000 00:00 0 \nRss: 4 kB\nKernelPageSize: 4 kB\n\
            3000-403000 rw-p 00000000 00:00 0\nRss: 2048 kB\nAnonHugePages: 2048 kB\nKernelPageSize: 4 kB\nLocked: 8 kB\n\
            VmFlags: rd wr\n403000-404000 r--p 0 00:00 0\nRss: 4 kB\n";
        let found = parse_backing(smaps, 0x3000).unwrap();
        let sizes = (found.len, found.page_size, found.resident, found.transparent_huge, found.locked);
        assert_eq!(sizes, (4 << 20, 4096, 2 << 20, 2 << 20, 8192));
        assert_eq!(parse_backing(smaps, 0x404000), None);
        let own = [1u8; 64];
        assert_eq!(backing(own.as_ptr() as usize).unwrap().page_size, xdp_umem::sys::page_size());
        assert_eq!(backing(1), None);
    }

    #[test]
    fn the_machine_says_what_it_is() {
        let machine = Machine::read();
        assert!(!machine.kernel.is_empty() && !machine.clocksource.is_empty());
        assert!(machine.cores_online >= allowed().unwrap().len());
        assert!(
            huge_pages()
                .iter()
                .all(|pages| pages.size > xdp_umem::sys::page_size() && pages.free <= pages.total)
        );
        let limit = MemlockLimit::raise().unwrap();
        assert_eq!(limit.soft, limit.hard);
        assert!(steal_ns(allowed().unwrap()[0]).is_some());
    }

    #[test]
    fn sleep_is_held_off_while_the_value_lives() {
        use std::io::Read;
        let held = match PmQos::hold(20) {
            Ok(held) => held,
            Err(error) => return std::println!("skipped: {error}"),
        };
        let mut latency_us = [0; 4];
        // a file of ours would ask for something itself, so read the smallest of all through the one that is open
        (&held._held).read_exact(&mut latency_us).unwrap();
        assert!((0..=20).contains(&i32::from_ne_bytes(latency_us)));
    }

    #[test]
    fn a_missing_privilege_is_named() {
        let all = [Cap::NetAdmin, Cap::Bpf];
        let missing = missing(&all).unwrap();
        assert!(missing.iter().all(|cap| all.contains(cap)));
        assert_eq!((Cap::Bpf.name(), Cap::Perfmon as u32), ("CAP_BPF", 38));
    }
}
