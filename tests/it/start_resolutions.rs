//! Every way for a deployment's task to end: its resolution, and what its log says before and after all the rest.

use std::time::Duration;

use docker_worker::queue::RunState;
use docker_worker::queue::task_id::TaskId;
use docker_worker::timestamp::Timestamp;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Site, SmallDisk};

/// A definition that is tried once only, with a cache that it may have.
fn definition(site: &Site, script: &str, more: &Value) -> Value {
    let mut payload = site.payload(script);
    payload["cache"] = json!({ "builds": "/builds" });
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut definition = site.deployment.definition(&payload);
    definition["retries"] = json!(0);
    definition["scopes"] = json!(["docker-worker:cache:builds"]);
    definition
}

/// A worker with all that a header tells.
fn settings() -> Value {
    json!({ "workerNodeType": "m5.large", "publicIp": "203.0.113.7" })
}

/// A task's log without its times, which change.
fn log(site: &Site, task: &TaskId) -> String {
    let log = site.deployment.log(task);
    let lines = log.split_inclusive('\n').map(|line| match line.split_once("Z] ") {
        Some((time, text)) if time.starts_with("[taskcluster 2") => format!("[taskcluster] {text}"),
        _ => line.to_owned(),
    });
    lines.collect()
}

/// Fails the test unless the task ended so and its log begins and ends as the original's.
fn check(site: &Site, task: &TaskId, (reason, exit_code): (&str, i32), said: &[&str]) {
    let status = site.deployment.await_resolved(task);
    let log = log(site, task);
    assert_eq!(json!(status.runs[0])["reasonResolved"], reason, "{log}");
    let header = format!(
        "[taskcluster] Task ID: {task}\n\
         [taskcluster] Worker ID: worker\n\
         [taskcluster] Worker Group: tests\n\
         [taskcluster] Worker Node Type: m5.large\n\
         [taskcluster] Worker Pool: proj-x/docker-worker\n\
         [taskcluster] Worker Version: {}\n\
         [taskcluster] Public IP: 203.0.113.7\n\
         [taskcluster] Hostname: {}\n\
         {}\r\n",
        env!("CARGO_PKG_VERSION"),
        rustix::system::uname().nodename().to_str().unwrap(),
        // Nobody knows what a payload would have that is refused.
        if reason == "malformed-payload" { "" } else { "[taskcluster] using cache \"builds\" -> /builds\n" },
    );
    assert!(log.starts_with(&header), "{log}");
    let mut rest = &log[header.len()..];
    for text in said {
        let at = rest.find(text).unwrap_or_else(|| panic!("{reason}: {text:?} is not in the rest: {log}"));
        rest = &rest[at + text.len()..];
    }
    let last = log.lines().last().unwrap();
    let result = if exit_code == 0 { "Successful" } else { "Unsuccessful" };
    let footer = format!("[taskcluster] {result} task run with exit code: {exit_code} completed in ");
    let seconds = last.strip_prefix(&footer).and_then(|rest| rest.strip_suffix(" seconds"));
    assert!(seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok()), "{reason}: {footer:?}: {log}");
}

const STARTING: &str = "[taskcluster] === Task Starting ===\n";
const FINISHED: &str = "[taskcluster] === Task Finished ===\n";

#[test]
fn what_a_task_does_decides() {
    let site = Site::new();
    let worker = site.start(&settings());
    for (script, more, end, said) in [
        ("echo said", json!({}), ("completed", 0), &[STARTING, "said\r\n", FINISHED][..]),
        ("echo said; exit 7", json!({}), ("failed", 7), &[STARTING, "said\r\n", FINISHED]),
        (
            "exit 7",
            json!({ "onExitStatus": { "retry": [7] } }),
            ("intermittent-task", 7),
            &[STARTING, FINISHED],
        ),
        (
            "sleep 100",
            json!({ "maxRunTime": 1 }),
            ("failed", -1),
            &[
                STARTING,
                "\n[taskcluster:error] Task timeout after 1 seconds. Force killing container.\n",
                FINISHED,
            ],
        ),
        (
            "true",
            json!({ "command": ["/none"] }),
            ("failed", -1),
            &[STARTING, "\n[taskcluster:error] Failure to properly start execution environment. ", FINISHED],
        ),
        (
            "true",
            json!({ "image": format!("{}@sha256:{}", site.image.strip_suffix(":1").unwrap(), "0".repeat(64)) }),
            ("failed", -1),
            &["\n[taskcluster:error] Pulling docker image has failed.\n\n[taskcluster:error] Error: "],
        ),
        (
            "true",
            json!({ "maxRunTime": 0 }),
            ("malformed-payload", -1),
            &["\n[taskcluster:error] `task.payload` format is invalid json schema errors:\n [\n"],
        ),
    ] {
        let task = site.deployment.create_task(definition(&site, script, &more));
        check(&site, &task, end, said);
    }
    worker.stop();
}

