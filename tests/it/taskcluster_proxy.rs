//! `taskclusterProxy`: what a task asks its deployment for by way of the worker, and what is not for it.

mod bounds;
mod process;
mod profile;

use std::fs;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Reason, RunState, Verdict};
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::support::{Fault, OwnQueue, Site, Terms, Worker, await_that, busybox_image, shell_payload};

/// `get PATH`; `post PATH JSON`; `ask "METHOD PATH" BODY`, which shows the whole response.
pub const TOOLS: &str = r#"
get() { wget -q -O - "$TASKCLUSTER_PROXY_URL$1"; echo; }
post() { wget -S -O - --header 'Content-Type: application/json' --post-data "$2" "$TASKCLUSTER_PROXY_URL$1" 2>&1; echo; }
ask() {
    printf '%s HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' "$1" ${#2} "$2" | nc taskcluster 80
    echo
}
"#;

/// Makes an artifact of the run that asks.
const MAKE_ARTIFACT: &str = r#"
post /api/queue/v1/task/$TASK_ID/runs/$RUN_ID/artifacts/public%2Fmade "{
    \"storageType\": \"reference\", \"contentType\": \"text/plain\", \"expires\": \"$EXPIRES\", \"url\": \"https://example.com/made\"
}"
"#;

/// The definition of a task that has the proxy.
pub fn definition(site: &Site, script: &str, scopes: &[String]) -> Value {
    let mut payload = site.payload(&format!("{TOOLS}{script}"));
    payload["features"] = json!({ "taskclusterProxy": true });
    let mut definition = site.deployment.definition(&payload);
    definition["payload"]["env"] = json!({ "EXPIRES": definition["expires"] });
    definition["scopes"] = json!(scopes);
    definition
}

/// The same with a cache, in which it finds a file when [`Site::release`] is called.
pub fn waiting_definition(site: &Site, script: &str) -> Value {
    let mut definition = definition(site, script, &["docker-worker:cache:x".to_owned()]);
    definition["payload"]["cache"] = json!({ "x": "/x" });
    definition
}

/// Waits for that file.
pub const AWAIT_RELEASE: &str = "until [ -e /x/go ]; do sleep 0.1; done";

/// The process that serves the tasks of a worker, once there is one. Nothing in its arguments or variables says whose it
/// is, but for those of its parent.
pub fn proxy_of(worker: &Worker) -> Pid {
    let mut found = None;
    await_that("a proxy", || {
        found = worker.processes("docker-worker-r").into_iter().find_map(child_that_is_a_proxy);
        found.is_some()
    });
    found.unwrap()
}

fn child_that_is_a_proxy(parent: Pid) -> Option<Pid> {
    let parent = parent.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let children = children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap()).unwrap());
    children.into_iter().find(|child| of(*child, "cmdline") == "/docker-worker\0proxy\0")
}

/// A file of a process's; empty if that is gone.
pub fn of(process: Pid, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{}/{file}", process.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The group of a process.
pub fn group_of(process: Pid) -> u32 {
    let status = of(process, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("Gid:\t")).unwrap();
    line.split('\t').next().unwrap().parse().unwrap()
}

/// Waits for a task's end; gives its log.
pub fn completed(site: &Site, task: &TaskId) -> String {
    let status = site.deployment.await_resolved(task);
    let log = site.deployment.log(task);
    assert_eq!(status.state, RunState::Completed, "{log}");
    log
}

/// A task that nobody takes.
fn left_alone(site: &Site) -> TaskId {
    let mut definition = site.deployment.definition(&site.payload("true"));
    definition["taskQueueId"] = json!("proj-x/nobody");
    site.deployment.create_task(definition)
}

#[test]
fn a_request_may_do_what_the_task_may_and_no_more() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let (own, foreign) = (left_alone(&site), left_alone(&site));
    let script = format!(
        r#"set -e
        get /api/queue/v1/task/$TASK_ID
        get /queue/v1/task/$TASK_ID/status
        {MAKE_ARTIFACT}
        ask "GET /api/queue/v1/task/$TASK_ID/runs/$RUN_ID/artifacts/public%2Fmade"
        post /api/queue/v1/task/{own}/cancel ''
        post /api/queue/v1/task/{foreign}/cancel '' || true
        "#
    );
    let scopes = [format!("queue:cancel-task:-/{own}/{own}")];
    let task = site.deployment.create_task(definition(&site, &script, &scopes));
    let log = completed(&site, &task);
    for expected in ["\"what a test needs\"", "\"runs\":", "303", "https://example.com/made", "403 Forbidden"]
    {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    let scopes = json!([scopes[0], format!("queue:create-artifact:{task}/0")]).to_string();
    assert!(log.contains(&format!("x-taskcluster-authorized-scopes: {scopes}")), "{log}");
    let artifacts = site.deployment.artifacts(&task);
    assert!(artifacts.contains(&("public/made".to_owned(), "reference".to_owned())), "{artifacts:?}");
    let canceled = site.deployment.status(&own).runs.last().and_then(|run| run.reason_resolved);
    assert_eq!(canceled, Some(Verdict::Exception(Reason::Canceled)), "{log}");
    assert_eq!(site.deployment.status(&foreign).state, RunState::Pending, "{log}");
    worker.stop();
}

/// In whose name requests were made, one after the other.
pub fn clients_named(log: &str) -> Vec<&str> {
    let named = log.lines().filter_map(|line| line.strip_prefix("x-taskcluster-proxy-temp-clientid: "));
    named.map(str::trim_end).collect()
}

#[test]
fn a_request_after_a_reclaim_is_signed_with_the_new_credentials() {
    let site = Site::with(Terms { claim_time: Duration::from_secs(20), ..Terms::default() });
    let worker = site.start(&json!({}));
    let ping = "ask 'GET /api/queue/v1/ping' ''";
    let script = format!("{ping}; sleep 25; {ping}; {MAKE_ARTIFACT}");
    let task = site.deployment.create_task(definition(&site, &script, &[]));
    let log = completed(&site, &task);
    let exchanges = site.deployment.wire.exchanges();
    let reclaimed = exchanges.iter().filter(|exchange| exchange.request.ends_with("/reclaim"));
    let known: Vec<&str> =
        reclaimed.filter_map(|exchange| exchange.reply["credentials"]["clientId"].as_str()).collect();
    // Old credentials would do for some minutes more, so their name tells.
    let [old, new] = clients_named(&log)[..] else { panic!("{log}") };
    assert!(old != new && known.contains(&new) && !known.contains(&old), "{known:?} {log}");
    let artifacts = site.deployment.artifacts(&task);
    assert!(artifacts.contains(&("public/made".to_owned(), "reference".to_owned())), "{artifacts:?} {log}");
    worker.stop();
}

#[test]
fn s49_of_two_tasks_each_has_a_proxy_of_its_own_by_the_same_name() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 2 }));
    let script = "for _ in 1 2 3 4; do ask 'GET /api/queue/v1/ping' ''; sleep 1; done";
    let tasks = [(); 2].map(|()| site.deployment.create_task(definition(&site, script, &[])));
    let logs = tasks.each_ref().map(|task| completed(&site, task));
    for (own, other) in [(0, 1), (1, 0)] {
        let label = |task: &TaskId| format!("[\"queue:create-artifact:{task}/0\"]");
        assert_eq!(logs[own].matches(&label(&tasks[own])).count(), 4, "{}", logs[own]);
        assert!(!logs[own].contains(&label(&tasks[other])), "{}", logs[own]);
    }
    worker.stop();
}

