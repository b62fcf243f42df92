//! The numbers of a dead worker, its monitor and its container's PID 1 pass to strangers: whoever cleans up then signals
//! nobody of them. The numbers are forced, in a pid namespace of the test's own, where nobody else takes them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal, waitpid,
};
use serde_json::Value;

use crate::support::{Finished, PidNamespace, Worker, busybox_image, finish, read_until, runtime_executable};

const LIMIT: Duration = Duration::from_secs(30);

/// What is done beside the strangers.
#[derive(Debug)]
enum Remedy {
    Cleanup,
    NextRun,
    Delete,
}

/// How alike stranger and PID 1 are: a start time is told in clock ticks of ten milliseconds.
#[derive(Debug)]
enum Start {
    AsItComes,
    /// The journal is changed to name the stranger's.
    OfTheSameTick,
}

#[test]
fn s47_a_stranger_with_the_number_of_a_dead_process_is_not_signalled() {
    for remedy in [Remedy::Cleanup, Remedy::NextRun, Remedy::Delete] {
        for start in [Start::AsItComes, Start::OfTheSameTick] {
            check(&remedy, &start);
        }
    }
}

fn check(remedy: &Remedy, start: &Start) {
    let case = format!("{remedy:?}, {start:?}");
    let namespace = PidNamespace::new();
    let worker = Worker::by(&namespace.entrance());
    let image = worker.image(&busybox_image()).source;
    let dead = Dead::killed(&worker, &image);
    dead.numbers.iter().for_each(|number| namespace.take(*number));
    if matches!(start, Start::OfTheSameTick) {
        dead.change_start_time(&namespace);
    }

    let state = dead.runtime(&namespace, &["state", &dead.id]);
    assert!(state.status.success(), "{case}: {state:?}");
    let state: Value = serde_json::from_slice(&state.stdout).unwrap();
    assert_eq!(state["status"], "stopped", "{state}");
    for signal in ["KILL", "TERM"] {
        let killed = dead.runtime(&namespace, &["kill", &dead.id, signal]);
        let words = String::from_utf8_lossy(&killed.stderr).into_owned();
        assert!(killed.status.code() == Some(1) && words.contains("container not running"), "{killed:?}");
    }
    match remedy {
        Remedy::Cleanup => {}
        Remedy::NextRun => drop(worker.run(&image, &["true"]).expect(0, &case)),
        Remedy::Delete => {
            let deleted = dead.runtime(&namespace, &["delete", "--force", &dead.id]);
            assert!(deleted.status.success(), "{deleted:?}");
        }
    }
    let cleaned = worker.call(&["cleanup"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    for number in dead.numbers {
        assert!(namespace.lives(number), "{case}: the stranger {number} of {:?} was killed", dead.numbers);
    }
    worker.assert_nothing_left(&case);
}

/// A task whose worker, monitor and PID 1 are dead and reaped.
struct Dead {
    id: String,
    /// The numbers that they had in their namespace.
    numbers: [i32; 3],
    state_root: PathBuf,
}

impl Dead {
    fn killed(worker: &Worker, image: &str) -> Dead {
        let (mut child, _) =
            worker.start_run(&["--network", "none", "--image", image], &["sh", "-c", "echo up; sleep 1000"]);
        read_until(&mut child, "\nup");
        let id = worker.containers().pop().unwrap();
        let state_root = worker.run_directory().join(&id).join("containers/task/runtime");
        let init = fs::read_to_string(state_root.join(&id).join("journal")).unwrap();
        let init = init.lines().find_map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["note"]["pid"].as_i64()
        });
        let victims = ["docker-worker", "docker-worker-r"].map(|name| worker.processes(name)[0]);
        let [first, second] = victims.map(number_inside);
        let [worker_process, monitor] = victims.map(|it| pidfd_open(it, PidfdFlags::empty()).unwrap());
        // Whichever died first, the other would clean up at once.
        pidfd_send_signal(&worker_process, Signal::STOP).unwrap();
        let nsenter = Pid::from_child(&child);
        // It stops when what it runs has stopped.
        waitpid(Some(nsenter), WaitOptions::UNTRACED).unwrap();
        pidfd_send_signal(&monitor, Signal::KILL).unwrap();
        pidfd_send_signal(&worker_process, Signal::KILL).unwrap();
        kill_process(nsenter, Signal::CONT).unwrap();
        finish(child, LIMIT);
        worker.scratch().await_processes(LIMIT);
        Dead { id, numbers: [first, second, init.unwrap().try_into().unwrap()], state_root }
    }

    fn runtime(&self, namespace: &PidNamespace, arguments: &[&str]) -> Finished {
        let mut command = namespace.command(runtime_executable());
        command.arg("--root").arg(&self.state_root).args(arguments);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        finish(command.spawn().unwrap(), LIMIT)
    }

    fn change_start_time(&self, namespace: &PidNamespace) {
        let journal = self.state_root.join(&self.id).join("journal");
        let stat = namespace.command("cat").arg(format!("/proc/{}/stat", self.numbers[2])).output().unwrap();
        let stat = String::from_utf8(stat.stdout).unwrap();
        // Source: proc_pid_stat(5), the 22nd field; the second may hold anything, in parentheses.
        let start: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
        let lines = fs::read_to_string(&journal).unwrap();
        let changed = lines.lines().map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            if line["note"].is_object() {
                line["note"]["startTime"] = start.into();
            }
            format!("{line}\n")
        });
        fs::write(&journal, changed.collect::<String>()).unwrap();
    }
}

/// The number of a process in the innermost of its namespaces.
fn number_inside(process: Pid) -> i32 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}
