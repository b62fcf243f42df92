//! The workers that claim, as the queue knows them: who was seen lately, with which runs, and who is in quarantine.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, Transaction, named_params};

use super::EmbeddedQueue;
use super::store::{FORGOTTEN_AT_ONCE, execute, failed, json, limit, select, text};
use crate::queue::QueueError;
use crate::queue::model::{RunId, RunStatus, TaskStatus, WorkerIdentity};
use crate::timestamp::Timestamp;

pub(super) const SCHEMA: &str = "
    CREATE TABLE workers (
        task_queue_id TEXT NOT NULL,
        worker_group TEXT NOT NULL,
        worker_id TEXT NOT NULL,
        -- All times in milliseconds.
        first_claim INTEGER NOT NULL,
        last_active INTEGER NOT NULL,
        -- NULL: never in quarantine.
        quarantined_until INTEGER,
        -- The runs that it has claimed last, the oldest first; JSON.
        recent TEXT NOT NULL,
        PRIMARY KEY (task_queue_id, worker_group, worker_id)
    ) STRICT;
";

/// How long a worker is known that does not ask any more.
const KNOWN: Duration = Duration::from_secs(24 * 60 * 60);
/// How exactly it is noted when a worker asked: each note is a change, and whoever waits for one looks again.
const EXACT: Duration = Duration::from_secs(30 * 60);
/// Runs of a worker that are remembered.
const RECENT: usize = 20;

/// A worker as the queue knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownWorker {
    /// When it asked for the first time.
    pub first_claim: Timestamp,
    /// When it asked the last time, within half an hour.
    pub last_active: Timestamp,
    /// When it is forgotten unless it asks again.
    pub expires: Timestamp,
    /// Until when it gets no tasks, or did not get any.
    pub quarantined_until: Option<Timestamp>,
    /// What it has claimed last, the oldest first.
    pub recent_tasks: Vec<RunId>,
}

impl EmbeddedQueue {
    /// A worker that asks for tasks of a task queue; none where it has not asked for long.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn worker(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
    ) -> Result<Option<KnownWorker>, QueueError> {
        let (task_queue_id, worker) = (task_queue_id.to_owned(), worker.clone());
        self.ask(move |database, _now| find(database, &task_queue_id, &worker)).await
    }

    /// The runs that a worker has now.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn runs_of(&self, worker: &WorkerIdentity) -> Result<Vec<RunId>, QueueError> {
        let worker = worker.clone();
        self.ask(move |database, _now| runs_of(database, &worker)).await
    }

    /// Gives a worker no tasks until then; a time that has passed ends that.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`] for one that has not asked for long.
    pub async fn quarantine(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
        until: Timestamp,
    ) -> Result<KnownWorker, QueueError> {
        let (task_queue_id, worker) = (task_queue_id.to_owned(), worker.clone());
        self.ask(move |database, _now| quarantine(database, &task_queue_id, &worker, until)).await
    }
}

/// Notes that a worker asks for tasks, and forgets who has not done so for long.
pub(super) fn see(
    database: &Transaction<'_>,
    task_queue_id: &str,
    worker: &WorkerIdentity,
    now: Timestamp,
) -> Result<(), QueueError> {
    let noted = database
        .execute(
            "INSERT INTO workers (task_queue_id, worker_group, worker_id, first_claim, last_active, recent)
             VALUES (:task_queue_id, :worker_group, :worker_id, :now, :now, '[]')
             ON CONFLICT DO UPDATE SET last_active = :now WHERE last_active < :now - :exact",
            named_params! {
                ":task_queue_id": task_queue_id,
                ":worker_group": worker.worker_group,
                ":worker_id": worker.worker_id,
                ":now": now.as_millis(),
                ":exact": millis(EXACT),
            },
        )
        .map_err(failed("note a worker"))?;
    if noted > 0 { forget(database, now).map(drop) } else { Ok(()) }
}

