//! What a call does to the database, once time has passed.

use std::time::Duration;

use rusqlite::Transaction;
use serde::Deserialize;

use super::dependencies::{self, Waiting};
use super::pages::ENOUGH_BYTES;
use super::{definitions, groups, index, releases, store, workers};
use crate::queue::definition::TaskDefinition;
use crate::queue::model::{RunId, RunState, TaskStatus, WorkerIdentity};
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, ReceivedDefinition, Verdict, runs};
use crate::timestamp::Timestamp;

/// The longest that a deadline may lie ahead, with the queue's allowance for clocks that differ.
const LONGEST_DEADLINE: Duration = Duration::from_secs(5 * 24 * 60 * 60 + 15 * 60);

/// A claim without the handle that goes with it.
pub(super) struct Claimed {
    pub(super) run: RunId,
    pub(super) taken_until: Timestamp,
    pub(super) deadline: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) definition: ReceivedDefinition,
}

/// See [`super::EmbeddedQueue::create_task`].
pub(super) fn create_task(
    database: &Transaction<'_>,
    task_id: &TaskId,
    task: &TaskDefinition,
    now: Timestamp,
) -> Result<TaskStatus, QueueError> {
    check_times(task_id, task, now)?;
    groups::join(database, task)?;
    if let Some(known) = definitions::find::<TaskDefinition>(database, task_id)? {
        if known != *task {
            let because = "another task has this id".to_owned();
            return Err(QueueError::Conflict { what: format!("task {task_id}"), because });
        }
        return store::load_status(database, task_id);
    }
    let mut status = runs::define(task_id, task);
    store::insert_task(database, &status)?;
    definitions::insert(database, task_id, task)?;
    if dependencies::add(database, task_id, task)? == Waiting::ForNothing {
        runs::schedule(&mut status, now);
        store::store_status(database, &status)?;
    }
    Ok(status)
}

/// See [`super::EmbeddedQueue::rerun_task`].
pub(super) fn rerun_task(
    database: &Transaction<'_>,
    task_id: &TaskId,
    now: Timestamp,
) -> Result<TaskStatus, QueueError> {
    #[derive(Deserialize)]
    struct Definition {
        retries: u32,
    }
    let mut status = store::load_status(database, task_id)?;
    if let Some(Definition { retries }) = definitions::find(database, task_id)? {
        runs::rerun(&mut status, retries, now)?;
        store::store_status(database, &status)?;
    }
    Ok(status)
}

/// Writes the status of a task, and does what follows from it. A task that is resolved already is released already: whoever
/// says so again begins nothing.
pub(super) fn settle(database: &Transaction<'_>, status: &TaskStatus) -> Result<(), QueueError> {
    let was_resolved = store::is_resolved(database, &status.task_id)?;
    store::store_status(database, status)?;
    if was_resolved { Ok(()) } else { releases::begin(database, status) }
}

/// Who claims, when, and for how long.
pub(super) struct Claimant {
    pub(super) worker: WorkerIdentity,
    pub(super) now: Timestamp,
    pub(super) time: Duration,
}

/// See [`super::EmbeddedQueue::claim_work`].
pub(super) fn claim_work(
    database: &Transaction<'_>,
    task_queue_id: &str,
    claimant: &Claimant,
    most: usize,
) -> Result<Vec<Claimed>, QueueError> {
    let Claimant { worker, now, .. } = claimant;
    workers::see(database, task_queue_id, worker, *now)?;
    let known = workers::find(database, task_queue_id, worker)?;
    if known.and_then(|known| known.quarantined_until).is_some_and(|until| until > *now) {
        return Ok(Vec::new());
    }
    let (mut claims, mut bytes) = (Vec::new(), 0);
    for task_id in store::list_pending(database, task_queue_id, most)? {
        if bytes > ENOUGH_BYTES {
            break;
        }
        let claimed = claim(database, &task_id, claimant)?;
        bytes += claimed.as_ref().map_or(0, |claimed| claimed.definition.text().len());
        claims.extend(claimed);
    }
    if !claims.is_empty() {
        workers::note_claims(database, task_queue_id, worker, claims.iter().map(|claim| claim.run.clone()))?;
    }
    Ok(claims)
}

/// See [`super::EmbeddedQueue::claim_run`].
pub(super) fn claim_run(
    database: &Transaction<'_>,
    run: &RunId,
    claimant: &Claimant,
) -> Result<Claimed, QueueError> {
    let status = store::load_status(database, &run.task_id)?;
    let found = runs::find(&status, run)?;
    if let (RunState::Running, Some(taken_until)) = (found.state, found.taken_until)
        && found.worker.as_ref() == Some(&claimant.worker)
    {
        // Its answer may have been lost.
        let definition = definitions::load(database, &run.task_id)?;
        let (deadline, expires) = (status.deadline, status.expires);
        return Ok(Claimed { run: run.clone(), taken_until, deadline, expires, definition });
    }
    let is_last = status.runs.last().is_some_and(|last| last.run_id == run.run_id);
    let claimed = if is_last { claim(database, &run.task_id, claimant)? } else { None };
    claimed.ok_or_else(|| {
        let because = "it does not wait for a worker".to_owned();
        QueueError::Conflict { what: run.to_string(), because }
    })
}

/// Gives the pending run of a task out, if there is one.
fn claim(
    database: &Transaction<'_>,
    task_id: &TaskId,
    claimant: &Claimant,
) -> Result<Option<Claimed>, QueueError> {
    let Claimant { worker, now, time } = claimant;
    let mut status = store::load_status(database, task_id)?;
    let Some((run, taken_until)) = runs::claim(&mut status, worker, *now, *time) else { return Ok(None) };
    store::store_status(database, &status)?;
    let definition = definitions::load(database, task_id)?;
    let (deadline, expires) = (status.deadline, status.expires);
    Ok(Some(Claimed { run, taken_until, deadline, expires, definition }))
}

/// See [`crate::queue::RunQueue::report`]. A task that is completed by it gets the names that its routes ask for.
pub(super) fn report(
    database: &Transaction<'_>,
    run: &RunId,
    verdict: Verdict,
    now: Timestamp,
) -> Result<(), QueueError> {
    let mut status = store::load_status(database, &run.task_id)?;
    let before = status.state;
    runs::report(&mut status, run, verdict, now)?;
    settle(database, &status)?;
    if status.state == RunState::Completed && before != status.state {
        index::insert_completed(database, &run.task_id, now)?;
    }
    Ok(())
}

/// The times of a new task.
fn check_times(task_id: &TaskId, task: &TaskDefinition, now: Timestamp) -> Result<(), QueueError> {
    let because = if task.deadline <= task.created {
        "its deadline is not after its creation"
    } else if task.deadline <= now {
        "its deadline has passed"
    } else if task.deadline > now.plus(LONGEST_DEADLINE) {
        "its deadline is more than five days ahead"
    } else if task.expires <= task.deadline {
        "it expires before its deadline"
    } else {
        return Ok(());
    };
    Err(QueueError::Invalid { what: format!("task {task_id}"), because: because.to_owned() })
}
