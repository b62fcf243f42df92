//! A queue of our own: the rules of [`super::runs`] and [`super::artifacts`] over a SQLite database.
//!
//! ```text
//!   EmbeddedQueue ──job──► thread: time ► transaction ► answer
//!   (any number of                   │ schedule: what a call does
//!    callers, async)                 └ store, definitions, groups, pools, …: rows
//! ```
//!
//! The database is one thread's own, so that no caller waits for a disk on the event loop, and what comes in together is
//! judged one after the other. Each call is one transaction. Time passes before each call and, while there is none, when
//! something is due: a claim that runs out, a deadline.

mod backup;
mod definitions;
mod dependencies;
mod directory;
mod expiry;
mod groups;
mod index;
mod open;
mod pages;
mod pools;
mod purges;
mod recent;
mod releases;
mod schedule;
mod secrets;
mod store;
mod thread;
mod time;
mod workers;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::watch;

use self::directory::QueueDirectory;
use self::schedule::{Claimant, Claimed};
use self::thread::{ForWhom, QueueThread};
use super::model::{ArtifactInfo, ArtifactRequest, Created, RunId, TaskStatus, WorkerIdentity};
use super::{Claim, ClaimedWork, QueueError, ReceivedDefinition, RunQueue, Standing, Verdict, runs};
use crate::cache::PurgeRequest;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::definition::TaskDefinition;
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

pub use self::directory::QueueCopy;
pub use self::expiry::{ArtifactKey, Expired, More};
pub use self::groups::{CancelledGroup, TaskGroup};
pub use self::index::{IndexedTask, is_index_path};
pub use self::pages::{ListedTask, Page, Part};
pub use self::pools::{OpenTasks, Place};
pub use self::recent::RecentTask;
pub use self::secrets::Secret;
pub use self::store::Artifact;
pub use self::workers::KnownWorker;

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
pub struct EmbeddedQueue {
    inner: Arc<Inner>,
    claim_time: Duration,
}