#[test]
fn what_others_do_to_a_task_decides() {
    let site = Site::new();
    let aborted = "\n[taskcluster:error] Task has been aborted prematurely. Reason: ";
    let worker = site.start(&settings());
    let begin = |definition: Value| {
        let task = site.deployment.create_task(definition);
        site.deployment.await_printed(&task, "begun");
        task
    };
    let endless = || definition(&site, "echo begun; sleep 1000", &json!({}));

    let task = begin(endless());
    site.deployment.cancel(&task);
    let said = "\n[taskcluster:error] Task was canceled by another entity. ";
    // The next one is claimed when the log is there.
    let mut definition = endless();
    definition["deadline"] = json!(Timestamp::now().plus(Duration::from_secs(15)));
    let late = begin(definition);
    check(&site, &task, ("canceled", -1), &["begun", said, FINISHED]);

    site.deployment.await_resolved(&late);
    let task = begin(endless());
    check(&site, &late, ("deadline-exceeded", -1), &["begun", aborted, "deadline-exceeded", FINISHED]);

    let [monitor] = site.worker.processes("docker-worker-r")[..] else { panic!("not one monitor") };
    kill_process(monitor, Signal::KILL).unwrap();
    let lost = "\n[taskcluster:error] The worker lost control of the task's container: ";
    check(&site, &task, ("internal-error", -1), &["begun", lost, FINISHED]);

    let task = begin(endless());
    worker.stop();
    check(&site, &task, ("worker-shutdown", -1), &["begun", aborted, "worker-shutdown", FINISHED]);
}

#[test]
fn a_disk_that_is_full_is_no_fault_of_the_task() {
    let site = Site::new();
    let disk = SmallDisk::mount(&site.worker.data(), "80m");
    let worker = site.start(&settings());
    // Less is free then than is kept for logs.
    let script = "dd if=/dev/zero of=/big bs=1M count=20; sleep 60";
    let task = site.deployment.create_task(definition(&site, script, &json!({})));
    let said = "\n[taskcluster:error] The task was ended because the worker's disk is full: ";
    check(&site, &task, ("resource-unavailable", -1), &[STARTING, said, FINISHED]);
    worker.stop();
    drop(disk);
}

#[test]
fn a_task_sees_what_the_configuration_says_of_its_worker() {
    let site = Site::new();
    let location = r#"{"cloud":"google","region":"europe"}"#;
    let mut config = settings();
    let more = json!({ "workerLocation": location, "maxTaskRunTime": 120 });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let worker = site.start(&config);
    let names =
        ["PUBLIC_IP", "WORKER_LOCATION", "INSTANCE_TYPE", "WORKER_GROUP", "WORKER_TYPE", "WORKER_POOL"];
    let script: String = names.iter().map(|name| format!("echo \"$TASKCLUSTER_{name}\"; ")).collect();
    let task = site.deployment.create_task(definition(&site, &script, &json!({})));
    let values = ["203.0.113.7", location, "m5.large", "tests", "docker-worker", "proj-x/docker-worker"];
    let printed: String = values.iter().map(|value| format!("{value}\r\n")).collect();
    check(&site, &task, ("completed", 0), &[STARTING, &printed, FINISHED]);
    let task = site.deployment.create_task(definition(&site, "true", &json!({ "maxRunTime": 121 })));
    check(&site, &task, ("malformed-payload", -1), &["/maxRunTime: ", "120"]);
    assert_eq!(site.deployment.status(&task).state, RunState::Exception);
    worker.stop();
}
