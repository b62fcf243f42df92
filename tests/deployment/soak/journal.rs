//! What the worker's own log has said of the runs, over all its lives.

use std::collections::{BTreeMap, BTreeSet};

use docker_worker::timestamp::Timestamp;
use serde_json::Value;

/// A task and the number of its run.
pub type RunKey = (String, u64);

/// See the module's head.
#[derive(Default)]
pub struct Journal {
    /// How each run was resolved. One whose worker died just after its report is told of twice.
    resolved: BTreeMap<RunKey, BTreeSet<String>>,
    /// When each run was claimed.
    claimed: BTreeMap<RunKey, Timestamp>,
    /// Milliseconds from each run's claim to its command.
    started: BTreeMap<RunKey, u64>,
    /// What an operator should look at, by its type.
    alerts: BTreeMap<String, usize>,
}

impl Journal {
    /// Takes an entry of the log; gives the task whose command it says to run.
    pub fn note(&mut self, entry: &Value) -> Option<String> {
        let kind = entry["type"].as_str().unwrap_or_default();
        if kind.starts_with("[alert-operator]") {
            *self.alerts.entry(kind.to_owned()).or_default() += 1;
        }
        let run = (entry["taskId"].as_str()?.to_owned(), entry["runId"].as_u64()?);
        if kind == "task resolved" {
            let reason = entry["reason"].as_str().unwrap().to_owned();
            self.resolved.entry(run.clone()).or_default().insert(reason);
        }
        let time = Timestamp::parse(entry["time"].as_str()?).unwrap();
        if kind == "claimed task" {
            self.claimed.insert(run, time);
            return None;
        }
        if kind != "task run" {
            return None;
        }
        let task_id = run.0.clone();
        if let Some(claimed) = self.claimed.get(&run) {
            self.started.insert(run, u64::try_from(time.since(*claimed).as_millis()).unwrap());
        }
        Some(task_id)
    }

    /// How many runs are resolved.
    pub fn count(&self) -> usize {
        self.resolved.len()
    }

    /// How a run was resolved, if the worker came to say so.
    pub fn resolutions(&self, run: &RunKey) -> Option<&BTreeSet<String>> {
        self.resolved.get(run)
    }

    pub fn was_started(&self, run: &RunKey) -> bool {
        self.started.contains_key(run)
    }

    /// The times from claim to command, the shortest first.
    pub fn latencies(&self) -> Vec<u64> {
        let mut latencies: Vec<u64> = self.started.values().copied().collect();
        latencies.sort_unstable();
        latencies
    }

    pub fn alerts(&self) -> &BTreeMap<String, usize> {
        &self.alerts
    }
}
