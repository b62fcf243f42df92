//! A deployment in this process, and workers of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use docker_worker::event::Events;
use docker_worker::queue::definition::TaskDefinition;
use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Credentials, EmbeddedQueue, RunState, RunStatus};
use docker_worker::standalone::{LONG_POLL, Settings, Standalone};
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::caller::Signer;

const PROVISIONER: &str = "benches";
const WORKER_TYPE: &str = "worker";
const TOKEN: &str = "a token of the benches, of no use elsewhere";
/// More than anything here takes.
const LIMIT: Duration = Duration::from_secs(600);

/// See the module's head.
pub struct Site {
    pub queue: EmbeddedQueue,
    pub root_url: String,
    pub directory: PathBuf,
    image: String,
    worker: PathBuf,
    _server: Standalone,
}

/// A worker that is ready for tasks.
pub struct Started {
    child: Child,
    pub pid: u32,
}

impl Site {
    pub async fn new(worker: &str, directory: &str, image: &str) -> Site {
        let directory = PathBuf::from(directory);
        let queue = EmbeddedQueue::in_memory(Box::new(Timestamp::now)).unwrap();
        let settings = Settings {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            root_url: None,
            storage: directory.join("storage"),
            root: Credentials {
                client_id: "root".to_owned(),
                access_token: TOKEN.to_owned(),
                certificate: None,
            },
            clients: Vec::new(),
            further_clients: None,
            long_poll: LONG_POLL,
            events: Events::none(),
        };
        let server = Standalone::start(queue.clone(), settings).await.unwrap();
        let root_url = format!("http://{}", server.address());
        Site { queue, root_url, directory, image: image.to_owned(), worker: worker.into(), _server: server }
    }

    /// Who may do everything.
    pub fn signer(&self) -> Signer {
        Signer { client_id: "root".to_owned(), access_token: TOKEN.to_owned(), certificate: None }
    }

