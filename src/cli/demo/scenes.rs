//! What the demo shows: a sentence, a task, and how it is meant to end.

/// One task of the demo.
pub struct Scene {
    /// What it shows.
    pub title: &'static str,
    /// What to look at.
    pub remark: &'static str,
    /// Options of `run` before the task.
    pub options: &'static [&'static str],
    /// What the task is.
    pub task: Task,
    /// The exit status that is expected of `run`.
    pub status: i32,
}

/// The task of a scene.
pub enum Task {
    /// A script of the shell, as `--image … -- sh -c SCRIPT`.
    Script(&'static str),
    /// A payload without its image, as a file.
    Payload(&'static str),
}

/// A small memory limit for the scene about limits.
pub const CONFIG: &str = "limits:\n  memory: 67108864\n";

/// In the order in which they are shown.
pub const SCENES: &[Scene] = &[
    Scene {
        title: "A task and its log",
        remark: "The worker's own lines stand around what the command prints on its terminal.",
        options: &[],
        task: Task::Script("echo hello from $(hostname), task $TASK_ID, as $(id -u); ls /"),
        status: 0,
    },
    Scene {
        title: "Exit status",
        remark: "docker-worker run exits as the command did.",
        options: &[],
        task: Task::Script("echo this task fails; exit 3"),
        status: 3,
    },
    Scene {
        title: "Artifacts",
        remark: "A file, a directory and one that is missing, which the log says and the task survives.",
        options: &[],
        task: Task::Payload(
            r#"{"command": ["sh", "-c", "mkdir out; echo one > out/1.txt; echo two > out/2.txt; echo report > report.txt"],
                "maxRunTime": 60,
                "artifacts": {
                  "public/report.txt": {"type": "file", "path": "/tmp/report.txt"},
                  "public/out": {"type": "directory", "path": "/tmp/out"},
                  "public/missing": {"type": "file", "path": "/tmp/nowhere"}}}"#,
        ),
        status: 0,
    },
    Scene {
        title: "A cache, first task",
        remark: "The cache is new: the task finds it empty and leaves a line there.",
        options: &["--cache", "demo=/cache"],
        task: Task::Script("echo entries before: $(ls /cache | wc -l); date > /cache/first-task"),
        status: 0,
    },
    Scene {
        title: "A cache, second task",
        remark: "The same cache serves the next task that names it; no two tasks hold it at once.",
        options: &["--cache", "demo=/cache"],
        task: Task::Script("echo the first task was here: $(cat /cache/first-task)"),
        status: 0,
    },
    Scene {
        title: "Time limit",
        remark: "After maxRunTime every process of the task is killed at once; status 124.",
        options: &["--max-run-time", "1"],
        task: Task::Script("echo sleeping; sleep 600"),
        status: 124,
    },
    Scene {
        title: "Memory limit",
        remark: "With limits.memory at 64 MiB the kernel ends what needs more, inside the task only.",
        options: &["--config", "demo.yml"],
        task: Task::Script("tail -c 250000000 /dev/zero"),
        status: 137,
    },
    Scene {
        title: "What is denied",
        remark: "Root in a task has no way to the host's devices, mounts, settings or processes.",
        options: &[],
        task: Task::Script(
            "try() { if \"$@\" >/dev/null 2>&1; then echo \"ALLOWED: $*\"; failed=1; else echo \"denied: $*\"; fi; }\n\
             try mount -t tmpfs none /tmp\n\
             try mount -t proc none /proc\n\
             mknod /tmp/disk b 8 0 2>/dev/null; try head -c 1 /tmp/disk\n\
             try sh -c ': >> /proc/sys/kernel/core_pattern'\n\
             try sh -c ': >> /proc/sysrq-trigger'\n\
             try hostname somebody-else\n\
             echo processes that it can see: $(ls -d /proc/[0-9]* | wc -l)\n\
             exit ${failed:-0}",
        ),
        status: 0,
    },
];
