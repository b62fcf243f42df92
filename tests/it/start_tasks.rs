//! Tasks of a deployment, from their creation to their resolution: what each leaves in the queue.

use std::time::Duration;

use docker_worker::queue::{Reason, ReasonCreated, RunId, RunState, TaskStatus, Verdict};
use docker_worker::timestamp::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{ALL, Fault, Site, Terms, finish};

const LOG: &str = "public/logs/live.log";
const BACKING: &str = "public/logs/live_backing.log";

fn nothing() -> Value {
    json!({})
}

/// How each run of a task ended.
fn verdicts(status: &TaskStatus) -> Vec<Option<Verdict>> {
    status.runs.iter().map(|run| run.reason_resolved).collect()
}

/// A payload that runs until it is ended, and says so when it has begun.
fn endless(site: &Site) -> Value {
    site.payload("echo begun; sleep 1000")
}

#[test]
fn each_way_for_a_task_to_end_is_told_to_the_queue_once() {
    let site = Site::new();
    let worker = site.start(&nothing());
    let with = |more: Value| {
        let mut payload = site.payload("exit 7");
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        payload
    };
    let exception = |reason| Some(Verdict::Exception(reason));
    let cases = [
        ("exits with 0", site.payload("echo hello from $TASK_ID"), Some(Verdict::Completed)),
        ("exits with 7", with(json!({})), Some(Verdict::Failed)),
        ("has a field too many", with(json!({"maxRuntime": 1})), exception(Reason::MalformedPayload)),
        (
            "exceeds its time",
            with(json!({"command": ["sleep", "100"], "maxRunTime": 1})),
            Some(Verdict::Failed),
        ),
        ("has no such command", with(json!({"command": ["/none"]})), Some(Verdict::Failed)),
        ("lacks a scope", with(json!({"cache": {"c": "/c"}})), Some(Verdict::Failed)),
    ];
    for (case, payload, expected) in cases {
        let task = site.deployment.create(&payload);
        let status = site.deployment.await_resolved(&task);
        let log = site.deployment.log(&task);
        assert_eq!(verdicts(&status), [expected], "{case}: {log}");
        let reports = ["completed", "failed", "exception"].map(|word| format!("runs/0/{word}"));
        let exchanges = site.deployment.wire.exchanges();
        let of_task = exchanges.iter().filter(|it| it.request.contains(task.as_str()));
        let told: Vec<_> =
            of_task.filter(|it| reports.iter().any(|report| it.request.ends_with(report))).collect();
        assert_eq!(told.len(), 1, "{case}: {told:#?}");
        assert_eq!((told[0].status, &told[0].reply["status"]["taskId"]), (200, &json!(task)), "{case}");
        let reason = told[0].payload.get("reason").and_then(Value::as_str);
        assert_eq!(reason, expected.map(Verdict::as_str).filter(|_| status.state == RunState::Exception));
        assert_eq!(log.contains(&format!("hello from {task}")), case == "exits with 0", "{case}: {log}");
    }
    worker.stop();
    site.internet.assert_as_before();
}

#[test]
fn exit_statuses_that_the_payload_names_make_a_new_run() {
    let site = Site::new();
    let worker = site.start(&nothing());
    let mut payload = site.payload("exit $((3 + RUN_ID))");
    payload["onExitStatus"] = json!({ "retry": [3] });
    let status = site.deployment.await_resolved(&site.deployment.create(&payload));
    let again = Some(Verdict::Exception(Reason::IntermittentTask));
    assert_eq!(verdicts(&status), [again, Some(Verdict::Failed)], "{status:#?}");
    assert_eq!(status.runs[1].reason_created, ReasonCreated::TaskRetry);
    worker.stop();
}

#[test]
fn a_cancelled_task_is_ended_and_its_log_is_kept() {
    let site = Site::new();
    let worker = site.start(&nothing());
    let task = site.deployment.create(&endless(&site));
    site.deployment.await_printed(&task, "begun");
    site.deployment.cancel(&task);
    let next = site.deployment.create(&site.payload("true"));
    site.deployment.await_resolved(&next);
    let status = site.deployment.status(&task);
    assert_eq!(verdicts(&status), [Some(Verdict::Exception(Reason::Canceled))], "{status:#?}");
    assert!(site.deployment.log(&task).contains("begun"));
    worker.stop();
}

