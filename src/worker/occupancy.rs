//! How much of its capacity the worker uses: for those who pay for it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::log::{Entry, WorkerLog};

/// Numbers of tasks, or of free places, whose time is counted: how long there were at least so many.
const LEVELS: [usize; 6] = [1, 2, 3, 4, 6, 8];

/// How many tasks run, and how long it was so.
pub(super) struct Occupancy {
    capacity: usize,
    running: usize,
    /// Since when so many run.
    since: Instant,
    /// How long each number of tasks ran since the last report, until `counted`.
    spent: BTreeMap<usize, Duration>,
    counted: Instant,
    /// How long tasks ran, all together.
    total: Duration,
}

impl Occupancy {
    pub(super) fn new(capacity: usize) -> Occupancy {
        let now = Instant::now();
        Occupancy {
            capacity,
            running: 0,
            since: now,
            spent: BTreeMap::new(),
            counted: now,
            total: Duration::ZERO,
        }
    }

    /// Hears how many tasks run; where that is news, tells the log what was until now.
    pub(super) fn note(&mut self, running: usize, log: &WorkerLog) {
        if running == self.running {
            return;
        }
        let now = Instant::now();
        log.measure("capacity.duration.lastTaskEvent", now.duration_since(self.since).as_secs_f64() * 1000.0);
        log.add("capacity.idle", real(self.capacity.saturating_sub(self.running)));
        log.add("capacity.runningTasks", real(self.running));
        log.add("capacity.total", real(self.capacity));
        self.advance(now);
        (self.running, self.since) = (running, now);
    }

    /// Tells the log how the time since the last report was used, and all of it so far.
    pub(super) fn report(&mut self, log: &WorkerLog) {
        self.advance(Instant::now());
        for (counter, seconds) in seconds(&std::mem::take(&mut self.spent), self.capacity) {
            log.add(&counter, seconds);
        }
        let uptime = log.uptime();
        let efficiency = efficiency(self.total, self.capacity, uptime);
        let total_run_time = u64::try_from(self.total.as_millis()).unwrap_or(u64::MAX);
        log.write(&Entry::Efficiency { efficiency, uptime, total_run_time, capacity: self.capacity });
        log.measure("total-efficiency", efficiency);
    }

    fn advance(&mut self, now: Instant) {
        let time = now.duration_since(self.counted);
        *self.spent.entry(self.running).or_default() += time;
        self.total += time.mul_f64(real(self.running));
        self.counted = now;
    }
}

/// The counters of a report, in seconds; those that stand still are left out.
fn seconds(spent: &BTreeMap<usize, Duration>, capacity: usize) -> Vec<(String, f64)> {
    let idle = |running: usize| capacity.saturating_sub(running);
    let sum = |weight: &dyn Fn(usize) -> usize| -> f64 {
        spent.iter().map(|(running, time)| real(weight(*running)) * time.as_secs_f64()).sum()
    };
    let mut counters = vec![
        ("capacity-busy".to_owned(), sum(&|running| running)),
        ("capacity-idle".to_owned(), sum(&idle)),
        ("running-eq-0".to_owned(), sum(&|running| usize::from(running == 0))),
        ("idle-eq-0".to_owned(), sum(&|running| usize::from(idle(running) == 0))),
    ];
    for level in LEVELS {
        counters.push((format!("running-ge-{level}"), sum(&|running| usize::from(running >= level))));
        counters.push((format!("idle-ge-{level}"), sum(&|running| usize::from(idle(running) >= level))));
    }
    counters.retain(|(_, seconds)| *seconds > 0.0);
    counters
}

/// In hundredths of what could have run.
fn efficiency(total: Duration, capacity: usize, uptime: f64) -> f64 {
    let possible = real(capacity) * uptime;
    if possible > 0.0 { total.as_secs_f64() / possible * 100.0 } else { 0.0 }
}

/// Exact for any number of tasks.
fn real(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_by_how_many_tasks_ran() {
        let spent = [(0, 10), (1, 20), (3, 30)].map(|(running, time)| (running, Duration::from_secs(time)));
        let counted = seconds(&spent.into_iter().collect(), 3);
        let counted: BTreeMap<&str, f64> =
            counted.iter().map(|(name, time)| (name.as_str(), *time)).collect();
        let expected = [
            ("capacity-busy", 110.0),
            ("capacity-idle", 70.0),
            ("idle-eq-0", 30.0),
            ("idle-ge-1", 30.0),
            ("idle-ge-2", 30.0),
            ("idle-ge-3", 10.0),
            ("running-eq-0", 10.0),
            ("running-ge-1", 50.0),
            ("running-ge-2", 30.0),
            ("running-ge-3", 30.0),
        ];
        assert_eq!(counted, expected.into_iter().collect());
    }

    #[test]
    fn efficiency_is_the_part_of_what_could_have_run() {
        assert_eq!(efficiency(Duration::from_secs(30), 2, 60.0), 25.0);
        assert_eq!(efficiency(Duration::ZERO, 0, 0.0), 0.0);
    }
}
