//! The profile that a task with `allowPtrace` has for itself.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};

use crate::apparmor::{LIMIT, Policy};
use crate::it::allow_ptrace::{TRACES, image_with};
use crate::it::support::{Run, busybox_image, finish, read_until};

#[test]
fn s38_a_task_with_allow_ptrace_traces_in_a_profile_of_its_own_which_goes_with_it() {
    let policy = Policy::new();
    let worker = policy.worker();
    let image = worker.image(&image_with(&["/usr/bin/strace"], &[])).source;
    let script = format!("cat /proc/self/attr/current; {TRACES}");
    let with = ["--image", &image, "--feature", "allowPtrace"];
    let mut labels = BTreeSet::new();
    for case in ["first", "second"] {
        let run = worker.run_with(&with, &["sh", "-c", &script]).expect(0, case);
        let output = run.output();
        let (label, traced) = output.split_once('\n').unwrap();
        assert!(label.starts_with("docker-worker-container-") && label.ends_with(" (enforce)"), "{run:?}");
        assert_eq!(traced, "seen\n1\n1\nProcess N attached\nCapEff:\t00000000a80c25fb\n", "{run:?}");
        assert_eq!(policy.profiles(), Vec::<String>::new(), "{case}");
        labels.insert(label.to_owned());
    }
    assert_eq!(labels.len(), 2, "{labels:?}");
}

#[test]
fn the_profile_of_a_task_with_allow_ptrace_is_its_own_while_it_runs_and_is_unloaded_after_a_killed_worker() {
    let policy = Policy::new();
    let worker = policy.worker();
    let image = worker.image(&busybox_image()).source;
    let with = ["--image", &image, "--feature", "allowPtrace"];
    for signal in [Signal::TERM, Signal::KILL] {
        let (mut child, artifacts) = worker.start_run(&with, &["sh", "-c", "echo up; sleep 1000"]);
        let _log = read_until(&mut child, "\nup");
        // The worker's for all, and this one.
        let mut kinds: Vec<_> =
            policy.profiles().iter().map(|name| name.split('-').nth(2).unwrap().to_owned()).collect();
        kinds.sort();
        assert_eq!(kinds, ["container", "default"], "{signal:?}");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = finish(child, LIMIT);
        if signal == Signal::TERM {
            Run::collect(ended, artifacts).expect(122, "ended");
        } else {
            let cleaned = worker.call(&["cleanup"]);
            assert!(cleaned.status.success(), "{cleaned:?}");
            worker.scratch().await_processes(LIMIT);
        }
        assert_eq!(policy.profiles(), Vec::<String>::new(), "{signal:?}");
        worker.assert_nothing_left("after the run");
    }
}
