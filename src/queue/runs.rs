//! The life of a task's runs: pure changes of a [`TaskStatus`].
//!
//! ```text
//!   unscheduled
//!      │ schedule
//!      ▼       claim              report completed, failed, exception
//!   pending ──────────► running ─────────────────────────────────────► resolved
//!      ▲                   │ claim expired, worker-shutdown, intermittent-task
//!      ├── a new run ◄─────┘ while retries are left
//!      └── a new run ◄── rerun ── unscheduled, resolved
//!
//!   unscheduled, pending, running ── cancel, deadline ──► exception
//! ```

use std::time::Duration;

use super::model::{ReasonCreated, RunId, RunState, RunStatus, TaskStatus, WorkerIdentity};
use super::{QueueError, Reason, Verdict};
use crate::queue::definition::TaskDefinition;
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

/// How long a claim holds, unless its queue says otherwise.
pub(super) const CLAIM: Duration = Duration::from_secs(20 * 60);
/// How long after its resolution a run that is an exception takes artifacts.
const LATE_ARTIFACTS: Duration = Duration::from_secs(25 * 60);
/// Runs of a task at most.
const MOST_RUNS: usize = 50;

/// The status of a new task: it has no run.
pub(super) fn define(task_id: &TaskId, task: &TaskDefinition) -> TaskStatus {
    TaskStatus {
        task_id: task_id.clone(),
        provisioner_id: task.provisioner_id.clone(),
        worker_type: task.worker_type.clone(),
        task_queue_id: task.task_queue_id.clone(),
        scheduler_id: task.scheduler_id.clone(),
        project_id: task.project_id.clone(),
        task_group_id: task.task_group_id.clone(),
        priority: task.priority,
        deadline: task.deadline,
        expires: task.expires,
        retries_left: task.retries,
        state: RunState::Unscheduled,
        runs: Vec::new(),
    }
}

/// Adds the first run of a task that has none; not after its deadline.
pub(super) fn schedule(status: &mut TaskStatus, now: Timestamp) {
    if status.state == RunState::Unscheduled && now < status.deadline {
        add_run(status, ReasonCreated::Scheduled, now);
    }
}

/// Adds a run to a task that is resolved or has none, and gives all of its retries back, as many runs as there may still
/// be. One that waits for a worker or has one stays as it is.
pub(super) fn rerun(status: &mut TaskStatus, retries: u32, now: Timestamp) -> Result<(), QueueError> {
    if open_run(status).is_some() {
        return Ok(());
    }
    let refused = |because| Err(QueueError::Conflict { what: format!("task {}", status.task_id), because });
    if status.deadline <= now {
        return refused(format!("its deadline has passed: {}", status.deadline));
    }
    if status.runs.len() >= MOST_RUNS {
        return refused(format!("it has had {MOST_RUNS} runs, the most that a task may have"));
    }
    let left = MOST_RUNS.saturating_sub(status.runs.len() + 1);
    status.retries_left = retries.min(u32::try_from(left).unwrap_or(u32::MAX));
    add_run(status, ReasonCreated::Rerun, now);
    Ok(())
}

/// Carries out what time alone has done: a claim that ran out, then the deadline. Both are dated when they were due, so
/// that it makes no difference who looks first.
pub(super) fn pass_time(status: &mut TaskStatus, now: Timestamp) {
    let until = open_run(status).and_then(|run| Some((run.run_id, run.taken_until?)));
    if let Some((run_id, until)) = until.filter(|(_, until)| *until <= now.min(status.deadline)) {
        finish(status, run_id, Verdict::Exception(Reason::ClaimExpired), until);
    }
    if status.deadline <= now {
        end(status, Reason::DeadlineExceeded, status.deadline);
    }
}

/// When [`pass_time`] changes a status next.
pub(super) fn due(status: &TaskStatus) -> Option<Timestamp> {
    if status.state.is_resolved() {
        return None;
    }
    let taken_until = open_run(status).and_then(|run| run.taken_until);
    Some(taken_until.map_or(status.deadline, |until| until.min(status.deadline)))
}

/// Gives the pending run to a worker, for so long.
pub(super) fn claim(
    status: &mut TaskStatus,
    worker: &WorkerIdentity,
    now: Timestamp,
    time: Duration,
) -> Option<(RunId, Timestamp)> {
    let until = now.plus(time);
    let run = status.runs.last_mut().filter(|run| run.state == RunState::Pending)?;
    run.state = RunState::Running;
    run.worker = Some(worker.clone());
    run.started = Some(now);
    run.taken_until = Some(until);
    let run_id = run.run_id;
    status.state = RunState::Running;
    Some((RunId { task_id: status.task_id.clone(), run_id }, until))
}

/// Prolongs the claim of a running run: it holds for so long from now.
pub(super) fn reclaim(
    status: &mut TaskStatus,
    run: &RunId,
    now: Timestamp,
    time: Duration,
) -> Result<Timestamp, QueueError> {
    let until = now.plus(time);
    let status_of_run = find_mut(status, run)?;
    if status_of_run.state != RunState::Running {
        return Err(not_running(run, status_of_run));
    }
    status_of_run.taken_until = Some(until);
    Ok(until)
}

