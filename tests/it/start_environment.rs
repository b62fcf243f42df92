//! What the environment of a worker means to it, and to the processes that it starts.

use std::fs;
use std::thread;
use std::time::Duration;

use docker_worker::queue::RunState;
use serde_json::json;

use crate::support::{Site, Started, Worker, finish, tool};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn proxies_that_the_environment_names_are_used_for_registries_and_nothing_else() {
    let site = Site::new();
    // Nobody has that name: what is asked for by it comes by way of the proxy.
    let (proxy, image) = site.image.split_once('/').unwrap();
    let registry = "registry.invalid:5000";
    let settings = json!({ "metrics": {}, "registries": { registry: { "plainHttp": true } } });
    let mut command = site.worker.command(&["start", "--config", &site.config(&settings)]);
    command.env("HTTP_PROXY", format!("http://me:sesame@{proxy}"));
    for name in ["https_proxy", "all_proxy"] {
        // Where nobody listens.
        command.env(name, "http://127.0.0.1:9");
    }
    let child = command.spawn().unwrap();
    let environment = format!("/proc/{}/environ", child.id());
    let worker = Started::of(child);
    let mut payload = site.payload("echo text > /file");
    payload["image"] = json!(format!("{registry}/{image}"));
    payload["artifacts"] = json!({ "public/file": {"type": "file", "path": "/file"} });
    let task_id = site.deployment.create(&payload);
    assert_eq!(site.deployment.await_resolved(&task_id).state, RunState::Completed);
    assert!(!site.registry.asked().is_empty());
    let environment = fs::read(environment).unwrap();
    assert!(!environment.is_empty() && !holds(&environment, "sesame"));
    let ended = worker.stop();
    let stderr = String::from_utf8(ended.finished.stderr).unwrap();
    for name in ["HTTP_PROXY", "https_proxy", "all_proxy"] {
        assert_eq!(stderr.matches(&format!("{name} is used for registries")).count(), 1, "{stderr}");
    }
    assert!(!stderr.contains("sesame") && !ended.log.contains("sesame"), "{stderr}");
    // The worker begins anew without them, and says nothing twice.
    assert_eq!(stderr.matches("no effect in this version: metrics").count(), 1, "{stderr}");
}

#[test]
fn no_process_has_the_workers_credentials_in_its_environment() {
    let site = Site::new();
    let secret = format!("a secret of {}", site.worker.scratch().name());
    let own = &site.deployment.access()["taskcluster"];
    let token = own["accessToken"].as_str().unwrap();
    let mut command =
        site.worker.command(&["start", "--config", &site.config(&json!({ "taskcluster": {} }))]);
    command.env("TASKCLUSTER_CLIENT_ID", own["clientId"].as_str().unwrap());
    command.env("TASKCLUSTER_ACCESS_TOKEN", token).env("DNS_SERVER_SECRET", &secret);
    let child = command.spawn().unwrap();
    let process = format!("/proc/{}", child.id());
    let mut worker = Started::of(child);
    let task_id = site.deployment.create(&site.payload("sleep 1000"));
    worker.await_logged(r#""type":"task run""#);
    assert_eq!(site.worker.processes("docker-worker-r").len(), 1, "the monitor");
    assert_eq!(with_in_environment(&secret), Vec::<u32>::new());
    let environment = fs::read(format!("{process}/environ")).unwrap();
    assert!(!environment.is_empty() && !holds(&environment, token), "{process}");
    let open =
        fs::read_dir(format!("{process}/fd")).unwrap().map(|entry| fs::read_link(entry.unwrap().path()));
    let open: Vec<_> = open.filter_map(Result::ok).collect();
    assert!(!open.iter().any(|path| path.to_string_lossy().contains("secrets")), "{open:?}");
    site.deployment.cancel(&task_id);
    worker.stop();
}

#[test]
fn a_configuration_may_come_out_of_a_pipe_whatever_the_environment_has() {
    let site = Site::new();
    let own = &site.deployment.access()["taskcluster"];
    let text = fs::read(site.config(&json!({ "taskcluster": {} }))).unwrap();
    let pipe = site.worker.fresh("pipe");
    tool("mkfifo", &[pipe.to_str().unwrap()]);
    let writing = thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, text).unwrap()
    });
    let mut command = site.worker.command(&["start", "--config", pipe.to_str().unwrap()]);
    command.env("TASKCLUSTER_CLIENT_ID", own["clientId"].as_str().unwrap());
    command.env("TASKCLUSTER_ACCESS_TOKEN", own["accessToken"].as_str().unwrap());
    let worker = Started::of(command.spawn().unwrap());
    writing.join().unwrap();
    let task_id = site.deployment.create(&site.payload("true"));
    assert_eq!(site.deployment.await_resolved(&task_id).state, RunState::Completed);
    worker.stop();
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_once_whatever_the_environment_has() {
    let worker = Worker::new();
    let path = worker.fresh("config");
    fs::write(&path, "liveLogs: none\n").unwrap();
    let mut command = worker.command(&["start", "--config", path.to_str().unwrap()]);
    command.env("TASKCLUSTER_ACCESS_TOKEN", "sesame");
    let refused = finish(command.spawn().unwrap(), LIMIT);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(stderr.lines().count() == 1 && stderr.contains("liveLogs"), "{refused:?}");
}

/// The processes whose environment, as they began with it, holds a text.
fn with_in_environment(text: &str) -> Vec<u32> {
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let processes = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    // It may have ended since.
    let environment = |process: &u32| fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    processes.filter(|process| holds(&environment(process), text)).collect()
}

fn holds(environment: &[u8], text: &str) -> bool {
    environment.windows(text.len()).any(|window| window == text.as_bytes())
}
