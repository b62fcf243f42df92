//! `docker-worker run` as an operator sees it: the log's form, exit statuses, what lands where, events.

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Worker, busybox_image, finish, read_until, shell_payload};

#[test]
fn the_log_has_the_workers_lines_around_what_the_command_prints_on_its_terminal() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let payload = json!({
        "image": image, "maxRunTime": 60, "cache": {"tools": "/tools"},
        "command": ["sh", "-c", "echo one; test -t 1 && echo a terminal; echo two >&2; printf three"]
    });
    let run = worker.task(&payload).expect(0, "log");
    let mut rest = run.log.as_str();
    for expected in [
        "Z] Task ID: ",
        "Z] Worker ID: ",
        "Z] Worker Group: ",
        "Z] Worker Node Type: ",
        "Z] Worker Pool: ",
        "Z] Worker Version: ",
        "Z] Public IP: ",
        "Z] Hostname: ",
        "Z] using cache \"tools\" -> /tools\n",
        "\r\n",
        "Z] === Task Starting ===\none\r\na terminal\r\ntwo\r\nthree[taskcluster ",
        "Z] === Task Finished ===\n",
        "Z] Successful task run with exit code: 0 completed in ",
        " seconds\n",
    ] {
        let at =
            rest.find(expected).unwrap_or_else(|| panic!("{expected:?} is not in the rest: {:?}", run.log));
        rest = &rest[at + expected.len()..];
    }
    assert_eq!(rest, "", "nothing follows the footer");
    assert_eq!(run.artifact("public/logs/live.log"), run.log.as_bytes(), "the artifact is the log");
}

#[test]
fn the_exit_status_is_the_commands_own_or_says_what_else_happened() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let cases: [(&[&str], i32, i64); 7] = [
        (&["true"], 0, 0),
        (&["sh", "-c", "exit 3"], 3, 3),
        (&["sh", "-c", "exit 255"], 255, 255),
        (&["sh", "-c", "kill -SEGV $$; sleep 1; exit 9"], 9, 9), // PID 1 is not hit by its own signals.
        (&["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"], 137, 137),
        (&["/nowhere/to/be/found"], 127, -1),
        (&["/etc/passwd"], 126, -1),
    ];
    for (command, status, exit_code) in cases {
        let run = worker.run(&image, command).expect(status, &format!("{command:?}"));
        assert_eq!(run.resolution["exitCode"], exit_code, "{command:?}");
        let footer = format!("task run with exit code: {exit_code} completed in");
        assert!(run.log.contains(&footer), "{command:?}: {}", run.log);
    }
}

#[test]
fn entry_point_user_directory_and_environment_are_as_docker_makes_them() {
    let worker = Worker::new();
    let image = busybox_image()
        .set("Entrypoint", json!(["/bin/sh", "-c"]))
        .set("User", json!("worker"))
        .set("WorkingDir", json!("/made/by/the/worker"))
        .set("Volumes", json!({"/volume": {}}))
        .set("Env", json!(["PATH=/bin", "FROM=image", "TASK_ID=forged"]));
    let image = worker.image(&image).source;
    let script = "id; pwd; ls -ld /volume $PWD | cut -c1-10; echo $HOME $FROM $TERM $RUN_ID; hostname; cat /etc/hosts; env";
    let run = worker.run_with(&["--image", &image, "--env", "FROM=payload", "--env", "RUN_ID=7"], &[script]);
    let run = run.expect(0, "docker's ways");
    let output = run.output();
    let lines: Vec<&str> = output.lines().collect();
    let begin = lines.iter().position(|line| line.starts_with("uid=")).unwrap();
    assert_eq!(lines[begin], "uid=1000(worker) gid=1000(worker) groups=1000(worker),2000(extra)");
    assert_eq!(lines[begin + 1], "/made/by/the/worker");
    assert_eq!(lines[begin + 2..begin + 4], ["drwxr-xr-x", "drwxr-xr-x"]);
    assert_eq!(lines[begin + 4], "/home/worker payload xterm 0");
    assert!(lines[begin + 5].len() == 12 && lines[begin + 5].bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(output.contains("127.0.0.1\tlocalhost.localdomain\n"), "{output}");
    let task_id = run.resolution["taskId"].as_str().unwrap();
    assert!(output.contains(&format!("TASK_ID={task_id}\n")), "{output}");
}

#[test]
fn a_task_cannot_forge_a_variable_of_the_workers_that_has_no_value() {
    let worker = Worker::new();
    let forged = [("TASKCLUSTER_ROOT_URL", "forged"), ("TASKCLUSTER_PUBLIC_IP", "forged")];
    let image =
        busybox_image().set("Env", json!(["PATH=/bin", "TASKCLUSTER_WORKER_LOCATION=forged", "HOME="]));
    let mut payload = shell_payload(&worker.image(&image).source, "env");
    payload["env"] = forged.into_iter().collect();
    let run = worker.task(&payload).expect(0, "forged variables");
    assert!(!run.output().contains("forged"), "{run:?}");
    assert!(run.output().contains("HOME=/root\n"), "{run:?}");
    assert!(run.log.contains("Warning: /env/TASKCLUSTER_ROOT_URL: is not passed on"), "{run:?}");
}

#[test]
fn an_entry_point_of_one_empty_word_is_none() {
    let worker = Worker::new();
    let image = busybox_image().set("Entrypoint", json!([""])).set("Cmd", json!(["echo", "ran"]));
    let run = worker.run(&worker.image(&image).source, &[]).expect(0, "an empty entry point");
    assert_eq!(run.output(), "ran\n");
    let image = worker.image(&busybox_image()).source;
    let run = worker.run(&image, &["", "x"]).expect(127, "a program without a name");
    assert!(run.log.contains("its first word is empty"), "{run:?}");
}

#[test]
fn a_task_may_add_lines_to_its_hosts_file_and_the_next_one_does_not_see_them() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let script = "echo 10.1.2.3 added >> /etc/hosts && grep -c added /etc/hosts";
    for case in ["first", "second"] {
        let run = worker.run(&image, &["sh", "-c", script]).expect(0, case);
        assert_eq!(run.output(), "1\n", "{case}");
    }
}

