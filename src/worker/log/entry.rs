//! The entries of the worker's log: types and fields that readers of the original's know, and some of our own.

use serde::Serialize;

use super::run_entry::RunEntry;
use crate::event::Event;
use crate::queue::{Reason, RunId, Verdict};
use crate::timestamp::Timestamp;

/// Something that happened to the worker.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Entry<'a> {
    /// The worker is ready to claim.
    #[serde(rename = "start")]
    Start,
    /// It is there, and how long it has been.
    #[serde(rename = "aliveness check")]
    AlivenessCheck {
        /// Always true.
        alive: bool,
        /// Seconds since its start.
        uptime: f64,
        /// Milliseconds until the next one.
        interval: u64,
    },
    /// A run is this worker's.
    #[serde(rename = "claimed task")]
    ClaimedTask {
        /// Which.
        #[serde(flatten)]
        run: &'a RunId,
        /// Until when, unless it is reclaimed.
        taken_until: Timestamp,
    },
    /// A run begins.
    #[serde(rename = "run task")]
    RunTask {
        /// Which.
        #[serde(flatten)]
        run: &'a RunId,
    },
    /// A run is over.
    #[serde(rename = "task resolved")]
    TaskResolved {
        /// Which.
        #[serde(flatten)]
        run: &'a RunId,
        /// `completed`, `failed`, `retry`, `aborted` or `canceled`.
        task_state: TaskState,
        /// The queue's word for it.
        reason: &'a str,
        /// Why it is not the command's own end, in one sentence.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    },
    /// Tasks could not be asked for.
    #[serde(rename = "[alert-operator] task retrieval error")]
    TaskRetrievalError {
        /// One sentence.
        message: &'a str,
    },
    /// A task is carried out alone although it names a superseder.
    #[serde(rename = "not superseding")]
    NotSuperseding {
        /// Which.
        #[serde(flatten)]
        run: &'a RunId,
        /// Why.
        message: &'a str,
    },
    /// The same, as the superseder did not say which tasks supersede it.
    #[serde(rename = "superseding error")]
    SupersedingError {
        /// Which.
        #[serde(flatten)]
        run: &'a RunId,
        /// One sentence.
        message: &'a str,
    },
    /// Another task that a superseder names is not to be had.
    #[serde(rename = "while superseding - secondary claim failure")]
    SecondaryClaimFailure {
        /// Its first run.
        #[serde(flatten)]
        run: &'a RunId,
        /// One sentence.
        message: &'a str,
    },
    /// A run that was claimed could not begin, or ended by a fault of the worker's.
    #[serde(rename = "task error")]
    TaskError {
        /// Which.
        #[serde(flatten)]
        run: &'a RunId,
        /// One sentence.
        message: &'a str,
    },
    /// Something is not as it should be, and the worker goes on.
    #[serde(rename = "[alert-operator] warning")]
    Warning {
        /// One sentence.
        message: &'a str,
    },
    /// No task may have an instance any more.
    #[serde(rename = "cache volume purge")]
    CachePurge {
        /// Its name.
        name: &'a str,
    },
    /// Live logs are to be served over TLS, and there is no certificate for it.
    #[serde(rename = "[alert-operator] ssl certificate error")]
    SslCertificate {
        /// One sentence.
        message: &'a str,
    },
    /// A cache that nobody may have any more is gone.
    #[serde(rename = "cache volume removed")]
    CacheRemoved {
        /// Its name.
        name: &'a str,
    },
    /// It resists; the next start of a worker tries again.
    #[serde(rename = "[alert-operator] volume cache removal error")]
    CacheRemovalError {
        /// Its name.
        name: &'a str,
        /// One sentence.
        message: &'a str,
    },
    /// There is garbage, and it is being removed.
    #[serde(rename = "garbage collection started")]
    GcStarted,
    /// It is gone, as far as it does not resist.
    #[serde(rename = "garbage collection finished")]
    GcFinished,
    /// Something cannot be removed, or looked at.
    #[serde(rename = "garbage collection warning")]
    GcWarning {
        /// One sentence.
        message: &'a str,
        /// The image that it is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        image: Option<&'a str>,
    },
    /// An image is gone: it was not used for long, or its room is needed.
    #[serde(rename = "image removed")]
    ImageRemoved {
        /// What it was called.
        image: &'a str,
    },
    /// What a worker that is gone has left of a container is gone.
    #[serde(rename = "container removed")]
    ContainerRemoved {
        /// Its name.
        container: &'a str,
    },
    /// It resists; it is tried again later.
    #[serde(rename = "container removal error")]
    ContainerRemovalError {
        /// Its name.
        container: &'a str,
        /// One sentence.
        message: &'a str,
    },
    /// There is too little room on the disk for another task, and nothing to remove.
    #[serde(rename = "[alert-operator] diskspace threshold reached")]
    DiskspaceThreshold {
        /// A directory on the file system that is measured.
        volume: &'a str,
        /// Bytes that are free there.
        free: u64,
        /// Bytes in all.
        total: u64,
        /// Bytes that are not free.
        used: u64,
        /// The same in hundredths of all.
        pct_used: u64,
        /// Bytes that have to be free for one task.
        per_task_threshold: u64,
        /// Tasks that there would be capacity for.
        available_worker_capacity: usize,
        /// Bytes that have to be free for these.
        #[serde(rename = "totalthreshold")]
        total_threshold: u64,
    },
    /// A counter goes up.
    #[serde(rename = "monitor.count")]
    Count {
        /// Its name, with pool and kind of machine before it.
        key: &'a str,
        /// By how much.
        val: f64,
    },
    /// Something was measured.
    #[serde(rename = "monitor.measure")]
    Measure {
        /// Its name, with pool and kind of machine before it.
        key: &'a str,
        /// What, in the unit that the name is known for.
        val: f64,
    },
    /// How much of what it could have done the worker has done so far.
    #[serde(rename = "reporting efficiency")]
    Efficiency {
        /// In hundredths.
        efficiency: f64,
        /// Seconds since the worker's start.
        uptime: f64,
        /// Milliseconds that tasks have run, all together.
        total_run_time: u64,
        /// Tasks that could run at once.
        capacity: usize,
    },
    /// The worker has had no task since the last look.
    #[serde(rename = "worker idle")]
    Idle,
    /// It has one again.
    #[serde(rename = "worker working")]
    Working,
    /// Seconds since the worker's start.
    #[serde(rename = "uptime")]
    Uptime {
        /// Seconds.
        uptime: f64,
    },
    /// The worker is to end.
    #[serde(rename = "Got graceful-termination request")]
    GracefulTermination {
        /// Tasks run to their end.
        finish_tasks: bool,
    },
    /// The worker is to end now.
    #[serde(rename = "Terminating worker due to SIGTERM")]
    Terminating,
    /// The same from the keyboard, for which the original had no word.
    #[serde(rename = "Terminating worker due to SIGINT")]
    TerminatingFromTheKeyboard,
    /// There are other credentials to claim with.
    #[serde(rename = "Got new worker credentials")]
    NewCredentials,
    /// No more tasks are claimed, and none runs.
    #[serde(rename = "shutdown")]
    Shutdown,
    /// The last entry.
    #[serde(rename = "exit")]
    Exit,
    /// What the original has no word for, as the runs tell it.
    #[serde(rename = "task event")]
    Other {
        /// What happened.
        #[serde(flatten)]
        event: &'a Event<'a>,
    },
    /// A phase of a run.
    #[serde(untagged)]
    OfRun {
        /// What happened.
        #[serde(flatten)]
        entry: RunEntry<'a>,
        /// To which.
        #[serde(flatten)]
        run: &'a RunId,
    },
}

/// The state in which a run ended, in the worker log's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// The command did what it should.
    Completed,
    /// It did not.
    Failed,
    /// The task asked for another try.
    Retry,
    /// The worker or its surroundings ended it.
    Aborted,
    /// Somebody else did.
    Canceled,
}

impl TaskState {
    /// The word for how a run ended.
    pub fn of(verdict: Verdict) -> TaskState {
        match verdict {
            Verdict::Completed => TaskState::Completed,
            Verdict::Failed => TaskState::Failed,
            Verdict::Exception(Reason::IntermittentTask) => TaskState::Retry,
            Verdict::Exception(Reason::Canceled | Reason::DeadlineExceeded) => TaskState::Canceled,
            Verdict::Exception(
                Reason::MalformedPayload
                | Reason::WorkerShutdown
                | Reason::InternalError
                | Reason::ResourceUnavailable
                | Reason::Superseded
                | Reason::ClaimExpired
                | Reason::Other,
            ) => TaskState::Aborted,
        }
    }
}
