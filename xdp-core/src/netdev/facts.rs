//! Facts: everything about one interface that decides what a measurement on it means.
//!
//! Reading never fails: what the driver or the kernel does not tell is a [`Setting::Unsupported`] with the reason, so that a
//! report can say it.
#![forbid(unsafe_code)]

use super::ethtool::{Channels, Coalescing, Driver, Features, Rings};
use super::genl::{self, Napi, Queue, XdpFeatures};
use super::link::Queues;
use super::route::{self, LockOut};
use super::steer::SteeringRule;
use super::{Error, Interface, Namespace, Setting, sys};
use crate::cpu::{cpu_list, word};
use alloc::ffi::CString;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use xdp_bpf::{Attached, Holder};
use xdp_umem::Errno;

/// What is known of an interface.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Facts {
    /// The link: index, addresses, MTU, up, kind.
    pub interface: Interface,
    /// Why it must not be touched, if so.
    pub lock_out: Setting<Option<LockOut>>,
    /// Driver, firmware and where the device is.
    pub driver: Setting<Driver>,
    /// The bus, such as `"pci"` or `"virtio"`.
    pub bus: Setting<String>,
    /// The device's memory node.
    pub numa_node: Setting<u32>,
    /// Its speed, in Mbit/s, as the driver says: a veth says 10000 and means nothing by it.
    pub speed_mbit: Setting<u32>,
    /// Queues in use.
    pub queues: Setting<Queues>,
    /// Queues as the driver counts them.
    pub channels: Setting<Channels>,
    /// The driver's rings.
    pub rings: Setting<Rings>,
    /// When the hardware interrupts.
    pub coalescing: Setting<Coalescing>,
    /// Where the receive hash leads.
    pub indirection: Setting<Vec<u32>>,
    /// Receive rules.
    pub rules: Setting<Vec<SteeringRule>>,
    /// Offloads.
    pub features: Setting<Features>,
    /// What the driver can do for XDP.
    pub xdp: Setting<XdpFeatures>,
    /// The XDP program on it, if any, and who keeps it there.
    pub program: Setting<Option<ProgramOn>>,
    /// The queues, their NAPI instances, and whether an AF_XDP socket has them (since Linux 6.15).
    pub queue_list: Setting<Vec<Queue>>,
    /// The NAPI instances and their own settings.
    pub napis: Setting<Vec<Napi>>,
    /// The settings of NAPI instances to come, and of all where the kernel has none for one.
    pub napi_defaults: NapiDefaults,
    /// Its interrupts.
    pub interrupts: Setting<Vec<Interrupt>>,
}

/// A device's NAPI settings in its namespace's sysfs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NapiDefaults {
    /// How many empty polls before interrupts are turned on again.
    pub defer_hard_irqs: Setting<u32>,
    /// In nanoseconds.
    pub gro_flush_timeout_ns: Setting<u64>,
    /// Whether kernel threads poll it: 0 or 1; since Linux 6.17 also 2, where its instances differ.
    pub threaded: Setting<u32>,
}

/// The system's busy-poll defaults (`/proc/sys/net/core`), which only its first namespace has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusyPollDefaults {
    /// `busy_read`: how long reads of every socket poll, in microseconds.
    pub read_us: Setting<u32>,
    /// `busy_poll`: how long poll(2) and select(2) do.
    pub poll_us: Setting<u32>,
}

/// An XDP program on an interface, and who keeps it there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgramOn {
    /// Its id, name and mode.
    pub attached: Attached,
    /// Where in bpf file systems it, or the link that holds it, is pinned.
    pub pins: Vec<PathBuf>,
    /// The processes that hold it or its link open: id and name.
    pub processes: Vec<(u32, String)>,
}

/// One interrupt of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// What the driver calls it, as in `/proc/interrupts`.
    pub name: String,
    /// The cores it may go to.
    pub affinity: Vec<usize>,
    /// The core or cores it does go to, where the kernel tells.
    pub effective: Vec<usize>,
    /// How often each core took it since boot, by core.
    pub counts: Vec<u64>,
}

impl Interrupt {
    /// Interrupt `number`; `ENOENT` if there is none.
    pub fn read(number: u32) -> Result<Self, Error> {
        let directory = PathBuf::from(format!("/proc/irq/{number}"));
        let file = directory.join("smp_affinity_list");
        let text = fs::read_to_string(&file);
        let text = text.map_err(|error| Error::io("read", file.display().to_string(), &error))?;
        let table = fs::read_to_string("/proc/interrupts").unwrap_or_default();
        let (name, counts) = row_of(&table, number).unwrap_or_default();
        let effective = word(&directory.join("effective_affinity_list")).unwrap_or_default();
        Ok(Self { number, name, affinity: cpu_list(&text), effective: cpu_list(&effective), counts })
    }
}