#[test]
fn an_image_without_a_command_needs_one_from_the_payload() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image().set("Cmd", Value::Null)).source;
    let run = worker.run(&image, &[]).expect(127, "no command at all");
    assert!(run.log.contains("add `command` to the payload"), "{}", run.log);
}

#[test]
fn events_are_lines_of_json_on_standard_error_and_the_log_stays_alone_on_standard_output() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let run = worker.run_with(&["--json", "--image", &image, "--cache", "c=/c"], &["sh", "-c", "exit 4"]);
    let run = run.expect(4, "--json");
    let events: Vec<Value> = run
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let mut rest = names.iter();
    for expected in [
        "task-claimed",
        "cache-taken",
        "image-ready",
        "task-started",
        "container-exited",
        "artifact-published",
        "task-resolved",
    ] {
        assert!(rest.any(|name| *name == expected), "{expected} is not where it should be: {names:?}");
    }
    let last = events.last().unwrap();
    assert_eq!((&last["state"], &last["exitCode"]), (&json!("failed"), &json!(4)));
    assert!(run.log.starts_with("[taskcluster "), "{}", run.log);
}

#[test]
fn without_a_directory_for_artifacts_one_line_says_that_none_is_kept() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let finished = worker.call(&["run", "--network", "none", "--image", &image, "--", "true"]);
    let stderr = String::from_utf8(finished.stderr).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{stderr}");
    let about = stderr.lines().filter(|line| line.contains("--artifacts")).count();
    assert_eq!(about, 1, "{stderr}");
}

