//! A bundle whose root holds nothing but the probe, run by the runtime's executable.
use crate::probe::{Probe, line};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One bundle, with a directory for the runtime's state.
pub struct Bundle {
    probe: Probe,
    /// `config.json`, to be changed before [`Bundle::run`].
    pub config: Value,
}

impl Bundle {
    /// A container as confined as usual, to be run as root.
    pub fn new() -> Self {
        let probe = Probe::build();
        let root = probe.directory().join("bundle/rootfs");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::hard_link(probe.path(), root.join("probe")).unwrap();
        let name = probe.directory().file_name().unwrap().to_str().unwrap();
        let config = config(name);
        Self { probe, config }
    }

    /// The directory of `config.json` and `rootfs`.
    pub fn directory(&self) -> PathBuf {
        self.probe.directory().join("bundle")
    }

    /// The runtime, told to run the probe with these words.
    pub fn command(&mut self, words: &str) -> Command {
        let arguments = std::iter::once("/probe").chain(words.split_ascii_whitespace());
        self.config["process"]["args"] = arguments.collect();
        let text = serde_json::to_vec_pretty(&self.config).unwrap();
        std::fs::write(self.directory().join("config.json"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_docker-worker-runtime"));
        command.arg("--root").arg(self.probe.directory().join("state")).arg("run").arg("--bundle");
        command.arg(self.directory()).arg(self.probe.directory().file_name().unwrap());
        command
    }

    /// Runs one probe inside.
    pub fn run(&mut self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    /// Groups of the bundle's containers that are still there, in any hierarchy.
    pub fn control_groups(&self) -> Vec<PathBuf> {
        let name = self.probe.directory().file_name().unwrap();
        let mounted = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let candidates =
            mounted.map(|hierarchy| hierarchy.join(name)).chain([Path::new("/sys/fs/cgroup").join(name)]);
        candidates.filter(|group| group.exists()).collect()
    }

    /// Runs each probe inside, in a container each.
    pub fn check(&mut self, cases: &[(&str, &str)]) {
        for (words, expected) in cases {
            assert_eq!(line(&self.run(words)), *expected, "{words}");
        }
    }
}

/// The fourteen that Docker keeps.
pub fn capabilities() -> Value {
    let names = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SYS_CHROOT",
        "MKNOD",
        "AUDIT_WRITE",
        "SETFCAP",
    ]
    .map(|name| format!("CAP_{name}"));
    json!({ "bounding": names, "effective": names, "permitted": names })
}

/// Refuses a few calls: by name, by argument, and with an error of their own.
pub fn profile() -> Value {
    let condition = |name: &str, index: u32, op: &str, value: u64, two: u64| {
        let argument =
            json!({ "index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}") });
        json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "args": [argument] })
    };
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            { "names": ["unshare", "setns", "mount", "fsopen", "keyctl", "syslog"], "action": "SCMP_ACT_ERRNO" },
            { "names": ["clone3", "socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
            condition("clone", 0, "MASKED_EQ", 0x1000_0000, 0x1000_0000),
            condition("socket", 0, "EQ", 38, 0),
            condition("socket", 0, "EQ", 40, 0),
            condition("ioctl", 1, "EQ", 0x5412, 0),
        ],
    })
}

fn config(name: &str) -> Value {
    let kinds = ["mount", "pid", "network", "ipc", "uts", "cgroup"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": [],
            "cwd": "/",
            "env": ["PATH=/"],
            "capabilities": capabilities(),
            "rlimits": [{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }],
        },
        "root": { "path": "rootfs" },
        "mounts": mounts(),
        "linux": {
            "cgroupsPath": Path::new("/").join(name).join("container"),
            "namespaces": kinds.map(|kind| json!({ "type": kind })),
            "resources": { "devices": [{ "allow": false, "access": "rwm" }], "pids": { "limit": 64 } },
            "seccomp": profile(),
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
                "/sys/devices/virtual/powercap", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, options: &str| {
        let options: Vec<&str> = options.split(',').collect();
        json!({ "destination": destination, "type": kind, "source": kind, "options": options })
    };
    json!([
        mount("/proc", "proc", "nosuid,nodev,noexec"),
        mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        mount("/dev/shm", "tmpfs", "nosuid,nodev,noexec,mode=1777,size=65536k"),
        mount("/dev/mqueue", "mqueue", "nosuid,nodev,noexec"),
        mount("/sys", "sysfs", "nosuid,nodev,noexec,ro"),
        mount("/sys/fs/cgroup", "cgroup", "nosuid,nodev,noexec,relatime,ro"),
    ])
}