#[test]
fn a_deadline_ends_the_task_and_the_worker_goes_on() {
    let site = Site::new();
    let worker = site.start(&nothing());
    let mut definition = site.deployment.definition(&endless(&site));
    definition["deadline"] = json!(Timestamp::now().plus(Duration::from_secs(5)));
    let task = site.deployment.create_task(definition);
    let status = site.deployment.await_resolved(&task);
    assert_eq!(verdicts(&status), [Some(Verdict::Exception(Reason::DeadlineExceeded))], "{status:#?}");
    let next = site.deployment.create(&site.payload("true"));
    assert_eq!(site.deployment.await_resolved(&next).state, RunState::Completed);
    worker.stop();
}

#[test]
fn a_worker_that_is_told_to_end_gives_its_task_back() {
    let site = Site::new();
    let worker = site.start(&nothing());
    let task = site.deployment.create(&endless(&site));
    site.deployment.await_printed(&task, "begun");
    let ended = worker.stop();
    assert!(ended.log.contains(r#""type":"exit""#), "{}", ended.log);
    let status = site.deployment.status(&task);
    let shutdown = Some(Verdict::Exception(Reason::WorkerShutdown));
    assert_eq!((verdicts(&status), status.state), (vec![shutdown, None], RunState::Pending), "{status:#?}");
    site.worker.assert_nothing_left("after a shutdown with a task");
}

#[test]
fn a_worker_that_ends_is_not_given_the_task_that_it_gives_back() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 2 }));
    // By then the queue holds the request for a second task.
    let task = site.deployment.create(&site.payload("sleep 2; echo begun; sleep 1000"));
    site.deployment.await_printed(&task, "begun");
    worker.stop();
    let status = site.deployment.status(&task);
    let shutdown = Some(Verdict::Exception(Reason::WorkerShutdown));
    assert_eq!((verdicts(&status), status.state), (vec![shutdown, None], RunState::Pending), "{status:#?}");
}

#[test]
fn as_many_tasks_run_at_once_as_the_worker_has_room_for() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 2 }));
    let first = [0, 1].map(|_| site.deployment.create(&endless(&site)));
    first.iter().for_each(|task| drop(site.deployment.await_running(task)));
    let third = site.deployment.create(&site.payload("true"));
    assert_eq!(site.deployment.status(&third).state, RunState::Pending);
    site.deployment.cancel(&first[0]);
    assert_eq!(site.deployment.await_resolved(&third).state, RunState::Completed);
    assert_eq!(site.deployment.status(&first[1]).state, RunState::Running);
    site.deployment.cancel(&first[1]);
    worker.stop();
}

#[test]
fn a_live_log_becomes_a_link_to_the_stored_one() {
    let site = Site::new();
    let worker = site.start(&nothing());
    let task =
        site.deployment.create(&site.payload("echo begun; while [ ! -e /tmp/go ]; do sleep 0.1; done"));
    site.deployment.await_printed(&task, "begun");
    let kind = |kind: &str| (LOG.to_owned(), kind.to_owned());
    assert_eq!(site.deployment.artifacts(&task), [kind("reference")]);
    worker.signal(Signal::TERM);
    let ended = worker.ended();
    assert!(ended.finished.status.success(), "{ended:?}");
    let run = RunId { task_id: task, run_id: 0 };
    let queue = site.deployment.queue.clone();
    let list = site.deployment.within(async move { queue.list_artifacts(&run, ALL).await.unwrap().items });
    let names: Vec<(&str, &str)> =
        list.iter().map(|it| (it.name.as_str(), it.content_type.as_str())).collect();
    let text = "text/plain; charset=utf-8";
    assert_eq!(names, [(LOG, text), (BACKING, text)]);
}

