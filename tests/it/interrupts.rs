//! What ends a task before its command does, what is delivered all the same, and that no process survives (S64).

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{Run, Worker, busybox_image, finish, read_until, shell_payload};

/// Processes that do all they can to stay: they leave session and parent, ignore signals, stop themselves.
const STUBBORN: &str = "
    trap '' TERM INT HUP QUIT
    (setsid sh -c 'trap \"\" TERM HUP; (sleep 1000 &); sleep 1000' &)
    sh -c 'kill -STOP $$' &
    sh -c 'trap \"\" TERM; while :; do sleep 1000; done' &
    nohup sleep 1000 > /dev/null 2>&1 &
    echo ready > /started
";

#[test]
fn s64_nothing_of_a_task_outlives_its_command() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let run = worker
        .task(&shell_payload(&image, &format!("{STUBBORN} exit 3")))
        .expect(3, "the command's own status");
    assert!(run.took < Duration::from_secs(15), "{:?}", run.took);
    worker.assert_nothing_left("after the command's end");
}

#[test]
fn s62_max_run_time_ends_the_whole_tree_with_124_and_delivers_the_log() {
    let worker = Worker::new();
    let mut payload =
        shell_payload(&worker.image(&busybox_image()).source, &format!("echo before; {STUBBORN} wait"));
    payload["maxRunTime"] = json!(2);
    payload["features"] = json!({ "localLiveLog": true });
    let run = worker.task(&payload).expect(124, "maxRunTime");
    assert!(run.took < Duration::from_secs(2 + 15), "{:?}", run.took);
    assert!(run.log.contains("Task timeout after 2 seconds. Force killing container."), "{run:?}");
    assert!(run.log.contains("before\r\n") && run.log.contains("exit code: -1 completed"), "{run:?}");
    assert_eq!((&run.resolution["state"], &run.resolution["exitCode"]), (&json!("failed"), &json!(-1)));
    let log = String::from_utf8(run.artifact("public/logs/live.log")).unwrap();
    assert!(log.contains("before\r\n") && log.contains("Task timeout"), "{log}");
    worker.assert_nothing_left("after maxRunTime");
}

#[test]
fn a_signal_ends_the_task_and_the_status_says_which() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    for (signal, status, state, reason) in [
        (Signal::INT, 130, "exception", "canceled"),
        (Signal::TERM, 122, "exception", "worker-shutdown"),
        (Signal::HUP, 122, "exception", "worker-shutdown"),
    ] {
        let case = format!("{signal:?}");
        let (mut child, artifacts) =
            worker.start_run(&["--image", &image], &["sh", "-c", &format!("{STUBBORN} echo running; wait")]);
        let log = read_until(&mut child, "running");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let killed = Instant::now();
        let run = Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(status, &case);
        assert!(killed.elapsed() < Duration::from_secs(15), "{case}: {:?}", killed.elapsed());
        assert_eq!(run.resolution["state"], state, "{case}: {run:?}");
        assert_eq!(run.resolution["reason"], reason, "{case}: {run:?}");
        assert!(log.join().unwrap().contains("=== Task Finished ==="), "{case}");
        worker.assert_nothing_left(&case);
    }
}
