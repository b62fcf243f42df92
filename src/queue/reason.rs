//! Why a run is an exception, and who says so.

use serde::Serialize;

/// Why a run is an exception; in the queue's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The payload cannot be carried out by any worker of this kind.
    MalformedPayload,
    /// The worker had to stop: the queue makes a new run.
    WorkerShutdown,
    /// A fault of the worker.
    InternalError,
    /// Something that the task needs is temporarily not to be had.
    ResourceUnavailable,
    /// The task asked for another try: the queue makes a new run.
    IntermittentTask,
    /// Cancelled. Never reported: the queue knows.
    Canceled,
    /// The deadline passed. Never reported: the queue knows.
    DeadlineExceeded,
}

impl Reason {
    /// Whether the worker reports it, or the queue has set it and would refuse a report.
    #[must_use]
    pub fn reporter(self) -> Reporter {
        match self {
            Reason::Canceled | Reason::DeadlineExceeded => Reporter::Queue,
            Reason::MalformedPayload
            | Reason::WorkerShutdown
            | Reason::InternalError
            | Reason::ResourceUnavailable
            | Reason::IntermittentTask => Reporter::Worker,
        }
    }

    /// The queue's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::MalformedPayload => "malformed-payload",
            Reason::WorkerShutdown => "worker-shutdown",
            Reason::InternalError => "internal-error",
            Reason::ResourceUnavailable => "resource-unavailable",
            Reason::IntermittentTask => "intermittent-task",
            Reason::Canceled => "canceled",
            Reason::DeadlineExceeded => "deadline-exceeded",
        }
    }
}

/// Who resolves the run in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporter {
    /// The worker, by a report.
    Worker,
    /// The queue itself.
    Queue,
}