impl Facts {
    /// Reads them all: some thirty netlink exchanges, a look through `/proc`, a sysfs of the namespace mounted for a moment.
    /// Milliseconds; changes nothing.
    pub fn read(interface: &Interface) -> Self {
        let index = interface.index;
        let sysfs = SysfsFacts::read(interface);
        let since = |version| format!("needs Linux {version}");
        Self {
            lock_out: Setting::told(route::lock_out(interface).map(Setting::Value)),
            driver: Setting::told(interface.driver()),
            queues: Setting::told(interface.queues().map(Setting::Value)),
            channels: Setting::told(interface.channels()),
            rings: Setting::told(interface.rings()),
            coalescing: Setting::told(interface.coalescing()),
            indirection: Setting::told(interface.indirection()),
            rules: Setting::told(interface.steering_rules()),
            features: Setting::told(interface.features()),
            xdp: Setting::told(genl::xdp_features(index).map(|found| Setting::or(found, &since("6.3")))),
            program: program_on(index),
            queue_list: Setting::told(genl::queues(index).map(|found| Setting::or(found, &since("6.8")))),
            napis: Setting::told(genl::napis(index).map(|found| Setting::or(found, &since("6.8")))),
            bus: sysfs.bus,
            numa_node: sysfs.numa_node,
            speed_mbit: sysfs.speed_mbit,
            napi_defaults: sysfs.napi_defaults,
            interrupts: sysfs.interrupts,
            interface: interface.clone(),
        }
    }

    /// The queues that an AF_XDP socket has now; a reason before Linux 6.15, where nobody can tell.
    pub fn bound_queues(&self) -> Setting<Vec<u32>> {
        let (major, minor) = crate::cpu::kernel_version();
        if (major, minor) < (6, 15) {
            return Setting::Unsupported("needs Linux 6.15".to_string());
        }
        self.queue_list.clone().map(|queues| {
            let mut bound: Vec<_> =
                queues.iter().filter(|queue| queue.xsk_bound).map(|queue| queue.id).collect();
            bound.sort_unstable();
            bound.dedup();
            bound
        })
    }
}

impl BusyPollDefaults {
    /// As they are now.
    pub fn read() -> Self {
        let one = |name: &str| {
            let value = word(&Path::new("/proc/sys/net/core").join(name)).and_then(|text| text.parse().ok());
            Setting::or(value, "not in this namespace, or a kernel without busy polling")
        };
        Self { read_us: one("busy_read"), poll_us: one("busy_poll") }
    }
}

/// What only sysfs knows.
struct SysfsFacts {
    bus: Setting<String>,
    numa_node: Setting<u32>,
    speed_mbit: Setting<u32>,
    napi_defaults: NapiDefaults,
    interrupts: Setting<Vec<Interrupt>>,
}

impl SysfsFacts {
    fn read(interface: &Interface) -> Self {
        let read = || {
            let name = interface.refresh()?.name;
            Namespace::current()?.with_sysfs(|sysfs| Self::of(&sysfs.join("class/net").join(&name)))
        };
        read().unwrap_or_else(|error: Error| Self::none(&error.to_string()))
    }

    fn of(directory: &Path) -> Self {
        let text = |name: &str| word(&directory.join(name));
        let device = directory.join("device");
        let bus = fs::read_link(device.join("subsystem")).ok();
        let bus = bus.and_then(|path| Some(path.file_name()?.to_str()?.to_string()));
        // a virtio device's interrupts are those of the PCI function above it
        let interrupts = ["device/msi_irqs", "device/../msi_irqs"].iter().find_map(|name| {
            let entries = fs::read_dir(directory.join(name)).ok()?;
            let mut numbers: Vec<u32> =
                entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
            numbers.sort_unstable();
            Some(numbers.into_iter().filter_map(|number| Interrupt::read(number).ok()).collect())
        });
        let virtual_one = "a virtual interface: no device behind it";
        let reason = |known: &'static str| if device.exists() { known } else { virtual_one };
        Self {
            bus: Setting::or(bus, reason("sysfs does not say")),
            numa_node: Setting::or(
                text("device/numa_node").and_then(|text| text.parse().ok()),
                reason("no NUMA here, or the firmware does not tell"),
            ),
            speed_mbit: Setting::or(
                text("speed").and_then(|text| text.parse().ok()),
                "the driver does not say, or it is down",
            ),
            napi_defaults: NapiDefaults {
                defer_hard_irqs: number(text("napi_defer_hard_irqs")),
                gro_flush_timeout_ns: number(text("gro_flush_timeout")),
                threaded: number(text("threaded")),
            },
            interrupts: Setting::or(interrupts, reason("no list of interrupts (msi_irqs) in sysfs")),
        }
    }

