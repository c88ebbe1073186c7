//! Tune: settings of the machine as changes that a [`Journal`](crate::netdev::journal::Journal) records and undoes.
//!
//! Each is a [`WriteFile`]: what the file held is what undoes it. Where there is no such file,
//! [`Journal::set`](crate::netdev::journal::Journal::set) says that this machine has no such setting.
#![forbid(unsafe_code)]

use super::list_text;
use crate::netdev::change::WriteFile;
use alloc::format;
use alloc::string::ToString;

/// A core's frequency governor, such as `"performance"`. `EINVAL` for one that the kernel does not have.
pub fn governor(core: usize, name: &str) -> WriteFile {
    WriteFile::new(format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"), name)
}

/// One idle state of a core, switched off or on again. Unlike [`PmQos`](super::PmQos) it is for one core and outlives the
/// process, until the journal is undone.
pub fn idle_state(core: usize, state: usize, enabled: bool) -> WriteFile {
    let path = format!("/sys/devices/system/cpu/cpu{core}/cpuidle/state{state}/disable");
    WriteFile::new(path, if enabled { "0" } else { "1" })
}

/// How many huge pages of a size, in bytes, the pool is to have. The kernel may find fewer; then it is an error, and the pool
/// is as it was.
pub fn huge_pages(size: usize, count: u64) -> WriteFile {
    WriteFile::new(
        format!("/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", size >> 10),
        count.to_string(),
    )
}

/// The cores that interrupt `number` may go to. `EIO` or `EPERM` for one that the driver manages itself.
pub fn interrupt(number: u32, cores: &[usize]) -> WriteFile {
    WriteFile::new(format!("/proc/irq/{number}/smp_affinity_list"), list_text(cores))
}
