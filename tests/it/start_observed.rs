//! What an operator can see of a worker: the types of its log that readers of the original's know, what it counts and
//! measures, and what worker-metrics reads.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Reason, Verdict};
use serde_json::{Value, json};

use crate::support::{Fault, Site, Terms};

/// Before the names of what is counted and measured.
const PREFIX: &str = "proj-x.docker-worker.m5large.";

/// Types of entries.
const TYPES: &[&str] = &[
    "start",
    "aliveness check",
    "claimed task",
    "run task",
    "task start",
    "ensure image",
    "task run",
    "next claim",
    "reclaiming task",
    "reclaimed task",
    "error reclaiming task",
    "cancelling task",
    "cancel task",
    "task max runtime timeout",
    "error starting container",
    "task aborted",
    "error killing states",
    "task resolved",
    "cache volume miss",
    "cache volume created",
    "cache volume hit",
    "cache volume purge",
    "cache volume release",
    "cache volume removed",
    "Uploading public/a",
    "Error uploading public/a",
    "retrying artifact upload",
    "Uploading public/logs/live_backing.log",
    "reporting efficiency",
    "worker working",
    "worker idle",
    "uptime",
    "Terminating worker due to SIGTERM",
    "shutdown",
    "exit",
];

/// What is counted.
const COUNTERS: &[&str] = &[
    "workerStart",
    "spotTermination",
    "task.feature.localLiveLog",
    "task.feature.artifacts",
    "task.state.abort",
    "task.validationFailure",
    "task.runtimeExceeded",
    "task.image.pullFailed",
    "cache.hit",
    "cache.miss",
    "capacity.idle",
    "capacity.runningTasks",
    "capacity.total",
    "capacity-busy",
    "capacity-idle",
    "running-eq-0",
    "running-ge-1",
    "idle-eq-0",
    "idle-ge-1",
];

/// What is measured.
const MEASURES: &[&str] = &[
    "workerStart",
    "timeToFirstClaim",
    "task.runtime",
    "task.image.totalLoadTime",
    "task.dockerImage.downloadTime",
    "artifacts.global.size",
    "artifacts.global.uploadTime",
    "artifacts.region.here.throughput",
    "capacity.duration.lastTaskEvent",
    "total-efficiency",
    "memory.free",
    "memory.total",
    "memory.used",
    "uptime",
    "cpu.used",
    "hd.total",
    "hd.free",
    "hd.used",
];

/// All entries of a log that are JSON.
fn entries(log: &str) -> Vec<Value> {
    log.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn types(entries: &[Value]) -> BTreeSet<&str> {
    entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect()
}

fn of_type<'a>(entries: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    entries.iter().filter(move |entry| entry["type"] == kind)
}

/// Names of what is counted (`monitor.count`) or measured (`monitor.measure`).
fn names<'a>(entries: &'a [Value], kind: &str) -> BTreeSet<&'a str> {
    let of_kind = entries.iter().filter(|entry| entry["type"] == kind);
    of_kind.map(|entry| entry["key"].as_str().unwrap().strip_prefix(PREFIX).unwrap()).collect()
}

fn missing<'a>(expected: &[&'a str], found: &BTreeSet<&str>) -> Vec<&'a str> {
    expected.iter().filter(|name| !found.contains(*name)).copied().collect()
}

/// Creates a task that has the cache `c`.
fn with_cache(site: &Site, script: &str) -> TaskId {
    let mut payload = site.payload(script);
    payload["cache"] = json!({ "c": "/c" });
    payload["onExitStatus"] = json!({ "purgeCaches": [3] });
    payload["artifacts"] = json!({ "public/a": { "type": "file", "path": "/etc/passwd" } });
    let mut definition = site.deployment.definition(&payload);
    definition["scopes"] = json!(["docker-worker:cache:c"]);
    site.deployment.create_task(definition)
}

fn verdict(site: &Site, task: &TaskId) -> Option<Verdict> {
    site.deployment.await_resolved(task).runs[0].reason_resolved
}

fn resolved(site: &Site, payload: &Value) -> Option<Verdict> {
    verdict(site, &site.deployment.create(payload))
}