/// Resolves a running run as its worker says. The same word twice changes nothing, unless there are later runs than the
/// word itself has brought about.
pub(super) fn report(
    status: &mut TaskStatus,
    run: &RunId,
    verdict: Verdict,
    now: Timestamp,
) -> Result<(), QueueError> {
    let later = status.runs.iter().filter(|other| other.run_id > run.run_id).count();
    let is_recent = later <= usize::from(verdict.state() == RunState::Exception);
    let status_of_run = find_mut(status, run)?;
    if status_of_run.reason_resolved == Some(verdict) && is_recent {
        return Ok(());
    }
    if status_of_run.state != RunState::Running {
        return Err(not_running(run, status_of_run));
    }
    finish(status, run.run_id, verdict, now);
    Ok(())
}

/// Cancels what is not resolved.
pub(super) fn cancel(status: &mut TaskStatus, now: Timestamp) {
    end(status, Reason::Canceled, now);
}

/// Since when the last run is in its state, if there is one.
pub(super) fn since(status: &TaskStatus) -> Option<Timestamp> {
    status.runs.last().map(|run| run.resolved.or(run.started).unwrap_or(run.scheduled))
}

/// When a task was resolved that is.
pub(super) fn resolved(status: &TaskStatus) -> Option<Timestamp> {
    status.runs.last().filter(|_| status.state.is_resolved()).and_then(|run| run.resolved)
}

/// Whether a task is resolved or was so before it was run again.
pub(super) fn was_ever_resolved(status: &TaskStatus) -> bool {
    let mut later = status.runs.iter().skip(1);
    status.state.is_resolved() || later.any(|run| run.reason_created == ReasonCreated::Rerun)
}

/// Whether a run takes artifacts: while it runs, and for a while after an exception, so that logs can still come.
pub(super) fn takes_artifacts(status: &TaskStatus, run: &RunId, now: Timestamp) -> Result<(), QueueError> {
    let status_of_run = find(status, run)?;
    if status_of_run.worker.is_none() {
        let because = "no worker has had it, so it has no artifacts".to_owned();
        return Err(QueueError::Invalid { what: run.to_string(), because });
    }
    let late = status_of_run.resolved.is_some_and(|resolved| now.since(resolved) <= LATE_ARTIFACTS);
    match status_of_run.state {
        RunState::Running => Ok(()),
        RunState::Exception if late => Ok(()),
        _ => Err(not_running(run, status_of_run)),
    }
}

/// The status of one run.
pub(super) fn find<'a>(status: &'a TaskStatus, run: &RunId) -> Result<&'a RunStatus, QueueError> {
    status.runs.iter().find(|candidate| candidate.run_id == run.run_id).ok_or_else(|| not_found(run))
}

fn find_mut<'a>(status: &'a mut TaskStatus, run: &RunId) -> Result<&'a mut RunStatus, QueueError> {
    status.runs.iter_mut().find(|candidate| candidate.run_id == run.run_id).ok_or_else(|| not_found(run))
}

fn not_found(run: &RunId) -> QueueError {
    QueueError::NotFound { what: run.to_string() }
}

fn not_running(run: &RunId, status: &RunStatus) -> QueueError {
    let because = match status.reason_resolved {
        Some(reason) => format!("it is resolved as {}", reason.as_str()),
        None => "it is not running".to_owned(),
    };
    QueueError::Conflict { what: run.to_string(), because }
}

/// The last run, if it is not resolved.
fn open_run(status: &TaskStatus) -> Option<&RunStatus> {
    status.runs.last().filter(|run| matches!(run.state, RunState::Pending | RunState::Running))
}

/// Makes an exception of a task that is not resolved: of its last run, or of a run that is added to bear it.
fn end(status: &mut TaskStatus, reason: Reason, now: Timestamp) {
    if status.state == RunState::Unscheduled {
        add_run(status, ReasonCreated::Exception, now);
    }
    if let Some(run_id) = open_run(status).map(|run| run.run_id) {
        finish(status, run_id, Verdict::Exception(reason), now);
    }
}

fn add_run(status: &mut TaskStatus, reason_created: ReasonCreated, now: Timestamp) {
    let run_id = status.runs.last().map_or(0, |last| last.run_id + 1);
    status.state = RunState::Pending;
    status.runs.push(RunStatus {
        run_id,
        state: RunState::Pending,
        reason_created,
        reason_resolved: None,
        worker: None,
        taken_until: None,
        scheduled: now,
        started: None,
        resolved: None,
    });
}

/// Resolves a run, and makes the next one where the reason calls for it and retries are left.
fn finish(status: &mut TaskStatus, run_id: u32, verdict: Verdict, now: Timestamp) {
    let state = verdict.state();
    if let Some(run) = status.runs.iter_mut().find(|run| run.run_id == run_id) {
        run.state = state;
        run.reason_resolved = Some(verdict);
        run.resolved = Some(now);
    }
    status.state = state;
    let again = match verdict {
        Verdict::Exception(Reason::ClaimExpired) | Verdict::Exception(Reason::WorkerShutdown) => {
            ReasonCreated::Retry
        }
        Verdict::Exception(Reason::IntermittentTask) => ReasonCreated::TaskRetry,
        _ => return,
    };
    if status.retries_left > 0 {
        status.retries_left -= 1;
        add_run(status, again, now);
    }
}

#[cfg(test)]
mod tests;
