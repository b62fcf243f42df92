//! Caches of a deployment's tasks, and what the purge service makes of them.

use docker_worker::queue::RunState;
use docker_worker::queue::task_id::TaskId;
use serde_json::json;

use crate::support::{Fault, POOL, Site};

/// Has a task run with the cache `builds` on `/builds`; gives what it printed.
fn with_cache(site: &Site, script: &str) -> String {
    let mut payload = site.payload(script);
    payload["cache"] = json!({ "builds": "/builds" });
    let mut definition = site.deployment.definition(&payload);
    definition["scopes"] = json!(["docker-worker:cache:builds"]);
    printed(site, &site.deployment.create_task(definition))
}

/// What a task printed that has to succeed.
fn printed(site: &Site, task: &TaskId) -> String {
    let status = site.deployment.await_resolved(task);
    let log = site.deployment.log(task);
    assert_eq!(status.state, RunState::Completed, "{log}");
    let (_, rest) = log.split_once("=== Task Starting ===\n").unwrap();
    let (output, _) = rest.split_once("\n[taskcluster").unwrap_or_default();
    output.replace('\r', "")
}

#[test]
fn a_cache_goes_from_task_to_task_until_somebody_asks_for_it_to_be_purged() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let requests = format!("GET /api/purge-cache/v1/purge-cache/{}", POOL.replace('/', "%2F"));
    let asked = || site.deployment.wire.asked(&requests);
    let look = "ls /builds; echo looked";
    assert_eq!(printed(&site, &site.deployment.create(&site.payload("echo ran"))), "ran");
    assert_eq!(with_cache(&site, "touch /builds/a; echo filled"), "filled");
    assert_eq!(asked(), 0, "there was no cache when these tasks were claimed");
    assert_eq!(with_cache(&site, look), "a\nlooked");
    assert_eq!(asked(), 1);
    site.deployment.purge_cache("others");
    assert_eq!(with_cache(&site, look), "a\nlooked");
    site.deployment.purge_cache("builds");
    assert_eq!(with_cache(&site, look), "looked");
    assert_eq!(with_cache(&site, "touch /builds/b; echo filled"), "filled");
    site.deployment.wire.fail(&requests, Fault::Status(503), 1000);
    assert_eq!(with_cache(&site, look), "b\nlooked", "the service is of no use, and nobody waits for it");
    let log = worker.stop().log;
    let removed: Vec<&str> =
        log.lines().filter(|line| line.contains(r#""type":"cache volume removed""#)).collect();
    assert!(removed.len() == 1 && removed[0].contains(r#""name":"builds""#), "{log}");
    assert_eq!(
        log.matches("failed to have the queue answer about the purge requests of").count(),
        1,
        "{log}"
    );
}
