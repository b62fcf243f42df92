//! How loaded the machine is: memory, processors and disk, for the operator's curves.
//!
//! What the kernel does not say is not measured; nothing depends on it.

use std::fs;
use std::path::PathBuf;

use rustix::time::{ClockId, clock_gettime};

use super::log::WorkerLog;
use crate::config::Config;
use crate::host::{Space, measure};
use crate::timestamp::Timestamp;

/// The machine, and where its processors stood at the last look.
pub(super) struct Machine {
    /// A directory on the disk that is measured.
    volume: PathBuf,
    processors: Option<Processors>,
}

/// Time of all processors since the machine's start, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Processors {
    idle: u64,
    total: u64,
}

impl Machine {
    pub(super) fn of(config: &Config) -> Machine {
        let volume = config.file.docker_volume.as_ref().unwrap_or(&config.directories.data).clone();
        Machine { volume, processors: Processors::now() }
    }

    /// Measures it.
    pub(super) fn report(&mut self, log: &WorkerLog) {
        log.measure("uptime", uptime());
        for (name, amount) in [("memory", memory()), ("hd", measure(&self.volume).ok())] {
            if let Some(Space { free, total }) = amount {
                let used = total.saturating_sub(free);
                for (part, bytes) in [("free", free), ("total", total), ("used", used)] {
                    log.measure(&format!("{name}.{part}"), bytes as f64);
                }
            }
        }
        let now = Processors::now();
        if let (Some(before), Some(now)) = (self.processors, now) {
            log.measure("cpu.used", now.used_since(before));
        }
        self.processors = now;
    }
}

/// When the machine was started.
pub(super) fn boot_time() -> Timestamp {
    // Whole milliseconds: well below 2^53 of them.
    #[expect(clippy::cast_possible_truncation, reason = "the integer part is what is wanted")]
    let millis = (uptime() * 1000.0) as i64;
    Timestamp::from_millis(Timestamp::now().as_millis().saturating_sub(millis))
}

/// Seconds since the machine's start.
pub(super) fn uptime() -> f64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn memory() -> Option<Space> {
    memory_of(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// As `/proc/meminfo` says.
fn memory_of(text: &str) -> Option<Space> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.saturating_mul(1024))
    };
    Some(Space { free: bytes("MemAvailable")?, total: bytes("MemTotal")? })
}

impl Processors {
    fn now() -> Option<Processors> {
        Processors::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// As `/proc/stat` says: `cpu`, then user, nice, system, idle, iowait, irq, softirq, steal; what guests have is part
    /// of the first two.
    fn parse(text: &str) -> Option<Processors> {
        let fields: Vec<u64> = text
            .lines()
            .find_map(|line| line.strip_prefix("cpu "))?
            .split_whitespace()
            .take(8)
            .map_while(|field| field.parse().ok())
            .collect();
        let idle = fields.get(3)?.saturating_add(*fields.get(4)?);
        Some(Processors { idle, total: fields.iter().sum() })
    }

    /// Hundredths of all processors that were busy.
    fn used_since(self, before: Processors) -> f64 {
        let total = self.total.saturating_sub(before.total);
        let idle = self.idle.saturating_sub(before.idle);
        if total == 0 { 0.0 } else { total.saturating_sub(idle) as f64 / total as f64 * 100.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let text = "MemTotal:        8000 kB\nMemFree:          100 kB\nMemAvailable:    6000 kB\n";
        assert_eq!(memory_of(text), Some(Space { free: 6000 << 10, total: 8000 << 10 }));
        assert_eq!(memory_of("MemTotal: many\n"), None);
        let before = Processors::parse("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 1 1 1\n").unwrap();
        assert_eq!(before, Processors { idle: 80, total: 100 });
        let now = Processors::parse("cpu  60 0 35 90 15 0 0 0 5 0\n").unwrap();
        assert_eq!(now.used_since(before), 75.0);
        assert_eq!(before.used_since(before), 0.0);
        assert!(memory().is_some() && Processors::now().is_some());
    }

    #[test]
    fn the_machine_was_started_before_this_test() {
        let age = Timestamp::now().since(boot_time()).as_secs_f64();
        assert!(age > 0.0 && (age - uptime()).abs() < 60.0, "{age}");
    }
}
