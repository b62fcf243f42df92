//! A queue of our own: the rules of [`super::runs`] and [`super::artifacts`] over a SQLite database.
//!
//! Each call is one transaction: time passes first (claims run out, deadlines come), then the call is judged. A task is
//! one row: its definition and its status as JSON, and the columns that a claim looks for. The database is in memory, so
//! no call waits for a disk, and all are made on the event loop; one in a file would need a thread of its own.

mod rows;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::http::ObjectUpload;
use super::model::{
    ArtifactContent, ArtifactInfo, ArtifactRequest, Created, RunId, TaskStatus, WorkerIdentity,
};
use super::{Claim, ClaimedWork, QueueError, RunQueue, Standing, Verdict, artifacts, runs};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::definition::TaskDefinition;
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

/// Tells the present.
pub type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// A clock that starts at the present and shows how long this process has gone on since. A queue that lives no longer
/// than its worker measures claims by it: while the host is suspended the worker cannot reclaim, and no step of the wall
/// clock takes a run away from it.
#[must_use]
pub fn steady_clock() -> Clock {
    let (begin, since) = (Timestamp::now(), tokio::time::Instant::now());
    Box::new(move || begin.plus(since.elapsed()))
}

/// The longest that a deadline may lie ahead, with the queue's allowance for clocks that differ.
const LONGEST_DEADLINE: Duration = Duration::from_secs(5 * 24 * 60 * 60 + 15 * 60);

/// A queue in a database of this process. Clones are the same queue.
#[derive(Clone)]
pub struct EmbeddedQueue(Arc<Inner>);

struct Inner {
    database: Mutex<Connection>,
    clock: Clock,
}

impl fmt::Debug for EmbeddedQueue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EmbeddedQueue").finish_non_exhaustive()
    }
}

