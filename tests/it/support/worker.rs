//! A worker with directories of its own, driven through its command line as an operator drives it.

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use docker_worker::timestamp::Timestamp;
use rustix::process::Pid;
use serde_json::{Value, json};

use super::image::{Image, WrittenImage};
use super::internet::Internet;
use super::process::{Finished, finish};
use super::scratch::Scratch;

/// The empty file in the directories that the worker may remove things from.
const MARKER: &str = ".docker-worker";

/// A container's name is so long, and no other in the run directory is.
const CONTAINER_ID_DIGITS: usize = 64;

/// More than any task of the tests takes on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(180);

/// What `docker-worker run` left.
pub struct Run {
    /// The exit status; 128 and the signal if one ended the worker.
    pub status: i32,
    /// The whole task log.
    pub log: String,
    /// What the operator reads.
    pub stderr: String,
    /// `resolution.json`, or null.
    pub resolution: Value,
    /// Where the artifacts landed.
    pub artifacts: PathBuf,
    pub took: Duration,
}

impl fmt::Debug for Run {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { status, log, stderr, resolution, took, .. } = self;
        write!(
            out,
            "status {status} after {took:?}\nlog:\n{log}\nstderr:\n{stderr}\nresolution.json: {resolution:#}"
        )
    }
}

impl Run {
    /// What the command printed, with plain line ends: what stands between the worker's lines around it.
    pub fn output(&self) -> String {
        let (_, rest) = self.log.split_once("=== Task Starting ===").unwrap_or_default();
        let (output, _) = rest.split_once("=== Task Finished ===").unwrap_or((rest, ""));
        let lines = output.lines().skip(1).filter(|line| !line.starts_with("[taskcluster"));
        lines.map(|line| format!("{}\n", line.trim_end_matches('\r'))).collect()
    }

    /// Everything that task author and operator read.
    pub fn words(&self) -> String {
        format!("{}\n{}", self.log, self.stderr)
    }

    /// Fails the test unless the run ended with `status`; everything known is in the message.
    pub fn expect(self, status: i32, case: &str) -> Run {
        assert_eq!(self.status, status, "{case}: {self:?}");
        self
    }

    /// An artifact's bytes.
    pub fn artifact(&self, name: &str) -> Vec<u8> {
        fs::read(self.artifacts.join(name)).unwrap_or_else(|error| panic!("{name}: {error}: {self:?}"))
    }
}

/// A worker's directories. When the value goes, nothing of the worker may be left on the host.
pub struct Worker {
    /// What starts the worker in its place; nothing where that is this host.
    by: Vec<String>,
    scratch: Scratch,
    count: Cell<u32>,
}

impl Worker {
    pub fn new() -> Worker {
        Worker::by(&[])
    }

    /// A worker on a host of the test's own, where tasks have a network.
    pub fn on(internet: &Internet) -> Worker {
        Worker::by(&["nsenter", &internet.host.entrance(), "--"])
    }

