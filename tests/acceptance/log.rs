//! A log of a gigabyte.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{OwnQueue, finish, shell_payload};

/// Bytes that the task prints, a carriage return for each of its lines not counted.
const BYTES: u64 = 1 << 30;

/// Bytes of one line, its end included.
const LINE: u64 = 64;

/// The worker's memory, in a build for tests.
const MOST_MEMORY: u64 = 72 << 20;

#[test]
fn a_gigabyte_of_log_takes_no_memory_whoever_reads_it_or_does_not() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let line = "x".repeat(usize::try_from(LINE).unwrap() - 1);
    let mut payload = shell_payload(&own.image, &format!("yes {line} | head -c {BYTES}"));
    payload["maxRunTime"] = json!(1800);
    let task_id = own.create(&payload);
    own.await_printed(&task_id, "xxx");
    let url = own.artifact_url(&task_id, "public/logs/live.log");
    let retry = ["--retry", "60", "--retry-all-errors", "--retry-delay", "1"];
    let count = ["--fail", "--location", "--output", "/dev/null", "--write-out", "%{size_download}", &url];
    let reader = own.curl(&[&retry[..], &count].concat()).spawn().unwrap();
    let silent = reader_that_never_reads(&own, &url);
    let status = await_resolved(&own, &task_id);
    assert_eq!(status["state"], "completed", "{status}");
    let read = finish(reader, Duration::from_secs(600));
    let read: u64 = String::from_utf8(read.stdout).unwrap().parse().unwrap();
    let printed = BYTES + BYTES / LINE;
    assert!((printed..printed + 10_000).contains(&read), "the live log had {read} bytes, not {printed}");
    let stored = own.curl(&[&["--compressed"], &count[..]].concat()).spawn().unwrap();
    let stored = finish(stored, Duration::from_secs(600));
    assert!(stored.status.success(), "{stored:?}");
    let memory = standalone.most_memory();
    println!("{} MiB at most", memory >> 20);
    assert!(memory < MOST_MEMORY, "{} MiB", memory >> 20);
    drop(silent);
    standalone.stop();
}

/// Asks for the live log and takes nothing of it.
fn reader_that_never_reads(own: &OwnQueue, url: &str) -> TcpStream {
    let head = ["--head", "--request", "GET", "--output", "/dev/null", "--write-out", "%{redirect_url}", url];
    let asked = finish(own.curl(&head).spawn().unwrap(), Duration::from_secs(60));
    let live = String::from_utf8(asked.stdout).unwrap();
    let (authority, path) = live.strip_prefix("http://").unwrap().split_once('/').unwrap();
    own.internet.host.within(|| {
        let mut stream = TcpStream::connect(authority).unwrap();
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n").unwrap();
        stream
    })
}

fn await_resolved(own: &OwnQueue, task_id: &docker_worker::queue::task_id::TaskId) -> Value {
    loop {
        let status = own.status(task_id);
        if ["completed", "failed", "exception"].iter().any(|state| status["state"] == *state) {
            return status;
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
}
