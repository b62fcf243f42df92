//! The control socket: what it tells and does, whom it hears, and what nobody can do to the worker through it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Worker, await_that, busybox_image, finish, read_until};

const LIMIT: Duration = Duration::from_secs(60);

/// A connection. Its address is short, wherever the socket is.
fn connect(socket: &Path) -> UnixStream {
    let directory = fs::File::open(socket.parent().unwrap()).unwrap();
    let short = format!("/proc/self/fd/{}/control", std::os::fd::AsRawFd::as_raw_fd(&directory));
    let stream = UnixStream::connect(short).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// What is answered to one line; null where the connection is closed instead.
fn ask(stream: &UnixStream, line: &str) -> Value {
    // A peer that has gone is noticed when its answer is read.
    { stream }.write_all(format!("{line}\n").as_bytes()).unwrap_or_default();
    let mut answer = String::new();
    // One answer is one line: nothing is read ahead.
    BufReader::new(stream).read_line(&mut answer).map(drop).unwrap_or_default();
    serde_json::from_str(&answer).unwrap_or(Value::Null)
}

/// The sockets of a worker's processes.
fn sockets(worker: &Worker) -> Vec<PathBuf> {
    let entries = fs::read_dir(worker.run_directory()).unwrap();
    let sockets = entries.map(|entry| entry.unwrap().path().join("control"));
    sockets.filter(|path| fs::metadata(path).is_ok_and(|it| it.file_type().is_socket())).collect()
}

/// A run whose command sleeps, with its only socket.
fn sleeping(worker: &Worker) -> (Child, std::thread::JoinHandle<String>, PathBuf) {
    let image = worker.image(&busybox_image()).source;
    let (mut child, _) = worker.start_run(&["--image", &image], &["sh", "-c", "echo it is up; sleep 100"]);
    let log = read_until(&mut child, "it is up");
    let found = sockets(worker);
    assert_eq!(found.len(), 1, "{found:?}");
    (child, log, found.into_iter().next().unwrap())
}

const LIST: &str = r#"{"request":"list"}"#;

#[test]
fn it_lists_what_runs_and_ends_it() {
    let worker = Worker::new();
    let (child, _log, socket) = sleeping(&worker);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    let stream = connect(&socket);
    let answer = ask(&stream, LIST);
    let task = &answer["tasks"][0];
    assert_eq!((&task["state"], &task["runId"]), (&json!("running"), &json!(0)), "{answer}");
    assert_eq!([task["container"].as_str().unwrap()], worker.containers().as_slice(), "{answer}");
    assert!(task["began"].as_str().unwrap().ends_with('Z'), "{answer}");
    let end = |run_id: u32| json!({"request": "end", "taskId": task["taskId"], "runId": run_id}).to_string();
    let absent = ask(&stream, &end(1));
    assert!(absent["error"].as_str().unwrap().starts_with("this worker has no run 1 of task "), "{absent}");
    assert_eq!(ask(&stream, &end(0)), json!({"ended": true}));
    // The run has gone with all that it had; so has the socket.
    assert_eq!(finish(child, LIMIT).status.code(), Some(130));
    assert_eq!(sockets(&worker), Vec::<PathBuf>::new());
}

#[test]
fn what_is_no_request_is_refused_and_harms_nobody() {
    let worker = Worker::new();
    let (mut child, _log, socket) = sleeping(&worker);
    for (line, is_closed) in [
        ("", false),
        ("{", false),
        ("[]", false),
        (r#"{"request":"shutdown"}"#, false),
        (r#"{"request":"list","more":1}"#, false),
        (r#"{"request":"end","taskId":"../x","runId":0}"#, false),
        (r#"{"request":"end","taskId":"fN1SbArXTPSVFNUvaOlinQ","runId":-1}"#, false),
        (&format!("{{\"request\":\"{}\"}}", "x".repeat(10_000)), true),
        (&"[".repeat(4000), false),
    ] {
        let stream = connect(&socket);
        let answer = ask(&stream, line);
        let shown = &line[..line.len().min(80)];
        assert!(answer["error"].is_string(), "{shown}: {answer}");
        assert_eq!(ask(&stream, LIST).is_null(), is_closed, "{shown}");
    }
    // Those that say nothing, or half of something, or never read, take a place each and no more.
    let mut silent: Vec<_> = (0..32).map(|_| connect(&socket)).collect();
    for stream in &silent[..8] {
        { stream }.write_all(b"{\"request\":").unwrap();
    }
    for _ in 0..20_000 {
        silent[8].set_nonblocking(true).unwrap();
        if { &silent[8] }.write_all(format!("{LIST}\n").as_bytes()).is_err() {
            break;
        }
    }
    let mut one_more = connect(&socket);
    assert_eq!(one_more.read(&mut [0]).unwrap_or(0), 0, "it is closed");
    assert!(child.try_wait().unwrap().is_none());
    silent.truncate(20);
    await_that("a place", || !ask(&connect(&socket), LIST).is_null());
    child.kill().unwrap();
    finish(child, LIMIT);
    worker.scratch().await_processes(LIMIT);
    assert!(worker.call(&["cleanup"]).status.success());
}

#[test]
fn another_user_is_not_heard_even_where_the_file_system_lets_them_in() {
    let worker = Worker::new();
    let (child, _log, socket) = sleeping(&worker);
    let script = "use IO::Socket::UNIX; chdir shift or die; my $s = IO::Socket::UNIX->new('control') or die $!; \
        print $s \"$ARGV[0]\\n\"; $s->flush; print <$s>;";
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    // Its rights over files are root's: what stops it is who it is.
    other.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]);
    other.args(["perl", "-e", script, socket.parent().unwrap().to_str().unwrap(), LIST]);
    let output = other.output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(answer, json!({"error": "only root and the worker's own user may ask"}), "{output:?}");
    let task = ask(&connect(&socket), LIST)["tasks"][0]["taskId"].clone();
    ask(&connect(&socket), &json!({"request": "end", "taskId": task, "runId": 0}).to_string());
    finish(child, LIMIT);
}

#[test]
fn the_socket_of_a_dead_worker_goes_and_that_of_a_live_one_stays() {
    let worker = Worker::new();
    let (mut dead, _log, left) = sleeping(&worker);
    dead.kill().unwrap();
    finish(dead, LIMIT);
    worker.scratch().await_processes(LIMIT);
    assert!(left.exists());
    // The next one sweeps.
    let (live, _log, socket) = sleeping(&worker);
    assert!(!left.exists());
    worker.call(&["cleanup"]);
    let task = ask(&connect(&socket), LIST)["tasks"][0]["taskId"].clone();
    ask(&connect(&socket), &json!({"request": "end", "taskId": task, "runId": 0}).to_string());
    assert_eq!(finish(live, LIMIT).status.code(), Some(130));
}
