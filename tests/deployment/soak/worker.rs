//! `docker-worker start`, or `standalone`, with directories of its own, started as often as it is killed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use docker_worker::yaml;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// More than a worker takes to end.
const LIMIT: Duration = Duration::from_secs(60);

/// The worker's place, and its present life.
pub struct Worker {
    /// `start` or `standalone`.
    kind: &'static str,
    executable: PathBuf,
    scratch: PathBuf,
    config: PathBuf,
    log: PathBuf,
    entries: mpsc::UnboundedSender<Value>,
    life: Option<(Child, JoinHandle<()>)>,
    /// The most memory in bytes that any of its lives has had.
    pub most_memory: u64,
}

/// The operator's configuration.
pub fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    yaml::read(&text).unwrap_or_else(|problem| panic!("{}: {problem}", file.display()))
}

/// A configuration, and over it what is needed here.
pub fn configuration(mut config: Value, capacity: u32, image: &str) -> Value {
    let (registry, _) = image.split_once('/').unwrap();
    config["capacity"] = json!(capacity);
    config["registries"][registry] = json!({ "plainHttp": true, "privateAddresses": true });
    config
}

impl Worker {
    pub fn new(
        (kind, executable): (&'static str, &Path),
        scratch: &Path,
        config: &Value,
        log: &Path,
    ) -> (Worker, Entries) {
        let path = scratch.join("config.json");
        fs::write(&path, config.to_string()).unwrap();
        File::create(log).unwrap();
        let (entries, receiver) = mpsc::unbounded_channel();
        let worker = Worker {
            kind,
            executable: executable.to_owned(),
            scratch: scratch.to_owned(),
            config: path,
            log: log.to_owned(),
            entries,
            life: None,
            most_memory: 0,
        };
        (worker, receiver)
    }

    /// A command of the worker's. It has the credentials of its configuration, not those that make the tasks.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .args(words)
            .env("DOCKER_WORKER_DATA", self.data())
            .env("DOCKER_WORKER_RUN", self.run_directory());
        for name in ["CLIENT_ID", "ACCESS_TOKEN", "CERTIFICATE"] {
            command.env_remove(format!("TASKCLUSTER_{name}"));
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    pub fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    pub fn run_directory(&self) -> PathBuf {
        self.scratch.join("run")
    }

    pub fn start(&mut self) {
        let mut log = File::options().append(true).open(&self.log).unwrap();
        let mut command = self.command(&[self.kind, "--config", self.config.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).stderr(log.try_clone().unwrap()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let entries = self.entries.clone();
        let reading = tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                writeln!(log, "{line}").unwrap();
                // Lines for worker-metrics are no JSON.
                if let Ok(entry) = serde_json::from_str(&line) {
                    entries.send(entry).unwrap();
                }
            }
        });
        self.life = Some((child, reading));
    }

    /// The memory in bytes that it has now.
    pub fn memory(&self) -> u64 {
        let process = self.life.as_ref().and_then(|(child, _)| child.id());
        status_bytes(process.expect("the worker has ended by itself"), "VmRSS:")
    }

    /// Kills it. What it has printed until then has been read afterwards.
    pub async fn kill(&mut self) {
        self.end(Signal::KILL).await;
    }

    /// Tells it to end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.end(Signal::TERM).await
    }

    async fn end(&mut self, signal: Signal) -> ExitStatus {
        let (mut child, reading) = self.life.take().unwrap();
        let id = child.id().expect("the worker has ended by itself");
        self.most_memory = self.most_memory.max(status_bytes(id, "VmHWM:"));
        kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
        let status = timeout(LIMIT, child.wait()).await.expect("the worker does not end").unwrap();
        timeout(LIMIT, reading).await.expect("somebody else writes into the worker's log").unwrap();
        status
    }

    /// `docker-worker cleanup`, to its end.
    pub async fn clean_up(&self) -> Output {
        self.command(&["cleanup"]).output().await.unwrap()
    }
}

/// What the worker says.
pub type Entries = mpsc::UnboundedReceiver<Value>;

fn status_bytes(process: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.expect("the worker has ended by itself").trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
        << 10
}
