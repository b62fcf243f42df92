//! `taskclusterProxy`: what a task asks its deployment for by way of the worker, and what is not for it.

use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Reason, RunState, Verdict};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Fault, OwnQueue, Site, Terms, shell_payload};

/// `get PATH`; `post PATH JSON`; `ask "METHOD PATH" BODY`, which shows the whole response.
const TOOLS: &str = r#"
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
fn definition(site: &Site, script: &str, scopes: &[String]) -> Value {
    let mut payload = site.payload(&format!("{TOOLS}{script}"));
    payload["features"] = json!({ "taskclusterProxy": true });
    let mut definition = site.deployment.definition(&payload);
    definition["payload"]["env"] = json!({ "EXPIRES": definition["expires"] });
    definition["scopes"] = json!(scopes);
    definition
}

/// Waits for a task's end; gives its log.
fn completed(site: &Site, task: &TaskId) -> String {
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
fn s_a_request_may_do_what_the_task_may_and_no_more() {
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

#[test]
fn a_request_after_a_reclaim_is_signed_with_the_new_credentials() {
    let site = Site::with(Terms { claim_time: Duration::from_secs(20), ..Terms::default() });
    let worker = site.start(&json!({}));
    let script = format!("sleep 25; {MAKE_ARTIFACT}");
    let task = site.deployment.create_task(definition(&site, &script, &[]));
    let log = completed(&site, &task);
    assert!(site.deployment.wire.asked("/reclaim") > 0, "{log}");
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
fn s_a_request_is_judged_by_its_path_and_leads_neither_to_the_host_nor_beside_it() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let cases = [
        ("GET /api/queue/v1/ping", "", 200),
        ("GET /queue/v1/ping", "", 200),
        ("GET http://elsewhere.example/api/queue/v1/ping", "", 200),
        ("GET /api/queue/v1/task//x", "", 404),
        ("GET /api/queue", "", 404),
        ("GET /foo_bar/v1/x", "", 404),
        ("CONNECT elsewhere.example:443", "", 404),
        ("GET /127.0.0.1/", "", 403),
        ("GET /169.254.169.254/latest/meta-data", "", 403),
        ("GET /192.0.2.2/", "", 403),
        ("GET /203.0.113.5/", "", 403),
        ("POST /bewit", "http://tc/x", 303),
        ("POST /bewit", "nonsense", 500),
        ("GET /credentials", "", 405),
        ("PUT /credentials", "{", 400),
        ("PUT /credentials", "{}", 200),
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
fn nothing_of_a_proxy_is_left_when_its_worker_is_killed_and_the_next_run_has_one_again() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let script = "get /api/queue/v1/ping; echo run $RUN_ID; [ $RUN_ID != 0 ] || sleep 1000";
    let task = site.deployment.create_task(definition(&site, script, &[]));
    site.deployment.await_printed(&task, "run 0");
    worker.signal(Signal::KILL);
    worker.ended();
    let worker = site.start(&json!({}));
    let log = completed(&site, &task);
    assert!(log.contains("\"alive\":true"), "{log}");
    worker.stop();
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
