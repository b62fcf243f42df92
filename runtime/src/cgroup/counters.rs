//! What a container has used, read from its groups before they are removed.
use super::{OpenGroup, Version, tree};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What the groups can tell. `None`: no joined controller counts it, or the kernel is too old to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// User and system time of everything that ran in the group.
    pub cpu: Option<Duration>,
    /// Anonymous memory, page cache and kernel memory together, at their highest.
    pub memory_peak_bytes: Option<u64>,
    /// How many processes the kernel killed for memory.
    pub oom_kills: Option<u64>,
}

/// Reads the counters of a container's groups.
pub fn counters(groups: &[OpenGroup]) -> Counters {
    groups.iter().fold(Counters::default(), |known, open| {
        let counted = match open.group.version {
            Version::V1 => v1(open),
            Version::V2 => v2(open.directory()),
        };
        Counters {
            cpu: known.cpu.or(counted.cpu),
            memory_peak_bytes: known.memory_peak_bytes.or(counted.memory_peak_bytes),
            oom_kills: known.oom_kills.or(counted.oom_kills),
        }
    })
}

/// Each hierarchy has the files of its own controllers only.
fn v1(open: &OpenGroup) -> Counters {
    let group_of = |controller| open.group.has(controller).then(|| open.directory());
    Counters {
        cpu: group_of("cpuacct").and_then(|group| number(group, "cpuacct.usage")).map(Duration::from_nanos),
        memory_peak_bytes: group_of("memory").and_then(|group| number(group, "memory.max_usage_in_bytes")),
        oom_kills: group_of("memory").and_then(|group| keyed(group, "memory.oom_control", "oom_kill")), // Linux 4.13
    }
}

fn v2(group: BorrowedFd<'_>) -> Counters {
    Counters {
        cpu: keyed(group, "cpu.stat", "usage_usec").map(Duration::from_micros),
        memory_peak_bytes: number(group, "memory.peak"), // Linux 5.19
        oom_kills: keyed(group, "memory.events", "oom_kill"),
    }
}

/// A file of one number. A counter that is missing is no error: it is only not told.
fn number(group: BorrowedFd<'_>, file: &str) -> Option<u64> {
    tree::read(group, file).ok()?.trim().parse().ok()
}

/// A file of `key number` lines.
fn keyed(group: BorrowedFd<'_>, file: &str, key: &str) -> Option<u64> {
    let text = tree::read(group, file).ok()?;
    let (_, value) = text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key)?;
    value.trim().parse().ok()
}
