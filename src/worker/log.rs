//! The worker's own log: one JSON object a line on standard output.
//!
//! Types and fields are those that the original's readers know; `WORKER_METRICS` lines are what worker-metrics reads.

mod entry;
mod run_entry;
mod signal;

use std::time::{Duration, Instant};

use serde::Serialize;

pub use self::entry::{Entry, TaskState};
pub use self::run_entry::RunEntry;
use self::signal::Signal;
use crate::config::ConfigFile;
use crate::event::{Event, Events};
use crate::line_writer::LineWriter;
use crate::queue::RunId;
use crate::timestamp::Timestamp;

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
        self.add(counter, 1.0);
    }

    /// Counts something that comes in amounts.
    pub fn add(&self, counter: &str, val: f64) {
        self.write(&Entry::Count { key: &self.key(counter), val });
    }

    /// Tells what was measured: `name` is the original's word for it.
    pub fn measure(&self, name: &str, val: f64) {
        self.write(&Entry::Measure { key: &self.key(name), val });
    }

    /// A name with pool and kind of machine before it.
    fn key(&self, name: &str) -> String {
        let Who { provisioner_id, worker_type, worker_node_type, .. } = &self.who;
        let machine = worker_node_type.replacen('.', "", 1);
        format!("{provisioner_id}.{worker_type}.{machine}.{name}")
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
        Events::to(move |event| log.hear(event))
    }

    fn hear(&self, event: &Event<'_>) {
        match event {
            Event::OfRun { event, run } => {
                for entry in RunEntry::of(event) {
                    self.write(&Entry::OfRun { entry, run });
                }
                for signal in Signal::of(event, &self.who.region) {
                    match signal {
                        Signal::Count(counter) => self.increment(&counter),
                        Signal::Measure(name, val) => self.measure(&name, val),
                    }
                }
            }
            Event::Warning { message } => self.write(&Entry::Warning { message }),
            Event::Refused { .. } | Event::LinesLost { .. } | Event::Recovered { .. } => {
                self.write(&Entry::Other { event });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::event::RunEvent;
    use crate::interrupt::{Interrupt, Notice};
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
        let (reason, notice) = (Interrupt::Cancelled, Notice::Status);
        let events = log.events().of(&run);
        events.emit(&RunEvent::Interrupted { reason, notice, max_run_time: None });
        events.emit(&RunEvent::ArtifactUploading { name: "public/a", attempt: 2 });
        events.emit(&RunEvent::LayerDone { layer: "9f", seconds: 1.5 });
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
        for expected in [
            r#""type":"cancel task","reason":"canceled","notice":"status""#,
            r#""type":"retrying artifact upload","name":"public/a","attemptNumber":2"#,
            r#""type":"Uploading public/a""#,
            r#""type":"task event","event":"layer-done","layer":"9f","seconds":1.5"#,
        ] {
            let of_run = r#""taskId":"fN1SbArXTPSVFNUvaOlinQ","runId":1"#;
            let (line, expected) = (lines.next().unwrap(), format!("{{{expected},{of_run},"));
            assert!(line.starts_with(&expected), "{line}");
        }
    }
}
