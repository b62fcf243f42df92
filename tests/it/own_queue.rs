//! `docker-worker standalone` as a newcomer has it: tasks made with the credentials that it has written.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{OwnQueue, finish, shell_payload};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_task_that_a_client_makes_runs_and_its_artifacts_are_there_for_everybody() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let script =
        "echo $TASKCLUSTER_ROOT_URL; until [ -e /x/go ]; do sleep 0.1; done; echo $TASK_ID > /tmp/r.txt";
    let mut payload = shell_payload(&own.image, script);
    payload["cache"] = json!({ "x": "/x" });
    payload["artifacts"] = json!({ "public/r.txt": { "type": "file", "path": "/tmp/r.txt" } });
    let mut definition = own.definition(&payload);
    definition["scopes"] = json!(["docker-worker:cache:x"]);
    let task_id = TaskId::random().unwrap();
    own.call(&format!("PUT queue/task/{task_id}"), &definition);
    // Somebody who follows the log reads on to its end.
    own.await_printed(&task_id, &own.root_url);
    let url = own.artifact_url(&task_id, "public/logs/live.log");
    let follower = own.curl(&["--fail", "--location", &url]).spawn().unwrap();
    let cache = own.worker.data().join("caches").join(&own.worker.caches()[0]);
    fs::write(cache.join("content/go"), "").unwrap();
    let status = own.await_state(&task_id, "completed");
    let followed = finish(follower, LIMIT);
    let followed = String::from_utf8_lossy(&followed.stdout).into_owned();
    assert!(followed.contains("Successful task run with exit code: 0"), "{followed}");
    assert_eq!(own.log(&task_id).lines().count(), followed.lines().count());
    assert_eq!(own.artifact(&task_id, "public/r.txt"), format!("{task_id}\n"));
    assert_eq!(status["runs"][0]["workerGroup"], "local");
    for (name, expected) in [
        ("public/r.txt", &["content-type: text/plain", "content-encoding: gzip"][..]),
        ("public/logs/live.log", &["content-type: text/plain; charset=utf-8", "content-encoding: gzip"]),
    ] {
        let url = own.artifact_url(&task_id, name);
        let options = ["--location", "--head", "--request", "GET", &url];
        let finished = finish(own.curl(&options).spawn().unwrap(), LIMIT);
        let heads = String::from_utf8_lossy(&finished.stdout).to_lowercase();
        for line in expected {
            assert!(heads.contains(line), "{name}: {line}: {heads}");
        }
    }
    let ended = standalone.stop();
    let (told, token) =
        (String::from_utf8_lossy(&ended.finished.stderr).into_owned(), own.root().access_token);
    for line in [
        "the queue is at http://127.0.0.1:8239; tasks of local/docker-worker are carried out here",
        "export TASKCLUSTER_ROOT_URL=http://127.0.0.1:8239\n",
        "export TASKCLUSTER_CLIENT_ID=local/root\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert!(!told.contains(&token) && !ended.log.contains(&token), "{told}{}", ended.log);
    let mode = fs::metadata(own.credentials_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_task_is_cancelled_by_its_author_and_ends() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let task_id = own.create_script("echo begun; sleep 1000");
    own.await_printed(&task_id, "begun");
    own.call(&format!("POST queue/task/{task_id}/cancel"), &json!({}));
    let status = own.await_state(&task_id, "exception");
    assert_eq!(OwnQueue::ends(&status), ["canceled"]);
    let next = own.create_script("echo next");
    own.await_state(&next, "completed");
    standalone.stop();
}

#[test]
fn what_is_told_to_end_hands_its_task_to_the_next_start() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let task_id = own.create_script("echo from run $RUN_ID; [ $RUN_ID != 0 ] || sleep 1000");
    own.await_printed(&task_id, "from run 0");
    standalone.stop();
    let standalone = own.start();
    let status = own.await_state(&task_id, "completed");
    assert_eq!(OwnQueue::ends(&status), ["worker-shutdown", "completed"]);
    assert!(own.artifact(&task_id, "runs/0/artifacts/public/logs/live.log").contains("from run 0"));
    standalone.stop();
}

