//! Logs of a deployment's tasks, read while they grow and when they have ended.

use std::net::TcpListener;
use std::process::Child;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{RunState, TaskStatus};
use serde_json::json;

use crate::chain_of_trust::Key;
use crate::support::{Site, finish};

const LOG: &str = "public/logs/live.log";
const LIMIT: Duration = Duration::from_secs(120);

/// Reads a log while it grows.
fn follow(site: &Site, task: &TaskId, options: &[&str]) -> Child {
    // Somebody serves it by then.
    let url = site.deployment.artifact_url(task, LOG);
    site.deployment.wire.await_asked(&format!("POST /api/queue/v1/task/{task}/runs/0/artifacts/"), 1);
    let options =
        [&["--silent", "--show-error", "--fail", "--location", "--no-buffer"], options, &[&url]].concat();
    site.deployment.program("curl", &options).spawn().unwrap()
}

fn completed(status: &TaskStatus) -> bool {
    status.state == RunState::Completed
}

/// What a task has printed: what is between the worker's lines around it.
fn printed(log: &[u8]) -> &[u8] {
    let find = |text: &str| log.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let begin = find("=== Task Starting ===\n") + "=== Task Starting ===\n".len();
    let end = find("=== Task Finished ===");
    let line = log[..end].windows(13).rposition(|window| window == b"[taskcluster ").unwrap();
    &log[begin..line]
}

#[test]
fn a_live_logs_port_that_is_taken_costs_tasks_their_live_log_only() {
    let site = Site::new();
    let taken = site.internet.host.within(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = taken.local_addr().unwrap().port();
    let worker = site.start(&json!({ "logging": { "liveLogAddress": "127.0.0.1", "liveLogPort": port } }));
    let task = site.deployment.create(&site.payload("echo begun; sleep 1"));
    site.deployment.await_running(&task);
    assert!(completed(&site.deployment.await_resolved(&task)));
    assert!(site.deployment.log(&task).contains("begun"));
    let kinds = site.deployment.artifacts(&task);
    assert!(kinds.contains(&("public/logs/live_backing.log".to_owned(), "s3".to_owned())), "{kinds:?}");
    let ended = worker.stop();
    let said = format!("failed to listen on 127.0.0.1:{port} for live logs");
    let warnings = ended.log.lines().filter(|line| line.contains(&said)).count();
    assert_eq!(warnings, 1, "{}", ended.log);
}

#[test]
fn a_log_is_called_as_the_payload_says_and_the_backing_log_after_it() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    for (name, backing) in [
        ("public/a.log.txt", "public/a.log_backing.txt"),
        ("live.log", "live_backing.log"),
        ("live", "live_backing"),
    ] {
        let mut payload = site.payload("echo said");
        payload["log"] = json!(name);
        payload["features"] = json!({ "bulkLog": true });
        let task = site.deployment.create(&payload);
        assert!(completed(&site.deployment.await_resolved(&task)));
        let bulk = "public/logs/terminal_bulk.log.gz";
        let mut expected = [(name, "link"), (backing, "s3"), (bulk, "s3")]
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        expected.sort();
        assert_eq!(site.deployment.artifacts(&task), expected);
        let log = site.deployment.artifact(&task, bulk);
        assert_eq!(printed(&log), b"said\r\n", "{name}");
        if name.starts_with("public/") {
            assert_eq!(site.deployment.artifact(&task, name), log);
        }
    }
    worker.stop();
}

#[test]
fn what_is_printed_right_before_the_end_is_in_the_log() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 4 }));
    let tasks: Vec<TaskId> =
        (0..100).map(|number| site.deployment.create(&site.payload(&format!("printf x{number}")))).collect();
    for (number, task) in tasks.iter().enumerate() {
        assert!(completed(&site.deployment.await_resolved(task)));
        let log = site.deployment.artifact(task, LOG);
        assert_eq!(String::from_utf8_lossy(printed(&log)), format!("x{number}"));
    }
    worker.stop();
}

#[test]
fn any_bytes_are_the_same_in_the_live_log_in_the_stored_one_and_in_the_certified_one() {
    let site = Site::new();
    let key = Key::make(&site.worker);
    let worker = site.start(&json!({ "ed25519SigningKeyLocation": key.secret }));
    let script = "stty raw -echo; sleep 1; head -c 1000000 /dev/urandom | tee /bytes; printf '\\303'; sleep 0.2; printf '\\251'; sleep 1";
    let mut payload = site.payload(script);
    payload["artifacts"] = json!({ "public/bytes": { "type": "file", "path": "/bytes" } });
    payload["features"] = json!({ "chainOfTrust": true });
    let task = site.deployment.create(&payload);
    let follower = follow(&site, &task, &[]);
    assert!(completed(&site.deployment.await_resolved(&task)));
    let live = finish(follower, LIMIT);
    assert!(live.status.success(), "{live:?}");
    let stored = site.deployment.artifact(&task, LOG);
    assert!(live.stdout == stored, "{} bytes live, {} stored", live.stdout.len(), stored.len());
    assert!(site.deployment.artifact(&task, "public/logs/certified.log") == stored);
    let bytes = site.deployment.artifact(&task, "public/bytes");
    assert!(printed(&stored) == [&bytes[..], "é".as_bytes()].concat(), "{} bytes", stored.len());
    worker.stop();
}

#[test]
fn a_line_without_end_and_a_line_that_is_written_anew_a_million_times_go_to_readers_as_they_come() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let first = site.deployment.create(&site.payload("echo first"));
    assert!(completed(&site.deployment.await_resolved(&first)));
    let before = worker.most_memory();
    let script = "sleep 1; head -c 20000000 /dev/zero | tr '\\0' x; awk 'BEGIN { for (i = 0; i < 1000000; i++) printf \"%d\\r\", i }'";
    let task = site.deployment.create(&site.payload(script));
    // One that takes what it can get, one that takes next to nothing, one that takes nothing at all.
    let follower = follow(&site, &task, &[]);
    let others = [["--limit-rate", "100"], ["--limit-rate", "1"]].map(|rate| follow(&site, &task, &rate));
    assert!(completed(&site.deployment.await_resolved(&task)), "no reader holds the task up");
    let live = finish(follower, LIMIT);
    let stored = site.deployment.artifact(&task, LOG);
    assert!(live.stdout == stored, "{} bytes live, {} stored", live.stdout.len(), stored.len());
    let updates: String = (0..1_000_000).map(|number| format!("{number}\r")).collect();
    assert!(
        printed(&stored) == ["x".repeat(20_000_000), updates].concat().as_bytes(),
        "{} bytes",
        stored.len()
    );
    let grown = worker.most_memory() - before;
    assert!(grown < 16 << 20, "{grown} bytes for a log of {}", stored.len());
    for mut other in others {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    worker.stop();
}
