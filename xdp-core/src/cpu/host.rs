//! Host: what of the machine, core by core, makes time jitter.
#![forbid(unsafe_code)]

use super::{HugePages, Machine, MemlockLimit, cpu_list, huge_pages, numa_node, online, word};
use crate::netdev::Setting;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything about the machine that decides what a measurement on it means. What it does not tell has a reason.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Host {
    /// Model, kernel, clock source, TSC, hypervisor, isolated cores.
    pub machine: Machine,
    /// The cores that are switched on.
    pub cores: Vec<Core>,
    /// Whether cores may run faster than their base frequency, for as long as heat allows.
    pub turbo: Setting<bool>,
    /// Whether cores share their pipelines with a sibling: `"on"`, `"off"`, `"notsupported"`, ...
    pub smt: Setting<String>,
    /// Who chooses idle states (`cpuidle/current_driver`).
    pub idle_driver: Setting<String>,
    /// Cores without a timer tick while one task runs (`nohz_full`).
    pub tickless: Setting<Vec<usize>>,
    /// Weaknesses of the processor, and what the kernel does about each.
    pub mitigations: Vec<(String, String)>,
    /// Huge pages in their pools.
    pub huge_pages: Vec<HugePages>,
    /// `always`, `madvise` or `never`.
    pub transparent_huge_pages: Setting<String>,
    /// How much memory this process may lock.
    pub memlock: Setting<MemlockLimit>,
    /// What the kernel was started with.
    pub command_line: Setting<String>,
}

/// One core.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Core {
    /// Its number.
    pub id: usize,
    /// Its memory node.
    pub numa_node: Option<u32>,
    /// The cores that share its pipelines, itself among them.
    pub siblings: Setting<Vec<usize>>,
    /// What governs its frequency.
    pub governor: Setting<String>,
    /// Its frequency limits, in kHz: least, most.
    pub frequency_khz: Setting<(u64, u64)>,
    /// Its idle states, the lightest first.
    pub idle_states: Setting<Vec<IdleState>>,
    /// What a hypervisor took from it since boot, in nanoseconds, in steps of 10 ms.
    pub steal_ns: Setting<u64>,
}

/// One idle state of a core (a C-state).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdleState {
    /// Its number.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// How long it takes to leave, in microseconds, as the firmware says.
    pub latency_us: u64,
    /// How long a stay must be to pay off, in microseconds.
    pub residency_us: u64,
    /// Whether somebody switched it off.
    pub disabled: bool,
    /// How often it was entered since boot.
    pub entered: u64,
    /// How long it was stayed in since boot, in microseconds.
    pub time_us: u64,
}

impl Host {
    /// Reads it all: some hundred small files. Changes nothing.
    pub fn read() -> Self {
        let system = |name: &str| word(&Path::new("/sys/devices/system/cpu").join(name));
        let turbo = match (system("intel_pstate/no_turbo"), system("cpufreq/boost")) {
            (Some(off), _) => Setting::Value(off == "0"),
            (None, Some(on)) => Setting::Value(on == "1"),
            (None, None) => Setting::Unsupported(NO_FREQUENCY.to_string()),
        };
        let transparent = word(Path::new("/sys/kernel/mm/transparent_hugepage/enabled"));
        let chosen =
            transparent.and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_string()));
        Self {
            machine: Machine::read(),
            cores: online().unwrap_or_default().into_iter().map(Core::read).collect(),
            turbo,
            smt: Setting::or(system("smt/control"), "the kernel does not say"),
            idle_driver: Setting::or(
                system("cpuidle/current_driver").filter(|name| name != "none"),
                "no cpuidle driver: cores halt as the architecture does",
            ),
            tickless: Setting::or(
                system("nohz_full").map(|text| cpu_list(&text)),
                "a kernel without CONFIG_NO_HZ_FULL: every core has its tick",
            ),
            mitigations: mitigations(Path::new("/sys/devices/system/cpu/vulnerabilities")),
            huge_pages: huge_pages(),
            transparent_huge_pages: Setting::or(chosen, "a kernel without transparent huge pages"),
            memlock: Setting::told(MemlockLimit::read().map(Setting::Value)),
            command_line: Setting::or(word(Path::new("/proc/cmdline")), "not readable"),
        }
    }

    /// The core of that number.
    pub fn core(&self, id: usize) -> Option<&Core> {
        self.cores.iter().find(|core| core.id == id)
    }

    /// The mitigations that cost something: neither absent nor switched off.
    pub fn costly_mitigations(&self) -> impl Iterator<Item = &(String, String)> {
        self.mitigations.iter().filter(|(_, what)| what.starts_with("Mitigation"))
    }
}

