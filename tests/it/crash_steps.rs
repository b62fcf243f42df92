//! S47 at the level of `run`: worker, monitor, or both are killed at every step of a container's plan and of its
//! undoing, with a network, a cache and an artifact. Then `cleanup` or the next `run` leaves the host as it was.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Internet, Run, StandIn, Worker, busybox_image, finish, groups_named, shell_payload};

const LIMIT: Duration = Duration::from_secs(60);

/// No plan has as many steps. A walk ends where a monitor comes to its end before it is stopped.
const MOST_STEPS: usize = 500;

/// Whom `tests/stand_in.c` kills.
const WORKER: &str = "w";
const MONITOR: &str = "m";
const BOTH: &str = "wm";
/// And PID 1, which would end by itself, cannot: it is stopped.
const BOTH_BESIDE_A_FROZEN_CONTAINER: &str = "wmf";

#[test]
fn s47_a_worker_killed_at_each_step_is_cleaned_up_after() {
    walk(WORKER);
}

#[test]
fn s47_a_monitor_killed_at_each_step_is_cleaned_up_after_by_its_worker() {
    walk(MONITOR);
}

#[test]
fn s47_worker_and_monitor_killed_at_each_step_are_cleaned_up_after() {
    walk(BOTH);
}

#[test]
fn s47_a_frozen_container_whose_worker_and_monitor_are_killed_at_each_step_is_cleaned_up() {
    walk(BOTH_BESIDE_A_FROZEN_CONTAINER);
}

fn walk(victims: &str) {
    let internet = Internet::new();
    let worker = Worker::on(&internet);
    let site = Site {
        stand_in: StandIn::new(&worker),
        payload: payload(&worker),
        worker: &worker,
        containers: RefCell::default(),
    };
    site.works("before the walk");
    let mut steps = 1;
    while steps < MOST_STEPS && site.killed(steps, victims) {
        let case = format!("{victims} killed at step {steps}");
        if steps % 2 == 0 {
            let cleaned = worker.call(&["cleanup"]);
            assert!(cleaned.status.success(), "{case}: {cleaned:?}");
        } else {
            site.works(&case);
        }
        site.assert_clean(&case);
        // What would be left stays, and looking for it takes longer than killing.
        if steps % 10 == 0 {
            internet.assert_as_before();
        }
        steps += 1;
    }
    // The plan of a task's container alone is longer.
    assert!((60..MOST_STEPS).contains(&steps), "{steps}");
    site.works("after the walk");
    internet.assert_as_before();
    site.assert_no_groups();
}

/// The task that is killed, and the one that has to work afterwards.
fn payload(worker: &Worker) -> Value {
    let image = worker.image(&busybox_image()).source;
    let mut payload = shell_payload(&image, "echo text > /cache/file && echo text > /made && sleep 0");
    payload["cache"] = json!({ "walk": "/cache" });
    payload["artifacts"] = json!({ "public/made": { "type": "file", "path": "/made" } });
    payload
}

struct Site<'a> {
    worker: &'a Worker,
    stand_in: StandIn,
    payload: Value,
    /// All that were killed, or whose worker or monitor was.
    containers: RefCell<Vec<String>>,
}

impl Site<'_> {
    fn works(&self, case: &str) {
        let run = self.worker.task(&self.payload).expect(0, case);
        assert_eq!(run.artifact("public/made"), b"text\n", "{case}");
        fs::remove_dir_all(&run.artifacts).unwrap();
    }

    /// Whether a monitor came as far as `step`; `victims` are dead then.
    fn killed(&self, step: usize, victims: &str) -> bool {
        self.stand_in.order(step, victims);
        let task = self.worker.fresh("task").with_extension("json");
        fs::write(&task, self.payload.to_string()).unwrap();
        let (mut command, artifacts) = self.worker.run_command(&[task.to_str().unwrap()], &[]);
        command.env("DOCKER_WORKER_RUNTIME", self.stand_in.executable());
        let run = Run::collect(finish(command.spawn().unwrap(), LIMIT), artifacts.clone());
        self.worker.scratch().await_processes(LIMIT);
        fs::remove_dir_all(artifacts).unwrap();
        let case = format!("{victims} killed at step {step}");
        let Some(container) = self.stand_in.stopped() else {
            assert_eq!(run.status, 0, "{case}: {run:?}");
            return false;
        };
        if victims == MONITOR {
            // The worker lives, and leaves nothing to anybody.
            assert_eq!(run.status, 122, "{case}: {run:?}");
            assert_eq!(run.resolution["reason"], "internal-error", "{case}: {run:?}");
            self.assert_clean(&case);
        } else {
            assert_eq!(run.status, 128 + 9, "{case}: {run:?}");
        }
        self.containers.borrow_mut().push(container);
        true
    }

    /// Control groups bear the containers' ids.
    fn assert_no_groups(&self) {
        assert_eq!(groups_named(&self.containers.borrow()), Vec::<PathBuf>::new());
    }

    fn assert_clean(&self, case: &str) {
        self.worker.assert_nothing_left(case);
        // One cache, and the lock beside it.
        let caches = self.worker.caches().len() + self.worker.trash().len();
        assert!(caches <= 1, "{case}: {caches} caches");
    }
}