    fn none(reason: &str) -> Self {
        let reason = reason.to_string();
        Self {
            bus: Setting::Unsupported(reason.clone()),
            numa_node: Setting::Unsupported(reason.clone()),
            speed_mbit: Setting::Unsupported(reason.clone()),
            napi_defaults: NapiDefaults {
                defer_hard_irqs: Setting::Unsupported(reason.clone()),
                gro_flush_timeout_ns: Setting::Unsupported(reason.clone()),
                threaded: Setting::Unsupported(reason.clone()),
            },
            interrupts: Setting::Unsupported(reason),
        }
    }
}

fn number<T: core::str::FromStr>(text: Option<String>) -> Setting<T> {
    Setting::or(text.and_then(|text| text.parse().ok()), "this kernel has no such file in sysfs")
}

/// The program on an interface, and who keeps it there.
fn program_on(index: u32) -> Setting<Option<ProgramOn>> {
    let attached = match xdp_bpf::attached(index) {
        Ok(None) => return Setting::Value(None),
        Ok(Some(attached)) => attached,
        Err(error) => return Setting::Unsupported(error.to_string()),
    };
    let program = format!("prog_id:\t{}", attached.id);
    let link = match attached.holder {
        Holder::Link { id } => Some(format!("link_id:\t{id}")),
        _ => None,
    };
    // a link's own text names its program too
    let is_it = |fdinfo: &str| fdinfo.lines().any(|line| line == program || Some(line) == link.as_deref());
    let pins = pinned().into_iter().filter(|path| fdinfo_of_pinned(path).is_ok_and(|text| is_it(&text)));
    let pins = pins.collect();
    Setting::Value(Some(ProgramOn { attached, pins, processes: holders(is_it) }))
}

/// The files of bpf file systems.
fn pinned() -> Vec<PathBuf> {
    const MOST: usize = 4096;
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        (kind == "bpf").then(|| PathBuf::from(point))
    });
    let mut rest: Vec<_> = points.collect();
    let mut found = Vec::new();
    while let (Some(directory), true) = (rest.pop(), found.len() < MOST) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => rest.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

fn fdinfo_of_pinned(path: &Path) -> Result<String, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let fd = sys::open_pinned(&path)?;
    fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.raw())).map_err(|_| Errno::EIO)
}

/// The processes with an open file whose text in `/proc` is it.
fn holders(is_it: impl Fn(&str) -> bool) -> Vec<(u32, String)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<_> = processes
        .filter_map(|process| {
            let id = process.file_name().to_str()?.parse().ok()?;
            let mut files = fs::read_dir(process.path().join("fdinfo")).ok()?.flatten();
            let holds = files.any(|file| fs::read_to_string(file.path()).is_ok_and(|text| is_it(&text)));
            holds.then(|| (id, word(&process.path().join("comm")).unwrap_or_default()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// An interrupt's name and counts by core, from `/proc/interrupts`.
fn row_of(table: &str, number: u32) -> Option<(String, Vec<u64>)> {
    let cores = table.lines().next()?.split_ascii_whitespace().count();
    let head = format!("{number}:");
    let row = table.lines().find_map(|line| line.trim_start().strip_prefix(&head))?;
    let mut words = row.split_ascii_whitespace();
    let counts = words.by_ref().take(cores).map(|one| one.parse().ok()).collect::<Option<Vec<_>>>()?;
    // chip, its own number for it, then the name; a name may have spaces
    let name = words.skip(2).collect::<Vec<_>>().join(" ");
    Some((name, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupts_row_is_found_by_its_whole_number() {
        let table = "           CPU0       CPU1\n  1:  0 0 IO-APIC 1-edge i8042\n \
            41:       2438          7 PCI-MSIX-0000:00:04.0   1-edge      virtio3-rx q 0\nNMI: 0 0 Non-maskable\n";
        assert_eq!(row_of(table, 41), Some(("virtio3-rx q 0".to_string(), Vec::from([2438, 7]))));
        assert_eq!(row_of(table, 4), None);
        assert_eq!(row_of("", 4), None);
    }

    #[test]
    fn whatever_loopback_lacks_has_a_reason() {
        let lo = Interface::named("lo").unwrap();
        let facts = Facts::read(&lo);
        assert_eq!(facts.interface, lo);
        assert!(facts.coalescing.reason().is_some_and(|reason| reason.contains("not supported")));
        assert!(facts.interrupts.reason().is_some_and(|reason| !reason.is_empty()));
        assert!(facts.numa_node.reason().is_some());
        assert_eq!(facts.program, Setting::Value(None));
    }
}
