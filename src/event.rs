//! Events for the operator: one JSON object a line on standard error, for programs that watch.
//!
//! Names and fields are an interface: a golden test holds them. People read the task log and the
//! progress bars instead.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::queue::{ErrorReason, StorageType};
use crate::task::resolution::State;
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
        state: State,
        /// The reason of an exception.
        reason: Option<&'a str>,
        /// What the log's footer says.
        exit_code: i32,
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
    sink: Option<Arc<Mutex<dyn Write + Send>>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(if self.sink.is_some() { "Events(json)" } else { "Events(none)" })
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

    /// As lines of JSON to standard error.
    pub fn json() -> Events {
        Events { sink: Some(Arc::new(Mutex::new(io::stderr()))) }
    }

    /// Whether somebody listens.
    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Writes one event. That nobody reads them is no reason to stop a task.
    pub fn emit(&self, event: &Event<'_>) {
        let Some(sink) = &self.sink else { return };
        let line = Line { time: Timestamp::now(), event };
        if let (Ok(mut text), Ok(mut sink)) = (serde_json::to_vec(&line), sink.lock()) {
            text.push(b'\n');
            if sink.write_all(&text).is_err() {
                // The reader of standard error has gone; its exit status is all that is left to say.
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fields_are_an_interface() {
        let cases: [(Event<'_>, &str); 3] = [
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
        ];
        for (event, expected) in cases {
            assert_eq!(serde_json::to_string(&event).unwrap(), expected);
        }
    }
}