const NO_FREQUENCY: &str = "no cpufreq here: hardware or hypervisor chooses the frequency";

impl Core {
    /// Reads one core.
    pub fn read(id: usize) -> Self {
        let directory = PathBuf::from(format!("/sys/devices/system/cpu/cpu{id}"));
        let text = |name: &str| word(&directory.join(name));
        let khz = |name: &str| text(&format!("cpufreq/{name}"))?.parse().ok();
        Self {
            id,
            numa_node: numa_node(id),
            siblings: Setting::or(
                text("topology/thread_siblings_list").map(|text| cpu_list(&text)),
                "the kernel does not say",
            ),
            governor: Setting::or(text("cpufreq/scaling_governor"), NO_FREQUENCY),
            frequency_khz: Setting::or(
                khz("scaling_min_freq").and_then(|least| Some((least, khz("scaling_max_freq")?))),
                NO_FREQUENCY,
            ),
            idle_states: Setting::or(
                idle_states(&directory.join("cpuidle")),
                "no cpuidle here: the kernel does not choose idle states",
            ),
            steal_ns: Setting::or(super::steal_ns(id), "not in /proc/stat"),
        }
    }

    /// Idle states that take longer to leave than so many microseconds and are not switched off.
    pub fn idle_states_slower_than(&self, latency_us: u64) -> impl Iterator<Item = &IdleState> {
        let states = self.idle_states.as_value().map_or(&[][..], Vec::as_slice);
        states.iter().filter(move |state| state.latency_us > latency_us && !state.disabled)
    }
}

fn idle_states(directory: &Path) -> Option<Vec<IdleState>> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let state = |directory: PathBuf| {
        let number = |name: &str| word(&directory.join(name))?.parse::<u64>().ok();
        Some(IdleState {
            index: directory.file_name()?.to_str()?.strip_prefix("state")?.parse().ok()?,
            name: word(&directory.join("name"))?,
            latency_us: number("latency")?,
            residency_us: number("residency").unwrap_or(0),
            disabled: number("disable")? != 0,
            entered: number("usage")?,
            time_us: number("time")?,
        })
    };
    let mut states: Vec<_> = entries.filter_map(|entry| state(entry.path())).collect();
    states.sort_by_key(|state| state.index);
    Some(states)
}

fn mitigations(directory: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, word(&entry.path())?)))
        .collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_is_told_of_and_what_it_lacks_has_a_reason() {
        let host = Host::read();
        assert_eq!(host.cores.len(), host.machine.cores_online);
        for core in &host.cores {
            assert!(core.siblings.as_value().is_none_or(|siblings| siblings.contains(&core.id)));
            let states = core.idle_states.as_value().map_or(&[][..], Vec::as_slice);
            assert!(states.iter().enumerate().all(|(at, state)| state.index == at), "{states:?}");
            assert!(core.governor.reason().is_none_or(|reason| reason.contains("cpufreq")));
            assert_eq!(core.idle_states_slower_than(u64::MAX).count(), 0);
        }
        assert!(host.core(usize::MAX).is_none());
        assert!(host.memlock.as_value().is_some());
    }
}
