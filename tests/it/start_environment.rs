//! What the environment of a worker means to it, and to the processes that it starts.

use std::fs;

use docker_worker::queue::RunState;
use serde_json::json;

use crate::support::{Site, Started};

#[test]
fn proxies_that_the_environment_names_are_not_used() {
    let site = Site::new();
    let mut command = site.worker.command(&["start", "--config", &site.config(&json!({ "metrics": {} }))]);
    for name in ["HTTP_PROXY", "https_proxy", "all_proxy"] {
        // Where nobody listens.
        command.env(name, "http://127.0.0.1:9");
    }
    let worker = Started::of(command.spawn().unwrap());
    let mut payload = site.payload("echo text > /file");
    payload["artifacts"] = json!({ "public/file": {"type": "file", "path": "/file"} });
    let task_id = site.deployment.create(&payload);
    assert_eq!(site.deployment.await_resolved(&task_id).state, RunState::Completed);
    let stderr = String::from_utf8(worker.stop().finished.stderr).unwrap();
    for name in ["HTTP_PROXY", "https_proxy", "all_proxy"] {
        assert_eq!(stderr.matches(&format!("{name} is not used")).count(), 1, "{stderr}");
    }
    // The worker begins anew without them, and says nothing twice.
    assert_eq!(stderr.matches("no effect in this version: metrics").count(), 1, "{stderr}");
}

#[test]
fn no_process_that_a_worker_starts_has_its_credentials() {
    let site = Site::new();
    let secret = format!("a secret of {}", site.worker.scratch().name());
    let mut command = site.worker.command(&["start", "--config", &site.config(&json!({}))]);
    for name in ["TASKCLUSTER_ACCESS_TOKEN", "TASKCLUSTER_CERTIFICATE", "DNS_SERVER_SECRET"] {
        command.env(name, &secret);
    }
    let child = command.spawn().unwrap();
    let own = child.id();
    let mut worker = Started::of(child);
    let task_id = site.deployment.create(&site.payload("sleep 1000"));
    worker.await_logged(r#""type":"task run""#);
    assert_eq!(site.worker.processes("docker-worker-r").len(), 1, "the monitor");
    assert_eq!(with_in_environment(&secret), [own]);
    site.deployment.cancel(&task_id);
    worker.stop();
}

/// The processes whose environment, as they began with it, holds a text.
fn with_in_environment(text: &str) -> Vec<u32> {
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let processes = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let holds = |process: &u32| {
        // It may have ended since.
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        environment.windows(text.len()).any(|window| window == text.as_bytes())
    };
    processes.filter(holds).collect()
}
