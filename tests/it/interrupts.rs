//! What ends a task before its command does, what is delivered all the same, and that no process survives (S64).

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{
    Internet, Run, StalledOpening, Worker, await_end, await_path, await_written, busybox_image, compiled,
    file, finish, read_until, shell_payload,
};

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
    // Whoever started these tests may ignore hang-ups, which the worker would respect.
    let worker = Worker::by(&["env", "--default-signal"]);
    let image = worker.image(&busybox_image()).source;
    let shutdown = "Task has been aborted prematurely. Reason: worker-shutdown";
    for (signal, status, state, reason, sentence) in [
        (Signal::INT, 130, "exception", "canceled", "Task was canceled by the one who runs this worker"),
        (Signal::TERM, 122, "exception", "worker-shutdown", shutdown),
        (Signal::HUP, 122, "exception", "worker-shutdown", shutdown),
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
        let log = log.join().unwrap();
        assert!(log.contains("=== Task Finished ===") && log.contains(sentence), "{case}: {log}");
        worker.assert_nothing_left(&case);
    }
}

#[test]
fn a_resolution_waits_for_nothing_that_is_only_given_back() {
    let internet = Internet::new();
    let worker = Worker::on(&internet);
    let image = worker.image(&busybox_image()).source;
    let (mut child, artifacts) =
        worker.start_run(&["--json", "--image", &image], &["sh", "-c", "echo running; sleep 1000"]);
    let log = read_until(&mut child, "running");
    // Here the address of a task's network is noted when it is given back.
    let giving_back = StalledOpening::of(&worker.run_directory().join("network/addresses"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    giving_back.await_opening();
    await_path(&artifacts.join("resolution.json"));
    assert_eq!(child.try_wait().unwrap(), None, "the network is not given back yet");
    drop(giving_back);
    Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(122, "shutdown");
    log.join().unwrap();
    worker.assert_nothing_left("after everything is given back");
}

#[test]
fn a_hang_up_that_is_ignored_as_by_nohup_does_not_end_the_task() {
    let worker = Worker::by(&["sh", "-c", "trap '' HUP; exec \"$@\"", "-"]);
    let image = worker.image(&busybox_image()).source;
    let (mut child, artifacts) =
        worker.start_run(&["--image", &image], &["sh", "-c", "echo running; sleep 1; exit 7"]);
    let log = read_until(&mut child, "running");
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(7, "nohup");
    log.join().unwrap();
}

#[test]
fn a_standard_error_that_nobody_reads_keeps_neither_a_task_nor_its_end() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    for (case, signal, status) in [("its own end", None, 7), ("SIGTERM", Some(Signal::TERM), 122)] {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
        rustix::io::write(&writer, &[b'x'; 4096]).unwrap();
        let script = if signal.is_some() { "echo running; sleep 1000" } else { "echo running; exit 7" };
        let (mut command, artifacts) =
            worker.run_command(&["--json", "--image", &image], &["sh", "-c", script]);
        let mut child = command.stderr(std::process::Stdio::from(writer)).spawn().unwrap();
        drop(command);
        let log = read_until(&mut child, "running");
        if let Some(signal) = signal {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        Run::collect(finish(child, Duration::from_secs(30)), artifacts).expect(status, case);
        log.join().unwrap();
        drop(reader);
    }
}

#[test]
fn a_file_size_limit_is_an_error_and_not_the_workers_death() {
    let worker = Worker::by(&["sh", "-c", "ulimit -f 100; exec \"$@\"", "-"]);
    let bulky = busybox_image().layer(&[file("bulky", vec![b'x'; 1 << 20])]);
    let image = worker.image(&bulky).source;
    let report = String::from_utf8(worker.call(&["check"]).stdout).unwrap();
    if may_raise_limits() {
        worker.run(&image, &["true"]).expect(0, "a limit that root may raise, however hard");
        assert!(!report.contains("degraded  file size"), "{report}");
    } else {
        let run = worker.run(&image, &["true"]).expect(125, "ulimit -f");
        assert!(run.stderr.contains("File too large"), "{run:?}");
        assert!(report.contains("degraded  file size         files may have "), "{report}");
    }
    let soft = Worker::by(&["sh", "-c", "ulimit -S -f 100; exec \"$@\"", "-"]);
    soft.run(&soft.image(&bulky).source, &["true"]).expect(0, "a limit that may be raised");
}

/// Whether these tests hold CAP_SYS_RESOURCE, number 24 of capabilities(7).
fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() >> 24 & 1 == 1
}

#[test]
fn a_second_ctrl_c_leaves_at_once_and_a_clean_up_undoes_the_rest() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let (mut child, _artifacts) =
        worker.start_run(&["--image", &image], &["sh", "-c", &format!("{STUBBORN} echo running; wait")]);
    let log = read_until(&mut child, "running");
    // A monitor that hangs: the first Ctrl-C waits for it.
    let [monitor] = worker.processes("docker-worker-r")[..] else { panic!("one monitor") };
    kill_process(monitor, Signal::STOP).unwrap();
    let own = Pid::from_child(&child);
    kill_process(own, Signal::INT).unwrap();
    while let [sleep, ..] = worker.processes("sleep")[..] {
        await_end(sleep);
    }
    kill_process(own, Signal::INT).unwrap();
    let finished = finish(child, Duration::from_secs(10));
    kill_process(monitor, Signal::CONT).unwrap();
    assert_eq!(finished.status.code(), Some(130), "{finished:?}");
    assert!(String::from_utf8_lossy(&finished.stderr).contains("left at once"), "{finished:?}");
    log.join().unwrap();
    let cleaned = worker.call(&["cleanup"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    worker.assert_nothing_left("after a clean-up");
}

#[test]
fn max_run_time_holds_while_the_container_starts() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    // A runtime that says nothing until its worker lets go of it.
    let runtime = compiled(
        "mute",
        "#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n
         int main(int argc, char **argv) {
           for (int at = 1; at + 1 < argc; at++) {
             char end;
             if (strcmp(argv[at], \"--lifeline-fd\") == 0) return read(atoi(argv[at + 1]), &end, 1);
           }
           return 1;
         }",
    );
    let options = ["--image", &image, "--max-run-time", "1"];
    let (mut command, artifacts) = worker.run_command(&options, &["true"]);
    let child = command.env("DOCKER_WORKER_RUNTIME", &runtime).spawn().unwrap();
    let run = Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(124, "maxRunTime");
    assert!(run.log.contains("Task timeout after 1 seconds. Force killing container."), "{run:?}");
    worker.assert_nothing_left("after a start that took too long");
}

#[test]
fn an_interrupt_while_artifacts_are_stored_is_explained_and_leaves_no_half_file() {
    let worker = Worker::new();
    let script = "dd if=/dev/zero of=/big bs=1M count=1; truncate -s 64G /big";
    let mut payload = shell_payload(&worker.image(&busybox_image()).source, script);
    payload["artifacts"] = json!({ "public/big": { "type": "file", "path": "/big" } });
    let (task, config) = (worker.fresh("task"), worker.fresh("config"));
    std::fs::write(&task, payload.to_string()).unwrap();
    std::fs::write(&config, "artifacts: {maxBytes: 100G}\n").unwrap();
    let options = ["--config", config.to_str().unwrap(), task.to_str().unwrap()];
    let (mut child, artifacts) = worker.start_run(&options, &[]);
    let log = read_until(&mut child, "=== Task Finished ===");
    await_written(&mut child, &artifacts.join("public"), 0);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let run = Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(122, "shutdown");
    assert!(log.join().unwrap().contains("Task has been aborted prematurely. Reason: worker-shutdown"));
    assert_eq!(run.resolution["reason"], "worker-shutdown", "{run:?}");
    let left = std::fs::read_dir(run.artifacts.join("public")).unwrap();
    assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["logs"]);
}