#[test]
fn what_is_killed_in_the_middle_of_a_task_is_taken_up_by_the_next_start_wherever_that_listens() {
    let mut own = OwnQueue::new();
    let standalone = own.start();
    let done = own.create_script("echo earlier");
    own.await_state(&done, "completed");
    let task_id = own.create_script("echo from run $RUN_ID; [ $RUN_ID != 0 ] || sleep 1000");
    own.await_printed(&task_id, "from run 0");
    let pending = own.create_script("echo pending");
    standalone.signal(Signal::KILL);
    standalone.ended();
    let standalone = own.start_with(&json!({}), &["--listen", "127.0.0.1:8240"]);
    own.root_url = "http://127.0.0.1:8240".to_owned();
    let status = own.await_state(&task_id, "completed");
    assert_eq!(OwnQueue::ends(&status), ["worker-shutdown", "completed"]);
    let first = own.artifact(&task_id, "runs/0/artifacts/public/logs/live.log");
    assert!(first.contains("from run 0") && first.contains("The worker died while this task ran"), "{first}");
    assert!(own.log(&done).contains("earlier"));
    own.await_state(&pending, "completed");
    standalone.stop();
}

#[test]
fn a_configuration_counts_and_what_of_it_is_for_deployments_is_named_once() {
    let own = OwnQueue::new();
    let config = json!({
        "rootUrl": "https://tc.example.com",
        "taskcluster": { "clientId": "worker", "accessToken": "hush" },
        "shutdown": { "enabled": true, "afterIdleSeconds": 1 },
        "provisionerId": "p", "workerType": "t", "workerGroup": "g", "workerId": "w",
    });
    let standalone = own.start_with(&config, &[]);
    let mut definition = own.definition(&shell_payload(&own.image, "echo $TASKCLUSTER_ROOT_URL"));
    definition["taskQueueId"] = json!("p/t");
    let task_id = TaskId::random().unwrap();
    own.call(&format!("PUT queue/task/{task_id}"), &definition);
    let status = own.await_state(&task_id, "completed");
    assert_eq!(
        (&status["runs"][0]["workerGroup"], &status["runs"][0]["workerId"]),
        (&json!("g"), &json!("w"))
    );
    let told = String::from_utf8_lossy(&standalone.stop().finished.stderr).into_owned();
    let expected = "no effect here, as the queue is the worker's own: rootUrl, taskcluster.clientId, taskcluster.accessToken, shutdown.enabled, shutdown.afterIdleSeconds\n";
    assert_eq!(told.matches(expected).count(), 1, "{told}");
    assert!(!told.contains("hush"), "{told}");
}

#[test]
fn who_can_be_reached_from_elsewhere_is_told_where_live_logs_cannot_and_by_what_it_was_ended() {
    let own = OwnQueue::new();
    let advice = "set host, and logging.liveLogAddress if that is loopback";
    for (config, options, is_told) in [
        (json!({}), &["--listen", "0.0.0.0"][..], true),
        (json!({ "host": "worker.example.com" }), &["--listen", "0.0.0.0"], false),
        (json!({}), &["--root-url", "https://tc.example.com"], true),
        (json!({}), &[], false),
    ] {
        let standalone = own.start_with(&config, options);
        standalone.signal(Signal::INT);
        let ended = standalone.ended();
        let told = String::from_utf8_lossy(&ended.finished.stderr).into_owned();
        assert_eq!(told.contains(advice), is_told, "{config} {options:?}: {told}");
        let says = |text| ended.log.contains(text);
        assert!(says("Terminating worker due to SIGINT") && !says("SIGTERM"), "{}", ended.log);
    }
}

