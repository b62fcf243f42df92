//! A host of a test's own with a deployment, a registry and `docker-worker start`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use docker_worker::queue::RunState;
use docker_worker::queue::task_id::TaskId;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::deployment::{Deployment, POOL, Terms};
use super::fixtures::busybox_image;
use super::internet::Internet;
use super::process::{Finished, finish};
use super::watched_registry::WatchedRegistry;
use super::worker::{Worker, shell_payload};

/// More than a worker takes to end that has been told so, or to say something.
const LIMIT: Duration = Duration::from_secs(180);

/// Everything that a worker of a deployment needs.
pub struct Site {
    pub deployment: Deployment,
    pub worker: Worker,
    /// What a payload calls an image with busybox in it.
    pub image: String,
    /// Where that image comes from.
    pub registry: WatchedRegistry,
    pub internet: Internet,
}

/// A worker of a deployment that has been started.
pub struct Started {
    child: Option<Child>,
    /// What it prints, as it comes.
    lines: Receiver<String>,
    /// Those that were looked at.
    log: String,
}

/// What a worker of a deployment left.
#[derive(Debug)]
pub struct Ended {
    pub finished: Finished,
    /// Its own log: what it printed.
    pub log: String,
}

impl Site {
    pub fn new() -> Site {
        Site::with(Terms::default())
    }

    pub fn with(terms: Terms) -> Site {
        let internet = Internet::new();
        let deployment = Deployment::start_on(&internet, terms);
        let worker = Worker::on(&internet);
        let registry = WatchedRegistry::serve_on(&internet, &worker.image(&busybox_image()));
        Site { deployment, worker, image: registry.name.clone(), registry, internet }
    }

    /// A payload that runs a shell script.
    pub fn payload(&self, script: &str) -> Value {
        shell_payload(&self.image, script)
    }

    /// Makes a task that prints `begun`, waits for [`Site::release`], and prints `done`. One at a time.
    pub fn create_waiting(&self, script: &str) -> TaskId {
        let script = format!("{script}; echo begun; until [ -e /x/go ]; do sleep 0.1; done; echo done");
        let mut payload = self.payload(&script);
        payload["cache"] = json!({ "x": "/x" });
        let mut definition = self.deployment.definition(&payload);
        definition["scopes"] = json!(["docker-worker:cache:x"]);
        let task = self.deployment.create_task(definition);
        self.deployment.await_printed(&task, "begun");
        task
    }

    /// Lets the command of [`Site::create_waiting`] come to its end.
    pub fn release(&self) {
        let cache = self.worker.data().join("caches").join(&self.worker.caches()[0]);
        fs::write(cache.join("content/go"), "").unwrap();
    }

    /// The same; waits for the task's resolution and gives its log.
    pub fn let_go(&self, task: &TaskId) -> String {
        self.release();
        let status = self.deployment.await_resolved(task);
        let log = self.deployment.log(task);
        assert_eq!(status.state, RunState::Completed, "{log}");
        log
    }

    /// Starts a worker and waits until it is ready for tasks. `more` goes over its configuration.
    pub fn start(&self, more: &Value) -> Started {
        self.start_with(more, &[])
    }

    /// The same with options after `start --config FILE`.
    pub fn start_with(&self, more: &Value, options: &[&str]) -> Started {
        let path = self.config(more);
        let arguments = [&["start", "--config", &path], options].concat();
        Started::of(self.worker.command(&arguments).spawn().unwrap())
    }

    /// The same as worker-runner does it: by the original's command line, with `variables` in the environment.
    pub fn start_by_runner(&self, more: &Value, variables: &[(&str, &str)]) -> Started {
        let mut command = self.worker.command(&["--host", "worker-runner", "production"]);
        let variables = variables.iter().copied();
        // The worker takes the end of its input for worker-runner's.
        command.env("DOCKER_WORKER_CONFIG", self.config(more)).envs(variables).stdin(Stdio::piped());
        Started::of(command.spawn().unwrap())
    }

    /// Writes a configuration; gives its path.
    pub fn config(&self, more: &Value) -> String {
        let (registry, _) = self.image.split_once('/').unwrap();
        let (provisioner, kind) = POOL.split_once('/').unwrap();
        let mut config = json!({
            "registries": { registry: { "plainHttp": true, "privateAddresses": true } },
            "provisionerId": provisioner,
            "workerType": kind,
            "workerGroup": "tests",
            "workerId": "worker",
            "host": "127.0.0.1",
            "logging": { "liveLogAddress": "127.0.0.1" },
            "taskQueue": { "pollInterval": 100 },
            "taskStatusPollSeconds": 1,
            "capacityManagement": { "diskspaceThreshold": 0 },
        });
        for part in [&self.deployment.access(), more] {
            let members = part.as_object().unwrap().clone();
            config.as_object_mut().unwrap().extend(members);
        }
        let path = self.worker.fresh("config");
        fs::write(&path, config.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Started {
    /// Waits until a worker is ready for tasks.
    pub fn of(mut child: Child) -> Started {
        let printed = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (line, lines) = channel();
        // Whether or not anybody looks: a worker whose log nobody takes loses lines.
        thread::spawn(move || printed.map(|text| line.send(text)).take_while(Result::is_ok).for_each(drop));
        let mut started = Started { child: Some(child), lines, log: String::new() };
        started.await_logged("workerReady");
        started
    }

    /// Waits until its log says something.
    pub fn await_logged(&mut self, text: &str) {
        let end = Instant::now() + LIMIT;
        while !self.log.contains(text) {
            let line = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("the worker does not say {text:?}: {}", self.log));
            self.log.extend([line.as_str(), "\n"]);
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// The most memory in bytes that it has had so far.
    pub fn most_memory(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.as_ref().unwrap().id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// Waits until it has ended.
    pub fn ended(mut self) -> Ended {
        let finished = finish(self.child.take().unwrap(), LIMIT);
        let mut log = std::mem::take(&mut self.log);
        self.lines.iter().for_each(|line| log.extend([line.as_str(), "\n"]));
        Ended { finished, log }
    }

    /// Tells it to end, and waits until it has.
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        let ended = self.ended();
        assert!(ended.finished.status.success(), "{ended:?}");
        ended
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // A failing test has its own message.
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }
}
