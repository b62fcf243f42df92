//! S47, step by step: SIGKILL at each system call of a kind that changes the host,
//! in worker and monitor alike, during the pull, the run, its undoing and `cleanup`. `strace` is what kills: it needs no
//! help from the programs, and hits the same call every time.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use crate::support::{Finished, Worker, assert_holds_one_image, busybox_image, finish, shell_payload};

const LIMIT: Duration = Duration::from_secs(60);

/// Kinds of calls that change the host or lead to one that does, and which of them are walked to: every one, or every so
/// many. Each thread counts its own.
const CALLS: [(&str, usize); 16] = [
    ("mkdir", 1),
    ("rename", 1),
    ("flock", 1),
    ("clone3", 1),
    ("unlink", 1),
    ("ftruncate", 1),
    ("mount", 1),
    ("umount2", 1),
    ("sendmsg", 1),
    ("mkdirat", 3),
    ("move_mount", 4),
    ("fsconfig", 5),
    ("unlinkat", 5),
    ("getdents64", 5),
    ("write", 2),
    ("openat2", 7),
];

/// No thread makes as many calls of a kind.
const MOST: u32 = 500;

#[test]
fn s47_a_kill_at_each_change_of_the_host_from_pull_to_end_leaves_nothing_after_the_next_run() {
    let sound = Worker::new();
    let image = sound.image(&busybox_image()).source;
    sound.run(&image, &["true"]).expect(0, "never killed");
    let calls = Mutex::new(CALLS.iter());
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while let Some((call, stride)) = { calls.lock().unwrap().next() } {
                    walk_call(call, *stride, &image);
                }
            });
        }
    });
}

/// The task has a cache and artifacts, so that the walk comes through taking, reading and giving back.
fn walk_call(call: &str, stride: usize, image: &str) {
    let mut payload = shell_payload(image, "echo text > /made && echo text > /cache/file && sleep 0");
    payload["cache"] = json!({ "walk": "/cache" });
    payload["artifacts"] = json!({
        "public/made": { "type": "file", "path": "/made" },
        "public/etc": { "type": "directory", "path": "/etc" },
    });
    for number in (1..=MOST).step_by(stride) {
        let worker = Worker::new();
        let case = format!("killed at {call} number {number}");
        let task = worker.fresh("task").with_extension("json");
        fs::write(&task, payload.to_string()).unwrap();
        let artifacts = worker.fresh("artifacts");
        let arguments = ["run", "--artifacts", artifacts.to_str().unwrap(), task.to_str().unwrap()];
        let Some(killed) = strace(&worker, call, number, &arguments) else { return };
        worker.scratch().await_processes(LIMIT);
        let run = worker.task(&payload).expect(0, &format!("the run after {case}: {killed:?}"));
        assert_eq!(run.artifact("public/made"), b"text\n", "{case}");
        worker.assert_nothing_left(&case);
        assert_holds_one_image(&worker, 1, &case);
        // One instance, and the lock beside it.
        assert_eq!((worker.caches().len(), worker.trash().len()), (1, 0), "{case}");
    }
    panic!("{call} is still there at number {MOST}");
}

#[test]
fn s47_a_cleanup_killed_at_each_change_is_finished_by_the_next() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    worker.run(&image, &["true"]).expect(0, "the image is fetched");
    for call in ["unlinkat", "rmdir", "flock"] {
        for number in 1..=12 {
            let case = format!("cleanup killed at {call} number {number}");
            // Dies with most of a container there.
            strace(&worker, "clone3", 2, &["run", "--image", &image, "--", "true"]);
            worker.scratch().await_processes(LIMIT);
            let killed = strace(&worker, call, number, &["cleanup"]);
            let cleaned = worker.call(&["cleanup"]);
            assert!(cleaned.status.success(), "{case}: {cleaned:?}");
            worker.assert_nothing_left(&case);
            if killed.is_none() {
                break;
            }
        }
    }
    worker.run(&image, &["true"]).expect(0, "after the walk");
}

/// Runs the worker, and kills whichever of its threads or monitors comes to the call with this number first. `None` if
/// nothing was killed.
pub fn strace(worker: &Worker, call: &str, number: u32, arguments: &[&str]) -> Option<Finished> {
    let plain = worker.command(arguments);
    let trace = worker.fresh("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:signal=KILL:when={number}"), "-o"]).arg(&trace);
    command.arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let finished = finish(command.spawn().unwrap(), LIMIT);
    (fs::read_to_string(trace).unwrap().contains("killed by SIGKILL") || !finished.status.success())
        .then_some(finished)
}