impl EmbeddedQueue {
    /// A queue that is gone with its last clone.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub fn in_memory(clock: Clock) -> Result<EmbeddedQueue, QueueError> {
        let database = Connection::open_in_memory().map_err(rows::failed("open it"))?;
        rows::create_tables(&database)?;
        Ok(EmbeddedQueue(Arc::new(Inner { database: Mutex::new(database), clock })))
    }

    /// The present, by the clock that claims and deadlines go by.
    pub fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// Makes a task. Doing it again with the same definition changes nothing.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`] when the id is in use by another definition, [`QueueError::Invalid`] for times that
    /// do not fit together.
    pub async fn create_task(
        &self,
        task_id: &TaskId,
        task: &TaskDefinition,
    ) -> Result<TaskStatus, QueueError> {
        self.transact(|database, now| {
            if let Some(known) = rows::find_definition(database, task_id)? {
                if known != *task {
                    let because = "another task has this id".to_owned();
                    return Err(QueueError::Conflict { what: format!("task {task_id}"), because });
                }
                return rows::load_status(database, task_id, now);
            }
            check_times(task_id, task, now)?;
            let status = runs::schedule(task_id, task, now);
            rows::insert_task(database, &status, task)?;
            Ok(status)
        })
    }

    /// See [`super::WorkerQueue::claim_work`].
    pub(super) async fn claim_work(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
        most: usize,
    ) -> Result<ClaimedWork, QueueError> {
        self.transact(|database, now| {
            let mut claims = Vec::new();
            for task_id in rows::list_open(database, task_queue_id)? {
                if claims.len() == most {
                    break;
                }
                let mut status = rows::load_status(database, &task_id, now)?;
                let claimed = runs::claim(&mut status, worker, now);
                rows::store_status(database, &status)?;
                if let Some((run, taken_until)) = claimed {
                    let definition = rows::load_received(database, &task_id)?;
                    let queue = RunQueue::embedded(self.clone(), run);
                    let (deadline, expires) = (status.deadline, status.expires);
                    claims.push(Claim { queue, taken_until, deadline, expires, definition });
                }
            }
            Ok(ClaimedWork { claims, unreadable: Vec::new() })
        })
    }

    /// See [`RunQueue::reclaim`].
    pub(super) async fn reclaim(&self, run: &RunId) -> Result<Timestamp, QueueError> {
        self.change(&run.task_id, |status, now| runs::reclaim(status, run, now)).map(|(until, _)| until)
    }

    /// See [`RunQueue::report`].
    pub(super) async fn report(&self, run: &RunId, verdict: Verdict) -> Result<(), QueueError> {
        self.change(&run.task_id, |status, now| runs::report(status, run, verdict, now)).map(|_| ())
    }

    /// Cancels a task: its run becomes an exception. A task that is resolved already stays as it is.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn cancel_task(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        let cancel = |status: &mut TaskStatus, now| {
            runs::cancel(status, now);
            Ok(())
        };
        self.change(task_id, cancel).map(|((), status)| status)
    }

    /// See [`RunQueue::create_artifact`].
    pub(super) async fn create_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        request: &ArtifactRequest,
    ) -> Result<Created, QueueError> {
        self.transact(|database, now| {
            let status = rows::load_status(database, &run.task_id, now)?;
            runs::takes_artifacts(&status, run, now)?;
            artifacts::check(name, request, status.expires)?;
            let known = rows::find_artifact(database, run, name)?;
            if let Some(known) = &known {
                artifacts::check_replacement(name, &known.request, request)?;
            }
            let upload_id = match (&request.content, known) {
                (ArtifactContent::Object { .. }, Some(known)) => known.upload_id,
                (ArtifactContent::Object { .. }, None) => Some(fresh_word(name)?),
                _ => None,
            };
            rows::store_artifact(
                database,
                run,
                name,
                &rows::Artifact { request: request.clone(), upload_id: upload_id.clone() },
            )?;
            Ok(match (&request.content, upload_id) {
                (_, Some(upload_id)) => Created::Object(ObjectUpload::in_process(upload_id)),
                (ArtifactContent::S3 { .. }, None) => Created::KeepBytes,
                (_, None) => Created::Done,
            })
        })
    }

    /// See [`RunQueue::finish_artifact`].
    pub(super) async fn finish_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        upload_id: &str,
    ) -> Result<(), QueueError> {
        self.transact(|database, _now| {
            let what = format!("artifact \"{name}\"");
            let Some(artifact) = rows::find_artifact(database, run, name)? else {
                return Err(QueueError::NotFound { what });
            };
            let refused = |because: &str| Err(QueueError::Invalid { what, because: because.to_owned() });
            match (&artifact.request.content, &artifact.upload_id) {
                (ArtifactContent::Object { .. }, None) => Ok(()),
                (ArtifactContent::Object { .. }, Some(expected)) if expected == upload_id => {
                    rows::store_artifact(database, run, name, &rows::Artifact { upload_id: None, ..artifact })
                }
                (ArtifactContent::Object { .. }, Some(_)) => refused("the upload id is another's"),
                _ => refused("its storage type needs no finishing"),
            }
        })
    }

    /// The artifacts of a run, by name.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn list_artifacts(&self, run: &RunId) -> Result<Vec<ArtifactInfo>, QueueError> {
        self.transact(|database, now| {
            runs::find(&rows::load_status(database, &run.task_id, now)?, run)?;
            rows::list_artifacts(database, run)
        })
    }

    /// The state of a task and of its runs.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn status(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        self.change(task_id, |_, _| Ok(())).map(|((), status)| status)
    }

    /// See [`RunQueue::status`].
    pub(super) async fn standing(&self, run: &RunId) -> Result<Standing, QueueError> {
        let status = self.status(&run.task_id).await?;
        Ok(runs::find(&status, run)?.reason_resolved.map_or(Standing::Open, Standing::Resolved))
    }

    /// Changes the status of one task.
    fn change<T>(
        &self,
        task_id: &TaskId,
        change: impl FnOnce(&mut TaskStatus, Timestamp) -> Result<T, QueueError>,
    ) -> Result<(T, TaskStatus), QueueError> {
        self.transact(|database, now| {
            let mut status = rows::load_status(database, task_id, now)?;
            let result = change(&mut status, now)?;
            rows::store_status(database, &status)?;
            Ok((result, status))
        })
    }

    /// One transaction: all of it or, on an error, nothing.
    fn transact<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        // A panic under the lock leaves no half transaction: dropping one rolls it back.
        let mut database = self.0.database.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = database.transaction().map_err(rows::failed("begin"))?;
        let result = work(&transaction, self.now())?;
        transaction.commit().map_err(rows::failed("commit"))?;
        Ok(result)
    }
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

/// A word that nobody guesses, in the form of the queue's upload ids.
fn fresh_word(name: &ArtifactName) -> Result<String, QueueError> {
    let word = TaskId::random().map_err(|error| QueueError::Invalid {
        what: format!("artifact \"{name}\""),
        because: format!("the host has no random numbers: {error}"),
    })?;
    Ok(word.as_str().to_owned())
}