#[test]
fn a_place_or_an_address_that_cannot_be_had_is_told_in_one_sentence() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let data = own.worker.data();
    let another = own.worker.fresh("another");
    let (broken, newer) = (broken_credentials(&own), newer_queue(&own));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let cases = [
        (
            vec!["--data".to_owned(), text(&newer), "--listen".to_owned(), "127.0.0.1:0".to_owned()],
            1,
            "queue.sqlite: it is of version 999, and this worker knows the versions 3 to 5; use another worker",
        ),
        (
            vec!["--data".to_owned(), text(&data), "--listen".to_owned(), "127.0.0.1:0".to_owned()],
            1,
            "queue.sqlite: another process has it open; use another directory, or end that one",
        ),
        (
            vec!["--data".to_owned(), text(&another)],
            1,
            "failed to listen on 127.0.0.1:8239: Address already in use (os error 98); choose another address with --listen",
        ),
        (
            vec!["--data".to_owned(), text(&another), "--listen".to_owned(), "203.0.113.77:80".to_owned()],
            1,
            "failed to listen on 203.0.113.77:80: Cannot assign requested address (os error 99); choose another",
        ),
        (
            vec!["--data".to_owned(), text(&broken), "--listen".to_owned(), "127.0.0.1:0".to_owned()],
            1,
            "it is no JSON object with clientId and accessToken (line 1, column 1); correct it, or remove it and have new credentials made",
        ),
        (
            vec!["--config".to_owned(), own.config(&json!({ "provisionerId": "a b", "workerType": "t" }))],
            2,
            "there can be no pool a b/t: provisionerId must be 1 to 38 letters, digits, - and _, and workerType",
        ),
        (
            vec!["--config".to_owned(), own.config(&json!({ "workerId": "host.example.com" }))],
            2,
            "workerId is host.example.com: it must be 1 to 38 letters, digits, - and _",
        ),
        (
            vec!["--listen".to_owned(), "nowhere".to_owned()],
            2,
            "--listen \"nowhere\": write it as an address",
        ),
    ];
    for (options, status, expected) in cases {
        let words: Vec<&str> = ["standalone"].into_iter().chain(options.iter().map(String::as_str)).collect();
        let finished = own.worker.call(&words);
        let told = String::from_utf8_lossy(&finished.stderr).into_owned();
        assert_eq!(finished.status.code(), Some(status), "{options:?}: {told}");
        assert!(told.contains(expected), "{options:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{options:?}: {told}");
    }
    let task_id = own.create_script("echo undisturbed");
    own.await_state(&task_id, "completed");
    standalone.stop();
}

/// A data directory whose credentials are none.
fn broken_credentials(own: &OwnQueue) -> PathBuf {
    let broken = own.worker.fresh("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("credentials.json"), "hush").unwrap();
    fs::set_permissions(broken.join("credentials.json"), Permissions::from_mode(0o600)).unwrap();
    broken
}

/// A data directory whose queue is of a version that is still to come.
fn newer_queue(own: &OwnQueue) -> PathBuf {
    let newer = own.worker.fresh("newer");
    fs::create_dir_all(newer.join("queue")).unwrap();
    let database = rusqlite::Connection::open(newer.join("queue/queue.sqlite")).unwrap();
    database.execute_batch("PRAGMA application_id = 0x64776b71; PRAGMA user_version = 999;").unwrap();
    newer
}

#[test]
fn the_page_is_a_notice_that_loads_and_executes_nothing() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let url = format!("{}/", own.root_url);
    let finished = finish(own.curl(&["--include", &url]).spawn().unwrap(), LIMIT);
    let text = String::from_utf8_lossy(&finished.stdout).to_lowercase();
    for part in ["content-security-policy: default-src 'none'", "frame-ancestors 'none'", "<!doctype html>"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(own.call_as(None, "PUT queue/task/fN1SbArXTPSVFNUvaOlinQ", &Value::Null).status, 400);
    standalone.stop();
}
