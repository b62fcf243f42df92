//! A directory of a hundred thousand files.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{OwnQueue, shell_payload};

const FILES: usize = 100_000;

/// The worker's memory, in a build for tests.
const MOST_MEMORY: u64 = 112 << 20;

#[test]
fn a_hundred_thousand_files_of_one_directory_are_as_many_artifacts() {
    let own = OwnQueue::new();
    let standalone = own.start();
    // In a hundred directories, each file with its own number in it.
    let script = format!(
        "for d in $(seq 0 99); do mkdir -p /d/$d; done; seq 0 {} | awk '{{ f = \"/d/\" $1 % 100 \"/\" $1; print $1 > f; close(f) }}'",
        FILES - 1
    );
    let mut payload = shell_payload(&own.image, &script);
    payload["maxRunTime"] = json!(600);
    payload["artifacts"] = json!({ "public/d": { "type": "directory", "path": "/d" } });
    let task_id = own.create(&payload);
    let status = loop {
        let status = own.status(&task_id);
        if !["pending", "running"].iter().any(|state| status["state"] == *state) {
            break status;
        }
        std::thread::park_timeout(Duration::from_secs(1));
    };
    assert_eq!(status["state"], "completed", "{status}");
    let (mut names, mut next) = (BTreeSet::new(), String::new());
    loop {
        let asked = format!("GET queue/task/{task_id}/runs/0/artifacts?limit=1000{next}");
        let page = own.call(&asked, &Value::Null);
        let list = page["artifacts"].as_array().unwrap().iter();
        names.extend(list.map(|it| it["name"].as_str().unwrap().to_owned()));
        let Some(token) = page["continuationToken"].as_str() else { break };
        next = format!("&continuationToken={token}");
    }
    let expected: BTreeSet<String> =
        (0..FILES).map(|number| format!("public/d/{}/{number}", number % 100)).collect();
    let missing = expected.difference(&names).count();
    assert_eq!((missing, names.len() - FILES), (0, 2), "beside the files there are the two names of the log");
    for number in [0, 1, 777, FILES - 1] {
        let name = format!("public/d/{}/{number}", number % 100);
        assert_eq!(own.artifact(&task_id, &name), format!("{number}\n"));
    }
    let memory = standalone.most_memory();
    println!("{} MiB at most", memory >> 20);
    assert!(memory < MOST_MEMORY, "{} MiB", memory >> 20);
    // It does not stop before the task's own files are gone, which a disk may be slow at.
    let runs = own.worker.data().join("runs");
    let deadline = Instant::now() + Duration::from_secs(900);
    // What is not a run's is the directory's own mark.
    let is_run = |name: std::ffi::OsString| name != ".docker-worker";
    while std::fs::read_dir(&runs).unwrap().any(|entry| is_run(entry.unwrap().file_name())) {
        assert!(Instant::now() < deadline, "the task's files are still there");
        std::thread::park_timeout(Duration::from_secs(1));
    }
    standalone.stop();
}