#[test]
fn artifacts_are_what_the_task_left() {
    let site = Site::new();
    let script =
        "mkdir -p /out/d && echo one > /out/one.txt && echo two > '/out/d/two 2' && printf '' > /out/empty";
    let mut payload = site.payload(script);
    payload["artifacts"] = json!({
        "public/out": { "type": "directory", "path": "/out" },
        "public/one.txt": { "type": "file", "path": "/out/one.txt" },
        "public/missing": { "type": "file", "path": "/none" },
        "private/one": { "type": "file", "path": "/out/one.txt" },
    });
    for storage in ["s3", "object"] {
        let worker = site.start(&json!({ "artifacts": { "storage": storage }, "workerId": storage }));
        let task = site.deployment.create(&payload);
        let status = site.deployment.await_resolved(&task);
        let list = site.deployment.artifacts(&task);
        for (name, text) in
            [("public/one.txt", "one\n"), ("public/out/d/two 2", "two\n"), ("public/out/empty", "")]
        {
            assert_eq!(
                String::from_utf8_lossy(&site.deployment.artifact(&task, name)),
                text,
                "{name} {list:?}"
            );
        }
        assert_eq!(verdicts(&status), [Some(Verdict::Completed)], "{status:#?}");
        let private = site.deployment.artifact_url(&task, "private/one");
        let mut curl = site.deployment.program("curl", &["--silent", "--fail", &private]);
        let refused = finish(curl.spawn().unwrap(), Duration::from_secs(60));
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
        let kind = |name: &str| list.iter().find(|(known, _)| known == name).map(|(_, kind)| kind.clone());
        assert_eq!(kind("public/missing").as_deref(), Some("error"), "{list:?}");
        assert_eq!(kind("private/one").as_deref(), Some(storage), "{list:?}");
        worker.stop();
    }
}

#[test]
fn a_queue_that_misbehaves_costs_a_task_nothing_but_time() {
    let site = Site::with(Terms { claim_time: Duration::from_secs(20), ..Terms::default() });
    let wire = &site.deployment.wire;
    wire.fail("/reclaim", Fault::Status(503), 2);
    wire.fail("/completed", Fault::LostReply, 1);
    wire.fail("artifacts/", Fault::Reset, 2);
    wire.fail("PUT /storage/", Fault::LostReply, 1);
    wire.fail("/status", Fault::Late(Duration::from_secs(1)), 3);
    wire.fail("claim-work", Fault::Status(500), 1);
    let worker = site.start(&nothing());
    let task = site.deployment.create(&site.payload("sleep 12; echo done"));
    wire.await_asked("/reclaim", 3);
    let status = site.deployment.await_resolved(&task);
    assert_eq!(verdicts(&status), [Some(Verdict::Completed)], "{status:#?}");
    assert!(site.deployment.log(&task).contains("done"));
    worker.stop();
}

#[test]
fn a_worker_that_is_told_to_end_waits_for_no_reply() {
    let site = Site::new();
    site.deployment.wire.fail("claim-work", Fault::Held, usize::MAX);
    let worker = site.start(&nothing());
    site.deployment.wire.await_asked("claim-work", 1);
    worker.stop();
    site.deployment.wire.let_go();
}

#[test]
fn a_claim_that_runs_out_is_lost_and_the_task_is_ended() {
    let site = Site::with(Terms { claim_time: Duration::from_secs(4), ..Terms::default() });
    site.deployment.wire.fail("runs/0/reclaim", Fault::Status(503), usize::MAX);
    // Until the queue has given the run up: a report before would be heard.
    site.deployment.wire.fail("runs/0/exception", Fault::Status(503), 5);
    let worker = site.start(&nothing());
    let task = site.deployment.create(&endless(&site));
    let is_second = |status: &TaskStatus| status.runs.len() > 1 && status.runs[1].state == RunState::Running;
    let status = site.deployment.await_status(&task, is_second);
    assert_eq!(verdicts(&status), [Some(Verdict::Exception(Reason::ClaimExpired)), None], "{status:#?}");
    worker.stop();
}
