//! S47: SIGKILL to the worker, to the monitor of a container, or to both, at any point: after `cleanup` nothing is left,
//! and the next run works.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::support::{Run, Worker, busybox_image, finish, groups_named, read_until};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Worker,
    Monitor,
    Both,
}

#[test]
fn s47_a_kill_at_any_point_leaves_nothing_after_cleanup() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    worker.run(&image, &["true"]).expect(0, "the image is fetched");
    let whole = worker.run(&image, &["true"]).expect(0, "the image is there").took;
    // Points from the first moment to after the start, spread over three victims.
    for step in 0..30_u32 {
        let time = whole * step / 20;
        let victim = [Victim::Worker, Victim::Monitor, Victim::Both][(step % 3) as usize];
        let case = format!("{victim:?} killed after {time:?} of {whole:?}");
        let (child, artifacts) =
            worker.start_run(&["--image", &image], &["sh", "-c", "sleep 1000 & sleep 1000"]);
        pause(time, &child);
        let mut containers = worker.containers();
        kill(&worker, &child, victim);
        if victim == Victim::Monitor {
            // Before there is a monitor, nothing was killed, and the task has to be ended in another way.
            end(&child);
        }
        let finished = finish(child, Duration::from_secs(30));
        containers.extend(worker.containers());
        let cleaned = worker.call(&["cleanup"]);
        assert!(cleaned.status.success(), "{case}: {cleaned:?}; the run: {finished:?}");
        // The monitor of a killed worker cleans up at the same time, and may not have ended yet.
        worker.scratch().await_processes(Duration::from_secs(10));
        worker.assert_nothing_left(&case);
        assert_no_groups(&containers, &case);
        fs::remove_dir_all(&artifacts).unwrap_or_default();
    }
    worker.run(&image, &["true"]).expect(0, "after");
}

#[test]
fn s47_the_next_run_cleans_up_by_itself() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let (mut child, _) = worker.start_run(&["--image", &image], &["sh", "-c", "echo up; sleep 1000"]);
    read_until(&mut child, "\nup");
    let containers = worker.containers();
    kill(&worker, &child, Victim::Both);
    finish(child, Duration::from_secs(30));
    worker.run(&image, &["true"]).expect(0, "the next run");
    worker.assert_nothing_left("after the next run");
    assert_no_groups(&containers, "after the next run");
}

#[test]
fn a_monitor_that_dies_makes_an_internal_error_and_takes_its_container_along() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let script = "trap '' TERM HUP; sleep 1000 & echo up; sleep 1000";
    let (mut child, artifacts) = worker.start_run(&["--image", &image], &["sh", "-c", script]);
    let log = read_until(&mut child, "\nup");
    let containers = worker.containers();
    kill(&worker, &child, Victim::Monitor);
    let run = Run::collect(finish(child, Duration::from_secs(30)), artifacts).expect(122, "no monitor");
    assert_eq!(run.resolution["reason"], "internal-error", "{run:?}");
    let log = log.join().unwrap();
    assert!(log.contains("lost control of the task's container"), "{log}");
    assert!(!run.artifact("public/logs/live.log").is_empty());
    worker.assert_nothing_left("after the monitor's death");
    assert_no_groups(&containers, "after the monitor's death");
}

/// Waits until the time has passed or the process has ended.
fn pause(time: Duration, child: &Child) {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let time = Timespec { tv_sec: time.as_secs().try_into().unwrap(), tv_nsec: time.subsec_nanos().into() };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time)).unwrap();
}

fn kill(worker: &Worker, child: &Child, victim: Victim) {
    // The monitor first: it would go by itself when its worker has gone.
    if victim != Victim::Worker {
        for monitor in worker.processes("docker-worker-r") {
            send_kill(monitor);
        }
    }
    if victim != Victim::Monitor {
        send_kill(Pid::from_child(child));
    }
}

fn end(child: &Child) {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    // It may have ended by itself.
    pidfd_send_signal(&pidfd, Signal::TERM).unwrap_or_default();
}

fn send_kill(process: Pid) {
    // A process that has gone in between is as good as killed.
    if let Ok(pidfd) = pidfd_open(process, PidfdFlags::empty()) {
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap_or_default();
    }
}

/// Control groups bear the containers' ids: none may be left in any hierarchy.
pub fn assert_no_groups(containers: &[String], case: &str) {
    assert_eq!(groups_named(containers), Vec::<PathBuf>::new(), "{case}");
}
