//! What goes into a queue and comes out of it; names and words are those of `schemas/queue/v1`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::queue::artifact_name::ArtifactName;
use crate::queue::definition::Priority;
use crate::queue::http::ObjectUpload;
use crate::queue::task_id::TaskId;
use crate::queue::verdict::Verdict;
use crate::timestamp::Timestamp;

/// Who claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerIdentity {
    /// The worker's group.
    pub worker_group: String,
    /// The worker's id within it.
    pub worker_id: String,
}

/// One run of one task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunId {
    /// The task.
    pub task_id: TaskId,
    /// Counts from 0.
    pub run_id: u32,
}

impl fmt::Display for RunId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "run {} of task {}", self.run_id, self.task_id)
    }
}

/// The state of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// The task.
    pub task_id: TaskId,
    /// The first half of `task_queue_id`.
    pub provisioner_id: String,
    /// Its second half.
    pub worker_type: String,
    /// Where it waits, or waited.
    pub task_queue_id: String,
    /// Who schedules it.
    pub scheduler_id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Its group.
    pub task_group_id: TaskId,
    /// How urgent it is.
    pub priority: Priority,
    /// When it must be resolved.
    pub deadline: Timestamp,
    /// When it may be forgotten.
    pub expires: Timestamp,
    /// How many runs may still be lost.
    pub retries_left: u32,
    /// The state of its last run.
    pub state: TaskState,
    /// All runs, oldest first.
    pub runs: Vec<RunStatus>,
}

/// The state of a task: that of its last run, or [`RunState::Unscheduled`].
pub type TaskState = RunState;

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// A task's only: it has no run yet, for it waits for other tasks.
    Unscheduled,
    /// Waits for a worker.
    Pending,
    /// A worker has it.
    Running,
    /// See [`Verdict::Completed`].
    Completed,
    /// See [`Verdict::Failed`].
    Failed,
    /// See [`Verdict::Exception`].
    Exception,
}

impl RunState {
    /// The queue's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Unscheduled => "unscheduled",
            RunState::Pending => "pending",
            RunState::Running => "running",
            RunState::Completed => "completed",
            RunState::Failed => "failed",
            RunState::Exception => "exception",
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_resolved(self) -> bool {
        matches!(self, RunState::Completed | RunState::Failed | RunState::Exception)
    }
}

/// One run, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Counts from 0.
    pub run_id: u32,
    /// Its state.
    pub state: RunState,
    /// Why it exists.
    pub reason_created: ReasonCreated,
    /// Why it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_resolved: Option<Verdict>,
    /// Who has or had it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerIdentity>,
    /// Until when they have or had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_until: Option<Timestamp>,
    /// When it became pending.
    pub scheduled: Timestamp,
    /// When it was claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it was resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Timestamp>,
}

/// Why a run exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonCreated {
    /// It is the first one.
    Scheduled,
    /// The worker of the one before was lost or had to stop.
    Retry,
    /// The task asked for it.
    TaskRetry,
    /// Somebody asked for it.
    Rerun,
    /// The task was cancelled before it had a run.
    Exception,
}

/// How the queue stores an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageType {
    /// Bytes, put to a URL that the queue gives out.
    S3,
    /// Bytes, in the object service.
    Object,
    /// A URL elsewhere.
    Reference,
    /// Another artifact of the same run.
    Link,
    /// Nothing, and a reason why.
    Error,
}

/// An artifact to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactRequest {
    /// When it may be deleted; not after its task.
    pub expires: Timestamp,
    /// What it is.
    pub content: ArtifactContent,
}

/// What an artifact is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "storageType")]
pub enum ArtifactContent {
    /// Bytes that the caller puts where [`Created`] says.
    S3 {
        /// Their media type.
        content_type: String,
    },
    /// Bytes that the caller puts into the object service, and then says so.
    Object {
        /// Their media type.
        content_type: String,
    },
    /// What a URL gives.
    Reference {
        /// The URL.
        url: String,
        /// The media type to expect there.
        content_type: String,
    },
    /// What another artifact of the same run gives; it need not exist yet.
    Link {
        /// The other one's name.
        artifact: ArtifactName,
        /// The media type to expect there.
        content_type: String,
    },
    /// Nothing.
    Error {
        /// Why, in the queue's words.
        reason: ErrorReason,
        /// Why, for people; at most 4096 characters.
        message: String,
    },
}

impl ArtifactContent {
    /// How it is stored.
    #[must_use]
    pub fn storage_type(&self) -> StorageType {
        match self {
            ArtifactContent::S3 { .. } => StorageType::S3,
            ArtifactContent::Object { .. } => StorageType::Object,
            ArtifactContent::Reference { .. } => StorageType::Reference,
            ArtifactContent::Link { .. } => StorageType::Link,
            ArtifactContent::Error { .. } => StorageType::Error,
        }
    }

    /// Its media type; that of an error is the queue's own.
    #[must_use]
    pub fn content_type(&self) -> &str {
        match self {
            ArtifactContent::S3 { content_type }
            | ArtifactContent::Object { content_type }
            | ArtifactContent::Reference { content_type, .. }
            | ArtifactContent::Link { content_type, .. } => content_type,
            ArtifactContent::Error { .. } => "application/binary",
        }
    }
}

/// Why an artifact has no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorReason {
    /// There is nothing at its path.
    FileMissingOnWorker,
    /// There is something else.
    InvalidResourceOnWorker,
    /// It goes beyond a limit.
    TooLargeFileOnWorker,
    /// It cannot be read.
    FileNotReadableOnWorker,
}

/// What is to be done for an artifact that was made.
#[derive(Debug)]
pub enum Created {
    /// Nothing: it is there.
    Done,
    /// The bytes stay with the caller: the queue is in its own process.
    KeepBytes,
    /// The bytes are to be put there; then it is there.
    Put(PutTarget),
    /// The bytes are to become an object, and the queue is to be told so.
    Object(ObjectUpload),
}

/// Where bytes are to be put, by one request `PUT` with these headers.
#[derive(Clone, PartialEq, Eq)]
pub struct PutTarget {
    /// The URL. Whoever knows it may put, so it is not shown.
    pub url: String,
    /// Names and values; what storage checks the signature with.
    pub headers: Vec<(String, String)>,
    /// When the URL ceases to be good for it; making the artifact again gives another.
    pub until: Timestamp,
}

impl fmt::Debug for PutTarget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PutTarget").field("until", &self.until).finish_non_exhaustive()
    }
}

/// What the queue has made of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Open,
    /// It is over.
    Resolved(Verdict),
}

/// An artifact, as `list_artifacts` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactInfo {
    /// How it is stored.
    pub storage_type: StorageType,
    /// Its name.
    pub name: ArtifactName,
    /// When it may be deleted.
    pub expires: Timestamp,
    /// Its media type.
    pub content_type: String,
}

impl ArtifactInfo {
    /// What is shown of an artifact that was made as requested.
    #[must_use]
    pub fn of(name: ArtifactName, request: &ArtifactRequest) -> ArtifactInfo {
        ArtifactInfo {
            storage_type: request.content.storage_type(),
            name,
            expires: request.expires,
            content_type: request.content.content_type().to_owned(),
        }
    }
}
