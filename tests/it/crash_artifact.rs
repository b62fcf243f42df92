//! S47 while artifacts are read out of a container's file system, when the container has ended already.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::crash::assert_no_groups;
use crate::support::{Worker, busybox_image, finish, shell_payload};

#[test]
fn s47_a_worker_killed_while_it_reads_an_artifact_leaves_nothing() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    // A hole of two gigabytes: reading it takes longer than killing.
    let mut payload = shell_payload(&image, "truncate -s 2G /cache/big");
    payload["cache"] = json!({ "read": "/cache" });
    payload["artifacts"] = json!({ "public/big": { "type": "file", "path": "/cache/big" } });
    let task = worker.fresh("task").with_extension("json");
    fs::write(&task, payload.to_string()).unwrap();
    for remedy in ["cleanup", "the next run"] {
        let (mut child, artifacts) = worker.start_run(&[task.to_str().unwrap()], &[]);
        let begun = Instant::now();
        while !fs::read_dir(artifacts.join("public")).is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.metadata().is_ok_and(|it| it.len() > 1_000_000)))
        }) {
            assert!(begun.elapsed() < Duration::from_secs(60), "no artifact is being read");
            std::thread::yield_now();
        }
        let containers = worker.containers();
        child.kill().unwrap();
        assert_eq!(finish(child, Duration::from_secs(30)).status.code(), None);
        if remedy == "cleanup" {
            assert!(worker.call(&["cleanup"]).status.success());
        } else {
            worker.run(&image, &["true"]).expect(0, remedy);
        }
        worker.assert_nothing_left(remedy);
        assert_no_groups(&containers, remedy);
        // The cache was in use.
        assert_eq!(fs::read_dir(worker.data().join("caches")).unwrap().count(), 1, "{remedy}");
        fs::remove_dir_all(artifacts).unwrap();
    }
}
