//! What the worker tells of itself from time to time: that it lives, and how it and its machine are used.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::log::WorkerLog;
use super::machine::Machine;
use super::occupancy::Occupancy;
use crate::config::Config;

/// When the next report is due, and what it is about. All times count from one moment: reports that fall together wake
/// the worker once.
pub(super) struct Reports {
    alive: Option<Interval>,
    usage: Option<Interval>,
    occupancy: Occupancy,
    machine: Machine,
}

impl Reports {
    pub(super) fn new(config: &Config, capacity: usize) -> Reports {
        let now = Instant::now();
        let ticks = |first: Instant, period| {
            let mut ticks = interval_at(first, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let file = &config.file;
        Reports {
            // The first at once, and the first of these when there is something to tell.
            alive: file.aliveness_interval().map(|period| ticks(now, period)),
            usage: file.metrics_interval().map(|period| ticks(now + period, period)),
            occupancy: Occupancy::new(capacity),
            machine: Machine::of(config),
        }
    }

    /// Hears how many tasks run now.
    pub(super) fn note(&mut self, running: usize, log: &WorkerLog) {
        self.occupancy.note(running, log);
    }

    /// Tells what is due, when it is. Never returns; may be dropped at any time.
    pub(super) async fn tell(&mut self, log: &WorkerLog) {
        loop {
            tokio::select! {
                period = tick(&mut self.alive) => log.alive(period),
                _ = tick(&mut self.usage) => {
                    self.occupancy.report(log);
                    self.machine.report(log);
                }
            }
        }
    }
}

/// Waits for the next tick, and gives the time between two; for ever where there is none.
async fn tick(ticks: &mut Option<Interval>) -> Duration {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
            ticks.period()
        }
        None => std::future::pending().await,
    }
}
