//! A host of a test's own with a registry and `docker-worker standalone`, whose clients have what its credentials file says.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};

use super::caller::{Answered, Signer, call};
use super::fixtures::busybox_image;
use super::image::WrittenImage;
use super::internet::Internet;
use super::process::{await_that, finish, read_until};
use super::site::Started;
use super::watched_registry::WatchedRegistry;
use super::worker::{Worker, shell_payload, task_definition};

/// More than any task of the tests takes.
const LIMIT: Duration = Duration::from_secs(180);

/// Where the queue is, unless a test says otherwise.
const ROOT_URL: &str = "http://127.0.0.1:8239";

/// Everything that `standalone` needs.
pub struct OwnQueue {
    pub worker: Worker,
    pub internet: Internet,
    /// Where its clients look for it.
    pub root_url: String,
    /// What a payload calls an image with busybox in it.
    pub image: String,
    _registry: WatchedRegistry,
}

impl OwnQueue {
    pub fn new() -> OwnQueue {
        OwnQueue::with(|worker| worker.image(&busybox_image()))
    }

    /// The same with another image in the registry.
    pub fn with(image: impl FnOnce(&Worker) -> WrittenImage) -> OwnQueue {
        let internet = Internet::new();
        let worker = Worker::on(&internet);
        let registry = WatchedRegistry::serve_on(&internet, &image(&worker));
        let (image, root_url) = (registry.name.clone(), ROOT_URL.to_owned());
        OwnQueue { worker, internet, root_url, image, _registry: registry }
    }

    /// Starts it and waits until it is ready for tasks.
    pub fn start(&self) -> Started {
        self.start_with(&json!({}), &[])
    }

    /// The same with more in its configuration, and options.
    pub fn start_with(&self, more: &Value, options: &[&str]) -> Started {
        Started::of(self.spawn(more, options))
    }

    /// Starts it.
    pub fn spawn(&self, more: &Value, options: &[&str]) -> Child {
        let config = self.config(more);
        let arguments = [&["standalone", "--config", &config], options].concat();
        self.worker.command(&arguments).spawn().unwrap()
    }

    /// Writes a configuration; gives its path.
    pub fn config(&self, more: &Value) -> String {
        let (registry, _) = self.image.split_once('/').unwrap();
        let mut config = json!({
            "registries": { registry: { "plainHttp": true, "privateAddresses": true } },
            "taskStatusPollSeconds": 1,
            "capacityManagement": { "diskspaceThreshold": 0 },
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = self.worker.fresh("config");
        fs::write(&path, config.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The file that its clients have their credentials from.
    pub fn credentials_file(&self) -> PathBuf {
        self.worker.data().join("credentials.json")
    }

    /// Who calls.
    pub fn root(&self) -> Signer {
        let file: Value = serde_json::from_slice(&fs::read(self.credentials_file()).unwrap()).unwrap();
        let text = |key: &str| file[key].as_str().unwrap().to_owned();
        Signer { client_id: text("clientId"), access_token: text("accessToken"), certificate: None }
    }

    /// Makes a call of `METHOD service/path` as `signer`, or as nobody in particular.
    pub fn call_as(&self, signer: Option<&Signer>, request: &str, payload: &Value) -> Answered {
        let root_url = &self.root_url;
        self.internet.host.within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(call(root_url, signer, request, payload))
        })
    }

    /// Makes a call that has to succeed; gives what is answered.
    pub fn call(&self, request: &str, payload: &Value) -> Value {
        let answered = self.call_as(Some(&self.root()), request, payload);
        assert!((200..300).contains(&answered.status), "{request}: {answered:?}");
        answered.body
    }

    /// A task definition around a payload.
    pub fn definition(&self, payload: &Value) -> Value {
        task_definition("local/docker-worker", Timestamp::now(), payload)
    }

    /// Makes a task.
    pub fn create(&self, payload: &Value) -> TaskId {
        let task_id = TaskId::random().unwrap();
        self.call(&format!("PUT queue/task/{task_id}"), &self.definition(payload));
        task_id
    }

    /// Makes a task that runs a shell script.
    pub fn create_script(&self, script: &str) -> TaskId {
        self.create(&shell_payload(&self.image, script))
    }

    /// The status of a task.
    pub fn status(&self, task_id: &TaskId) -> Value {
        self.call(&format!("GET queue/task/{task_id}/status"), &Value::Null)["status"].clone()
    }

    /// Waits until a task is in that state; gives its status.
    pub fn await_state(&self, task_id: &TaskId, state: &str) -> Value {
        let mut status = Value::Null;
        await_that(&format!("task {task_id} to be {state}"), || {
            status = self.status(task_id);
            status["state"] == state
        });
        status
    }

    /// Waits until a task is resolved; gives its status.
    pub fn await_resolved(&self, task_id: &TaskId) -> Value {
        let mut status = Value::Null;
        await_that(&format!("task {task_id} to be resolved"), || {
            status = self.status(task_id);
            ["completed", "failed", "exception"].iter().any(|state| status["state"] == *state)
        });
        status
    }

    /// How the runs of a task have ended.
    pub fn ends(status: &Value) -> Vec<&str> {
        let runs = status["runs"].as_array().unwrap().iter();
        runs.map(|run| run["reasonResolved"].as_str().unwrap_or_default()).collect()
    }

    /// What curl gets of an artifact, decoded.
    pub fn artifact(&self, task_id: &TaskId, name: &str) -> String {
        let url = self.artifact_url(task_id, name);
        let child = self.curl(&["--fail", "--location", "--compressed", &url]).spawn().unwrap();
        let finished = finish(child, LIMIT);
        assert!(finished.status.success(), "{url}: {finished:?}");
        String::from_utf8_lossy(&finished.stdout).into_owned()
    }

    /// Where an artifact of a task's last run can be read, or that of a run: `runs/0/artifacts/NAME`.
    pub fn artifact_url(&self, task_id: &TaskId, name: &str) -> String {
        let (run, name) = match name.split_once("/artifacts/") {
            Some((run, name)) => (format!("{run}/"), name),
            None => (String::new(), name),
        };
        format!("{}/api/queue/v1/task/{task_id}/{run}artifacts/{}", self.root_url, name.replace('/', "%2F"))
    }

    /// A task's log.
    pub fn log(&self, task_id: &TaskId) -> String {
        self.artifact(task_id, "public/logs/live.log")
    }

    /// Waits until a running task has printed `text`, by its live log.
    pub fn await_printed(&self, task_id: &TaskId, text: &str) {
        self.await_state(task_id, "running");
        let url = self.artifact_url(task_id, "public/logs/live.log");
        // The request that makes it may still be under way.
        let retry = ["--retry", "60", "--retry-all-errors", "--retry-delay", "1"];
        let options = [&["--fail", "--location", "--no-buffer"][..], &retry, &[&url]].concat();
        let mut curl = self.curl(&options).spawn().unwrap();
        let rest = read_until(&mut curl, text);
        curl.kill().unwrap();
        curl.wait().unwrap();
        rest.join().unwrap();
    }

    /// curl where the queue is.
    pub fn curl(&self, options: &[&str]) -> std::process::Command {
        let mut command = self.internet.host.command("curl");
        command.args(["--silent", "--show-error"]).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}
