//! Events for the operator: one JSON object a line on standard error, for programs that watch.
//!
//! Names and fields are an interface: a golden test holds them. People read the task log and single sentences instead.

use std::sync::Arc;

use serde::Serialize;

use crate::interrupt::{Interrupt, Notice};
use crate::line_writer::LineWriter;
use crate::queue::task_id::TaskId;
use crate::queue::{ErrorReason, RunId, RunState, StorageType};
use crate::timestamp::Timestamp;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event<'a> {
    /// There is no run: wrong use, a task that nobody could take, a host that cannot run tasks.
    Refused {
        /// The exit status of the command.
        exit_status: u8,
        /// One sentence.
        message: &'a str,
    },
    /// Nobody read standard error, and this many lines did not fit any more.
    LinesLost {
        /// How many.
        count: u64,
    },
    /// A worker that is gone had left this behind, and it is removed now.
    Recovered {
        /// The container.
        container_id: &'a str,
    },
    /// Something is not as it should be, and the run goes on.
    Warning {
        /// One sentence.
        message: &'a str,
    },
    /// Something happened to a run.
    #[serde(untagged)]
    OfRun {
        /// What.
        #[serde(flatten)]
        event: &'a RunEvent<'a>,
        /// To which.
        #[serde(flatten)]
        run: &'a RunId,
    },
}

/// What happens to a run.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum RunEvent<'a> {
    /// A run is taken.
    TaskClaimed,
    /// A feature is on for it.
    FeatureUsed {
        /// Its name.
        name: &'a str,
    },
    /// Its claim is left alone for a while.
    NextClaim {
        /// For how long.
        after_ms: u64,
        /// Until when it holds.
        taken_until: Timestamp,
    },
    /// Its claim is being prolonged.
    Reclaiming {
        /// Until when it holds so far.
        taken_until: Timestamp,
    },
    /// Its claim is prolonged.
    Reclaimed {
        /// Until when it holds now.
        taken_until: Timestamp,
    },
    /// Its claim cannot be prolonged.
    ReclaimFailed {
        /// Until when it holds.
        taken_until: Timestamp,
        /// One sentence.
        message: &'a str,
    },
    /// Its payload is not valid.
    PayloadRefused,
    /// Its image is looked for, here and then where it comes from.
    ImageWanted {
        /// As the payload names it.
        image: &'a str,
    },
    /// A layer of the image starts to arrive.
    LayerStarted {
        /// The layer, shortened.
        layer: &'a str,
        /// Bytes to come.
        total: u64,
    },
    /// A layer has arrived and is indexed.
    LayerDone {
        /// The layer, shortened.
        layer: &'a str,
        /// How long it took.
        seconds: f64,
    },
    /// The image was not here, and is now.
    ImagePulled {
        /// How long it took.
        took_ms: u64,
    },
    /// The image is not to be had.
    ImageUnavailable,
    /// The image is in the store and leased to this run.
    ImageReady {
        /// The image's canonical name.
        name: &'a str,
        /// Its manifest's digest.
        digest: &'a str,
        /// How long the run waited for it.
        wait_ms: u64,
    },
    /// A cache is held by this run.
    CacheTaken {
        /// The cache's name.
        name: &'a str,
        /// Whether an earlier task has used the instance.
        hit: bool,
    },
    /// No task may have this instance of a cache any more.
    CachePurged {
        /// The cache's name.
        name: &'a str,
    },
    /// A cache is given back.
    CacheReleased {
        /// The cache's name.
        name: &'a str,
    },
    /// An instance of a cache that no task may have is gone.
    CacheRemoved {
        /// The cache's name.
        name: &'a str,
    },
    /// The command runs.
    TaskStarted {
        /// The container.
        container_id: &'a str,
        /// Time since the run was taken.
        after_ms: u64,
    },
    /// The command could not be started.
    StartFailed {
        /// One sentence.
        message: &'a str,
    },
    /// Every process of the container is gone.
    ContainerExited {
        /// 0 to 255; 128 + signal.
        status: i32,
        /// The signal that ended the command.
        signal: Option<i32>,
        /// The kernel killed a process of it because memory was short.
        oom_killed: bool,
        /// Time on the processors.
        cpu_ms: u64,
        /// Most memory used at once.
        memory_peak_bytes: Option<u64>,
    },
    /// The task ends before its command does.
    Interrupted {
        /// Why.
        reason: Interrupt,
        /// By what the worker knows it.
        notice: Notice,
        /// Seconds that the task had, where they are over.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_run_time: Option<u64>,
    },
    /// The run is over, and not by its command's own end.
    TaskAborted {
        /// As what it is reported.
        reason: &'a str,
    },
    /// What is done when the command is over did not succeed.
    KilledHooksFailed {
        /// One sentence.
        message: &'a str,
    },
    /// The bytes of an artifact are sent.
    ArtifactUploading {
        /// Its name.
        name: &'a str,
        /// Which attempt it is, from 1.
        attempt: u32,
    },
    /// They were not taken this time.
    ArtifactUploadFailed {
        /// Its name.
        name: &'a str,
        /// One sentence.
        message: &'a str,
    },
    /// They are where they should be.
    ArtifactUploaded {
        /// Its name.
        name: &'a str,
        /// Bytes that were sent.
        sent_bytes: u64,
        /// How long it took, all attempts together.
        took_ms: u64,
    },
    /// An artifact is stored.
    ArtifactPublished {
        /// Its name.
        name: &'a str,
        /// How it is stored.
        storage_type: StorageType,
        /// Its uncompressed length.
        size: Option<u64>,
    },
    /// The image of the taskcluster proxy has the credentials that came with a reclaim.
    CredentialsUpdated,
    /// It has not taken them.
    CredentialsUpdateFailed {
        /// One sentence.
        message: &'a str,
    },
    /// An artifact of the payload is not there.
    ArtifactMissing {
        /// Its name.
        name: &'a str,
        /// Why.
        reason: ErrorReason,
    },
    /// It is over without having been carried out: another task is in its place, or the worker has given it back.
    SecondaryResolved {
        /// The queue's word for it.
        reason: &'a str,
        /// The task that superseded it, if one did.
        by: Option<&'a TaskId>,
    },
    /// The run is over.
    TaskResolved {
        /// `completed`, `failed` or `exception`.
        state: RunState,
        /// The reason of an exception.
        reason: Option<&'a str>,
        /// What the log's footer says.
        exit_code: i32,
        /// Why it is not the command's own end, in one sentence.
        message: Option<&'a str>,
    },
}

