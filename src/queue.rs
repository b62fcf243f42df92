//! The queue, at the level at which a worker needs it: claim, reclaim, report, artifacts.
//!
//! Two handles, so that the code that runs a task does not know whether a Taskcluster deployment or a database of our own
//! answers: a [`WorkerQueue`] claims with the worker's rights, and each claim brings a [`RunQueue`] with the rights of
//! that one run. The rules are the real queue's: what it would refuse with a status of 4xx is refused here as well.

pub mod artifact_name;
mod artifacts;
mod claim;
mod credentials;
pub mod definition;
mod embedded;
mod error;
mod http;
mod model;
mod run_queue;
mod runs;
pub mod task_id;
mod verdict;
mod worker_queue;

pub use claim::{Claim, ClaimedWork, ReceivedDefinition, Task};
pub use credentials::Credentials;
pub use embedded::{
    Artifact, ArtifactKey, CancelledGroup, Clock, EmbeddedQueue, Expired, IndexedTask, KnownWorker,
    ListedTask, More, OpenTasks, Page, Part, Place, QueueCopy, RecentTask, Secret, StoppedQueue, TaskGroup,
    is_index_path, steady_clock,
};
pub use error::QueueError;
pub use http::{ArtifactFinder, ArtifactPlace, Custody, LatestRun, ObjectUpload, TaskReader};
pub use model::{
    ArtifactContent, ArtifactInfo, ArtifactRequest, Created, ErrorReason, PutTarget, ReasonCreated, RunId,
    RunState, RunStatus, Standing, StorageType, TaskState, TaskStatus, WorkerIdentity,
};
pub use run_queue::RunQueue;
pub use verdict::{Reason, Reporter, Verdict};
pub use worker_queue::WorkerQueue;

/// The most tasks that one call may ask for.
pub const MOST_TASKS: usize = 32;
