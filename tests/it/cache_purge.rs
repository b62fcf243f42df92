//! A purged cache is out of reach at once, and its files go, also when the worker is killed while it removes them.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use docker_worker::queue::RunState;

use crate::support::{Fault, POOL, Site, Worker, await_that, busybox_image, call, finish, shell_payload};

/// A payload that fills the cache `x` with so many files and ends with a status for which it is purged.
fn purging(image: &str, files: usize) -> Value {
    let script = format!("cd /x && seq 1 {files} | xargs touch && exit 3");
    let mut payload = shell_payload(image, &script);
    payload["cache"] = json!({ "x": "/x" });
    payload["onExitStatus"] = json!({ "purgeCaches": [3] });
    payload
}

#[test]
fn a_cache_is_purged_for_an_exit_status_that_the_payload_names() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    worker.task(&purging(&image, 10)).expect(3, "purging");
    assert!(worker.caches().is_empty() && worker.trash().is_empty());
}

#[test]
fn s47_a_worker_killed_while_it_removes_a_purged_cache_leaves_it_to_nobody() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let task = worker.fresh("task").with_extension("json");
    fs::write(&task, purging(&image, 40_000).to_string()).unwrap();
    let killed_in_time = (0..5).any(|_| {
        let (mut child, _) = worker.start_run(&[task.to_str().unwrap()], &[]);
        await_that("something in the trash", || !worker.trash().is_empty());
        child.kill().unwrap();
        finish(child, Duration::from_secs(30));
        assert!(worker.caches().is_empty(), "no task can get it");
        !worker.trash().is_empty()
    });
    assert!(killed_in_time, "the worker was faster than its killer");
    assert!(worker.call(&["cleanup"]).status.success());
    assert!(worker.trash().is_empty());
    let mut payload = shell_payload(&image, "ls /x");
    payload["cache"] = json!({ "x": "/x" });
    assert_eq!(worker.task(&payload).expect(0, "the next task").output(), "");
}

/// A task of a deployment that counts in the cache `x` how many have had it.
fn counting(site: &Site) -> Value {
    let mut definition = site.deployment.definition(&site.payload("echo >>/x/file; wc -l </x/file"));
    definition["scopes"] = json!(["docker-worker:cache:x"]);
    definition["payload"]["cache"] = json!({ "x": "/x" });
    definition
}

#[test]
fn a_cache_that_somebody_asks_to_purge_is_empty_for_the_next_task() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let count = || {
        let task_id = site.deployment.create_task(counting(&site));
        assert_eq!(site.deployment.await_resolved(&task_id).state, RunState::Completed);
        let log = site.deployment.log(&task_id);
        log.lines().find_map(|line| line.trim().parse::<u32>().ok())
    };
    assert_eq!((count(), count()), (Some(1), Some(2)));
    let (root_url, signer) = (site.deployment.root_url.clone(), site.deployment.signer("root"));
    let purge = format!("POST purge-cache/purge-cache/{}", POOL.replace('/', "%2F"));
    let asked = site
        .deployment
        .within(async move { call(&root_url, Some(&signer), &purge, &json!({ "cacheName": "x" })).await });
    assert_eq!(asked.status, 204, "{asked:?}");
    assert_eq!(count(), Some(1));
    assert!(worker.stop().log.contains("cache volume removed"));
}

#[test]
fn a_worker_that_may_not_ask_what_is_to_be_purged_says_so_once() {
    let site = Site::new();
    site.deployment.wire.fail("/purge-cache/", Fault::Status(403), usize::MAX);
    let worker = site.start(&json!({}));
    for _ in 0..3 {
        let task_id = site.deployment.create_task(counting(&site));
        assert_eq!(site.deployment.await_resolved(&task_id).state, RunState::Completed);
    }
    // Before the first task there is no cache to ask for.
    site.deployment.wire.await_asked("/purge-cache/", 2);
    let log = worker.stop().log;
    assert_eq!(log.matches("the purge requests of").count(), 1, "{log}");
}