/// Where events go.
#[derive(Clone, Default)]
pub struct Events {
    listener: Option<Arc<Listener>>,
}

/// Where the events of one run go.
#[derive(Clone, Debug)]
pub struct RunEvents {
    events: Events,
    run: RunId,
}

/// Hears of every event, and must not wait.
type Listener = dyn Fn(&Event<'_>) + Send + Sync;

impl std::fmt::Debug for Events {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(if self.listener.is_some() { "Events(heard)" } else { "Events(none)" })
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl Events {
    /// To nobody.
    pub fn none() -> Events {
        Events::default()
    }

    /// To one who must not wait.
    pub fn to(listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Events {
        Events { listener: Some(Arc::new(listener)) }
    }

    /// As lines of JSON.
    pub fn json(out: &LineWriter) -> Events {
        let out = out.clone();
        Events::to(move |event| out.line(&line(event)))
    }

    /// Those of one run.
    pub fn of(&self, run: &RunId) -> RunEvents {
        RunEvents { events: self.clone(), run: run.clone() }
    }

    /// Tells of one event. That nobody reads them is no reason to stop a task.
    pub fn emit(&self, event: &Event<'_>) {
        if let Some(listener) = &self.listener {
            listener(event);
        }
    }
}

impl RunEvents {
    /// Tells of one event, and of which run it is.
    pub fn emit(&self, event: &RunEvent<'_>) {
        self.events.emit(&Event::OfRun { event, run: &self.run });
    }
}

/// One event as a line of JSON, without its end.
pub fn line(event: &Event<'_>) -> String {
    // Plain strings, words and finite numbers: there is nothing that JSON cannot hold.
    serde_json::to_string(&Line { time: Timestamp::now(), event }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fields_are_an_interface() {
        let run = RunId { task_id: TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").unwrap(), run_id: 2 };
        let of_run = |event| serde_json::to_string(&Event::OfRun { event, run: &run }).unwrap();
        let own = |event: &Event<'_>| serde_json::to_string(event).unwrap();
        let which = r#""taskId":"fN1SbArXTPSVFNUvaOlinQ","runId":2"#;
        let cases = [
            (of_run(&RunEvent::TaskClaimed), format!(r#"{{"event":"task-claimed",{which}}}"#)),
            (
                of_run(&RunEvent::ImageReady { name: "n", digest: "sha256:9f", wait_ms: 12 }),
                format!(r#"{{"event":"image-ready","name":"n","digest":"sha256:9f","waitMs":12,{which}}}"#),
            ),
            (
                of_run(&RunEvent::ArtifactMissing { name: "a/x", reason: ErrorReason::FileMissingOnWorker }),
                format!(
                    r#"{{"event":"artifact-missing","name":"a/x","reason":"file-missing-on-worker",{which}}}"#
                ),
            ),
            (
                own(&Event::Refused { exit_status: 2, message: "no" }),
                r#"{"event":"refused","exitStatus":2,"message":"no"}"#.to_owned(),
            ),
            (own(&Event::LinesLost { count: 3 }), r#"{"event":"lines-lost","count":3}"#.to_owned()),
        ];
        for (written, expected) in cases {
            assert_eq!(written, expected);
        }
    }
}
