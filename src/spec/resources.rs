//! What one task may use of the host.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::devices::{self, Device};

/// Processes and threads of one task, unless the configuration says otherwise.
pub const DEFAULT_PIDS: i64 = 16_384;

/// Size of `/dev/shm` in bytes: what browsers under test have always had here.
pub const DEFAULT_SHM_BYTES: u64 = 1_800_000_000;

/// What one container may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes and threads; `None` sets no limit.
    pub pids: Option<i64>,
    /// Memory in bytes, page cache included; `None` leaves it to what holds for all tasks together.
    pub memory_bytes: Option<i64>,
    /// The processor that it has to itself among tasks; `None` leaves it all of the worker's.
    pub processor: Option<usize>,
    /// Size of `/dev/shm` in bytes; what lies there counts as memory too.
    pub shm_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pids: Some(DEFAULT_PIDS), memory_bytes: None, processor: None, shm_bytes: DEFAULT_SHM_BYTES }
    }
}

/// Memory that all tasks together may use: all but a tenth, and all but 1 GiB at least, so that the
/// worker can still end a task that uses the rest. A small host gives a quarter.
pub fn memory_for_tasks(total_bytes: u64) -> u64 {
    const LEAST_KEPT_BYTES: u64 = 1 << 30;
    let kept = (total_bytes / 10).max(LEAST_KEPT_BYTES);
    total_bytes.saturating_sub(kept).max(total_bytes / 4)
}

pub(super) fn resources(limits: &Limits, more: &[Device]) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(devices::rules(more)));
    if let Some(most) = limits.pids {
        let mut pids = LinuxPids::default();
        pids.set_limit(most);
        resources.set_pids(Some(pids));
    }
    if let Some(bytes) = limits.memory_bytes {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(bytes));
        resources.set_memory(Some(memory));
    }
    if let Some(number) = limits.processor {
        let mut cpu = LinuxCpu::default();
        cpu.set_cpus(Some(number.to_string()));
        resources.set_cpu(Some(cpu));
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_and_at_least_a_gibibyte_is_kept_for_the_host() {
        const GIB: u64 = 1 << 30;
        for (total, expected) in [(100 * GIB, 90 * GIB), (4 * GIB, 3 * GIB), (GIB / 2, GIB / 8)] {
            assert_eq!(memory_for_tasks(total), expected, "{total}");
        }
    }
}
