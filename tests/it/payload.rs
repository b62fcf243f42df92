//! Bad tasks through the command line: what `docker-worker run` says, where it points, and how it exits.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Run, Worker, busybox_image, shell_payload};

/// `run FILE`, with a file of these bytes.
fn run_file(worker: &Worker, name: &str, bytes: &[u8]) -> Run {
    let file = worker.fresh("task").with_extension(name);
    fs::write(&file, bytes).unwrap();
    worker.run_with(&[file.to_str().unwrap()], &[])
}

/// The least payload that is valid, with `extra` fields over it. Its image is never asked for.
fn payload(extra: &Value) -> Value {
    let mut payload = json!({ "image": "registry.invalid/never/pulled", "maxRunTime": 60 });
    for (key, value) in extra.as_object().unwrap() {
        payload[key] = value.clone();
    }
    payload
}

/// Runs a payload that has to be refused; the log has to hold each of these sentences, as JSON has them.
fn refused(worker: &Worker, payload: &Value, sentences: &[&str]) -> Run {
    let run = worker.task(payload).expect(120, &payload.to_string());
    assert!(
        run.log.contains("\n[taskcluster:error] `task.payload` format is invalid json schema errors:\n [\n"),
        "{run:#?}"
    );
    for sentence in sentences {
        let line = json!(sentence).to_string();
        let found = run.log.lines().any(|found| found.trim().trim_end_matches(',') == line);
        assert!(found, "{sentence}: {run:#?}");
    }
    assert_eq!(run.resolution["state"], "exception", "{run:#?}");
    assert_eq!(run.resolution["reason"], "malformed-payload", "{run:#?}");
    assert_eq!(run.resolution["exitCode"], -1, "{run:#?}");
    run
}

#[test]
fn a_payload_that_is_wrong_in_many_places_is_told_all_of_them_at_once() {
    let worker = Worker::new();
    let payload = json!({
        "image": 7,
        "maxRuntime": 60,
        "command": "true",
        "cache": { "a": "rel" },
        "features": { "chainOfTrsut": true },
    });
    let sentences = [
        "/maxRuntime: \"maxRuntime\" is not a field that exists here (did you mean \"maxRunTime\"?)",
        "/image: must be the name of an image, or an object with its \"type\", not a number",
        "must have the field \"maxRunTime\"",
        "/cache/a: the mount point \"rel\" must be an absolute path",
        "/features/chainOfTrsut: chainOfTrsut is not part of valid features (did you mean \"chainOfTrust\"?)",
    ];
    let run = refused(&worker, &payload, &sentences);
    assert!(run.log.contains("Unsuccessful task run with exit code: -1 completed in "), "{run:#?}");
    assert!(!run.log.contains("=== Task Starting ==="), "{run:#?}");
    assert!(fs::metadata(run.artifacts.join("public/logs/live_backing.log")).is_ok(), "{run:#?}");
}

#[test]
fn a_run_time_beyond_what_the_worker_allows_is_refused_by_its_pointer() {
    let worker = Worker::new();
    let config = worker.fresh("config").with_extension("yml");
    fs::write(&config, "maxTaskRunTime: 3600\n").unwrap();
    let payload = json!({ "image": "registry.invalid/never/pulled", "maxRunTime": 3601 });
    let run = worker.task_with(&payload, &["--config", config.to_str().unwrap()]).expect(120, "too long");
    assert!(run.log.contains("/maxRunTime: must be at most 3600 (seconds) on this worker"), "{run:#?}");
    assert_eq!(run.resolution["reason"], "malformed-payload", "{run:#?}");
}

#[test]
fn what_this_version_cannot_do_yet_is_refused_by_name() {
    let worker = Worker::new();
    let cases = [
        (json!({ "features": { "interactive": true } }), "/features/interactive: the feature interactive"),
        (
            json!({ "capabilities": { "privileged": true } }),
            "/capabilities/privileged: the capability privileged",
        ),
        (
            json!({ "capabilities": { "devices": { "kvm": true } } }),
            "/capabilities/devices/kvm: the device kvm",
        ),
        (json!({ "encryptedEnv": ["x"] }), "/encryptedEnv: encryptedEnv"),
    ];
    for (extra, subject) in cases {
        let sentence = format!("{subject} is not there yet in this version of docker-worker");
        refused(&worker, &payload(&extra), &[&sentence]);
    }
}

