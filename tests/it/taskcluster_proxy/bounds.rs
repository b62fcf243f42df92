//! What one task can have the process take that serves all of them.

use std::fs;

use docker_worker::queue::RunState;
use rustix::event::{Timespec, poll};
use rustix::process::Pid;
use serde_json::json;

use super::{AWAIT_RELEASE, completed, definition, of, proxy_of, waiting_definition};
use crate::support::{Site, await_that};

/// Connections of one task that are served at the same time.
const CONNECTIONS: usize = 64;

/// So many scopes that they and the certificate, which has them once more, take about so many bytes.
fn scopes(bytes: usize) -> Vec<String> {
    (0..bytes / 200).map(|number| format!("queue:scheduler-id:{number:0>78}")).collect()
}

#[test]
fn a_task_with_more_scopes_than_a_header_holds_is_told_so_at_its_beginning() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let task = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &scopes(50 << 10)));
    let status = site.deployment.await_resolved(&task);
    let log = site.deployment.log(&task);
    assert_ne!(status.state, RunState::Completed, "{log}");
    assert!(log.contains("give the task fewer scopes, or a role that has them"), "{log}");
    assert!(!log.contains("alive"), "{log}");
    // The next one is served.
    let next = definition(&site, "get /api/queue/v1/ping", &scopes(20 << 10));
    assert!(completed(&site, &site.deployment.create_task(next)).contains("\"alive\":true"));
    worker.stop();
}

#[test]
fn answers_that_nobody_reads_take_no_more_than_there_is() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    // As many connections as a task has, each with more answers than its sockets hold.
    let script = format!(
        r#"get /api/queue/v1/ping; echo first; until [ -e /x/go ]; do sleep 0.1; done; rm /x/go
        url=http://tc/$(head -c 16000 /dev/zero | tr '\0' x)
        printf 'POST /bewit HTTP/1.1\r\nHost: t\r\nContent-Length: %s\r\n\r\n%s' ${{#url}} "$url" > /tmp/one
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat /tmp/one; done > /tmp/all
        i=0; while [ $i -lt 70 ]; do (cat /tmp/all; sleep 600) | nc taskcluster 80 | sleep 600 & i=$((i+1)); done
        echo sent; {AWAIT_RELEASE}"#
    );
    let mut definition = waiting_definition(&site, &script);
    let scopes = scopes(30 << 10).into_iter().chain(["docker-worker:cache:x".to_owned()]);
    definition["scopes"] = json!(scopes.collect::<Vec<_>>());
    let task = site.deployment.create_task(definition);
    site.deployment.await_printed(&task, "first");
    let proxy = proxy_of(&site.worker);
    let before = memory(proxy);
    site.release();
    site.deployment.await_printed(&task, "sent");
    let descriptors = format!("/proc/{}/fd", proxy.as_raw_nonzero());
    await_that("all connections", || fs::read_dir(&descriptors).unwrap().count() > CONNECTIONS);
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(memory(proxy));
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).unwrap();
    }
    // Of a place's mebibyte the kernel has more than a third.
    assert!(most < before + CONNECTIONS * 640, "{before} KiB before, {most} KiB at most");
    site.release();
    completed(&site, &task);
    worker.stop();
}

/// KiB of a process's own memory.
fn memory(process: Pid) -> usize {
    let status = of(process, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
