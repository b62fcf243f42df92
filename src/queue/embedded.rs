//! A queue of our own: the rules of [`super::runs`] and [`super::artifacts`] over a SQLite database.
//!
//! ```text
//!   EmbeddedQueue ──job──► thread: time ► transaction ► answer
//!   (any number of                   │ schedule: what a call does
//!    callers, async)                 └ store: rows and columns
//! ```
//!
//! The database is one thread's own, so that no caller waits for a disk on the event loop, and what comes in together is
//! judged one after the other. Each call is one transaction. Time passes before each call and, while there is none, when
//! something is due: a claim that runs out, a deadline.

mod open;
mod schedule;
mod store;
mod thread;
mod time;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Transaction};

use self::thread::QueueThread;
use super::model::{ArtifactInfo, ArtifactRequest, Created, RunId, TaskStatus, WorkerIdentity};
use super::{Claim, ClaimedWork, QueueError, RunQueue, Standing, Verdict, runs};
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

/// A queue in a database of this process. Clones are the same queue.
#[derive(Clone)]
pub struct EmbeddedQueue(Arc<Inner>);

struct Inner {
    thread: QueueThread,
    clock: Arc<Clock>,
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
        EmbeddedQueue::over(open::in_memory()?, clock)
    }

    /// A queue that is kept in a file, made if there is none; whatever ends this process, what a call has said is there.
    /// No two processes may have it at a time. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`], also when another process has it or it is of a newer version.
    pub fn in_file(path: &Path, clock: Clock) -> Result<EmbeddedQueue, QueueError> {
        EmbeddedQueue::over(open::in_file(path)?, clock)
    }

    fn over(database: Connection, clock: Clock) -> Result<EmbeddedQueue, QueueError> {
        let clock = Arc::new(clock);
        let thread = QueueThread::start(database, Arc::clone(&clock))?;
        Ok(EmbeddedQueue(Arc::new(Inner { thread, clock })))
    }

    /// The present, by the clock that claims and deadlines go by.
    #[must_use]
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
        let (task_id, task) = (task_id.clone(), task.clone());
        self.ask(move |database, now| schedule::create_task(database, &task_id, &task, now)).await
    }

    /// See [`super::WorkerQueue::claim_work`].
    pub(super) async fn claim_work(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
        most: usize,
    ) -> Result<ClaimedWork, QueueError> {
        let (task_queue_id, worker) = (task_queue_id.to_owned(), worker.clone());
        let claimed = self
            .ask(move |database, now| schedule::claim_work(database, &task_queue_id, &worker, most, now))
            .await?;
        let claims = claimed.into_iter().map(|claimed| Claim {
            queue: RunQueue::embedded(self.clone(), claimed.run),
            taken_until: claimed.taken_until,
            deadline: claimed.deadline,
            expires: claimed.expires,
            definition: claimed.definition,
        });
        Ok(ClaimedWork { claims: claims.collect(), unreadable: Vec::new() })
    }

    /// See [`RunQueue::reclaim`].
    pub(super) async fn reclaim(&self, run: &RunId) -> Result<Timestamp, QueueError> {
        let id = run.clone();
        let reclaimed = self.change(&run.task_id, move |status, now| runs::reclaim(status, &id, now));
        reclaimed.await.map(|(until, _)| until)
    }

    /// See [`RunQueue::report`].
    pub(super) async fn report(&self, run: &RunId, verdict: Verdict) -> Result<(), QueueError> {
        let id = run.clone();
        let reported = self.change(&run.task_id, move |status, now| runs::report(status, &id, verdict, now));
        reported.await.map(|((), _)| ())
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
        self.change(task_id, cancel).await.map(|((), status)| status)
    }

    /// See [`RunQueue::create_artifact`].
    pub(super) async fn create_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        request: &ArtifactRequest,
    ) -> Result<Created, QueueError> {
        let (run, name, request) = (run.clone(), name.clone(), request.clone());
        self.ask(move |database, now| schedule::create_artifact(database, &run, &name, &request, now)).await
    }

    /// See [`RunQueue::finish_artifact`].
    pub(super) async fn finish_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        upload_id: &str,
    ) -> Result<(), QueueError> {
        let (run, name, upload_id) = (run.clone(), name.clone(), upload_id.to_owned());
        self.ask(move |database, _now| schedule::finish_artifact(database, &run, &name, &upload_id)).await
    }

    /// The artifacts of a run, by name.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn list_artifacts(&self, run: &RunId) -> Result<Vec<ArtifactInfo>, QueueError> {
        let run = run.clone();
        self.ask(move |database, _now| {
            runs::find(&store::load_status(database, &run.task_id)?, &run)?;
            store::list_artifacts(database, &run)
        })
        .await
    }

    /// The state of a task and of its runs.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn status(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, _now| store::load_status(database, &task_id)).await
    }

    /// See [`RunQueue::status`].
    pub(super) async fn standing(&self, run: &RunId) -> Result<Standing, QueueError> {
        let status = self.status(&run.task_id).await?;
        Ok(runs::find(&status, run)?.reason_resolved.map_or(Standing::Open, Standing::Resolved))
    }

    /// Changes the status of one task.
    async fn change<T: Send + 'static>(
        &self,
        task_id: &TaskId,
        change: impl FnOnce(&mut TaskStatus, Timestamp) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<(T, TaskStatus), QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, now| {
            let mut status = store::load_status(database, &task_id)?;
            let result = change(&mut status, now)?;
            store::store_status(database, &status)?;
            Ok((result, status))
        })
        .await
    }

    /// One transaction: all of it or, on an error, nothing.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.0.thread.ask(self.now(), work).await
    }
}

#[cfg(test)]
mod tests;
