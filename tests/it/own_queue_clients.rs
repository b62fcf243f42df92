//! Taskcluster's official clients, as people have them, against `docker-worker standalone`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use serde_json::{Value, json};

use crate::support::{Nginx, OwnQueue, await_that, clients, clients_image, finish};

const LIMIT: Duration = Duration::from_secs(180);

/// The scripts that people could have written.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Each client with a script for it, where the queue is, with root's credentials.
fn drives(own: &OwnQueue) -> [(&'static str, Command); 2] {
    let clients = clients();
    let root = own.root();
    [("python3", "drive.py", "PYTHONPATH", "python"), ("node", "drive.js", "NODE_PATH", "node_modules")].map(
        |(program, name, variable, place)| {
            let mut command = own.internet.host.command(program);
            command.arg(script(name)).arg(&own.image).env(variable, clients.join(place));
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command.env("TASKCLUSTER_ROOT_URL", &own.root_url);
            command.env("TASKCLUSTER_CLIENT_ID", &root.client_id);
            command.env("TASKCLUSTER_ACCESS_TOKEN", &root.access_token);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            (name, command)
        },
    )
}

fn drive(own: &OwnQueue, change: impl Fn(&mut Command)) {
    for (name, mut command) in drives(own) {
        change(&mut command);
        let finished = finish(command.spawn().unwrap(), LIMIT);
        assert!(finished.status.success(), "{name}: {finished:?}");
    }
}

#[test]
fn official_clients_make_follow_read_cancel_and_rerun_tasks() {
    let own = OwnQueue::new();
    let standalone = own.start();
    drive(&own, |_| ());
    standalone.stop();
}

#[test]
fn official_clients_are_served_behind_a_reverse_proxy_with_tls() {
    let mut own = OwnQueue::new();
    let nginx = Nginx::before(&own.internet, own.worker.scratch(), &own.root_url);
    let standalone = own.start_with(&json!({}), &["--root-url", &nginx.url]);
    own.root_url.clone_from(&nginx.url);
    drive(&own, |command| {
        command.env("REQUESTS_CA_BUNDLE", &nginx.certificate).env("NODE_EXTRA_CA_CERTS", &nginx.certificate);
    });
    let origin = ["--include", "--header", "Origin: https://other.example.com"];
    let url = format!("{}/api/queue/v1/ping", nginx.url);
    let trust = ["--cacert", nginx.certificate.to_str().unwrap()];
    let asked = own.curl(&[&origin[..], &trust, &["--request", "OPTIONS", &url]].concat()).spawn().unwrap();
    let head = String::from_utf8_lossy(&finish(asked, LIMIT).stdout).to_lowercase();
    assert!(head.contains("access-control-allow-origin: *\r\n"), "{head}");
    standalone.stop();
}

#[test]
fn the_official_client_is_served_within_a_task() {
    let own = OwnQueue::with(|_| clients_image());
    let standalone = own.start();
    let program = fs::read_to_string(script("in_task.py")).unwrap();
    let mut definition = own.definition(&json!({
        "image": own.image, "command": ["python3", "-c", program], "maxRunTime": 120,
        "features": { "taskclusterProxy": true },
    }));
    definition["schedulerId"] = json!("people");
    definition["scopes"] = json!([
        "queue:create-task:lowest:local/nobody",
        "queue:create-task:project:none",
        "queue:scheduler-id:people",
        "index:insert-task:made.here",
    ]);
    let task_id = TaskId::random().unwrap();
    own.call(&format!("PUT queue/task/{task_id}"), &definition);
    let mut state = Value::Null;
    await_that("the task to end", || {
        state = own.status(&task_id)["state"].clone();
        state != "pending" && state != "running"
    });
    let log = own.log(&task_id);
    assert_eq!(state, "completed", "{log}");
    let child = log.lines().find_map(|line| line.trim_end().strip_prefix("made ")).unwrap();
    let child = own.call(&format!("GET queue/task/{child}"), &Value::Null);
    assert_eq!(child["taskGroupId"], json!(task_id), "{log}");
    standalone.stop();
}
