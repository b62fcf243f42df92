//! A disk that fills while a deployment's tasks run on it.

use docker_worker::queue::RunState;
use serde_json::json;

use crate::support::{Site, SmallDisk, busybox_image, file, shell_payload};

/// Waits in a task until more than so many megabytes are free.
const AWAIT_FREE: &str =
    "await_free() { until [ $(df -m / | awk 'NR == 2 { print $4 }') -gt $1 ]; do sleep 0.1; done; }";

#[test]
fn what_nobody_uses_makes_room_for_what_a_task_writes_while_every_slot_is_busy() {
    let site = Site::new();
    let disk = SmallDisk::mount(&site.worker.data(), "400m");
    let large = site.worker.image(&busybox_image().layer(&[file("large", vec![b'x'; 150 << 20])])).source;
    let config = site.config(&json!({}));
    site.worker
        .task_with(&shell_payload(&large, "true"), &["--config", &config])
        .expect(0, "the image is there");
    let worker = site.start(&json!({ "capacity": 2 }));
    let script = "dd if=/dev/zero of=/first bs=1M count=150 && await_free 150 && \
        dd if=/dev/zero of=/second bs=1M count=140 && echo all is written";
    let writer = site.deployment.create(&site.payload(&format!("{AWAIT_FREE}; {script}")));
    let neighbour =
        site.deployment.create(&site.payload(&format!("{AWAIT_FREE}; sleep 1; await_free 1; echo done")));
    for (task, text) in [(&writer, "all is written"), (&neighbour, "done")] {
        let status = site.deployment.await_resolved(task);
        let log = site.deployment.log(task);
        assert_eq!(status.state, RunState::Completed, "{log}");
        assert!(log.contains(text), "{log}");
    }
    let log = worker.stop().log;
    assert_eq!(log.matches(r#""type":"image removed""#).count(), 1, "{log}");
    drop(disk);
}

#[test]
fn of_tasks_on_a_full_disk_the_one_ends_that_has_most_on_it() {
    let site = Site::new();
    let disk = SmallDisk::mount(&site.worker.data(), "300m");
    let worker = site.start(&json!({ "capacity": 2 }));
    let neighbour = site.create_waiting("dd if=/dev/zero of=/some bs=1M count=20");
    // Its log is too long to be compressed in memory, and on the disk there is no room for that.
    let script = "seq 300000; dd if=/dev/zero of=/all bs=1M; sleep 600";
    let hoarder = site.deployment.create(&site.payload(script));
    let status = site.deployment.await_resolved(&hoarder);
    let log = site.deployment.log(&hoarder);
    assert_eq!(status.state, RunState::Exception, "{log}");
    assert_eq!(json!(status.runs[0])["reasonResolved"], "resource-unavailable", "{log}");
    assert!(log.contains("The task was ended because the worker's disk is full"), "{log}");
    assert!(log.contains("\r\n300000\r\n"), "{log}");
    assert!(site.let_go(&neighbour).contains("done"));
    worker.stop();
    drop(disk);
}