#[test]
fn s54_a_cache_cannot_leave_its_place() {
    let worker = Worker::new();
    let long = "x".repeat(300);
    let names = ["../../x", "a::b", "", long.as_str()];
    for name in names {
        refused(&worker, &payload(&json!({ "cache": { name: "/cache" } })), &[]);
    }
    for path in ["/", "/proc", "/sys/x", "rel", "/a/../etc"] {
        refused(&worker, &payload(&json!({ "cache": { "a": path } })), &[]);
    }
    refused(
        &worker,
        &payload(&json!({ "cache": { "a": "/x", "b": "/x" } })),
        &["/cache/b: /x is the mount point of the cache \"a\" already (give each a mount point of its own)"],
    );
}

#[test]
fn s57_an_artifact_name_cannot_leave_the_directory() {
    let worker = Worker::new();
    for name in ["../canary", "/canary", "a/../../canary", "a\nb"] {
        let artifacts = json!({ "artifacts": { name: { "type": "file", "path": "/etc/passwd" } } });
        let run = refused(&worker, &payload(&artifacts), &[]);
        assert!(!run.artifacts.join("../canary").exists(), "{name:?}");
    }
}

#[test]
fn s60_words_of_a_refused_payload_are_escaped_in_the_log() {
    let worker = Worker::new();
    let evil = "\u{1b}[31m\n[taskcluster:error] forged\u{202e}";
    for extra in [
        json!({ "cache": { evil: "/x" } }),
        json!({ "features": { evil: true } }),
        json!({ "artifacts": { evil: { "type": evil, "path": "/x" } } }),
        json!({ "image": evil }),
        json!({ evil: 1 }),
    ] {
        let run = refused(&worker, &payload(&extra), &[]);
        assert!(!run.log.contains(['\u{1b}', '\u{202e}']), "{run:#?}");
        let forged = run.log.lines().filter(|line| line.starts_with("[taskcluster:error] forged"));
        assert_eq!(forged.count(), 0, "{run:#?}");
    }
}

#[test]
fn an_artifact_that_would_outlive_its_task_is_refused_in_the_original_words() {
    let worker = Worker::new();
    let artifacts = json!({ "p": { "type": "file", "path": "/x", "expires": "2999-01-01T00:00:00Z" } });
    let task = json!({
        "payload": payload(&json!({ "artifacts": artifacts })),
        "expires": "2998-01-01T00:00:00Z",
    });
    let sentence = "/payload/artifacts/p/expires: Artifact expiration for 'p' must not be greater than task expiration. \
                    Artifact expiration is '2999-01-01T00:00:00.000Z' but task expiration is '2998-01-01T00:00:00.000Z'";
    refused(&worker, &task, &[sentence]);
}

#[test]
fn a_file_that_is_no_task_is_answered_with_one_sentence() {
    let worker = Worker::new();
    let deep = format!("{{\"payload\":{}{}}}", "[".repeat(100), "]".repeat(100));
    let cases: [(&str, &[u8], &str); 11] = [
        ("json", b"{ \"image\": busybox }", "line 1, column 12"),
        (
            "json",
            b"{\n \"image\": \"a\",\n \"image\": \"b\"\n}",
            "line 3, column 8: the field \"image\" is there twice",
        ),
        ("yml", b"image: [busybox\nmaxRunTime: 1\n", "as YAML"),
        ("yml", b"image: a\nimage: b\n", "line 2, column 1: the field \"image\" is there twice\n"),
        ("yml", b"image: a\n---\nimage: b\n", "line 2, column 1: a second document begins"),
        ("yml", b"version: 1\ntasks: []\n", "a template such as .taskcluster.yml; make one task of it"),
        ("json", b"just a text", "it is a string"),
        ("json", b"", "it is null"),
        ("json", b"image: \xff", "byte 7 is not UTF-8"),
        ("json", deep.as_bytes(), "nested more than 64 deep"),
        ("json", b"{ \"payload\": 7, \"scope\": [] }", "/payload: must be an object, not a number"),
    ];
    for (extension, bytes, sentence) in cases {
        let run = run_file(&worker, extension, bytes).expect(120, sentence);
        assert!(run.stderr.contains(sentence), "{sentence}: {run:#?}");
        assert!(!run.stderr.contains("panicked"), "{run:#?}");
    }
}

