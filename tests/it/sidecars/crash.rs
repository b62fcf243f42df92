//! Worker and monitor killed while a container beside the task is made, serves, or ends: the clean-up finds all of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Host, balrog, releng_api};
use crate::support::{Run, StandIn, await_that, finish, groups_named, read_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Steps of a monitor's, from its first one to its last ones: the first monitor of a run is that of the container beside the
/// task. What lies between them has the walk of a task's own container.
const STEPS: [usize; 8] = [1, 6, 12, 20, 30, 42, 55, 70];

#[test]
fn s47_a_worker_killed_at_a_step_of_a_container_beside_its_task_is_cleaned_up_after() {
    for victims in ["w", "wm", "wmf", "m"] {
        let host = Host::with(&["ANSWERS=401"], balrog);
        let stand_in = StandIn::new(&host.worker);
        let mut stopped = 0;
        let mut last = String::new();
        for step in STEPS {
            let case = format!("{victims} killed at step {step}");
            stand_in.order(step, victims);
            let task = host.worker.fresh("task").with_extension("json");
            fs::write(&task, host.payload("balrogVPNProxy", "true").to_string()).unwrap();
            let options = ["--config", &host.config, task.to_str().unwrap()];
            let (mut command, artifacts) = host.worker.run_command(&options, &[]);
            command.env("DOCKER_WORKER_RUNTIME", stand_in.executable());
            let run = Run::collect(finish(command.spawn().unwrap(), LIMIT), artifacts);
            host.worker.scratch().await_processes(LIMIT);
            if victims.contains('w') {
                let cleaned = host.worker.call(&["cleanup"]);
                assert!(cleaned.status.success(), "{case}: {cleaned:?}");
            }
            host.worker.assert_nothing_left(&format!("{case}: {run:?}"));
            host.internet.assert_as_before();
            last = format!("{run:?}");
            if let Some(container) = stand_in.stopped() {
                stopped += 1;
                assert_eq!(groups_named(&[container]), Vec::<PathBuf>::new(), "{case}");
            }
        }
        assert!(stopped >= 5, "{victims}: {stopped} of {} steps came: {last}", STEPS.len());
    }
}

#[test]
fn s47_a_worker_killed_while_a_container_serves_its_task_leaves_nothing_to_the_next_run() {
    let host = Host::with(&["PLAIN=1"], releng_api);
    let task = host.worker.fresh("task").with_extension("json");
    let payload = host.payload("relengAPIProxy", "ask relengapi / && echo up; sleep 1000");
    fs::write(&task, payload.to_string()).unwrap();
    let options = ["--config", &host.config, task.to_str().unwrap()];
    for kills_monitors in [false, true] {
        let (mut child, _) = host.worker.start_run(&options, &[]);
        read_until(&mut child, "\nup");
        let monitors = host.worker.processes("docker-worker-r");
        assert!(monitors.len() >= 2, "{monitors:?}");
        let victims = monitors.into_iter().filter(|_| kills_monitors);
        for process in victims.chain([Pid::from_child(&child)]) {
            // One may have ended when the one before it did.
            kill_process(process, Signal::KILL).unwrap_or_default();
        }
        finish(child, LIMIT);
        host.run(&host.payload("relengAPIProxy", "ask relengapi /")).expect(0, "the next run");
    }
}

#[test]
fn a_run_that_is_ended_while_its_container_is_made_waits_for_nothing_and_leaves_nothing() {
    let host = Host::with(&["LISTENS=no"], releng_api);
    let task = host.worker.fresh("task").with_extension("json");
    fs::write(&task, host.payload("relengAPIProxy", "true").to_string()).unwrap();
    let (child, artifacts) = host.worker.start_run(&["--config", &host.config, task.to_str().unwrap()], &[]);
    await_that("a container beside the task", || {
        let state = |run| host.worker.run_directory().join(run).join("containers/relengAPIProxy/runtime");
        let is_begun = |run| fs::read_dir(state(run)).is_ok_and(|mut entries| entries.next().is_some());
        host.worker.containers().into_iter().any(is_begun)
    });
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let run = Run::collect(finish(child, LIMIT), artifacts).expect(122, "worker-shutdown");
    // It would have waited for thirty seconds.
    assert!(!run.log.contains("Failed to initialize"), "{run:?}");
    host.worker.assert_nothing_left("after the end");
    host.internet.assert_as_before();
}
