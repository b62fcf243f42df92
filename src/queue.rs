//! The queue, at the level at which a worker needs it: claim, reclaim, report, artifacts.
//!
//! One enum, so that the code that runs a task does not know whether a Taskcluster deployment or a database of our own
//! answers. The rules are the real queue's: what it would refuse with a status of 4xx is refused here as well.

pub mod artifact_name;
mod artifacts;
pub mod definition;
mod embedded;
mod model;
mod reason;
mod runs;
pub mod task_id;

pub use embedded::{Clock, EmbeddedQueue, steady_clock};
pub use model::{
    ArtifactContent, ArtifactInfo, ArtifactRequest, Claim, Created, ErrorReason, QueueError, ReasonCreated,
    ReasonResolved, RunId, RunState, RunStatus, StorageType, TaskState, TaskStatus, WorkerIdentity,
};
pub use reason::{Reason, Reporter};

use crate::queue::artifact_name::ArtifactName;
use crate::queue::definition::TaskDefinition;
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

/// A queue.
#[derive(Debug)]
pub enum Queue {
    /// In this process: `docker-worker run`.
    InProcess(EmbeddedQueue),
}

impl Queue {
    /// The present, by the clock that claims and deadlines go by.
    pub fn now(&self) -> Timestamp {
        match self {
            Queue::InProcess(queue) => queue.now(),
        }
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
        definition: &TaskDefinition,
    ) -> Result<TaskStatus, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.create_task(task_id, definition),
        }
    }

    /// Claims at most `most` pending tasks of a task queue, the most urgent first. None pending: an empty list.
    ///
    /// # Errors
    ///
    /// [`QueueError::Storage`].
    pub async fn claim_work(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
        most: usize,
    ) -> Result<Vec<Claim>, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.claim_work(task_queue_id, worker, most),
        }
    }

    /// Prolongs a claim; gives the time until which it holds.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`]: the run is resolved (cancelled, past its deadline, claim expired). Stop working on it.
    pub async fn reclaim_task(&self, run: &RunId) -> Result<Timestamp, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.reclaim_task(run),
        }
    }

    /// Resolves a run as completed.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`] when it is resolved otherwise already.
    pub async fn report_completed(&self, run: &RunId) -> Result<TaskStatus, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.report(run, ReasonResolved::Completed),
        }
    }

    /// Resolves a run as failed.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`] when it is resolved otherwise already.
    pub async fn report_failed(&self, run: &RunId) -> Result<TaskStatus, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.report(run, ReasonResolved::Failed),
        }
    }

    /// Resolves a run as exception. After `worker-shutdown` and `intermittent-task` the queue makes another run, as
    /// long as there are retries left.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`] when it is resolved otherwise already, [`QueueError::Invalid`] for a reason that only
    /// the queue sets.
    pub async fn report_exception(&self, run: &RunId, reason: Reason) -> Result<TaskStatus, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.report_exception(run, reason),
        }
    }

    /// Cancels a task: its run becomes an exception. A task that is resolved already stays as it is.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn cancel_task(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.cancel_task(task_id),
        }
    }

    /// Makes an artifact, or replaces one as far as the rules allow.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`] when the run takes no more artifacts, or has one of this name that may not become
    /// this one; [`QueueError::Invalid`] when it would outlive its task.
    pub async fn create_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        request: &ArtifactRequest,
    ) -> Result<Created, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.create_artifact(run, name, request),
        }
    }

    /// Says that an artifact of storage type `object` is uploaded: from now on it is listed.
    ///
    /// # Errors
    ///
    /// [`QueueError::Invalid`] for the other storage types, which need no such word.
    pub async fn finish_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        upload_id: &str,
    ) -> Result<(), QueueError> {
        match self {
            Queue::InProcess(queue) => queue.finish_artifact(run, name, upload_id),
        }
    }

    /// The artifacts of a run, by name.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn list_artifacts(&self, run: &RunId) -> Result<Vec<ArtifactInfo>, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.list_artifacts(run),
        }
    }

    /// The state of a task and of its runs.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn status(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        match self {
            Queue::InProcess(queue) => queue.status(task_id),
        }
    }
}