struct Inner {
    thread: QueueThread,
    clock: Arc<Clock>,
    /// Let go when the thread has ended.
    directory: Option<QueueDirectory>,
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
        EmbeddedQueue::over(open::in_memory()?, clock, None)
    }

    /// A queue that is kept in a file in that directory, made if there is none; whatever ends this process, what a call
    /// has said is there. No two processes may have it at a time. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`], also when another process has it or it is of a newer version.
    pub fn in_directory(path: &Path, clock: Clock) -> Result<EmbeddedQueue, QueueError> {
        let directory = QueueDirectory::take(path)?;
        EmbeddedQueue::over(open::in_file(&directory.database())?, clock, Some(directory))
    }

    /// Whether a path leads into the directory of a queue, or to one of the queue's files by another name.
    ///
    /// # Errors
    ///
    /// Where the path's own directory cannot be found.
    pub fn has_within(directory: &Path, path: &Path) -> io::Result<bool> {
        directory::leads_into(directory, path)
    }

    /// Whether a queue is kept in a directory.
    #[must_use]
    pub fn is_in(directory: &Path) -> bool {
        directory::has_queue(directory)
    }

    /// Has what is in `file`, a copy of a queue, take the place of the queue in a directory: all of it or, on an error,
    /// nothing; a process that is killed meanwhile leaves the one or the other. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`], also when a process has the queue, or the file is no whole copy, or a file of a queue's.
    pub fn restore(directory: &Path, file: &Path) -> Result<(), QueueError> {
        QueueDirectory::lock(directory)?.restore(file)
    }

    fn over(
        database: Connection,
        clock: Clock,
        directory: Option<QueueDirectory>,
    ) -> Result<EmbeddedQueue, QueueError> {
        let clock = Arc::new(clock);
        let thread = QueueThread::start(database, Arc::clone(&clock))?;
        let inner = Arc::new(Inner { thread, clock, directory });
        Ok(EmbeddedQueue { inner, claim_time: runs::CLAIM })
    }

    /// The same queue, where claims that are made or prolonged through this value hold for so long instead of 20 minutes.
    #[must_use]
    pub fn with_claim_time(self, claim_time: Duration) -> EmbeddedQueue {
        EmbeddedQueue { claim_time, ..self }
    }

    /// Word of each change: of a call or of time. Whoever waits for something looks again then.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.thread.changes()
    }

    /// What is said about one run, with that run's rights.
    #[must_use]
    pub fn run(&self, run: RunId) -> RunQueue {
        RunQueue::embedded(self.clone(), run)
    }

    /// The present, by the clock that claims and deadlines go by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    /// Makes a task. Doing it again with the same definition changes nothing.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`] when the id is in use by another definition, or its group is sealed or of another
    /// scheduler, [`QueueError::Invalid`] for times that
    /// do not fit together, or dependencies that do not exist or expire before its deadline.
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
        let (task_queue_id, worker, time) = (task_queue_id.to_owned(), worker.clone(), self.claim_time);
        let claimed = self
            .give(move |database, now| {
                let claimant = Claimant { worker, now, time };
                schedule::claim_work(database, &task_queue_id, &claimant, most)
            })
            .await?;
        let claims = claimed.into_iter().map(|claimed| self.claim(claimed));
        Ok(ClaimedWork { claims: claims.collect(), unreadable: Vec::new() })
    }

    /// Claims one run, which has to be pending.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`], [`QueueError::Conflict`] when somebody has it or has had it.
    pub async fn claim_run(&self, run: &RunId, worker: &WorkerIdentity) -> Result<Claim, QueueError> {
        let (run, worker, time) = (run.clone(), worker.clone(), self.claim_time);
        let claimed = self
            .give(move |database, now| schedule::claim_run(database, &run, &Claimant { worker, now, time }));
        Ok(self.claim(claimed.await?))
    }

    fn claim(&self, claimed: Claimed) -> Claim {
        Claim {
            queue: self.run(claimed.run),
            taken_until: claimed.taken_until,
            deadline: claimed.deadline,
            expires: claimed.expires,
            definition: claimed.definition,
        }
    }

    /// See [`RunQueue::reclaim`].
    pub(super) async fn reclaim(&self, run: &RunId) -> Result<Timestamp, QueueError> {
        let (id, time) = (run.clone(), self.claim_time);
        let reclaimed = self.change(&run.task_id, move |status, now| runs::reclaim(status, &id, now, time));
        reclaimed.await.map(|(until, _)| until)
    }

    /// See [`RunQueue::report`].
    pub(super) async fn report(&self, run: &RunId, verdict: Verdict) -> Result<(), QueueError> {
        let run = run.clone();
        self.ask(move |database, now| schedule::report(database, &run, verdict, now)).await
    }

    /// Has a task wait for its dependencies no longer. One that has a run already stays as it is.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn schedule_task(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        let schedule = |status: &mut TaskStatus, now| {
            runs::schedule(status, now);
            Ok(())
        };
        self.change(task_id, schedule).await.map(|((), status)| status)
    }

    /// Has a task run again, with all of its retries, or for the first time whatever it waits for. One that waits for a
    /// worker or has one stays as it is.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`], [`QueueError::Conflict`] after its deadline, or when it has had 50 runs.
    pub async fn rerun_task(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, now| schedule::rerun_task(database, &task_id, now)).await
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

    /// One artifact of a run, if it was made.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`] without such a run.
    pub async fn artifact(&self, run: &RunId, name: &ArtifactName) -> Result<Option<Artifact>, QueueError> {
        let (run, name) = (run.clone(), name.clone());
        self.ask(move |database, _now| {
            runs::find(&store::load_status(database, &run.task_id)?, &run)?;
            store::find_artifact(database, &run, &name)
        })
        .await
    }

    /// The artifacts of a run, by name.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn list_artifacts(
        &self,
        run: &RunId,
        part: Part<ArtifactName>,
    ) -> Result<Page<ArtifactInfo, ArtifactName>, QueueError> {
        let run = run.clone();
        self.ask(move |database, _now| {
            runs::find(&store::load_status(database, &run.task_id)?, &run)?;
            store::list_artifacts(database, &run, &part)
        })
        .await
    }

    /// The definition of a task, all defaults written out.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn definition(&self, task_id: &TaskId) -> Result<ReceivedDefinition, QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, _now| definitions::load(database, &task_id)).await
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

    /// The tasks that depend on a task, by their ids.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn list_dependents(
        &self,
        task_id: &TaskId,
        part: Part<TaskId>,
    ) -> Result<Page<ListedTask, TaskId>, QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, _now| dependencies::list(database, &task_id, &part)).await
    }

    /// See [`RunQueue::status`].
    pub(super) async fn standing(&self, run: &RunId) -> Result<Standing, QueueError> {
        let status = self.status(&run.task_id).await?;
        Ok(runs::find(&status, run)?.reason_resolved.map_or(Standing::Open, Standing::Resolved))
    }

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
        self.ask(move |database, _now| workers::find(database, &task_queue_id, &worker)).await
    }

    /// The runs that a worker has now.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn runs_of(&self, worker: &WorkerIdentity) -> Result<Vec<RunId>, QueueError> {
        let worker = worker.clone();
        self.ask(move |database, _now| workers::runs_of(database, &worker)).await
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
        self.ask(move |database, _now| workers::quarantine(database, &task_queue_id, &worker, until)).await
    }

    /// Asks the workers of a pool to drop the caches of a name that they have by now.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn purge_cache(&self, worker_pool_id: &str, cache_name: &str) -> Result<(), QueueError> {
        let (worker_pool_id, cache_name) = (worker_pool_id.to_owned(), cache_name.to_owned());
        self.ask(move |database, before| {
            purges::ask(database, &worker_pool_id, &PurgeRequest { cache_name, before })
        })
        .await
    }

    /// The caches that workers of a pool are asked to drop.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn purge_requests(&self, worker_pool_id: &str) -> Result<Vec<PurgeRequest>, QueueError> {
        let worker_pool_id = worker_pool_id.to_owned();
        self.ask(move |database, now| purges::list(database, &worker_pool_id, now)).await
    }

    /// The task of a name in the index, if there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn find_indexed(&self, path: &str) -> Result<Option<IndexedTask>, QueueError> {
        let path = path.to_owned();
        self.ask(move |database, now| index::find(database, &path, now)).await
    }

    /// Puts a task under a name in the index, unless one of a higher rank has it; gives what is there then.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn insert_indexed(&self, wanted: IndexedTask) -> Result<IndexedTask, QueueError> {
        self.ask(move |database, now| index::insert(database, wanted, now)).await
    }

    /// Writes a secret; it takes the place of one of the same name.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn set_secret(&self, name: &str, secret: Secret) -> Result<(), QueueError> {
        let name = name.to_owned();
        self.ask(move |database, now| secrets::set(database, &name, &secret, now)).await
    }

    /// Removes a secret, if there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn remove_secret(&self, name: &str) -> Result<(), QueueError> {
        let name = name.to_owned();
        self.ask(move |database, _now| secrets::remove(database, &name)).await
    }

    /// The secret of a name, if there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn secret(&self, name: &str) -> Result<Option<Secret>, QueueError> {
        let name = name.to_owned();
        self.ask(move |database, now| secrets::get(database, &name, now)).await
    }

    /// The names of secrets, in order.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn list_secrets(&self, part: Part<String>) -> Result<Page<String, String>, QueueError> {
        self.ask(move |database, now| secrets::list(database, &part, now)).await
    }

    /// A copy of all that it has, beside its file; calls are answered meanwhile. Of artifacts it has names and kinds, their
    /// bytes lie elsewhere.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`], also for a queue in memory; then there is no new file.
    pub async fn copy(&self) -> Result<QueueCopy, QueueError> {
        let Some(directory) = &self.inner.directory else {
            return Err(QueueError::Internal { call: "copy it", source: "it is in no file".into() });
        };
        let copy = directory.new_copy()?;
        self.inner.thread.copy(copy.path().to_owned()).await?;
        Ok(copy)
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
            schedule::settle(database, &status)?;
            Ok((result, status))
        })
        .await
    }

    /// One transaction: all of it or, on an error, nothing.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.inner.thread.ask((self.now(), ForWhom::Anybody), work).await
    }

    /// The same, but nothing is done for callers that have gone when their turn comes.
    async fn give<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.inner.thread.ask((self.now(), ForWhom::WhoeverWaits), work).await
    }
}

#[cfg(test)]
mod cost;
#[cfg(test)]
mod tests;