#[test]
fn the_bulk_log_is_the_log_compressed_under_its_own_name() {
    let worker = Worker::new();
    let mut payload = shell_payload(&worker.image(&busybox_image()).source, "echo words");
    payload["features"] = json!({"bulkLog": true, "localLiveLog": false});
    let run = worker.task(&payload).expect(0, "bulkLog");
    let bytes = run.artifact("public/logs/terminal_bulk.log.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, run.log);
    assert!(!run.artifacts.join("public/logs/live.log").exists());
}

#[test]
fn wrong_use_is_one_sentence_and_2() {
    let worker = Worker::new();
    let cases: [(&[&str], &str); 6] = [
        (&[], "name a command"),
        (&["run"], "--image REF"),
        (&["run", "--imgae", "x"], "--imgae"),
        (&["run", "--env", "X", "t.json"], "NAME=VALUE"),
        (&["run", "--interactive", "t.json"], "--interactive is not there yet"),
        (&["run", "/nowhere/t.json"], "/nowhere/t.json"),
    ];
    for (arguments, expected) in cases {
        let finished = worker.call(arguments);
        let stderr = String::from_utf8(finished.stderr).unwrap();
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert!(finished.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_key_of_the_configuration_that_does_nothing_is_refused_by_name() {
    let worker = Worker::new();
    let file = worker.fresh("config");
    for (text, sentence) in [
        (
            "workerId: w\nshutdown: {enabled: true}\n",
            "line 2, column 1: \"shutdown\" is not a key that exists here",
        ),
        (
            "features:\n  bulklog: {enabled: false}\n",
            "line 2, column 3: \"bulklog\" is not a key that exists here (did you mean \"bulkLog\"?)",
        ),
        ("limits: {memory: 1000}\n", "line 1, column 18: must be at least 6291456 bytes"),
    ] {
        fs::write(&file, text).unwrap();
        let finished = worker.call(&["run", "--config", file.to_str().unwrap(), "--image", "x"]);
        let stderr = String::from_utf8(finished.stderr).unwrap();
        assert_eq!(finished.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(sentence) && stderr.contains(file.to_str().unwrap()), "{stderr}");
    }
}

#[test]
fn a_reader_who_does_not_read_does_not_keep_an_interrupted_task() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let script = "yes | head -c 1000000; echo; : > /done; sleep 1000";
    let (child, _artifacts) = worker.start_run(&["--image", &image], &["sh", "-c", script]);
    // Nobody reads; the pipe is full long before this.
    let deadline = Instant::now() + Duration::from_secs(60);
    while spooled(&worker).is_none_or(|bytes| bytes <= 500_000) {
        assert!(Instant::now() < deadline, "the task waits for its reader");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    // The pipe is held, and nothing read from it, until the worker has ended.
    let mut child = child;
    let reader = child.stdout.take();
    let finished = finish(child, Duration::from_secs(30));
    drop(reader);
    assert_eq!(finished.status.code(), Some(130), "{finished:?}");
    assert!(finished.took < Duration::from_secs(15) + Duration::from_secs(60), "{finished:?}");
}

/// Bytes of the only running task's log.
fn spooled(worker: &Worker) -> Option<u64> {
    Some(fs::metadata(worker.data_of_task()?.join("log")).ok()?.len())
}

#[test]
fn a_reader_who_leaves_early_does_not_change_the_tasks_end() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let script = "yes | head -c 300000; exit 5";
    let (mut child, artifacts) = worker.start_run(&["--image", &image], &["sh", "-c", script]);
    drop(child.stdout.take());
    let finished = finish(child, Duration::from_secs(60));
    assert_eq!(finished.status.code(), Some(5), "{finished:?}");
    // "y" and CRLF for each two bytes.
    assert!(fs::metadata(artifacts.join("public/logs/live.log")).unwrap().len() > 450_000);
}

#[test]
fn the_demo_runs_offline_and_leaves_nothing() {
    let worker = Worker::new();
    let finished = worker.call(&["demo"]);
    let text = String::from_utf8(finished.stdout).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&finished.stderr));
    assert!(text.contains("All scenes went as they should"), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("ALLOWED")), "{text}");
}

#[test]
fn a_killed_demo_is_cleaned_up_and_a_living_one_is_not() {
    let worker = Worker::new();
    let mut demo = worker.command(&["demo"]).spawn().unwrap();
    let rest = read_until(&mut demo, "── 1.");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", demo.id())).unwrap();
    let directory = descriptors
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap_or_default())
        .find(|target| target.to_string_lossy().contains("docker-worker-demo."))
        .unwrap();
    worker.call(&["cleanup"]);
    assert!(directory.join("image.tar").exists(), "a living demo lost its directory");
    demo.kill().unwrap();
    finish(demo, Duration::from_secs(60));
    // The task that it had begun ends by itself, and holds the same output until then.
    rest.join().unwrap();
    let cleaned = worker.call(&["cleanup"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert!(!directory.exists(), "{cleaned:?}");
}

#[test]
fn check_says_what_works_with_a_remedy_for_what_does_not() {
    let worker = Worker::new();
    let finished = worker.call(&["check", "--json"]);
    let report: Value = serde_json::from_slice(&finished.stdout).unwrap();
    assert_eq!(finished.status.code(), Some(0), "{report}");
    let items = report["items"].as_array().unwrap();
    let mut worst = "works";
    for item in items {
        let status = item["status"].as_str().unwrap();
        assert_eq!(item.get("remedy").is_some(), status != "works", "{item}");
        if status != "works" {
            worst = status;
        }
    }
    assert_eq!(report["status"], worst, "{report}");
    let names: Vec<&str> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
    for expected in ["erofs", "overlay", "control groups", "AppArmor", "runtime", "disk space"] {
        assert!(names.contains(&expected), "{names:?}");
    }
}
