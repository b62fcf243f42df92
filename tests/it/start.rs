//! `docker-worker start` as far as it needs no task: its configuration, its queue's refusals, its ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use docker_worker::cache::{CacheLease, Caches, Fate};
use runtime::id::ContainerId;
use serde_json::{Value, json};

use crate::support::{
    AnsweringServer, SmallDisk, Started, Worker, await_that, busybox_image, finish, read_until, refusal,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A queue that knows one answer.
struct Queue {
    address: String,
    requests: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
enum Answer {
    /// 401, as for credentials that are no longer valid.
    Unauthorized,
    /// 403, as for credentials that do not suffice.
    Forbidden,
    /// 400, as for names that no worker can have.
    Invalid,
    /// None while the other side waits, as of a queue without tasks.
    Held,
}

impl Queue {
    fn start(answer: Answer) -> Queue {
        Queue::serve(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    /// Answers also what has been asked before.
    fn serve(listener: TcpListener, answer: Answer) -> Queue {
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let thread = thread::spawn(move || {
            // A connection without a request ends the queue: `drop` makes one.
            while let Ok((stream, _)) = listener.accept() {
                if !serve(stream, answer) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Queue { address, requests, thread: Some(thread) }
    }
}

/// Reads a request's head and answers. False without a request.
fn serve(mut stream: TcpStream, answer: Answer) -> bool {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    if lines.by_ref().take_while(|line| !line.is_empty()).count() == 0 {
        return false;
    }
    match answer {
        Answer::Unauthorized => {
            refuse(stream, "401 Unauthorized", "AuthenticationFailed", "ext.certificate.expiry < now");
        }
        Answer::Forbidden => {
            refuse(stream, "403 Forbidden", "InsufficientScopes", "client ID me does not have scopes");
        }
        Answer::Invalid => {
            refuse(stream, "400 Bad Request", "InputValidationError", "data/workerId must match");
        }
        Answer::Held => {
            // Until the worker goes.
            let rest = stream.read_to_end(&mut Vec::new());
            rest.map(drop).unwrap_or_default();
        }
    }
    true
}

fn refuse(mut stream: TcpStream, status: &str, code: &str, message: &str) {
    let message = format!("{message}\n\n---\n\n* errorCode:  {code}");
    let body = json!({ "code": code, "message": message }).to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(TcpStream::connect(&self.address));
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Writes a configuration that lacks nothing; gives its path.
fn config(worker: &Worker, queue: &str) -> String {
    config_with(worker, queue, enough_room())
}

/// Keys by which the disk has room enough, however little that is.
fn enough_room() -> Value {
    json!({"capacityManagement": {"diskspaceThreshold": 0}})
}

/// The same with these keys as well.
fn config_with(worker: &Worker, queue: &str, more: Value) -> String {
    let path = worker.fresh("config");
    let mut config = json!({
        "rootUrl": format!("http://{queue}"),
        "taskcluster": {"clientId": "me", "accessToken": "sesame"},
        "provisionerId": "p",
        "workerType": "t",
        "workerGroup": "g",
        "workerId": "w",
        "monitorProject": "docker-worker"
    });
    let Value::Object(more) = more else { panic!("{more}") };
    config.as_object_mut().unwrap().extend(more);
    fs::write(&path, config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Starts a worker and waits until it is ready for tasks.
pub fn start(worker: &Worker, queue: &str, more: Value) -> Started {
    let arguments = ["start", "--config", &config_with(worker, queue, more)];
    Started::of(worker.command(&arguments).spawn().unwrap())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_configuration_in_force_is_printed_without_its_secrets() {
    let worker = Worker::new();
    let path = config(&worker, "127.0.0.1:1");
    let arguments = ["start", "--config", &path, "--capacity", "3", "--print-config"];
    let printed = worker.call(&arguments);
    assert!(printed.status.success() && !text(&printed.stdout).contains("sesame"), "{printed:?}");
    let value: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!((&value["capacity"], &value["provisionerId"]), (&json!(3), &json!("p")));
    assert_eq!(value["shutdown"]["afterIdleSeconds"], 300);
    assert!(text(&printed.stderr).contains("no effect in this version: monitorProject"), "{printed:?}");
}

#[test]
fn the_originals_command_line_is_understood() {
    let worker = Worker::new();
    let path = config(&worker, "127.0.0.1:1");
    for words in [
        &["--host", "worker-runner", "-c", "2", "production"][..],
        &["--host=worker-runner", "--capacity=2", "production"],
        &["--host", "test", "--capacity", "2", "production"],
        &["-c2", "production"],
        &["production", "-c2"],
    ] {
        let mut command = worker.command(&[words, &["--print-config"]].concat());
        let printed = finish(command.env("DOCKER_WORKER_CONFIG", &path).spawn().unwrap(), LIMIT);
        let value: Value = serde_json::from_slice(&printed.stdout).unwrap_or_default();
        let found = (&value["capacity"], &value["logging"]["secureLiveLogging"]);
        assert_eq!(found, (&json!(2), &json!(true)), "{words:?}: {printed:?}");
    }
    let refused = worker.call(&["--host", "moon", "production"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[test]
fn what_the_configuration_lacks_is_named_at_once() {
    let refused = Worker::new().call(&["start", "--provisioner-id", "p"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let sentence = "docker-worker: the configuration has to say rootUrl, taskcluster.clientId, \
        taskcluster.accessToken, workerType, workerGroup, workerId (--config FILE)\n";
    assert_eq!(text(&refused.stderr), sentence);
}

#[test]
fn a_root_url_that_is_none_is_refused_at_once() {
    let worker = Worker::new();
    let path = config(&worker, "127.0.0.1:1");
    let without_scheme = fs::read_to_string(&path).unwrap().replace("http://", "");
    fs::write(&path, without_scheme).unwrap();
    let refused = worker.call(&["start", "--config", &path]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(text(&refused.stderr).contains("root URL"), "{refused:?}");
}

#[test]
fn a_disk_that_cannot_be_measured_is_refused_at_once() {
    let worker = Worker::new();
    let path = config_with(&worker, "127.0.0.1:1", json!({"dockerVolume": "/nowhere"}));
    let refused = worker.call(&["start", "--config", &path]);
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    let sentence = "\ndocker-worker: failed to measure the disk of /nowhere: No such file or directory (os error 2); \
        let dockerVolume name a directory that is there, or leave it out\n";
    assert!(text(&refused.stderr).ends_with(sentence), "{refused:?}");
}

#[test]
fn a_disk_that_can_be_measured_no_longer_is_told_once_and_keeps_tasks_away() {
    let queue = AnsweringServer::start(|_, _| (200, json!({"tasks": [], "workerId": "w"})));
    let worker = Worker::new();
    let volume = worker.fresh("volume");
    fs::create_dir(&volume).unwrap();
    let more = json!({
        "dockerVolume": volume,
        "capacityManagement": {"diskspaceThreshold": 0},
        "taskQueue": {"pollInterval": 10}
    });
    let started = start(&worker, &queue.address, more);
    let asked = || queue.requests().iter().filter(|it| it.path.contains("/claim-work/")).count();
    let await_more_than = |count| await_that("tasks to be asked for", || asked() > count);
    await_more_than(0);
    fs::remove_dir(&volume).unwrap();
    // A sweep comes between two looks.
    for _ in 0..3 {
        drop(take_cache(&worker));
        await_no_cache(&worker);
    }
    let count = asked();
    fs::create_dir(&volume).unwrap();
    await_more_than(count);
    let log = started.stop().log;
    let sentence = format!(
        "no tasks are asked for: failed to measure the disk of {}: No such file or directory (os error 2)",
        volume.display()
    );
    assert_eq!(log.matches(&sentence).count(), 1, "{log}");
}

#[test]
fn what_no_other_try_would_change_ends_a_worker_with_one_sentence() {
    let cases = [
        (
            Answer::Unauthorized,
            "ext.certificate.expiry < now",
            "give the worker a valid taskcluster.clientId",
        ),
        (
            Answer::Forbidden,
            "does not have scopes",
            "the scopes queue:claim-work:p/t and queue:worker-id:g/w",
        ),
        (Answer::Invalid, "data/workerId must match", "correct provisionerId, workerType"),
    ];
    for (answer, words, advice) in cases {
        let (worker, queue) = (Worker::new(), Queue::start(answer));
        let ended = worker.call(&["start", "--config", &config(&worker, &queue.address)]);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let sentences = text(&ended.stderr).lines().filter(|line| line.contains(words));
        assert_eq!(sentences.count(), 1, "{ended:?}");
        let told = text(&ended.stdout).lines().filter(|line| line.contains("task retrieval error"));
        let [line] = told.collect::<Vec<_>>()[..] else { panic!("{ended:?}") };
        assert!(line.contains(words) && line.contains(advice), "{line}");
        worker.assert_nothing_left(words);
    }
}

#[test]
fn a_root_url_that_is_no_deployments_is_told_once_and_asked_ever_less_often() {
    for status in [200, 301, 403, 404] {
        let queue = AnsweringServer::start(move |_, _| (status, json!("a page")));
        let worker = Worker::new();
        let more =
            json!({"capacityManagement": {"diskspaceThreshold": 0}, "taskQueue": {"pollInterval": 50}});
        let started = start(&worker, &queue.address, more);
        queue.await_requests(1, |_| true);
        let begun = Instant::now();
        queue.await_requests(5, |_| true);
        // 100, 200, 400 and 800 ms.
        assert!(begun.elapsed() > Duration::from_secs(1), "{status}: {:?}", begun.elapsed());
        let log = started.stop().log;
        let told: Vec<&str> = log.lines().filter(|line| line.contains("task retrieval error")).collect();
        assert!(told.len() == 1 && told[0].contains("correct rootUrl"), "{status}: {log}");
    }
}

#[test]
fn a_worker_that_was_not_greeted_yet_may_still_be_sent_credentials() {
    let (worker, queue) = (Worker::new(), AnsweringServer::start(|_, _| refusal(401, "stale")));
    let more = json!({"capacityManagement": {"diskspaceThreshold": 0}, "taskQueue": {"pollInterval": 100}});
    let path = config_with(&worker, &queue.address, more);
    let mut command = worker.command(&["start", "--host", "worker-runner", "--config", &path]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut runner = child.stdin.take().unwrap();
    queue.await_requests(3, |request| request.path.contains("claim-work"));
    writeln!(runner, r#"~{{"type":"welcome","capabilities":["graceful-termination","new-credentials"]}}"#)
        .unwrap();
    writeln!(runner, r#"~{{"type":"new-credentials","client-id":"me","access-token":"other"}}"#).unwrap();
    writeln!(runner, r#"~{{"type":"graceful-termination","finish-tasks":true}}"#).unwrap();
    let ended = finish(child, Duration::from_secs(20));
    assert!(ended.status.success(), "{ended:?}");
    let log = text(&ended.stdout);
    assert!(log.contains("Got new worker credentials"), "{log}");
    assert_eq!(log.matches("task retrieval error").count(), 1, "{log}");
}

#[test]
fn a_worker_to_which_others_can_be_sent_goes_on_without_valid_credentials() {
    let (worker, listener) = (Worker::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut command = worker.command(&["--host", "worker-runner", "test"]);
    let address = listener.local_addr().unwrap().to_string();
    command.env("DOCKER_WORKER_CONFIG", config(&worker, &address)).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut runner = child.stdin.take().unwrap();
    let welcome = r#"~{"type":"welcome","capabilities":["graceful-termination","new-credentials"]}"#;
    writeln!(runner, "{welcome}").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut expect = |text: &str| lines.find(|line| line.contains(text)).expect("a worker that goes on");
    expect("~{\"type\":\"hello\"");
    let _queue = Queue::serve(listener, Answer::Unauthorized);
    expect("task retrieval error");
    writeln!(runner, r#"~{{"type":"new-credentials","client-id":"me","access-token":"other"}}"#).unwrap();
    expect("Got new worker credentials");
    writeln!(runner, r#"~{{"type":"graceful-termination","finish-tasks":true}}"#).unwrap();
    let ended = finish(child, Duration::from_secs(20));
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn worker_runner_is_told_that_credentials_were_refused() {
    let (worker, queue) = (Worker::new(), Queue::start(Answer::Unauthorized));
    let mut command = worker.command(&["--host", "worker-runner", "test"]);
    command.env("DOCKER_WORKER_CONFIG", config(&worker, &queue.address)).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut runner = child.stdin.take().unwrap();
    writeln!(runner, r#"~{{"type":"welcome","capabilities":["shutdown","error-report"]}}"#).unwrap();
    let ended = finish(child, Duration::from_secs(20));
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let messages = text(&ended.stdout).lines().filter_map(|line| line.strip_prefix('~'));
    let [hello, report, shutdown]: [Value; 3] =
        messages.map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((&hello["type"], &shutdown["type"]), (&json!("hello"), &json!("shutdown")));
    assert_eq!((&report["type"], &report["kind"]), (&json!("error-report"), &json!("invalid-credentials")));
    let description = report["description"].as_str().unwrap();
    assert!(description.contains("ext.certificate.expiry < now"), "{report}");
}

#[test]
fn worker_runner_that_greets_late_is_told_as_well() {
    let (worker, queue) = (Worker::new(), Queue::start(Answer::Invalid));
    let mut command = worker.command(&["--host", "worker-runner", "test"]);
    command.env("DOCKER_WORKER_CONFIG", config(&worker, &queue.address)).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut runner = child.stdin.take().unwrap();
    let log = read_until(&mut child, r#""type":"exit""#);
    writeln!(runner, r#"~{{"type":"welcome","capabilities":["shutdown","error-report"]}}"#).unwrap();
    let ended = finish(child, Duration::from_secs(20));
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let log = log.join().unwrap();
    let messages = log.lines().filter_map(|line| line.strip_prefix('~'));
    let messages: Vec<Value> = messages.map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = messages.iter().map(|message| &message["type"]).collect();
    assert_eq!(types, ["hello", "error-report", "shutdown"], "{log}");
    assert_eq!(messages[1]["kind"], "invalid-configuration", "{log}");
}

#[test]
fn a_worker_that_waits_for_tasks_ends_soon_when_it_is_told_to() {
    let (worker, queue) = (Worker::new(), Queue::start(Answer::Held));
    let ended = start(&worker, &queue.address, enough_room()).stop();
    assert!(ended.finished.took < Duration::from_secs(20), "{ended:?}");
    let log = ended.log;
    for line in log.lines().filter(|line| line.starts_with('{')) {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["workerGroup"], "g", "{line}");
    }
    assert!(log.contains("Terminating worker due to SIGTERM") && log.contains(r#""type":"exit""#), "{log}");
    worker.assert_nothing_left("after the end of an idle worker");
}

/// An instance of a cache in the hands of a container that is not there: dropped, it is garbage.
fn take_cache(worker: &Worker) -> CacheLease {
    let caches = Caches::open(&worker.data().join("caches")).unwrap();
    caches.take("x", &ContainerId::new("container").unwrap(), &|| true).unwrap()
}

fn await_no_cache(worker: &Worker) {
    await_that("the cache to go", || worker.caches().is_empty());
}

#[test]
fn a_worker_without_room_removes_what_it_may_claims_nothing_and_says_so_once() {
    let (worker, queue) = (Worker::new(), Queue::start(Answer::Held));
    worker.run(&worker.image(&busybox_image()).source, &["true"]).expect(0, "the image is there");
    let more = json!({
        "capacity": 2,
        "capacityManagement": {"diskspaceThreshold": u64::MAX / 4},
        "taskQueue": {"pollInterval": 10}
    });
    let mut started = start(&worker, &queue.address, more);
    started.await_logged("diskspace threshold reached");
    // It goes on looking for room.
    for _ in 0..3 {
        assert!(take_cache(&worker).release(Fate::Keep).unwrap().is_none());
        await_no_cache(&worker);
    }
    let log = started.stop().log;
    assert_eq!(queue.requests.load(Ordering::SeqCst), 0);
    let entries: Vec<Value> = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |kind: &str| entries.iter().filter(|entry| entry["type"] == kind).count();
    for (kind, times) in [
        ("image removed", 1),
        ("cache volume removed", 3),
        ("garbage collection warning", 0),
        ("[alert-operator] diskspace threshold reached", 1),
    ] {
        assert_eq!(count(kind), times, "{kind}: {log}");
    }
    let (started, finished) = (count("garbage collection started"), count("garbage collection finished"));
    // One sweep may find several caches; those that find nothing say nothing.
    assert!((2..=4).contains(&started) && started == finished, "{log}");
    let find = |kind: &str| entries.iter().find(|entry| entry["type"] == kind).unwrap();
    let counters = entries.iter().filter(|entry| entry["key"] == "p.t.standalone.diskspaceThreshold");
    assert_eq!(counters.map(|entry| entry["val"].as_f64()).collect::<Vec<_>>(), [Some(1.0)], "{log}");
    let shortage = find("[alert-operator] diskspace threshold reached");
    assert_eq!(shortage["perTaskThreshold"], u64::MAX / 4);
    assert_eq!(shortage["totalthreshold"], u64::MAX / 4 * 2);
    assert_eq!(shortage["availableWorkerCapacity"], 2);
    assert_eq!(shortage["volume"], worker.data().to_str().unwrap());
    worker.assert_nothing_left("after a shortage");
}

/// The disk of the data directory is short, whatever other one there is.
#[test]
fn room_on_another_disk_is_none_for_images_and_containers() {
    let (worker, queue) = (Worker::new(), Queue::start(Answer::Held));
    let volume = worker.fresh("volume");
    fs::create_dir(&volume).unwrap();
    let disk = SmallDisk::mount(&worker.data(), "20m");
    let more = json!({
        "dockerVolume": volume,
        "capacityManagement": {"diskspaceThreshold": 30_000_000},
        "taskQueue": {"pollInterval": 10}
    });
    let mut started = start(&worker, &queue.address, more);
    started.await_logged("diskspace threshold reached");
    let log = started.stop().log;
    assert_eq!(queue.requests.load(Ordering::SeqCst), 0);
    assert!(log.contains(&format!(r#""volume":{}"#, json!(worker.data()))), "{log}");
    drop(disk);
}

#[test]
fn a_disk_of_caches_alone_that_is_short_loses_caches_alone() {
    let queue = AnsweringServer::start(|_, _| (200, json!({"tasks": [], "workerId": "w"})));
    let worker = Worker::new();
    worker.run(&worker.image(&busybox_image()).source, &["true"]).expect(0, "the image is there");
    let volumes = worker.fresh("volumes");
    let disk = SmallDisk::mount(&volumes, "40m");
    let caches = Caches::open(&volumes.join("docker-worker-caches")).unwrap();
    let cache = caches.take("x", &ContainerId::new("container").unwrap(), &|| true).unwrap();
    fs::write(cache.content().join("file"), vec![b'c'; 30 << 20]).unwrap();
    assert!(cache.release(Fate::Keep).unwrap().is_none());
    let more = json!({
        "cache": {"volumeCachePath": volumes},
        "capacityManagement": {"diskspaceThreshold": 20_000_000},
        "taskQueue": {"pollInterval": 10}
    });
    let mut started = start(&worker, &queue.address, more);
    started.await_logged("cache volume removed");
    queue.await_requests(1, |request| request.path.contains("/claim-work/"));
    let log = started.stop().log;
    assert!(!log.contains("image removed") && !log.contains("diskspace threshold"), "{log}");
    drop(caches);
    drop(disk);
}

#[test]
fn worker_runner_is_greeted_and_told_of_the_end() {
    let (worker, queue) = (Worker::new(), Queue::start(Answer::Held));
    let mut command = worker.command(&["--host", "worker-runner", "test"]);
    command.env("DOCKER_WORKER_CONFIG", config(&worker, &queue.address)).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut runner = child.stdin.take().unwrap();
    let welcome = r#"~{"type":"welcome","capabilities":["shutdown","graceful-termination","log"]}"#;
    writeln!(runner, "{welcome}").unwrap();
    let log = read_until(&mut child, "~");
    writeln!(runner, r#"~{{"type":"graceful-termination","finish-tasks":true}}"#).unwrap();
    let ended = finish(child, Duration::from_secs(20));
    assert!(ended.status.success(), "{ended:?}");
    let log = log.join().unwrap();
    let said: Vec<&str> = log.lines().filter(|line| line.starts_with('~')).collect();
    let hello = r#"~{"type":"hello","capabilities":["graceful-termination","shutdown"]}"#;
    assert_eq!(said, [hello, r#"~{"type":"shutdown"}"#], "{log}");
    drop(runner);
}

#[test]
fn a_worker_in_quarantine_says_so_once() {
    let queue = AnsweringServer::start(|request, _| {
        let (until, is_claim) = ("2999-01-01T00:00:00.000Z", request.path.contains("/claim-work/"));
        (
            200,
            if is_claim { json!({"tasks": []}) } else { json!({"workerId": "w", "quarantineUntil": until}) },
        )
    });
    let worker = Worker::new();
    let mut started = start(&worker, &queue.address, enough_room());
    started.await_logged("quarantine");
    let log = started.stop().log;
    let asked: Vec<_> = queue.requests().into_iter().filter(|it| !it.path.contains("/claim-work/")).collect();
    assert_eq!(asked[0].path, "/api/queue/v1/provisioners/p/worker-types/t/workers/g/w");
    let sentence = "the queue gives this worker no tasks until 2999-01-01T00:00:00.000Z: it is in quarantine";
    assert_eq!(log.matches(sentence).count(), 1);
}