#[test]
fn a_request_is_judged_by_its_path_and_leads_neither_to_the_host_nor_beside_it() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let cases = [
        ("GET /api/queue/v1/ping", "", 200),
        ("GET /queue/v1/ping", "", 200),
        ("GET http://elsewhere.example/api/queue/v1/ping", "", 200),
        ("GET /api/queue/v1/task//x", "", 404),
        ("GET /api/queue", "", 404),
        ("GET /foo_bar/v1/x", "", 404),
        ("CONNECT elsewhere.example:443", "", 405),
        ("GET /127.0.0.1/", "", 403),
        ("GET /169.254.169.254/latest/meta-data", "", 403),
        ("GET /192.0.2.2/", "", 403),
        ("GET /203.0.113.5/", "", 403),
        ("POST /bewit", "http://tc/x", 303),
        ("POST /bewit", "nonsense", 500),
        ("GET /credentials", "", 405),
        ("PUT /credentials", "{", 403),
        ("PUT /credentials", "{}", 403),
        ("NONSENSE", "", 400),
    ];
    let asks = cases.map(|(request, body, _)| format!("ask '{request}' '{body}' | head -n 1\n"));
    let task = site.deployment.create_task(definition(&site, &asks.concat(), &[]));
    let log = completed(&site, &task);
    let statuses = log.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 "));
    let statuses: Vec<u16> = statuses.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    for (case, (request, _, expected)) in cases.iter().enumerate() {
        assert_eq!(statuses.get(case), Some(expected), "{request}: {log}");
    }
    worker.stop();
}

#[test]
fn a_request_is_sent_again_while_the_service_is_at_fault() {
    let site = Site::new();
    let wire = &site.deployment.wire;
    wire.fail("/ping", Fault::Status(500), 2);
    wire.fail("/ping", Fault::Reset, 1);
    let worker = site.start(&json!({}));
    let task = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
    let log = completed(&site, &task);
    assert!(log.contains("\"alive\":true"), "{log}");
    assert_eq!(wire.asked("/ping"), 4, "{log}");
    worker.stop();
}

#[test]
fn a_task_without_a_deployment_is_told_so() {
    let worker = Worker::new();
    let source = worker.image(&busybox_image()).source;
    let run = worker.run_with(&["--image", &source, "--feature", "taskclusterProxy"], &["true"]);
    assert!(run.log.contains("This worker has no deployment to call."), "{run:?}");
}

#[test]
fn a_task_of_a_queue_of_its_own_reaches_it_on_the_hosts_loopback() {
    let queue = OwnQueue::new();
    let started = queue.start();
    let script = format!("{TOOLS} get /api/queue/v1/task/$TASK_ID");
    let mut payload = shell_payload(&queue.image, &script);
    payload["features"] = json!({ "taskclusterProxy": true });
    let task = queue.create(&payload);
    queue.await_state(&task, "completed");
    assert!(queue.log(&task).contains("\"what a test needs\""), "{}", queue.log(&task));
    started.stop();
}