    /// Starts a worker with `more` over its configuration, and brings the image.
    pub async fn start(&self, more: &Value) -> Started {
        let (registry, _) = self.image.split_once('/').unwrap();
        let mut config = json!({
            "rootUrl": self.root_url,
            "taskcluster": { "clientId": "root", "accessToken": TOKEN },
            "registries": { registry: { "plainHttp": true, "privateAddresses": true } },
            "provisionerId": PROVISIONER,
            "workerType": WORKER_TYPE,
            "workerGroup": "benches",
            "workerId": "worker",
            "host": "127.0.0.1",
            "logging": { "liveLogAddress": "127.0.0.1" },
            "capacity": 8,
            "capacityManagement": { "diskspaceThreshold": "1G" },
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = self.directory.join("worker.yml");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new(&self.worker);
        command.args([Path::new("start"), Path::new("--config"), &path]).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().expect("the worker ended").contains("workerReady") {}
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let started = Started { pid: child.id().unwrap(), child };
        self.run(&["/bin/true"]).await;
        started
    }

    /// A payload that executes a command.
    pub fn payload(&self, command: &[&str]) -> Value {
        json!({ "image": self.image, "command": command, "maxRunTime": 600 })
    }

    /// Makes a task and waits until it is completed.
    pub async fn run(&self, command: &[&str]) -> (TaskId, RunStatus) {
        let task_id = self.create(&self.payload(command)).await;
        let run = self.completed(&task_id).await;
        (task_id, run)
    }

    /// Makes a task.
    pub async fn create(&self, payload: &Value) -> TaskId {
        self.create_for(WORKER_TYPE, payload).await
    }

    /// Makes a task for workers of another type.
    pub async fn create_for(&self, worker_type: &str, payload: &Value) -> TaskId {
        let task_id = TaskId::random().unwrap();
        let now = Timestamp::now();
        let definition: TaskDefinition = serde_json::from_value(json!({
            "provisionerId": PROVISIONER, "workerType": worker_type,
            "taskQueueId": format!("{PROVISIONER}/{worker_type}"),
            "schedulerId": "-", "projectId": "none", "taskGroupId": task_id,
            "dependencies": [], "requires": "all-completed", "routes": [], "priority": "lowest", "retries": 5,
            "created": now,
            "deadline": now.plus(Duration::from_secs(3600)),
            "expires": now.plus(Duration::from_secs(24 * 3600)),
            "scopes": [],
            "payload": payload,
            "metadata": {
                "name": "a bench", "description": "", "owner": "nobody@example.com", "source": "https://example.com/"
            },
            "tags": {}, "extra": {},
        }))
        .unwrap();
        self.queue.create_task(&task_id, &definition).await.unwrap();
        task_id
    }

    /// Waits until a task is completed.
    pub async fn completed(&self, task_id: &TaskId) -> RunStatus {
        let status =
            self.wait(task_id, |state| !matches!(state, RunState::Pending | RunState::Running)).await;
        assert_eq!(status.state, RunState::Completed, "{status:?}");
        status
    }

    /// Waits until a worker has a task.
    pub async fn running(&self, task_id: &TaskId) -> RunStatus {
        self.wait(task_id, |state| state == RunState::Running).await
    }

    async fn wait(&self, task_id: &TaskId, is_so: impl Fn(RunState) -> bool) -> RunStatus {
        let mut changes = self.queue.changes();
        loop {
            changes.mark_unchanged();
            let mut status = self.queue.status(task_id).await.unwrap();
            if is_so(status.state) {
                return status.runs.pop().unwrap();
            }
            tokio::time::timeout(LIMIT, changes.changed()).await.expect("no change of a task").unwrap();
        }
    }

    /// Waits until the command of the only task that a worker has is over, and its artifacts are being published.
    pub async fn resolving(&self) {
        let run = std::env::var("DOCKER_WORKER_RUN").unwrap();
        let entries = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path().join("control"));
        let socket = entries.into_iter().find(|path| path.exists()).unwrap();
        loop {
            let (reader, mut writer) = UnixStream::connect(&socket).await.unwrap().into_split();
            writer.write_all(b"{\"request\":\"list\"}\n").await.unwrap();
            let answer = BufReader::new(reader).lines().next_line().await.unwrap().unwrap();
            if answer.contains("\"state\":\"resolving\"") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The URL of a task's public artifact.
    pub fn artifact_url(&self, task_id: &TaskId, name: &str) -> String {
        format!("{}/api/queue/v1/task/{task_id}/artifacts/{}", self.root_url, name.replace('/', "%2F"))
    }

    /// When a task's command has printed the time, as `stamp.c` does.
    pub async fn stamped(&self, task_id: &TaskId) -> Timestamp {
        let log = self.log(task_id).await;
        let printed = log.lines().find_map(|line| line.strip_prefix("stamp ")).unwrap();
        Timestamp::from_millis(printed.trim().parse().unwrap())
    }

    /// A task's log, as curl gets it.
    pub async fn log(&self, task_id: &TaskId) -> String {
        let url = self.artifact_url(task_id, "public/logs/live.log");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--location", "--compressed", &url]);
        let output = curl.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Started {
    /// A number of `/proc/PID/status`, from KiB to MB.
    pub fn memory(&self, key: &str) -> f64 {
        number(&format!("/proc/{}/status", self.pid), key) / 1024.0
    }

    /// Ends it as its host's shutdown does, and waits.
    pub async fn stop(mut self) {
        let mut kill = Command::new("kill");
        assert!(kill.args(["-TERM", &self.pid.to_string()]).status().await.unwrap().success());
        tokio::time::timeout(LIMIT, self.child.wait()).await.expect("the worker does not end").unwrap();
    }
}

/// The number of a line `KEY: NUMBER` of a file.
pub fn number(file: &str, key: &str) -> f64 {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Milliseconds between two times.
#[expect(clippy::cast_precision_loss, reason = "a bench lasts minutes")]
pub fn millis(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_millis() - from.as_millis()) as f64
}
