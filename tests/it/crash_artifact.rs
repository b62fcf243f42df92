//! S47 while artifacts are read out of a container's file system, when the container has ended already.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::crash::assert_no_groups;
use crate::support::{Worker, await_written, busybox_image, finish, shell_payload};

#[test]
fn s47_a_worker_killed_while_it_reads_an_artifact_leaves_nothing() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    // A megabyte, and a hole of two gigabytes after it: reading that takes longer than killing.
    let script = "dd if=/dev/zero of=/cache/big bs=1M count=1; truncate -s 2G /cache/big";
    let mut payload = shell_payload(&image, script);
    payload["cache"] = json!({ "read": "/cache" });
    payload["artifacts"] = json!({ "public/big": { "type": "file", "path": "/cache/big" } });
    let task = worker.fresh("task").with_extension("json");
    fs::write(&task, payload.to_string()).unwrap();
    for remedy in ["cleanup", "the next run"] {
        let (mut child, artifacts) = worker.start_run(&[task.to_str().unwrap()], &[]);
        await_written(&mut child, &artifacts.join("public"), 1_000_000);
        let containers = worker.containers();
        child.kill().unwrap();
        assert_eq!(finish(child, Duration::from_secs(30)).status.code(), None);
        if remedy == "cleanup" {
            assert!(worker.call(&["cleanup"]).status.success());
        } else {
            worker.run(&image, &["true"]).expect(0, remedy);
        }
        worker.assert_nothing_left(remedy);
        assert_eq!(fs::read_dir(artifacts.join("public")).unwrap().count(), 0, "{remedy}: no half artifact");
        assert_no_groups(&containers, remedy);
        // The cache was in use.
        assert!(worker.caches().is_empty() && worker.trash().is_empty(), "{remedy}");
        fs::remove_dir_all(artifacts).unwrap();
    }
}
