//! Events for the operator: one JSON object a line on standard error, for programs that watch.
//!
//! Names and fields are an interface: a golden test holds them. People read the task log and single sentences instead.

use std::sync::Arc;

use serde::Serialize;

use crate::line_writer::LineWriter;
use crate::queue::{ErrorReason, RunState, StorageType};
use crate::timestamp::Timestamp;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event<'a> {
    /// A run is taken.
    TaskClaimed {
        /// Which task.
        task_id: &'a str,
        /// Which run of it.
        run_id: u32,
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
    /// The command runs.
    TaskStarted {
        /// The container.
        container_id: &'a str,
        /// Time since the run was taken.
        after_ms: u64,
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
        reason: &'a str,
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
    /// An artifact of the payload is not there.
    ArtifactMissing {
        /// Its name.
        name: &'a str,
        /// Why.
        reason: ErrorReason,
    },
    /// The run is over.
    TaskResolved {
        /// Which task.
        task_id: &'a str,
        /// Which run of it.
        run_id: u32,
        /// `completed`, `failed` or `exception`.
        state: RunState,
        /// The reason of an exception.
        reason: Option<&'a str>,
        /// What the log's footer says.
        exit_code: i32,
        /// Why it is not the command's own end, in one sentence.
        message: Option<&'a str>,
    },
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
}

/// Where events go.
#[derive(Clone, Default)]
pub struct Events {
    listener: Option<Arc<Listener>>,
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

    /// Tells of one event. That nobody reads them is no reason to stop a task.
    pub fn emit(&self, event: &Event<'_>) {
        if let Some(listener) = &self.listener {
            listener(event);
        }
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
        let cases: [(Event<'_>, &str); 5] = [
            (
                Event::TaskClaimed { task_id: "fN1", run_id: 0 },
                r#"{"event":"task-claimed","taskId":"fN1","runId":0}"#,
            ),
            (
                Event::ImageReady { name: "n", digest: "sha256:9f", wait_ms: 12 },
                r#"{"event":"image-ready","name":"n","digest":"sha256:9f","waitMs":12}"#,
            ),
            (
                Event::ArtifactMissing { name: "public/x", reason: ErrorReason::FileMissingOnWorker },
                r#"{"event":"artifact-missing","name":"public/x","reason":"file-missing-on-worker"}"#,
            ),
            (
                Event::Refused { exit_status: 2, message: "no" },
                r#"{"event":"refused","exitStatus":2,"message":"no"}"#,
            ),
            (Event::LinesLost { count: 3 }, r#"{"event":"lines-lost","count":3}"#),
        ];
        for (event, expected) in cases {
            assert_eq!(serde_json::to_string(&event).unwrap(), expected);
        }
    }
}
