//! A bundle with a static busybox, and the runtime's executable at work on it.
use crate::bundle::{capabilities, profile};
use serde_json::{Value, json};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const BUSYBOX: &str = "/bin/busybox";

/// Whether this host has one hierarchy of control groups for all.
pub fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A directory of its own for each test: bundle, state root and room for the host's side of binds.
pub struct Bundle {
    directory: tempfile::TempDir,
    state: PathBuf,
    pub id: String,
    pub config: Value,
}

/// What a run printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bundle {
    /// A shell command with the default profile of a docker-like container.
    pub fn shell(command: &str) -> Bundle {
        Bundle::new(&["sh", "-c", command])
    }

    pub fn new(arguments: &[&str]) -> Bundle {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new().prefix("dwr-test-").tempdir().unwrap();
        let id = format!("dwr-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let state = directory.path().join("state");
        let bundle = Bundle { directory, state, id, config: config(arguments) };
        let bin = bundle.rootfs().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy(BUSYBOX, bin.join("busybox")).expect("busybox-static is installed");
        let list = Command::new(BUSYBOX).arg("--list").output().unwrap();
        for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        std::fs::create_dir(&bundle.state).unwrap();
        bundle
    }

    /// Something in the test's directory, which holds the bundle itself.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Lets the containers of both bundles be listed together.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn share_state_with(&mut self, other: &Bundle) {
        self.state.clone_from(&other.state);
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// Adds to a list of the configuration.
    pub fn push(&mut self, pointer: &str, value: Value) {
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
    }

    pub fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) {
        let mount =
            json!({ "type": "bind", "source": source, "destination": destination, "options": options });
        self.push("/mounts", mount);
    }

    /// The executable with the state root of this test, and `config.json` written.
    pub fn command(&self, arguments: &[&str]) -> Command {
        // Whole at any time: a command that was started before may be about to read it.
        let mut file = tempfile::NamedTempFile::new_in(self.directory.path()).unwrap();
        file.write_all(self.config.to_string().as_bytes()).unwrap();
        file.persist(self.path("config.json")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_docker-worker-runtime"));
        command.arg("--root").arg(&self.state).args(arguments).current_dir(self.directory.path());
        command.stdin(Stdio::null());
        command
    }

    /// `run` in the foreground.
    pub fn run(&self) -> Ran {
        ran(self.command(&["run", &self.id]).output().unwrap())
    }

    /// Another command about this container: `state`, `delete`, …
    ///
    /// A created container keeps the standard streams, so they are files and not pipes to be read to
    /// their end.
    pub fn tell(&self, arguments: &[&str]) -> Ran {
        let file = || tempfile::tempfile().unwrap();
        let (mut stdout, mut stderr) = (file(), file());
        let mut command = self.command(arguments);
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        let status = command.status().unwrap();
        let text = |file: &mut std::fs::File| {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        Ran { status: status.code().unwrap_or(-1), stdout: text(&mut stdout), stderr: text(&mut stderr) }
    }

    /// Starts a container and leaves it running.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn up(&self) {
        for command in ["create", "start"] {
            let ran = self.tell(&[command, &self.id]);
            assert_eq!(ran.status, 0, "{command}: {ran:?}");
        }
    }

    /// `exec` with these options and this command, in the container that runs.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Ran {
        ran(self.exec_command(options, command).output().unwrap())
    }

    /// The same, to be started.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn exec_command(&self, options: &[&str], command: &[&str]) -> Command {
        let words = ["exec"].iter().chain(options).copied().chain([self.id.as_str()]);
        self.command(&words.chain(command.iter().copied()).collect::<Vec<_>>())
    }

    /// What a command printed that was executed in the container and ended well, with errors.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn inside(&self, options: &[&str], script: &str) -> String {
        let ran = self.exec(options, &["sh", "-c", script]);
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{script}: {ran:?}");
        ran.stdout
    }

    /// PID 1's number on the host.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn pid(&self) -> i32 {
        let state: Value = serde_json::from_str(&self.tell(&["state", &self.id]).stdout).unwrap();
        i32::try_from(state["pid"].as_i64().unwrap()).unwrap()
    }

    /// Ends the container, and everything in it.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn down(&self) {
        let deleted = self.tell(&["delete", "--force", &self.id]);
        assert_eq!((deleted.status, deleted.stderr.as_str()), (0, ""), "{deleted:?}");
        self.assert_nothing_left();
    }

    /// What a container that ran and ended well printed.
    pub fn output(&self) -> String {
        let ran = self.run();
        assert_eq!(ran.status, 0, "{ran:?}");
        self.assert_nothing_left();
        ran.stdout
    }

    /// Where the container's control groups are, in every hierarchy that it may use.
    pub fn groups(&self) -> Vec<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let hierarchies = mounts.lines().filter(|line| line.contains(" - cgroup"));
        hierarchies.map(|line| Path::new(line.split(' ').nth(4).unwrap()).join(&self.id)).collect()
    }

    /// Mounts, control groups, states and processes of this container: there must be none.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let state = std::fs::read_dir(&self.state).unwrap();
        left.extend(state.map(|entry| entry.unwrap().path().display().to_string()));
        let place = self.directory.path().to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(place)).map(str::to_owned));
        let groups = self.groups().into_iter().filter(|group| group.exists());
        left.extend(groups.map(|group| group.display().to_string()));
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |name| std::fs::read_to_string(process.path().join(name)).unwrap_or_default();
            // One that has ended (Z, X) waits for its adopted parent, which is not ours to hurry.
            let stat = read("stat");
            let has_ended = stat.contains(") Z ") || stat.contains(") X ");
            let groups = read("cgroup");
            let is_ours = groups.lines().any(|line| line.split('/').any(|part| part == self.id));
            left.extend((is_ours && !has_ended).then_some(stat));
        }
        left
    }

    pub fn assert_nothing_left(&self) {
        assert_eq!(self.leftovers(), Vec::<String>::new());
    }
}

impl Drop for Bundle {
    /// A test that fails half-way leaves its container to nobody.
    fn drop(&mut self) {
        if std::thread::panicking() && self.state.join(&self.id).exists() {
            self.tell(&["delete", "--force", &self.id]);
        }
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A container as confined as usual.
fn config(arguments: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "hostname": "inside",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": arguments,
            "env": ["PATH=/bin:/sbin", "HOME=/"],
            "cwd": "/",
            "capabilities": capabilities(),
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc",
              "options": ["nosuid", "nodev", "noexec"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "nodev", "noexec", "mode=1777"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "nodev", "noexec"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "nodev", "noexec", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "nodev", "noexec", "ro"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "mount" }, { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "cgroup" },
            ],
            "devices": [],
            "resources": { "pids": { "limit": 256 } },
            "seccomp": profile(),
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
                "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