    /// The same in a mount namespace of its own, which a shell changes by `script` first. There `$0` is `file`.
    pub fn on_changed(internet: &Internet, script: &str, file: &str) -> Worker {
        let script = format!("set -e; {script}; exec \"$@\"");
        let private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, file];
        Worker::by(&[&["nsenter", &internet.host.entrance(), "--"][..], &private[..]].concat())
    }

    /// A worker that `by` starts: a program and its first arguments.
    pub fn by(by: &[&str]) -> Worker {
        let by = by.iter().map(|word| (*word).to_owned()).collect();
        let worker = Worker { by, scratch: Scratch::new(), count: Cell::new(0) };
        assert!(
            runtime_executable().exists(),
            "{} is missing: build it with cargo build --package runtime",
            runtime_executable().display()
        );
        worker
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// `<data>`: images, caches, what running tasks write.
    pub fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    /// `<run>`: journals and bundles of running containers.
    pub fn run_directory(&self) -> PathBuf {
        self.scratch.join("run")
    }

    /// Writes an image; [`WrittenImage::source`] is what `--image` takes.
    pub fn image(&self, image: &Image) -> WrittenImage {
        image.write_oci(&self.fresh("image"))
    }

    /// A path below the scratch directory that no other call returns.
    pub fn fresh(&self, name: &str) -> PathBuf {
        self.count.set(self.count.get() + 1);
        self.scratch.join(&format!("{name}{}", self.count.get()))
    }

    /// The executable with this worker's directories, and arguments as given; on this host a task gets no
    /// network unless they say so.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let executable = env!("CARGO_BIN_EXE_docker-worker");
        let words: Vec<&str> = self.by.iter().map(String::as_str).chain([executable]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let is_elsewhere = self.by.iter().any(|word| word.starts_with("--net="));
        if !is_elsewhere && arguments.first() == Some(&"run") && !arguments.contains(&"--network") {
            // The tasks' network changes the host; its tests bring hosts of their own.
            command.args(["run", "--network", "none"]).args(&arguments[1..]);
        } else {
            command.args(arguments);
        }
        command
            .env("DOCKER_WORKER_DATA", self.data())
            .env("DOCKER_WORKER_RUN", self.run_directory())
            .env("DOCKER_WORKER_RUNTIME", runtime_executable())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Any command of the worker's, to its end.
    pub fn call(&self, arguments: &[&str]) -> Finished {
        finish(self.command(arguments).spawn().unwrap(), LIMIT)
    }

    /// `run --image SOURCE -- COMMAND…`
    pub fn run(&self, source: &str, command: &[&str]) -> Run {
        self.run_with(&["--image", source], command)
    }

    /// `run OPTIONS -- COMMAND…`
    pub fn run_with(&self, options: &[&str], command: &[&str]) -> Run {
        let (child, artifacts) = self.start_run(options, command);
        Run::collect(finish(child, LIMIT), artifacts)
    }

    /// `run TASK.json` with this payload or task definition. The image has to stand in it.
    pub fn task(&self, payload: &Value) -> Run {
        self.task_with(payload, &[])
    }

    /// [`Worker::task`] with options.
    pub fn task_with(&self, payload: &Value, options: &[&str]) -> Run {
        let file = self.fresh("task").with_extension("json");
        fs::write(&file, payload.to_string()).unwrap();
        let options = [options, &[file.to_str().unwrap()]].concat();
        self.run_with(&options, &[])
    }

    /// Starts a run and leaves it running, for tests that interrupt it. Returns it and its artifacts' directory.
    pub fn start_run(&self, options: &[&str], command: &[&str]) -> (Child, PathBuf) {
        let (mut command, artifacts) = self.run_command(options, command);
        (command.spawn().unwrap(), artifacts)
    }

    /// The command that [`Worker::start_run`] starts.
    pub fn run_command(&self, options: &[&str], command: &[&str]) -> (Command, PathBuf) {
        let given = options.iter().skip_while(|option| **option != "--artifacts").nth(1);
        let artifacts = given.map_or_else(|| self.fresh("artifacts"), PathBuf::from);
        let mark = format!("DOCKER_WORKER_TEST={}", self.scratch.name());
        // A process that the worker left behind is found by this variable.
        let mut arguments = vec!["run", "--env", &mark];
        if given.is_none() {
            arguments.extend(["--artifacts", artifacts.to_str().unwrap()]);
        }
        arguments.extend(options);
        if !command.is_empty() {
            arguments.push("--");
            arguments.extend(command);
        }
        (self.command(&arguments), artifacts)
    }

    /// The processes of this worker with that name: its directories are among their arguments or variables.
    pub fn processes(&self, name: &str) -> Vec<Pid> {
        let is_named = |process: &Pid| {
            let comm = fs::read_to_string(format!("/proc/{}/comm", process.as_raw_nonzero()));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        self.scratch.processes().filter(is_named).collect()
    }

    /// The only directory of a running task on the data directory's file system, once it is there.
    pub fn data_of_task(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.data().join("runs")).ok()?;
        entries.map(|entry| entry.unwrap().path()).find(|path| path.is_dir())
    }

    /// The instances of caches that a task may get, by their directories' names.
    pub fn caches(&self) -> Vec<String> {
        self.entries_of("caches").into_iter().filter(|name| name != "trash").collect()
    }

    /// The instances of caches that only have to be removed.
    pub fn trash(&self) -> Vec<String> {
        self.entries_of("caches/trash")
    }

    fn entries_of(&self, place: &str) -> Vec<String> {
        let entries = fs::read_dir(self.data().join(place)).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != MARKER).collect()
    }

    /// The containers that the run directory speaks of.
    pub fn containers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.run_directory()).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // A container's name is longer than that of a worker process.
        names.filter(|name| name.len() == CONTAINER_ID_DIGITS).collect()
    }

    /// Fails the test if anything of a task is on the host now.
    pub fn assert_nothing_left(&self, case: &str) {
        let mut left = self.scratch.traces();
        // The addresses that rest may stay: they are of no use to anybody but the next task.
        let places = ["/network", "/claims"];
        let own = |path: &String| !places.iter().any(|place| path.ends_with(place));
        left.extend(listing(&self.run_directory()).into_iter().filter(own));
        left.extend(listing(&self.run_directory().join("claims")));
        left.extend(listing(&self.run_directory().join("network/lock")));
        left.extend(listing(&self.data().join("runs")));
        assert!(left.is_empty(), "{case}: left behind: {left:#?}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A failing test has its own message; what a broken worker left is `make clean-host`'s.
        if !std::thread::panicking() {
            self.assert_nothing_left("at the end of the test");
        }
    }
}

impl Run {
    /// What is left of a run that was started with [`Worker::start_run`].
    pub fn collect(finished: Finished, artifacts: PathBuf) -> Run {
        let status = finished.status.code().or(finished.status.signal().map(|signal| 128 + signal)).unwrap();
        let resolution = fs::read(artifacts.join("resolution.json"))
            .map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
        Run {
            status,
            log: String::from_utf8_lossy(&finished.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&finished.stderr).into_owned(),
            resolution,
            artifacts,
            took: finished.took,
        }
    }
}

/// A payload that runs a busybox shell script in `image`.
pub fn shell_payload(image: &str, script: &str) -> Value {
    json!({ "image": image, "command": ["/bin/sh", "-c", script], "maxRunTime": 120 })
}

/// The definition of a task that is made now, around a payload.
pub fn task_definition(task_queue_id: &str, now: Timestamp, payload: &Value) -> Value {
    json!({
        "taskQueueId": task_queue_id,
        "created": now,
        "deadline": now.plus(Duration::from_secs(3600)),
        "expires": now.plus(Duration::from_secs(24 * 3600)),
        "payload": payload,
        "metadata": {
            "name": "a test", "description": "what a test needs",
            "owner": "nobody@example.com", "source": "https://example.com/"
        },
    })
}

/// The runtime, which cargo builds beside the worker.
pub fn runtime_executable() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_docker-worker")).with_file_name("docker-worker-runtime")
}

fn listing(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let entries = entries.filter(|entry| entry.as_ref().unwrap().file_name() != MARKER);
    entries.map(|entry| entry.unwrap().path().display().to_string()).collect()
}
