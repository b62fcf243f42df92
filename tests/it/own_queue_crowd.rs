//! `docker-worker standalone` where strangers take connections.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use serde_json::json;

use crate::support::{OwnQueue, await_that, finish, read_until, shell_payload};

const LIMIT: Duration = Duration::from_secs(60);

/// Connects 600 times, says the same on each connection, and stays: every few seconds it says something more on each.
fn crowd(own: &OwnQueue, (said, then): (&str, &str)) -> Child {
    // A read whose time is over has a status above 128.
    let script = "ulimit -n 2000; trap '' PIPE; for i in $(seq 600); do
        exec {connection}<>/dev/tcp/127.0.0.1/8239; printf \"$1\" >&$connection; all+=($connection)
    done; echo all are there
    while read -t 20; [ $? -gt 128 ]; do
        for connection in ${all[@]}; do printf \"$2\" >&$connection; done
    done 2>/dev/null";
    let mut command = own.internet.host.command("bash");
    command.args(["-c", script, "bash", said, then]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    let mut crowd = command.spawn().unwrap();
    read_until(&mut crowd, "all are there");
    crowd
}

fn disperse(mut crowd: Child) {
    drop(crowd.stdin.take());
    finish(crowd, LIMIT);
}

/// Whether a newcomer is answered within seconds.
fn is_answered(own: &OwnQueue) -> bool {
    let url = format!("{}/api/queue/v1/ping", own.root_url);
    let child = own.curl(&["--fail", "--max-time", "5", &url]).spawn().unwrap();
    finish(child, LIMIT).status.success()
}

#[test]
fn s_strangers_who_say_nothing_give_their_places_to_newcomers() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let crowd = crowd(&own, ("", ""));
    assert!(is_answered(&own));
    disperse(crowd);
    standalone.stop();
}

#[test]
fn s_strangers_who_take_all_places_do_not_keep_the_worker_from_its_queue() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let create = |script: &str| {
        let mut payload = shell_payload(&own.image, script);
        payload["cache"] = json!({ "x": "/x" });
        let mut definition = own.definition(&payload);
        definition["scopes"] = json!(["docker-worker:cache:x"]);
        let task_id = TaskId::random().unwrap();
        own.call(&format!("PUT queue/task/{task_id}"), &definition);
        task_id
    };
    let first = create("echo begun; until [ -e /x/go ]; do sleep 0.1; done");
    own.await_printed(&first, "begun");
    let next = create("touch /x/next");
    // A payload that is announced and does not come is waited for.
    let request =
        r"PUT /api/queue/v1/task/fN1SbArXTPSVFNUvaOlinQ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n";
    // Each is renewed before its time is over: it ends, and the next one begins on the same connection.
    let crowd = crowd(&own, (request, &format!("123456789{request}")));
    assert!(!is_answered(&own));
    let cache = own.worker.data().join("caches").join(&own.worker.caches()[0]).join("content");
    fs::write(cache.join("go"), "").unwrap();
    await_that("the next task to run", || cache.join("next").exists());
    assert!(!is_answered(&own), "the crowd has gone, and nothing was shown");
    disperse(crowd);
    own.await_state(&next, "completed");
    standalone.stop();
}
