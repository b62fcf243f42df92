//! The process that serves all tasks of a worker: from its start to its end, and from one to the next.

use std::path::PathBuf;

use docker_worker::queue::task_id::TaskId;
use rustix::process::{Signal, kill_process};
use serde_json::json;

use super::{AWAIT_RELEASE, completed, definition, left_alone, of, proxy_of, waiting_definition};
use crate::support::{Fault, Site, await_end, groups_named};

#[test]
fn a_proxy_that_is_killed_comes_back_and_a_request_finds_it() {
    let site = Site::new();
    let wire = &site.deployment.wire;
    let mut worker = site.start(&json!({}));
    let other = left_alone(&site);
    let script = format!(
        r#"get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}; get /api/queue/v1/ping; echo second
        until wget -q -O /x/third $TASKCLUSTER_PROXY_URL/api/queue/v1/task/{other}; do echo once more; sleep 0.1; done"#
    );
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    // Between two requests: nobody notices.
    let killed = proxy_of(&site.worker);
    kill_process(killed, Signal::KILL).unwrap();
    await_end(killed);
    // In the midst of one: that is lost, and asked again.
    let third = format!("GET /api/queue/v1/task/{other}");
    wire.fail(&third, Fault::Held, 1);
    site.release();
    wire.await_asked(&third, 1);
    let next = proxy_of(&site.worker);
    assert_ne!(next, killed);
    kill_process(next, Signal::KILL).unwrap();
    let log = completed(&site, &task);
    wire.let_go();
    for (expected, times) in [("{\"alive\":true", 2), ("second", 1), ("once more", 1)] {
        let lines = log.lines().filter(|line| line.starts_with(expected));
        assert_eq!(lines.count(), times, "{expected}: {log}");
    }
    worker.await_logged("the proxy for tasks has ended");
    worker.stop();
}

#[test]
fn a_proxy_that_does_not_answer_is_replaced_and_all_tasks_have_the_new_one() {
    let site = Site::new();
    let mut worker = site.start(&json!({ "capacity": 2 }));
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}; get /api/queue/v1/ping");
    let waiting = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&waiting, "first");
    let silent = proxy_of(&site.worker);
    kill_process(silent, Signal::STOP).unwrap();
    let next = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
    assert!(completed(&site, &next).contains("\"alive\":true"));
    assert_ne!(proxy_of(&site.worker), silent);
    site.release();
    assert_eq!(completed(&site, &waiting).matches("\"alive\":true").count(), 2);
    worker.await_logged("it does not answer");
    worker.stop();
}

#[test]
fn of_a_worker_that_is_killed_no_proxy_stays_and_the_next_run_has_one_again() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let script = "get /api/queue/v1/ping; echo run $RUN_ID; [ $RUN_ID != 0 ] || sleep 1000";
    let task = site.deployment.create_task(definition(&site, script, &[]));
    site.deployment.await_printed(&task, "run 0");
    let (proxy, containers) = (proxy_of(&site.worker), site.worker.containers());
    assert_eq!(containers.len(), 2);
    worker.signal(Signal::KILL);
    worker.ended();
    await_end(proxy);
    let worker = site.start(&json!({}));
    let log = completed(&site, &task);
    assert!(log.contains("\"alive\":true"), "{log}");
    assert_eq!(groups_named(&containers), Vec::<PathBuf>::new());
    worker.stop();
}

#[test]
fn a_proxy_ends_with_its_worker_and_leaves_nothing() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let task = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
    completed(&site, &task);
    // It is there for the next task.
    let (proxy, containers) = (proxy_of(&site.worker), site.worker.containers());
    worker.stop();
    assert_eq!(of(proxy, "cmdline"), "");
    assert_eq!(groups_named(&containers), Vec::<PathBuf>::new());
    site.worker.assert_nothing_left("after the worker's end");
}

#[test]
fn many_tasks_one_after_the_other_are_served_by_one_process() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 4 }));
    let script = "for _ in 1 2 3; do get /api/queue/v1/ping; done";
    let tasks: Vec<TaskId> =
        (0..8).map(|_| site.deployment.create_task(definition(&site, script, &[]))).collect();
    let mut proxy = None;
    for task in &tasks {
        let log = completed(&site, task);
        assert_eq!(log.matches("\"alive\":true").count(), 3, "{log}");
        let now = proxy_of(&site.worker);
        assert_eq!(*proxy.get_or_insert(now), now);
    }
    worker.stop();
}
