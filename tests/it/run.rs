//! `docker-worker run` as an operator sees it: the log's form, exit statuses, what lands where, events.

use std::fs;
use std::io::Read;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Worker, await_that, busybox_image, finish, read_until, shell_payload};

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
        "Z] === Task Finished ===\n[taskcluster ",
        "Z] Resources: wall ",
        " s, cpu ",
        " s, memory ",
        " B\n[taskcluster ",
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
    let mut rest = run.log.as_str();
    for expected in [
        "=== Task Starting ===\n\n[taskcluster:error] Failure to properly start execution environment. ",
        "add `command` to the payload\n[taskcluster ",
        "Z] === Task Finished ===\n[taskcluster ",
        "Z] Unsuccessful task run with exit code: -1 completed in ",
    ] {
        let at = rest.find(expected).unwrap_or_else(|| panic!("{expected:?}: {}", run.log));
        rest = &rest[at + expected.len()..];
    }
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
    let run_of = |event: &Value| (event["taskId"].clone(), event["runId"].clone());
    for event in &events {
        assert_eq!(run_of(event), run_of(&events[0]), "{event}");
        assert_eq!(event["taskId"].as_str().unwrap().len(), 22, "{event}");
    }
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
fn where_artifacts_are_lost_for_want_of_a_directory_one_line_says_so() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let with_artifact = json!({ "p": { "type": "file", "path": "/etc/passwd" } });
    for (artifacts, quiet, lines) in
        [(json!({}), false, 0), (with_artifact.clone(), false, 1), (with_artifact, true, 0)]
    {
        let mut payload = shell_payload(&image, "true");
        payload["artifacts"] = artifacts;
        let file = worker.fresh("task");
        fs::write(&file, payload.to_string()).unwrap();
        let mut arguments = vec!["run", "--network", "none", file.to_str().unwrap()];
        arguments.extend(quiet.then_some("--quiet"));
        let finished = worker.call(&arguments);
        let stderr = String::from_utf8(finished.stderr).unwrap();
        assert_eq!(finished.status.code(), Some(0), "{stderr}");
        let about = stderr.lines().filter(|line| line.contains("--artifacts")).count();
        assert_eq!((about, stderr.lines().count()), (lines, lines), "{payload}: {stderr}");
    }
}

#[test]
fn the_last_line_for_the_operator_says_what_went_wrong() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let cases: [(&[&str], &[&str], i32, &str); 6] = [
        (&["--image", &image], &["sh", "-c", "exit 3"], 3, ""),
        (
            &["--image", "UPPER"],
            &["true"],
            120,
            "docker-worker: malformed-payload: `task.payload` format is invalid",
        ),
        (
            &["--image", "oci:/nowhere"],
            &["true"],
            121,
            "docker-worker: failed: Pulling docker image has failed. Error: ",
        ),
        (&["--image", "docker-archiv:x.tar"], &["true"], 120, "names no image (did you mean"),
        (&["--image", &image], &["/nowhere"], 127, "docker-worker: failed: Failure to properly start"),
        (
            &["--image", &image, "--max-run-time", "1s"],
            &["sleep", "100"],
            124,
            "docker-worker: failed: Task timeout after 1 seconds.",
        ),
    ];
    for (options, command, status, expected) in cases {
        let run = worker.run_with(&[options, &["--quiet"]].concat(), command).expect(status, expected);
        assert_eq!(run.stderr.lines().count(), usize::from(!expected.is_empty()), "{run:?}");
        assert!(run.stderr.contains(expected), "{expected}: {run:?}");
    }
}

#[test]
fn a_task_may_come_over_standard_input() {
    let worker = Worker::new();
    let payload = shell_payload(&worker.image(&busybox_image()).source, "echo came");
    let file = worker.fresh("task");
    fs::write(&file, payload.to_string()).unwrap();
    let mut command = worker.command(&["run", "--network", "none", "-"]);
    let child = command.stdin(fs::File::open(&file).unwrap()).spawn().unwrap();
    let finished = finish(child, Duration::from_secs(60));
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    assert!(String::from_utf8_lossy(&finished.stdout).contains("came\r\n"), "{finished:?}");
}

