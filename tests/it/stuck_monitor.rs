//! A monitor that does not end: what is left of its container is kept and said, keeps nobody waiting, and goes at last.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::crash::assert_no_groups;
use crate::support::{Run, Worker, busybox_image, finish, read_until};

/// Longer than a worker gives a monitor, twice.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_monitor_that_does_not_end_is_kept_track_of_until_it_can_be_undone() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let options = ["--image", &image, "--cache", "c=/c"];
    let (mut child, artifacts) =
        worker.start_run(&options, &["sh", "-c", "touch /c/dirty; echo up; sleep 1000"]);
    let log = read_until(&mut child, "\nup");
    let containers = worker.containers();
    let [monitor] = worker.processes("docker-worker-r")[..] else { panic!("not one monitor") };
    kill_process(monitor, Signal::STOP).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let run = Run::collect(finish(child, LIMIT), artifacts).expect(122, "the monitor is stuck");
    let said = "what is left of the container is kept";
    assert!(log.join().unwrap().contains(said) && run.stderr.contains(said), "{run:?}");
    assert_eq!(worker.containers(), containers, "{run:?}");

    // Others go on, and read one line about it with the number of the process.
    let pid = format!("process {}", monitor.as_raw_nonzero());
    let run = worker.run_with(&options, &["sh", "-c", "test ! -e /c/dirty"]).expect(0, "the next run");
    assert_eq!(run.stderr.matches(&pid).count(), 1, "{run:?}");
    let cleaned = worker.call(&["cleanup"]);
    let stderr = String::from_utf8_lossy(&cleaned.stderr).into_owned();
    assert!(!cleaned.status.success() && stderr.contains(&pid), "{stderr}");
    assert_eq!(worker.containers(), containers);

    kill_process(monitor, Signal::KILL).unwrap();
    worker.scratch().await_processes(Duration::from_secs(10));
    let cleaned = worker.call(&["cleanup"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    worker.assert_nothing_left("after the clean-up");
    assert_no_groups(&containers, "after the clean-up");
}
