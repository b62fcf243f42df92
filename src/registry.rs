//! The runs that this process carries out now, and what others can do with one: read its log, end it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::id::ContainerId;
use serde::Serialize;

use crate::interrupt::Interrupter;
use crate::queue::RunId;
use crate::task_log::reader::LogReader;
use crate::timestamp::Timestamp;

/// The runs of one worker. Clones know the same ones.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<RunId, Handles>>>);

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its image and all else that its command needs is being brought.
    Preparing,
    /// Its command runs.
    Running,
    /// Its command is over: what is left of it is being published, and reported.
    Resolving,
}

/// What others need of a run.
#[derive(Clone, Debug)]
pub struct Handles {
    /// Its container's name, whether or not there is a container yet.
    pub container: ContainerId,
    /// When it began.
    pub began: Timestamp,
    /// How far it is.
    pub phase: Phase,
    /// To read its log.
    pub log: LogReader,
    /// To end it.
    pub interrupter: Interrupter,
}

/// A run is known as long as this lives.
#[derive(Debug)]
#[must_use = "the run is forgotten when it goes"]
pub struct Entry {
    registry: Registry,
    run: RunId,
}

impl Registry {
    /// Makes a run known. A worker has each run once at a time.
    pub fn enter(&self, run: RunId, handles: Handles) -> Entry {
        self.runs().insert(run.clone(), handles);
        Entry { registry: self.clone(), run }
    }

    /// A run's handles, if it is one of this worker's now.
    pub fn get(&self, run: &RunId) -> Option<Handles> {
        self.runs().get(run).cloned()
    }

    /// All runs, in the order of their ids.
    pub fn all(&self) -> Vec<(RunId, Handles)> {
        self.runs().iter().map(|(run, handles)| (run.clone(), handles.clone())).collect()
    }

    /// Nobody panics while they hold it.
    fn runs(&self) -> MutexGuard<'_, BTreeMap<RunId, Handles>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The run has come so far.
    pub fn pass_to(&self, phase: Phase) {
        if let Some(handles) = self.registry.runs().get_mut(&self.run) {
            handles.phase = phase;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.runs().remove(&self.run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::{self, Interrupt, Notice};
    use crate::queue::task_id::TaskId;
    use crate::task_log::spool::Spool;

    #[test]
    fn a_run_can_be_read_and_ended_as_long_as_it_is_there() {
        let (_directory, spool) = Spool::temporary(1 << 20);
        let (interrupter, interrupts) = interrupt::channel();
        let run = RunId { task_id: TaskId::random().unwrap(), run_id: 0 };
        let registry = Registry::default();
        let handles = Handles {
            container: ContainerId::new("c").unwrap(),
            began: Timestamp::now(),
            phase: Phase::Preparing,
            log: spool.reader(),
            interrupter,
        };
        let entry = registry.enter(run.clone(), handles);
        spool.output(b"line\n");
        entry.pass_to(Phase::Running);
        let found = registry.get(&run).unwrap();
        assert_eq!(found.phase, Phase::Running);
        assert_eq!(found.log.read(0, 100).unwrap(), b"line\n");
        found.interrupter.interrupt(Interrupt::CancelledHere, Notice::Signal);
        assert_eq!(interrupts.current(), Some(Interrupt::CancelledHere));
        assert_eq!(registry.all().len(), 1);
        drop(entry);
        assert!(registry.get(&run).is_none() && registry.all().is_empty());
    }
}
