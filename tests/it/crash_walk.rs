//! S47, step by step: SIGKILL at each system call of a kind that changes the host,
//! in worker and monitor alike, during the pull, the run, its undoing and `cleanup`. `strace` is what kills: it needs no
//! help from the programs, and hits the same call every time.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Finished, Worker, busybox_image, finish};

const LIMIT: Duration = Duration::from_secs(60);

/// Kinds of calls that change the host, and the last of each kind's calls that is walked to.
const CALLS: [(&str, u32); 11] = [
    ("mkdir", 8),
    ("mkdirat", 4),
    ("rename", 6),
    ("renameat2", 4),
    ("linkat", 4),
    ("flock", 8),
    ("mount", 6),
    ("move_mount", 3),
    ("clone3", 6),
    ("sendmsg", 4),
    ("unlinkat", 6),
];

#[test]
fn s47_a_kill_at_each_change_of_the_host_from_pull_to_end_leaves_nothing_after_the_next_run() {
    let sound = Worker::new();
    let image = sound.image(&busybox_image()).source;
    sound.run(&image, &["true"]).expect(0, "never killed");
    std::thread::scope(|threads| {
        for half in CALLS.chunks(CALLS.len().div_ceil(2)) {
            let image = &image;
            threads.spawn(move || half.iter().for_each(|(call, most)| walk_call(call, *most, image)));
        }
    });
}

fn walk_call(call: &str, most: u32, image: &str) {
    for number in 1..=most {
        let worker = Worker::new();
        let case = format!("killed at {call} number {number}");
        let Some(killed) = strace(&worker, call, number, &["run", "--image", image, "--", "true"]) else {
            break;
        };
        worker.scratch().await_processes(LIMIT);
        for _ in 0..2 {
            worker.run(image, &["true"]).expect(0, &format!("the run after {case}: {killed:?}"));
        }
        worker.assert_nothing_left(&case);
    }
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