#[test]
fn an_image_that_has_no_name_is_refused_with_the_reason_and_what_may_have_been_meant() {
    let worker = Worker::new();
    for (image, sentence) in [
        ("ubuntu@sha256:abc", "64 lower-case hex digits must follow \"sha256:\""),
        ("/tmp/x.tar", "(did you mean \"docker-archive:/tmp/x.tar\"?)"),
        ("docker-archiv:/tmp/x.tar", "(did you mean \"docker-archive:/tmp/x.tar\"?)"),
        ("docker-archiv:x.tar", "names no image (did you mean \"docker-archive:x.tar\"?)"),
        ("", "it is empty"),
        ("Busybox", "write \"busybox\""),
    ] {
        let run = worker.run(image, &["true"]).expect(120, image);
        let said = run.log.replace("\\\"", "\"");
        assert!(said.contains(sentence), "{image}: {run:#?}");
    }
}

#[test]
fn a_task_file_that_cannot_be_read_is_wrong_use_of_the_command_line() {
    let worker = Worker::new();
    let absent = worker.fresh("absent");
    let run = worker.run_with(&[absent.to_str().unwrap()], &[]).expect(2, "absent");
    assert!(run.stderr.contains(absent.to_str().unwrap()), "{run:#?}");
    let directory = worker.fresh("directory");
    fs::create_dir(&directory).unwrap();
    worker.run_with(&[directory.to_str().unwrap()], &[]).expect(2, "directory");
}

#[test]
fn a_definition_keeps_its_scopes_and_so_may_lack_one() {
    let worker = Worker::new();
    let cache = payload(&json!({ "cache": { "level-1": "/cache" } }));
    let task = json!({ "payload": cache, "scopes": ["docker-worker:cache:level-3"] });
    let run = worker.task(&task).expect(123, "a cache without its scope");
    for text in [
        "Insufficient scopes to attach cache volumes.\nThe task is missing the following scopes:\n\n```\n",
        "\"docker-worker:cache:level-1\"",
    ] {
        assert!(run.log.contains(text), "{text}: {run:#?}");
    }
    assert_eq!(run.resolution["state"], "failed", "{run:#?}");
}

#[test]
fn a_payload_of_any_age_runs_and_the_log_warns_of_what_is_overlooked() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image());
    let mut payload = shell_payload(&image.source, "echo \"$NUMBER $FLAG\"");
    payload["env"] = json!({ "NUMBER": 1.0, "FLAG": true });
    payload["graphs"] = json!(["/graph.json"]);
    payload["supersederUrl"] = json!("https://example.com");
    payload["features"] = json!({ "azureLiveLog": true, "interactive": false });
    let run = worker.task(&payload).expect(0, "an old payload");
    assert_eq!(run.output(), "1 true\n");
    let warned = |pointer: &str| run.log.contains(&format!("] Warning: {pointer}: "));
    for pointer in ["/env/NUMBER", "/env/FLAG", "/graphs", "/supersederUrl", "/features/azureLiveLog"] {
        assert!(warned(pointer), "{pointer}: {run:#?}");
    }
}

#[test]
fn yaml_and_json_tasks_run_alike() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let yaml = format!(
        "# as people write it\nimage: {image}\nmaxRunTime: 60\ncommand: [/bin/sh, -c, 'echo yes; exit 7']\n"
    );
    let json = json!({ "payload": { "image": image, "maxRunTime": 60, "command": ["/bin/sh", "-c", "echo yes; exit 7"] } });
    for (extension, text) in [("yml", yaml), ("json", json.to_string())] {
        let run = run_file(&worker, extension, text.as_bytes()).expect(7, extension);
        assert_eq!(run.output(), "yes\n");
        assert_eq!(run.resolution["exitCode"], 7);
    }
}

#[test]
fn an_exit_code_that_the_payload_lists_is_another_try() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let mut payload = shell_payload(&image, "exit 4");
    payload["onExitStatus"] = json!({ "retry": [4] });
    let run = worker.task(&payload).expect(122, "a code to retry");
    assert_eq!(run.resolution["reason"], "intermittent-task");
    assert_eq!(run.resolution["exitCode"], 4);
}
