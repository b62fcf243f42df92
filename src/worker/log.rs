//! The worker's own log: one JSON object a line on standard output.
//!
//! Types and fields are those that the original's readers know; `WORKER_METRICS` lines are what worker-metrics reads.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::ConfigFile;
use crate::event::{Event, Events};
use crate::line_writer::LineWriter;
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
    /// A run that was claimed could not begin.
    #[serde(rename = "[alert-operator] task error")]
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
        val: u32,
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
    /// There are other credentials to claim with.
    #[serde(rename = "Got new worker credentials")]
    NewCredentials,
    /// No more tasks are claimed, and none runs.
    #[serde(rename = "shutdown")]
    Shutdown,
    /// The last entry.
    #[serde(rename = "exit")]
    Exit,
    /// A phase of a task, as the runs tell it.
    #[serde(rename = "task event")]
    Task {
        /// What happened.
        #[serde(flatten)]
        event: &'a Event<'a>,
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

/// What worker-metrics counts.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    /// The host has started.
    InstanceBoot,
    /// The worker can claim.
    WorkerReady,
    /// A task was made.
    TaskQueue,
    /// Its run begins.
    TaskStart,
    /// Its run is over.
    TaskFinish,
    /// The host may end.
    InstanceShutdown,
}

/// The way to the log. Clones share it.
#[derive(Clone)]
pub struct WorkerLog {
    out: LineWriter,
    who: Who,
    began: Instant,
}

/// What every line says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Who {
    source: &'static str,
    provisioner_id: String,
    worker_type: String,
    worker_group: String,
    worker_id: String,
    worker_node_type: String,
    #[serde(skip)]
    region: String,
    #[serde(skip)]
    instance_type: String,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    entry: &'a Entry<'a>,
    time: Timestamp,
    #[serde(flatten)]
    who: &'a Who,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricLine<'a> {
    event_type: Metric,
    worker: &'static str,
    worker_pool_id: String,
    worker_id: &'a str,
    timestamp: i64,
    region: &'a str,
    instance_type: &'a str,
    #[serde(flatten)]
    run: Option<&'a RunId>,
}

impl WorkerLog {
    /// The log of the worker that the configuration describes.
    pub fn new(out: LineWriter, config: &ConfigFile) -> WorkerLog {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let who = Who {
            source: "top",
            provisioner_id: config.provisioner_id().to_owned(),
            worker_type: config.worker_type().to_owned(),
            worker_group: config.worker_group().to_owned(),
            worker_id: text(&config.worker_id),
            worker_node_type: config.worker_node_type().to_owned(),
            region: text(&config.region),
            instance_type: text(&config.instance_type),
        };
        WorkerLog { out, who, began: Instant::now() }
    }

    /// Writes an entry.
    pub fn write(&self, entry: &Entry<'_>) {
        let line = Line { entry, time: Timestamp::now(), who: &self.who };
        // Plain strings, words and finite numbers: there is nothing that JSON cannot hold.
        self.out.line(&serde_json::to_string(&line).unwrap_or_default());
    }

    /// Writes a line for worker-metrics, with an empty line before it: what stands there may have no end.
    pub fn count(&self, event_type: Metric, at: Timestamp, run: Option<&RunId>) {
        let line = MetricLine {
            event_type,
            worker: "docker-worker",
            worker_pool_id: format!("{}/{}", self.who.provisioner_id, self.who.worker_type),
            worker_id: &self.who.worker_id,
            timestamp: at.as_millis() / 1000,
            region: &self.who.region,
            instance_type: &self.who.instance_type,
            run,
        };
        let json = serde_json::to_string(&line).unwrap_or_default();
        self.out.line(&format!("\nWORKER_METRICS {json}"));
    }

    /// Counts something that happened: `counter` is the original's word for it.
    pub fn increment(&self, counter: &str) {
        let Who { provisioner_id, worker_type, worker_node_type, .. } = &self.who;
        let machine = worker_node_type.replacen('.', "", 1);
        let key = format!("{provisioner_id}.{worker_type}.{machine}.{counter}");
        self.write(&Entry::Count { key: &key, val: 1 });
    }

    /// Seconds since the worker's start.
    pub fn uptime(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// The entry that says that the worker lives, as it is written every `interval`.
    pub fn alive(&self, interval: Duration) {
        let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.write(&Entry::AlivenessCheck { alive: true, uptime: self.uptime(), interval });
    }

    /// Where the runs' events go: into this log.
    pub fn events(&self) -> Events {
        let log = self.clone();
        Events::to(move |event| log.write(&Entry::Task { event }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::event::RunEvent;
    use crate::line_writer::Stream;
    use crate::queue::task_id::TaskId;

    #[test]
    fn entries_and_metrics_are_lines_that_readers_know() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let out = LineWriter::new(Stream::Output, |_| String::new());
        out.detach_to(writer.into()).unwrap();
        let config = ConfigFile {
            provisioner_id: Some("p".to_owned()),
            worker_type: Some("t".to_owned()),
            worker_id: Some("w".to_owned()),
            region: Some("here".to_owned()),
            ..ConfigFile::default()
        };
        let log = WorkerLog::new(out.clone(), &config);
        let run = RunId { task_id: TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").unwrap(), run_id: 1 };
        let at = Timestamp::parse("2020-03-01T12:00:00Z").unwrap();
        let state = TaskState::Retry;
        log.write(&Entry::TaskResolved {
            run: &run,
            task_state: state,
            reason: "intermittent-task",
            message: None,
        });
        log.count(Metric::TaskStart, at, Some(&run));
        log.count(Metric::WorkerReady, at, None);
        log.events().of(&run).emit(&RunEvent::Interrupted { reason: "canceled", notice: "status" });
        out.finish();
        let mut bytes = vec![0; 4096];
        let count = std::fs::File::from(reader).read(&mut bytes).unwrap();
        let text = std::str::from_utf8(&bytes[..count]).unwrap();
        let mut lines = text.lines();
        let entry: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        for (key, value) in [
            ("type", "task resolved"),
            ("taskId", "fN1SbArXTPSVFNUvaOlinQ"),
            ("taskState", "retry"),
            ("source", "top"),
            ("workerNodeType", "standalone"),
            ("workerGroup", "local"),
        ] {
            assert_eq!(entry[key], value, "{entry}");
        }
        assert_eq!(lines.next(), Some(""));
        let expected = r#"WORKER_METRICS {"eventType":"taskStart","worker":"docker-worker","workerPoolId":"p/t","workerId":"w","timestamp":1583064000,"region":"here","instanceType":"","taskId":"fN1SbArXTPSVFNUvaOlinQ","runId":1}"#;
        assert_eq!(lines.next(), Some(expected));
        assert_eq!(lines.next(), Some(""));
        assert!(lines.next().unwrap().contains(r#""eventType":"workerReady""#));
        let expected = r#"{"type":"task event","event":"interrupted","reason":"canceled","notice":"status","taskId":"fN1SbArXTPSVFNUvaOlinQ","runId":1,"#;
        let event = lines.next().unwrap();
        assert!(event.starts_with(expected), "{event}");
    }
}
