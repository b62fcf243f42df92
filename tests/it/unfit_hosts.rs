//! Hosts that lack something: one sentence with what is missing and the remedy, 125 where no task can run, and a line in
//! the log where one can.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Finished, Worker, busybox_image, finish};

/// `docker-worker run` of busybox's `true`, by way of `wrapper`, which executes what follows it.
fn run_by(wrapper: &[&str]) -> Finished {
    let worker = Worker::new();
    let source = worker.image(&busybox_image()).source;
    let inner = worker.command(&["run", "--image", &source, "--", "true"]);
    let child = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let finished = finish(child, Duration::from_secs(60));
    worker.assert_nothing_left(&format!("{wrapper:?}"));
    finished
}

/// The same in a mount namespace of its own, which `script` changes first.
fn run_after(script: &str) -> Finished {
    let script = format!("set -e; {script}; exec \"$@\"");
    run_by(&["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "-"])
}

#[test]
fn a_missing_controller_is_named_in_the_log_and_no_control_groups_at_all_are_125() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    if mounts.lines().any(|line| line.contains(" - cgroup ") && line.contains("/pids ")) {
        let finished =
            run_after("umount $(awk '/ - cgroup / && / [^ ]*pids/ { print $5 }' /proc/self/mountinfo)");
        let log = String::from_utf8_lossy(&finished.stdout);
        assert_eq!(finished.status.code(), Some(0), "{finished:?}");
        assert!(log.contains("this host has no pids controller"), "{log}");
    }
    let finished = run_after("umount -l /sys/fs/cgroup");
    let stderr = String::from_utf8_lossy(&finished.stderr);
    assert_eq!(finished.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("control groups"), "{stderr}");
    assert!(finished.stdout.is_empty());
}

#[test]
fn without_root_the_sentence_says_so() {
    let finished = run_by(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    let stderr = String::from_utf8_lossy(&finished.stderr);
    assert_eq!(finished.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("root"), "{stderr}");
}
