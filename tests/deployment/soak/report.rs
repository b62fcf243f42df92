//! The table at the end.

use std::time::Duration;

use super::faults::Faults;
use super::journal::Journal;
use super::kinds::{KINDS, Kind};
use super::memory::Memory;
use super::verify::{Ended, lost};

/// What there is to tell.
pub struct Report<'a> {
    pub ended: &'a [Ended],
    pub wrong: &'a [(Kind, String)],
    pub journal: &'a Journal,
    pub memory: &'a Memory,
    pub faults: &'a Faults,
    pub kills: usize,
    pub most_memory: u64,
    pub took: Duration,
}

impl Report<'_> {
    pub fn print(&self) {
        println!(
            "{:22} {:>5} {:>5} {:>9}   runs before the last",
            "a task that", "tasks", "runs", "sentences"
        );
        let mut kinds: Vec<Kind> = Vec::new();
        for kind in KINDS {
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        for kind in kinds {
            let tasks: Vec<&Ended> = self.ended.iter().filter(|task| task.kind == kind).collect();
            if tasks.is_empty() {
                continue;
            }
            let wrong = self.wrong.iter().filter(|(of, _)| *of == kind).count();
            self.line(kind.name(), &tasks, wrong);
        }
        self.line("all", &self.ended.iter().collect::<Vec<_>>(), self.wrong.len());
        let latencies = self.journal.latencies();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
        let (seconds, mebibytes) = (self.took.as_secs_f64(), self.most_memory >> 20);
        println!(
            "{seconds:.1} s; the worker was killed {} times and had {mebibytes} MiB at most",
            self.kills
        );
        for line in self.memory.lines() {
            println!("{line}");
        }
        if let Some(faults) = self.faults.counted() {
            println!("faults of the queue: {faults}");
        }
        println!("from claim to command: median {} ms, nine in ten {} ms", at(50), at(90));
        for (kind, count) in self.journal.alerts() {
            println!("{count} times in the worker's log: {kind}");
        }
    }

    fn line(&self, name: &str, tasks: &[&Ended], wrong: usize) {
        let runs: usize = tasks.iter().map(|task| task.runs.len()).sum();
        let lost: Vec<String> =
            lost(tasks).iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        println!("{name:22} {:>5} {runs:>5} {wrong:>9}   {}", tasks.len(), lost.join(", "));
    }
}
