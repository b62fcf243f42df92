//! A queue of our own: the rules of [`super::runs`] and [`super::artifacts`] over a SQLite database.
//!
//! ```text
//!   EmbeddedQueue ──job──► thread: time ► transaction ► answer
//!   (any number of                   │ schedule: what a call does
//!    callers, async)                 └ store, definitions, …: rows
//! ```
//!
//! What can be called stands with what it is about: `tasks`, `work`, `artifacts`, `groups`, `pools`, `workers`, `index`, ….
//!
//! The database is one thread's own, so that no caller waits for a disk on the event loop, and what comes in together is
//! judged one after the other. Each call is one transaction. Time passes before each call and, while there is none, when
//! something is due: a claim that runs out, a deadline.

mod artifacts;
mod backup;
mod batches;
mod definitions;
mod dependencies;
mod directory;
mod expiry;
mod groups;
mod index;
mod log;
mod open;
mod pages;
mod pools;
mod priorities;
mod purges;
mod recent;
mod releases;
mod schedule;
mod secrets;
mod stopped;
mod store;
mod tasks;
mod thread;
mod time;
mod work;
mod workers;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::watch;

use self::directory::QueueDirectory;
use self::log::Overwritten;
use self::thread::{ForWhom, QueueThread};
use super::model::{RunId, TaskStatus};
use super::{QueueError, RunQueue, runs};
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

pub use self::artifacts::Artifact;
pub use self::directory::QueueCopy;
pub use self::expiry::{ArtifactKey, Expired, More};
pub use self::groups::{CancelledGroup, TaskGroup};
pub use self::index::{IndexedTask, is_index_path};
pub use self::pages::{ListedTask, Page, Part};
pub use self::pools::{OpenTasks, Place};
pub use self::recent::RecentTask;
pub use self::secrets::Secret;
pub use self::stopped::StoppedQueue;
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

    /// What does not go on by itself, in a sentence: what waits for a task, what is due. It is tried again every now and then;
    /// there is word of the first of several, and of none once all goes on.
    #[must_use]
    pub fn faults(&self) -> watch::Receiver<Option<String>> {
        self.inner.thread.faults()
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

    /// The same for what may overwrite secrets.
    async fn overwrite<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<(T, Overwritten), QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.inner.thread.overwrite(self.now(), work).await
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
