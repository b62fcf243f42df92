//! A worker that has nothing to do: how it says so, when it ends, and when it does not.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use docker_worker::queue::RunState;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{AnsweringServer, Site, Terms, Worker, finish};

const LIMIT: Duration = Duration::from_secs(60);

/// The types of entries that say what the worker does, in their order.
fn course(log: &str) -> Vec<String> {
    let entries = log.lines().filter(|line| line.starts_with('{'));
    let types = entries.map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone());
    let told = ["uptime", "worker idle", "worker working", "shutdown", "exit"];
    types.map(|kind| kind.as_str().unwrap().to_owned()).filter(|kind| told.contains(&kind.as_str())).collect()
}

/// A queue without tasks, which says so at once.
fn empty_queue() -> AnsweringServer {
    AnsweringServer::start(|_, _| (200, json!({"tasks": []})))
}

fn start(worker: &Worker, queue: &AnsweringServer, shutdown: &Value) -> Child {
    let config = json!({
        "rootUrl": format!("http://{}", queue.address),
        "taskcluster": {"clientId": "me", "accessToken": "sesame"},
        "provisionerId": "p",
        "workerType": "t",
        "workerGroup": "g",
        "workerId": "w",
        "capacityManagement": {"diskspaceThreshold": 0},
        "taskQueue": {"pollInterval": 100},
        "alivenessCheckInterval": 1000,
        "shutdown": shutdown,
    });
    let path = worker.fresh("config");
    std::fs::write(&path, config.to_string()).unwrap();
    worker.command(&["start", "--config", path.to_str().unwrap()]).spawn().unwrap()
}

#[test]
fn a_worker_without_tasks_ends_when_its_time_is_over() {
    let (worker, queue) = (Worker::new(), empty_queue());
    let ended = finish(start(&worker, &queue, &json!({"afterIdleSeconds": 1})), LIMIT);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let log = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(course(&log), ["uptime", "worker idle", "shutdown", "exit"], "{log}");
    queue.await_requests(1, |request| request.path.contains("/claim-work/"));
}

#[test]
fn a_worker_that_is_to_stay_stays() {
    for shutdown in [json!({"afterIdleSeconds": 0}), json!({"enabled": false, "afterIdleSeconds": 1})] {
        let (worker, queue) = (Worker::new(), empty_queue());
        let mut child = start(&worker, &queue, &shutdown);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        // These come a second apart: others would have ended after the second one.
        for part in ["worker idle", "aliveness check", "aliveness check", "aliveness check"] {
            while !seen.last().is_some_and(|line: &String| line.contains(part)) {
                seen.push(lines.next().unwrap_or_else(|| panic!("it has ended: {seen:#?}")));
            }
            seen.push(String::new());
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        seen.extend(lines);
        assert!(finish(child, LIMIT).status.success(), "{shutdown}");
        let log = seen.join("\n");
        assert_eq!(course(&log), ["uptime", "worker idle", "shutdown", "exit"], "{shutdown}: {log}");
        assert!(log.contains("Terminating worker due to SIGTERM"), "{shutdown}: {log}");
    }
}

#[test]
fn a_task_keeps_a_worker_from_ending() {
    let site = Site::with(Terms { long_poll: Duration::from_millis(100), ..Terms::default() });
    let worker = site.start(&json!({ "shutdown": { "afterIdleSeconds": 4 } }));
    site.deployment.wire.await_asked("claim-work", 2);
    // Longer than an idle worker stays.
    let task = site.deployment.create(&site.payload("sleep 6"));
    let ended = worker.ended();
    assert_eq!(site.deployment.status(&task).state, RunState::Completed, "{ended:?}");
    assert_eq!(ended.finished.status.code(), Some(0), "{ended:?}");
    let expected = ["uptime", "worker idle", "worker working", "uptime", "worker idle", "shutdown", "exit"];
    assert_eq!(course(&ended.log), expected, "{}", ended.log);
}
