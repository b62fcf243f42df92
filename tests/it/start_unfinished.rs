//! What `docker-worker start` does about runs that it had when it was killed. What it left is written here by hand; tests
//! with real kills are in `start_crash`.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use docker_worker::timestamp::Timestamp;
use flate2::read::GzDecoder;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{AnsweringServer, Finished, Request, Worker, finish, read_until, refusal};

const LIMIT: Duration = Duration::from_secs(60);
const TASK: &str = "fN1SbArXTPSVFNUvaOlinQ";
const SOON: &str = "2999-01-01T00:00:00.000Z";

/// A queue with nothing to do, that knows of one run what `about` says.
fn queue(about: impl Fn(&str) -> Option<(u16, Value)> + Send + Sync + 'static) -> AnsweringServer {
    AnsweringServer::start(move |request, address| {
        let path = request.path.trim_start_matches("/api/queue/v1/");
        if let Some(answer) = about(path) {
            return answer;
        }
        let run = format!("task/{TASK}/runs/0/");
        let answer = match path.strip_prefix(&run).unwrap_or(path) {
            path if path.starts_with("claim-work/") => json!({"tasks": []}),
            "reclaim" => json!({"takenUntil": SOON, "credentials": credentials("fresh")}),
            path if path.starts_with("artifacts/") => match request.json()["storageType"].as_str() {
                Some("s3") => json!({
                    "storageType": "s3",
                    "putUrl": format!("http://{address}/put"),
                    "contentType": request.json()["contentType"],
                    "expires": SOON
                }),
                other => json!({ "storageType": other }),
            },
            "exception" => json!({"status": {}}),
            _ => json!({}),
        };
        (200, answer)
    })
}

fn credentials(token: &str) -> Value {
    json!({"clientId": "task", "accessToken": token, "certificate": "{}"})
}

fn is_claim(request: &Request) -> bool {
    request.path.contains("/claim-work/")
}

fn is_about_the_worker(request: &Request) -> bool {
    is_claim(request) || request.path.contains("/provisioners/")
}

/// The requests about tasks, shortened.
fn told(queue: &AnsweringServer) -> Vec<String> {
    let lines = queue.requests().into_iter().filter(|request| !is_about_the_worker(request));
    let lines = lines.map(|request| request.line().replace(&format!("/api/queue/v1/task/{TASK}/"), ""));
    lines.collect()
}

/// A worker that was killed while it had a run.
struct Killed {
    worker: Worker,
    root_url: String,
    config: String,
    id: String,
}

impl Killed {
    /// With claim file, directories and a log.
    fn new(queue: &AnsweringServer) -> Killed {
        let worker = Worker::new();
        let (config, root_url) = (worker.fresh("config"), format!("http://{}", queue.address));
        let text = json!({
            "rootUrl": root_url,
            "taskcluster": {"clientId": "me", "accessToken": "sesame"},
            "provisionerId": "p", "workerType": "t", "workerGroup": "g", "workerId": "w",
            "capacityManagement": {"diskspaceThreshold": 0},
            "taskQueue": {"pollInterval": 100}
        });
        fs::write(&config, text.to_string()).unwrap();
        let killed =
            Killed { worker, root_url, config: config.to_str().unwrap().to_owned(), id: "5".repeat(64) };
        for place in [killed.worker.run_directory(), killed.worker.data().join("runs")] {
            fs::create_dir_all(place.join(&killed.id).join("containers")).unwrap();
            fs::write(place.join(".docker-worker"), "").unwrap();
        }
        fs::write(killed.data().join("log"), "so far\nand no").unwrap();
        fs::create_dir(killed.claims()).unwrap();
        fs::set_permissions(killed.claims(), Permissions::from_mode(0o700)).unwrap();
        killed.claim(&json!({}));
        killed
    }

    fn claims(&self) -> PathBuf {
        self.worker.run_directory().join("claims")
    }

    fn data(&self) -> PathBuf {
        self.worker.data().join("runs").join(&self.id)
    }

    /// Writes the claim file, with `changes`.
    fn claim(&self, changes: &Value) {
        let mut claim = json!({
            "rootUrl": format!("{}/", self.root_url),
            "workerGroup": "g", "workerId": "w", "taskId": TASK, "runId": 0,
            "takenUntil": SOON, "expires": "2999-06-01T00:00:00.000Z", "began": "2026-01-01T00:00:00.000Z",
            "containerId": self.id, "logs": {"live": "public/logs/live.log", "bulk": true},
            "credentials": credentials("old")
        });
        for (key, value) in changes.as_object().unwrap() {
            claim[key] = value.clone();
        }
        fs::write(self.claims().join(TASK), claim.to_string()).unwrap();
    }