#[test]
fn with_json_refusals_are_lines_of_json_as_well() {
    let worker = Worker::new();
    let config = worker.fresh("config");
    fs::write(&config, "nonsense: 1\n").unwrap();
    let bad = worker.fresh("bad");
    fs::write(&bad, "a: 1\na: 2\n").unwrap();
    let cases: [(&[&str], i32); 6] = [
        (&["run", "--json"], 2),
        (&["run", "--imgae", "x", "--json"], 2),
        (&["run", "--json", "/nowhere/t.json"], 2),
        (&["run", "--json", "--config", config.to_str().unwrap(), "--image", "x"], 2),
        (&["check", "--json", "--config", config.to_str().unwrap()], 2),
        (&["run", "--json", bad.to_str().unwrap()], 120),
    ];
    for (arguments, status) in cases {
        let finished = worker.call(arguments);
        let stderr = String::from_utf8(finished.stderr).unwrap();
        assert_eq!(finished.status.code(), Some(status), "{arguments:?}: {stderr}");
        let event: Value =
            serde_json::from_str(&stderr).unwrap_or_else(|_| panic!("{arguments:?}: {stderr}"));
        assert_eq!((&event["event"], &event["exitStatus"]), (&json!("refused"), &json!(status)), "{event}");
    }
    let run = worker.run_with(&["--json", "--image", "oci:/nowhere"], &["true"]).expect(121, "--json");
    let last: Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "task-resolved", "{run:?}");
    assert!(last["message"].as_str().unwrap().contains("Pulling docker image has failed"), "{run:?}");
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
    let cases: [(&[&str], &str); 12] = [
        (&[], "name a command"),
        (&["validate"], "the command validate is not there yet"),
        (&["run"], "--image REF"),
        (&["run", "busybox", "echo", "hi"], "docker-worker run --image busybox -- echo hi"),
        (&["run", "busybox"], "docker-worker run --image busybox"),
        (&["run", "--feature", "bulkLgo", "t.json"], "did you mean \"bulkLog\"?"),
        (&["run", "--feature", "interactive", "t.json"], "interactive is not there yet"),
        (&["run", "--max-run-time", "0", "t.json"], "at least 1 second"),
        (&["run", "--imgae", "x"], "--imgae"),
        (&["run", "--env", "=X", "t.json"], "NAME=VALUE"),
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
fn a_key_that_no_configuration_knows_is_refused_by_name() {
    let worker = Worker::new();
    let file = worker.fresh("config");
    for (text, sentence) in [
        (
            "workerId: w\nshutdwn: {enabled: true}\n",
            "line 2, column 1: \"shutdwn\" is not a key that exists here",
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
    await_that("the task, which does not wait for its reader", || {
        spooled(&worker).is_some_and(|bytes| bytes > 500_000)
    });
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
    let in_a_log = |line: &str| line.starts_with("[taskcluster ") && line.contains("Z] isolation: ");
    assert!(!text.lines().any(in_a_log), "what the host lacks is said before the scenes: {text}");
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
    let text = String::from_utf8(worker.call(&["check"]).stdout).unwrap();
    assert!(text.lines().last().unwrap().starts_with("Tasks can run here"), "{text}");
}

#[test]
fn help_has_examples_exit_statuses_and_variables() {
    let worker = Worker::new();
    let cases: [(&[&str], &[&str]); 3] = [
        (&["--help"], &["Examples:", "DOCKER_WORKER_RUN", "help COMMAND"]),
        (&["run", "--help"], &["Examples:", "Exit status:", "What the task has:", "--env-file", "1h30m"]),
        (&["help", "run"], &["Examples:", "Exit status:"]),
    ];
    for (arguments, expected) in cases {
        let finished = worker.call(arguments);
        let text = String::from_utf8(finished.stdout).unwrap();
        assert_eq!(finished.status.code(), Some(0), "{arguments:?}: {text}");
        for word in expected {
            assert!(text.contains(word), "{arguments:?}: {word}: {text}");
        }
    }
}

#[test]
fn a_clean_up_says_what_it_did() {
    let worker = Worker::new();
    let finished = worker.call(&["cleanup"]);
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    // Demos of other tests may be on this host.
    let stderr = String::from_utf8_lossy(&finished.stderr);
    assert!(stderr.contains("nothing to undo") || stderr.contains("which a demo left"), "{stderr}");
}

#[test]
fn a_document_of_the_run_before_is_never_taken_for_this_ones() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let directory = worker.fresh("artifacts");
    let into = ["--artifacts", directory.to_str().unwrap()];
    let file = worker.fresh("task");
    for (case, task, status, reason) in [
        (
            "a command's own end",
            json!({ "image": image, "maxRunTime": 60, "command": ["true"] }),
            0,
            json!("completed"),
        ),
        ("a document that is no task", json!([]), 120, json!("malformed-payload")),
        (
            "a payload that is refused",
            json!({ "image": image, "maxRunTime": "x" }),
            120,
            json!("malformed-payload"),
        ),
    ] {
        fs::write(&file, task.to_string()).unwrap();
        let run = worker.run_with(&[&into[..], &[file.to_str().unwrap()]].concat(), &[]).expect(status, case);
        assert_eq!(run.resolution["reason"], reason, "{case}: {run:?}");
    }
    let run = worker.run_with(&[&into[..], &["/nowhere/task.json"]].concat(), &[]).expect(2, "no task");
    assert_eq!(run.resolution, Value::Null, "{run:?}");
}

#[test]
fn what_cannot_be_printed_is_said() {
    let worker = Worker::new();
    for words in [&["check"][..], &["features"], &["start", "--print-config"], &["--help"], &["--version"]] {
        let mut command = worker.command(words);
        command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
        let finished = finish(command.spawn().unwrap(), Duration::from_secs(60));
        let told = String::from_utf8_lossy(&finished.stderr).into_owned();
        assert_eq!(finished.status.code(), Some(1), "{words:?}: {told}");
        assert!(
            told.contains("failed to write to standard output: No space left on device"),
            "{words:?}: {told}"
        );
    }
}