/// Forgets a piece of those who have not asked for long; gives their number.
pub(super) fn forget(database: &Transaction<'_>, now: Timestamp) -> Result<usize, QueueError> {
    execute(
        database,
        "forget workers",
        "DELETE FROM workers WHERE rowid IN
         (SELECT rowid FROM workers
          WHERE last_active < :now - :known AND ifnull(quarantined_until, 0) < :now LIMIT :most)",
        named_params! { ":now": now.as_millis(), ":known": millis(KNOWN), ":most": limit(FORGOTTEN_AT_ONCE) },
    )
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// What is known of a worker.
pub(super) fn find(
    database: &Transaction<'_>,
    task_queue_id: &str,
    worker: &WorkerIdentity,
) -> Result<Option<KnownWorker>, QueueError> {
    database
        .query_row(
            "SELECT first_claim, last_active, quarantined_until, recent FROM workers
             WHERE task_queue_id = :task_queue_id AND worker_group = :worker_group AND worker_id = :worker_id",
            named_params! {
                ":task_queue_id": task_queue_id,
                ":worker_group": worker.worker_group,
                ":worker_id": worker.worker_id,
            },
            known,
        )
        .optional()
        .map_err(failed("read a worker"))
}

fn known(row: &Row<'_>) -> rusqlite::Result<KnownWorker> {
    let last_active = Timestamp::from_millis(row.get("last_active")?);
    let quarantined_until: Option<i64> = row.get("quarantined_until")?;
    Ok(KnownWorker {
        first_claim: Timestamp::from_millis(row.get("first_claim")?),
        last_active,
        expires: last_active.plus(KNOWN),
        quarantined_until: quarantined_until.map(Timestamp::from_millis),
        recent_tasks: json(row, "recent")?,
    })
}

/// Notes what a worker has claimed.
pub(super) fn note_claims(
    database: &Transaction<'_>,
    task_queue_id: &str,
    worker: &WorkerIdentity,
    claimed: impl Iterator<Item = RunId>,
) -> Result<(), QueueError> {
    let Some(known) = find(database, task_queue_id, worker)? else { return Ok(()) };
    let mut recent = known.recent_tasks;
    recent.extend(claimed);
    recent.drain(..recent.len().saturating_sub(RECENT));
    let call = "note what a worker has claimed";
    update(database, call, (task_queue_id, worker), "recent = :value", &text(&recent, call)?)
}

/// The runs that a worker has now, of whatever pool.
pub(super) fn runs_of(database: &Transaction<'_>, worker: &WorkerIdentity) -> Result<Vec<RunId>, QueueError> {
    let running: Vec<TaskStatus> = select(
        database,
        "list the runs of a worker",
        "SELECT status FROM tasks WHERE due IS NOT NULL AND state = 'running'",
        (),
        |row| json(row, "status"),
    )?;
    let run = |TaskStatus { task_id, mut runs, .. }| {
        let last = runs.pop().filter(|last: &RunStatus| last.worker.as_ref() == Some(worker))?;
        Some(RunId { task_id, run_id: last.run_id })
    };
    Ok(running.into_iter().filter_map(run).collect())
}

/// Puts a worker into quarantine, or takes it out with a time that has passed.
pub(super) fn quarantine(
    database: &Transaction<'_>,
    task_queue_id: &str,
    worker: &WorkerIdentity,
    until: Timestamp,
) -> Result<KnownWorker, QueueError> {
    let call = "put a worker into quarantine";
    update(database, call, (task_queue_id, worker), "quarantined_until = :value", &until.as_millis())?;
    let missing = || {
        let WorkerIdentity { worker_group, worker_id } = worker;
        QueueError::NotFound { what: format!("worker {worker_group}/{worker_id} of {task_queue_id}") }
    };
    find(database, task_queue_id, worker)?.ok_or_else(missing)
}

/// Changes a column of a worker's, if it is known.
fn update(
    database: &Transaction<'_>,
    call: &'static str,
    (task_queue_id, worker): (&str, &WorkerIdentity),
    change: &'static str,
    value: &dyn rusqlite::ToSql,
) -> Result<(), QueueError> {
    let sql = format!(
        "UPDATE workers SET {change}
         WHERE task_queue_id = :task_queue_id AND worker_group = :worker_group AND worker_id = :worker_id"
    );
    let values = named_params! {
        ":value": value,
        ":task_queue_id": task_queue_id,
        ":worker_group": worker.worker_group,
        ":worker_id": worker.worker_id,
    };
    database.execute(&sql, values).map(drop).map_err(failed(call))
}
