//! A purged cache is out of reach at once, and its files go, also when the worker is killed while it removes them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Worker, busybox_image, finish, shell_payload};

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
        let deadline = Instant::now() + Duration::from_secs(60);
        while worker.trash().is_empty() {
            assert!(Instant::now() < deadline, "nothing comes into the trash");
            thread::yield_now();
        }
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