/// Tasks that end in every way that an operator wants to know of; gives the one that is not the tasks' own.
fn run_tasks(site: &Site) -> TaskId {
    let wire = &site.deployment.wire;
    // Its claim is prolonged while it runs, and its artifact is sent twice.
    wire.fail("PUT /storage/", Fault::Status(503), 1);
    let first = with_cache(site, "echo begun; while [ ! -e /c/end ]; do sleep 0.1; done");
    site.deployment.await_printed(&first, "begun");
    wire.await_asked("runs/0/reclaim", 1);
    let instance = site.worker.caches().remove(0);
    fs::write(site.worker.data().join("caches").join(instance).join("content/end"), "").unwrap();
    assert_eq!(verdict(site, &first), Some(Verdict::Completed), "{}", site.deployment.log(&first));
    assert_eq!(verdict(site, &with_cache(site, "exit 3")), Some(Verdict::Failed));
    let mut slow = site.payload("sleep 100");
    slow["maxRunTime"] = json!(1);
    assert_eq!(resolved(site, &slow), Some(Verdict::Failed));
    let mut nothing = site.payload("true");
    nothing["command"] = json!(["/none"]);
    assert_eq!(resolved(site, &nothing), Some(Verdict::Failed));
    let mut malformed = site.payload("true");
    malformed["maxRuntime"] = json!(1);
    assert_eq!(resolved(site, &malformed), Some(Verdict::Exception(Reason::MalformedPayload)));
    let mut without_image = site.payload("true");
    without_image["image"] = json!(format!("{}@sha256:{}", site.image, "0".repeat(64)));
    assert_eq!(resolved(site, &without_image), Some(Verdict::Failed));
    // Its log is not taken.
    wire.fail("PUT /storage/", Fault::Status(413), 1);
    assert_eq!(resolved(site, &site.payload("true")), Some(Verdict::Failed));
    let cancelled = site.deployment.create(&site.payload("echo begun; sleep 1000"));
    site.deployment.await_printed(&cancelled, "begun");
    site.deployment.cancel(&cancelled);
    assert_eq!(resolved(site, &site.payload("true")), Some(Verdict::Completed));
    let refused = site.deployment.create(&site.payload("sleep 1000"));
    site.deployment.await_running(&refused);
    wire.fail(&format!("{refused}/runs/0/reclaim"), Fault::Refusal(409), 1);
    assert_eq!(verdict(site, &refused), Some(Verdict::Exception(Reason::InternalError)));
    refused
}

#[test]
fn what_readers_of_the_originals_log_know_is_there() {
    // Claims are prolonged every second or two.
    let site = Site::with(Terms { claim_time: Duration::from_secs(120), ..Terms::default() });
    let worker = site.start(&json!({
        "workerNodeType": "m5.large",
        "region": "here",
        "task": { "reclaimDivisor": 100 },
        "alivenessCheckInterval": 1000,
        "metricsCollection": { "hostMetricsInterval": 1000 },
    }));
    let refused = run_tasks(&site);
    let ended = worker.stop();
    let entries = entries(&ended.log);
    assert_eq!(missing(TYPES, &types(&entries)), [""; 0], "{}", ended.log);
    let faults: Vec<&Value> = of_type(&entries, "task error").map(|entry| &entry["taskId"]).collect();
    assert_eq!(faults, [refused.as_str()], "nothing else was the worker's fault: {}", ended.log);
    let counted = names(&entries, "monitor.count");
    assert_eq!(missing(COUNTERS, &counted), [""; 0], "{counted:?}");
    assert!(counted.contains("task.error"), "{counted:?}");
    let measured = names(&entries, "monitor.measure");
    assert_eq!(missing(MEASURES, &measured), [""; 0], "{measured:?}");
    let first = |kind: &'static str| of_type(&entries, kind).next().unwrap();
    assert_eq!(first("aliveness check")["interval"], 1000);
    assert_eq!(first("task max runtime timeout")["maxRunTime"], 1);
    for kind in ["next claim", "reclaiming task", "reclaimed task", "error reclaiming task"] {
        let entry = first(kind);
        let has = |key: &str| !entry[key].is_null();
        assert!(has("taskId") && has("runId") && has("takenUntil"), "{entry}");
    }
}

#[test]
fn a_fault_of_the_workers_is_told_and_counted() {
    let site = Site::new();
    let worker = site.start(&json!({ "workerNodeType": "m5.large" }));
    // In place of the caches there is something else.
    let caches = site.worker.data().join("caches");
    fs::remove_dir_all(&caches).unwrap();
    fs::write(&caches, "").unwrap();
    let task = with_cache(&site, "true");
    assert_eq!(verdict(&site, &task), Some(Verdict::Exception(Reason::InternalError)));
    let ended = worker.stop();
    fs::remove_file(&caches).unwrap();
    let entries = entries(&ended.log);
    assert!(types(&entries).contains("task error"), "{}", ended.log);
    assert!(names(&entries, "monitor.count").contains("task.error"), "{}", ended.log);
}

#[test]
fn worker_metrics_are_written_from_the_machines_start_to_its_end() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let task = site.deployment.create(&site.payload("true"));
    site.deployment.await_resolved(&task);
    let log = worker.stop().log;
    let metrics: Vec<Value> = log
        .lines()
        .filter_map(|line| line.strip_prefix("WORKER_METRICS "))
        .map(|json| serde_json::from_str(json).unwrap())
        .collect();
    let types: Vec<&str> = metrics.iter().map(|metric| metric["eventType"].as_str().unwrap()).collect();
    let expected =
        ["instanceBoot", "workerReady", "taskQueue", "taskStart", "taskFinish", "instanceShutdown"];
    assert_eq!(types, expected, "{log}");
    let of_task: Vec<bool> = metrics.iter().map(|metric| metric["taskId"] == json!(task)).collect();
    assert_eq!(of_task, [false, false, true, true, true, false]);
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = text.split(' ').next().unwrap().parse().unwrap();
    let since_boot = metrics[1]["timestamp"].as_i64().unwrap() - metrics[0]["timestamp"].as_i64().unwrap();
    // Both times are whole seconds.
    assert!(since_boot > 0 && since_boot as f64 <= uptime + 1.0, "{since_boot} of {uptime}");
}