    fn start(&self) -> Child {
        self.worker.command(&["start", "--config", &self.config]).spawn().unwrap()
    }

    /// Ends a worker that was started; gives what it said.
    fn end(child: Child) -> Finished {
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let ended = finish(child, LIMIT);
        assert!(ended.status.success(), "{ended:?}");
        ended
    }
}

#[test]
fn an_unfinished_runs_log_is_stored_and_the_queue_is_told_at_once() {
    let queue = queue(|_| None);
    let killed = Killed::new(&queue);
    let mut child = killed.start();
    let log = read_until(&mut child, "taskFinish");
    Killed::end(child);
    let expected = [
        "POST runs/0/reclaim",
        "POST runs/0/artifacts/public%2Flogs%2Fterminal_bulk.log.gz",
        "PUT /put",
        "POST runs/0/artifacts/public%2Flogs%2Flive_backing.log",
        "PUT /put",
        "POST runs/0/artifacts/public%2Flogs%2Flive.log",
        "POST runs/0/exception",
    ];
    let requests = queue.requests();
    assert_eq!(told(&queue), expected);
    let report = requests.iter().find(|request| request.path.ends_with("/exception")).unwrap();
    assert_eq!(report.json(), json!({"reason": "worker-shutdown"}));
    let stored = requests.iter().find(|request| request.method == "PUT").unwrap();
    let mut text = String::new();
    GzDecoder::new(stored.body.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("so far\nand no\n[taskcluster:error] The worker died"), "{text}");
    assert!(text.contains("Unsuccessful task run with exit code: -1"), "{text}");
    let log = log.join().unwrap();
    assert!(
        log.contains(r#""type":"task resolved""#) && log.contains(r#""reason":"worker-shutdown""#),
        "{log}"
    );
    killed.worker.assert_nothing_left("after the run was resolved");
}

#[test]
fn a_queue_at_fault_keeps_no_worker_from_claiming_and_the_next_start_tries_again() {
    // A front end answers the second as long as it has no queue behind it.
    for status in [503, 404] {
        let queue = queue(move |path| path.starts_with("task/").then(|| (status, json!({}))));
        let killed = Killed::new(&queue);
        let child = killed.start();
        queue.await_requests(3, |request| request.path.ends_with("/reclaim"));
        queue.await_requests(3, is_claim);
        Killed::end(child);
        assert!(killed.data().join("log").exists() && killed.claims().join(TASK).exists(), "{status}");
        let cleaned = killed.worker.call(&["cleanup"]);
        let said = String::from_utf8_lossy(&cleaned.stderr).into_owned();
        assert!(said.contains("nobody has resolved run 0 of task"), "{status}: {said}");
        killed.worker.assert_nothing_left("after a clean-up, which forgets it");
    }
}

#[test]
fn a_report_that_is_refused_is_made_again_by_this_start_and_by_the_next() {
    for status in [400, 401, 403, 404] {
        let is_ready = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&is_ready);
        let queue = queue(move |path| {
            let refuses = path.ends_with("/exception") && !heard.load(Ordering::Relaxed);
            refuses.then(|| refusal(status, "not so"))
        });
        let killed = Killed::new(&queue);
        let child = killed.start();
        queue.await_requests(2, |request| request.path.ends_with("/exception"));
        queue.await_requests(3, is_claim);
        let said = String::from_utf8_lossy(&Killed::end(child).stdout).into_owned();
        assert_eq!(said.matches("failed to report run 0 of task").count(), 1, "{status}: {said}");
        assert!(
            killed.data().join("log").exists() && killed.claims().join(TASK).exists(),
            "{status}: {said}"
        );
        is_ready.store(true, Ordering::Relaxed);
        let mut child = killed.start();
        let log = read_until(&mut child, "taskFinish");
        Killed::end(child);
        let log = log.join().unwrap();
        assert!(log.contains(r#""reason":"worker-shutdown""#), "{status}: {log}");
        killed.worker.assert_nothing_left("after the queue has taken the report");
    }
}

#[test]
fn a_report_that_is_refused_keeps_no_worker_from_its_gentle_end() {
    let queue = queue(|path| path.ends_with("/exception").then(|| refusal(403, "not so")));
    let killed = Killed::new(&queue);
    let mut command =
        killed.worker.command(&["start", "--host", "worker-runner", "--config", &killed.config]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut runner = child.stdin.take().unwrap();
    queue.await_requests(2, |request| request.path.ends_with("/exception"));
    for message in [
        json!({"type": "welcome", "capabilities": ["graceful-termination"]}),
        json!({"type": "graceful-termination", "finish-tasks": true}),
    ] {
        writeln!(runner, "~{message}").unwrap();
    }
    let ended = finish(child, LIMIT);
    assert!(ended.status.success(), "{ended:?}");
    assert!(killed.data().join("log").exists() && killed.claims().join(TASK).exists(), "{ended:?}");
    killed.worker.call(&["cleanup"]);
}

#[test]
fn a_worker_that_is_to_end_reports_before_it_stores_and_the_next_start_stores() {
    let [is_reported, storage_works] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (reported, works) = (Arc::clone(&is_reported), Arc::clone(&storage_works));
    let queue = queue(move |path| match path.rsplit('/').next() {
        Some("put") if !works.load(Ordering::Relaxed) => Some((503, json!({}))),
        Some("exception") => {
            reported.store(true, Ordering::Relaxed);
            None
        }
        Some("reclaim") if reported.load(Ordering::Relaxed) => Some(refusal(409, "it is resolved")),
        Some("status") => {
            let runs = json!([{"runId": 0, "state": "exception", "reasonResolved": "worker-shutdown"}]);
            Some((200, json!({"status": {"runs": runs}})))
        }
        _ => None,
    });
    let killed = Killed::new(&queue);
    let child = killed.start();
    queue.await_requests(1, |request| request.path.ends_with("/put"));
    assert!(!is_reported.load(Ordering::Relaxed), "the log comes first as long as there is time");
    let said = String::from_utf8_lossy(&Killed::end(child).stdout).into_owned();
    assert!(is_reported.load(Ordering::Relaxed), "{said}");
    assert!(said.contains("the worker is to end; trying once more"), "{said}");
    assert!(killed.data().join("log").exists() && killed.claims().join(TASK).exists(), "{said}");
    let before = queue.requests().len();
    storage_works.store(true, Ordering::Relaxed);
    let mut child = killed.start();
    let log = read_until(&mut child, "taskFinish");
    Killed::end(child);
    let log = log.join().unwrap();
    let stored = queue.requests()[before..].iter().filter(|request| request.path.ends_with("/put")).count();
    assert_eq!(stored, 2, "{log}");
    assert!(log.contains("was stored when it started again"), "{log}");
    killed.worker.assert_nothing_left("after the log was stored");
}

#[test]
fn a_report_that_fails_until_the_claim_is_over_is_given_up_with_its_cause() {
    let queue = queue(|path| match path.rsplit('/').next() {
        Some("reclaim") => {
            let soon = Timestamp::now().plus(Duration::from_secs(15));
            Some((200, json!({"takenUntil": soon, "credentials": credentials("fresh")})))
        }
        Some("exception") => Some((503, json!({}))),
        _ => None,
    });
    let killed = Killed::new(&queue);
    let mut child = killed.start();
    let log = read_until(&mut child, "gave up run 0 of task");
    queue.await_requests(1, |request| request.method == "PUT");
    Killed::end(child);
    let log = log.join().unwrap();
    let told = |text| log.lines().filter(|line| line.contains(text)).collect::<Vec<_>>();
    for text in ["failed to report run 0 of task", "whose claim is over: failed to "] {
        let lines = told(text);
        assert!(matches!(lines[..], [line] if line.contains("503")), "{text}: {log}");
    }
}

#[test]
fn a_run_whose_claim_cannot_be_prolonged_is_reported_all_the_same() {
    for status in [400, 403] {
        let queue = queue(move |path| match path.rsplit('/').next() {
            Some("reclaim") => Some(refusal(status, "not so")),
            Some("status") => Some((200, json!({"status": {"runs": [{"runId": 0, "state": "running"}]}}))),
            _ => None,
        });
        let killed = Killed::new(&queue);
        let mut child = killed.start();
        let log = read_until(&mut child, "taskFinish");
        Killed::end(child);
        let told = told(&queue);
        assert_eq!(told.last().unwrap(), "POST runs/0/exception", "{status}: {told:?}");
        let log = log.join().unwrap();
        assert!(log.contains(r#""reason":"worker-shutdown""#), "{status}: {log}");
        killed.worker.assert_nothing_left("after the queue has taken the report");
    }
}

#[test]
fn a_run_that_somebody_has_resolved_meanwhile_is_not_reported_and_its_log_is_stored_if_it_can_be() {
    for (state, reason, stored) in [("exception", "canceled", true), ("completed", "completed", false)] {
        let queue = queue(move |path| match path.rsplit('/').next() {
            Some("reclaim") => Some(refusal(409, "it is resolved")),
            Some("status") => {
                let runs = json!([{"runId": 0, "state": state, "reasonResolved": reason}]);
                Some((200, json!({"status": {"runs": runs}})))
            }
            _ => None,
        });
        let killed = Killed::new(&queue);
        let mut child = killed.start();
        let log = read_until(&mut child, "taskFinish");
        Killed::end(child);
        let told = told(&queue);
        assert!(!told.iter().any(|line| line.contains("exception")), "{reason}: {told:?}");
        assert_eq!(told.iter().any(|line| line == "PUT /put"), stored, "{reason}: {told:?}");
        let log = log.join().unwrap();
        assert!(log.contains(&format!(r#""reason":"{reason}""#)), "{log}");
        killed.worker.assert_nothing_left(reason);
    }
}

#[test]
fn a_run_that_was_reported_before_its_worker_died_is_told_so_when_the_queue_can_say_it_again() {
    let asked = OnceLock::new();
    let queue = queue(move |path| match path.rsplit('/').next() {
        Some("reclaim" | "exception") => Some(refusal(409, "it is resolved")),
        // For longer than one look at it is tried.
        Some("status") if asked.get_or_init(Instant::now).elapsed() < Duration::from_secs(12) => {
            Some((503, json!({})))
        }
        Some("status") => {
            let runs = json!([{"runId": 0, "state": "completed", "reasonResolved": "completed"}]);
            Some((200, json!({"status": {"runs": runs}})))
        }
        _ => None,
    });
    let killed = Killed::new(&queue);
    let mut child = killed.start();
    let log = read_until(&mut child, "taskFinish");
    Killed::end(child);
    let told = told(&queue);
    assert!(told.iter().all(|line| line.ends_with("/reclaim") || line.ends_with("status")), "{told:?}");
    let log = log.join().unwrap();
    assert!(log.contains("died after it had reported this task"), "{log}");
    assert_eq!(log.matches("failed to learn how run 0 of task").count(), 1, "{log}");
    killed.worker.assert_nothing_left("after the queue has said how the run ended");
}

#[test]
fn what_is_not_this_workers_to_resolve_is_one_line_and_no_request() {
    let past = json!({ "takenUntil": "2020-01-01T00:00:00.000Z" });
    let elsewhere = json!({ "rootUrl": "https://tc.example.com" });
    let neighbours = json!({ "workerId": "v" });
    let cases = [
        (past, "nobody has resolved run 0 of task", false),
        (elsewhere, "which only its own worker, g/w, can resolve", true),
        (neighbours, "which only its own worker, g/v, can resolve", true),
        (json!({ "runId": "x" }), ": it is no claim", false),
    ];
    for (changes, line, stays) in cases {
        let queue = queue(|_| None);
        let killed = Killed::new(&queue);
        killed.claim(&changes);
        let child = killed.start();
        queue.await_requests(1, is_claim);
        let said = String::from_utf8_lossy(&Killed::end(child).stderr).into_owned();
        assert_eq!(said.lines().filter(|it| it.contains(line)).count(), 1, "{line}: {said}");
        assert_eq!(told(&queue), Vec::<String>::new(), "{line}");
        assert_eq!(killed.data().join("log").exists(), stays, "{line}");
        killed.worker.call(&["cleanup"]);
    }
}

#[test]
fn a_run_of_a_worker_that_lives_is_its_own() {
    let queue = queue(|_| None);
    let killed = Killed::new(&queue);
    let directory = File::open(killed.worker.run_directory().join(&killed.id)).unwrap();
    directory.lock().unwrap();
    let child = killed.start();
    queue.await_requests(2, is_claim);
    Killed::end(child);
    assert_eq!(told(&queue), Vec::<String>::new());
    assert!(killed.data().join("log").exists() && killed.claims().join(TASK).exists());
    drop(directory);
    killed.worker.call(&["cleanup"]);
}
