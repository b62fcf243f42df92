//! What a worker of a deployment makes of its claims when queue, author or task misbehave.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use docker_worker::queue::RunState;
use docker_worker::queue::task_id::TaskId;
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::support::{Fault, Site, Terms, WatchedRegistry, busybox_image, finish, read_until};

fn terms(claim_seconds: u64) -> Terms {
    Terms { claim_time: Duration::from_secs(claim_seconds), ..Terms::default() }
}

/// What the queue says of a task's last run.
fn end(site: &Site, task_id: &TaskId) -> (RunState, Value, usize) {
    let status = site.deployment.await_resolved(task_id);
    let last = json!(status.runs.last().unwrap())["reasonResolved"].clone();
    (status.state, last, status.runs.len())
}

/// The worker, which has room for one task, carries out another one.
fn assert_is_free(site: &Site) {
    let next = site.deployment.create(&site.payload("echo next"));
    assert_eq!(site.deployment.await_resolved(&next).state, RunState::Completed);
}

#[test]
fn a_reclaim_whose_answer_comes_after_the_report_changes_nothing() {
    let site = Site::with(terms(8));
    site.deployment.wire.fail("/reclaim", Fault::Held, 1);
    let worker = site.start(&json!({}));
    let task_id = site.deployment.create(&site.payload("sleep 5; echo done"));
    assert_eq!(end(&site, &task_id), (RunState::Completed, json!("completed"), 1));
    site.deployment.wire.let_go();
    assert_is_free(&site);
    let log = site.deployment.log(&task_id);
    assert!(log.contains("done") && !log.contains("cancel") && !log.contains("reclaim"), "{log}");
    assert_eq!(site.deployment.wire.asked(&format!("{task_id}/runs/0/completed")), 1);
    worker.stop();
}

#[test]
fn a_claim_outlives_a_queue_that_is_at_fault_for_a_while() {
    let site = Site::with(terms(10));
    site.deployment.wire.fail("/reclaim", Fault::Status(500), 2);
    site.deployment.wire.fail("/reclaim", Fault::Reset, 2);
    let worker = site.start(&json!({}));
    let task_id = site.deployment.create(&site.payload("sleep 12; echo done"));
    assert_eq!(end(&site, &task_id), (RunState::Completed, json!("completed"), 1));
    let log = site.deployment.log(&task_id);
    assert!(log.contains("done") && !log.contains("reclaim"), "{log}");
    worker.stop();
}

#[test]
fn a_report_that_is_refused_as_if_the_run_were_resolved_is_made_again() {
    let site = Site::with(terms(60));
    site.deployment.wire.fail("/completed", Fault::Refusal(409), 2);
    site.deployment.wire.fail("/status", Fault::Refusal(409), 1);
    let worker = site.start(&json!({ "taskStatusPollSeconds": 0 }));
    let task_id = site.deployment.create(&site.payload("echo done"));
    assert_eq!(end(&site, &task_id), (RunState::Completed, json!("completed"), 1));
    assert_is_free(&site);
    worker.stop();
}

#[test]
fn a_claim_that_cannot_be_kept_is_the_queues_to_resolve() {
    let site = Site::with(terms(6));
    let task = json!({"retries": 0, "payload": site.payload("sleep 1000")});
    site.deployment.wire.fail("/reclaim", Fault::Reset, 1000);
    let worker = site.start(&json!({}));
    let mut definition = site.deployment.definition(&task["payload"]);
    definition["retries"] = task["retries"].clone();
    let task_id = site.deployment.create_task(definition);
    let (state, reason, runs) = end(&site, &task_id);
    assert_eq!((state, reason, runs), (RunState::Exception, json!("claim-expired"), 1));
    assert_is_free(&site);
    let log = worker.stop().log;
    assert!(log.contains(r#""reason":"claim-expired""#), "the worker says what the queue says: {log}");
}

#[test]
fn a_run_that_cannot_begin_is_for_another_worker_and_no_more_are_claimed_meanwhile() {
    let site = Site::new();
    let mut worker = site.start(&json!({}));
    // Nobody can write a claim down.
    let claims = site.worker.run_directory().join("claims");
    fs::write(&claims, "").unwrap();
    let mut definition = site.deployment.definition(&site.payload("true"));
    definition["retries"] = json!(1);
    let task_id = site.deployment.create_task(definition);
    worker.await_logged("no task is asked for until one can begin: failed to ");
    fs::remove_file(&claims).unwrap();
    let status = site.deployment.await_resolved(&task_id);
    let reasons: Vec<Value> = status.runs.iter().map(|run| json!(run)["reasonResolved"].clone()).collect();
    assert_eq!(reasons, [json!("worker-shutdown"), json!("completed")], "the only other try is not spent");
    let log = worker.stop().log;
    assert_eq!(log.matches("no task is asked for").count(), 1, "{log}");
}

#[test]
fn a_queue_that_refuses_to_prolong_a_claim_is_told_that_the_run_is_over() {
    for status in [400, 403, 409] {
        let site = Site::with(terms(20));
        site.deployment.wire.fail("/reclaim", Fault::Refusal(status), 1000);
        let worker = site.start(&json!({ "task": { "reclaimDivisor": 10 } }));
        let task_id = site.deployment.create(&site.payload("echo begun; sleep 1000"));
        assert_eq!(end(&site, &task_id), (RunState::Exception, json!("internal-error"), 1), "after {status}");
        assert_is_free(&site);
        let log = site.deployment.log(&task_id);
        let sentences = [
            "begun",
            "[taskcluster:error] Could not reclaim task. Failed to ",
            "[taskcluster:error] Task has been aborted prematurely. Reason: internal-error (the queue refuses",
        ];
        assert!(sentences.iter().all(|sentence| log.contains(sentence)), "after {status}: {log}");
        assert_eq!(site.deployment.wire.asked(&format!("{task_id}/runs/0/reclaim")), 1, "after {status}");
        let log = worker.stop().log;
        assert!(log.contains(r#""reason":"internal-error""#), "after {status}: {log}");
    }
}

#[test]
fn a_signature_or_run_that_is_unknown_for_a_moment_costs_no_claim() {
    for status in [401, 404] {
        let site = Site::with(terms(20));
        site.deployment.wire.fail("/reclaim", Fault::Refusal(status), 2);
        let worker = site.start(&json!({ "task": { "reclaimDivisor": 10 } }));
        let task_id = site.deployment.create(&site.payload("sleep 8"));
        assert_eq!(end(&site, &task_id), (RunState::Completed, json!("completed"), 1), "after {status}");
        assert!(site.deployment.wire.asked(&format!("{task_id}/runs/0/reclaim")) > 2, "after {status}");
        let log = worker.stop().log;
        assert_eq!(log.matches("failed to prolong the claim of run 0 of task").count(), 1, "{status}: {log}");
    }
}

#[test]
fn a_report_that_is_refused_is_told_and_frees_its_slot() {
    let site = Site::new();
    site.deployment.wire.fail("/completed", Fault::Refusal(400), 1);
    let worker = site.start(&json!({}));
    let task_id = site.deployment.create(&site.payload("true"));
    site.deployment.wire.await_asked("/completed", 1);
    assert_is_free(&site);
    let log = worker.stop().log;
    let told = log.lines().filter(|line| line.contains("Failed to report the task"));
    let types = told.map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone());
    assert_eq!(types.collect::<Vec<_>>(), ["task error", "task resolved"], "{log}");
    let worker = site.start(&json!({}));
    assert_eq!(
        end(&site, &task_id),
        (RunState::Completed, json!("completed"), 2),
        "the next start reports it"
    );
    worker.stop();
}

#[test]
fn what_is_no_word_of_the_queues_own_costs_no_run() {
    let foreign = [301, 400, 401, 403, 404, 409].map(Fault::Status);
    for fault in foreign.into_iter().chain([Fault::Page, Fault::Refusal(401)]) {
        let site = Site::new();
        let wire = &site.deployment.wire;
        let worker = site.start(&json!({}));
        let task_id = site.create_waiting("true");
        let of_run = |call: &str| format!("POST /api/queue/v1/task/{task_id}/runs/0/{call}");
        let log = |name: &str| of_run(&format!("artifacts/public%2Flogs%2F{name}"));
        // The live log's name leads to the worker before.
        let calls = [(log("live_backing.log"), 0), (log("live.log"), 1), (of_run("completed"), 0)];
        calls.iter().for_each(|(call, _)| wire.fail(call, fault, 2));
        site.release();
        assert_eq!(end(&site, &task_id), (RunState::Completed, json!("completed"), 1), "after {fault:?}");
        for (call, before) in &calls {
            assert_eq!(wire.asked(call), before + 3, "{call} after {fault:?}");
        }
        assert!(site.deployment.log(&task_id).contains("done"), "after {fault:?}");
        let log = worker.stop().log;
        assert!(!log.contains("Failed to report"), "after {fault:?}: {log}");
    }
}

#[test]
fn what_is_no_word_of_the_object_services_own_costs_no_artifact() {
    let site = Site::new();
    let worker = site.start(&json!({ "artifacts": { "storage": "object" } }));
    let mut payload = site.payload("sleep 2; echo kept >/kept");
    payload["artifacts"] = json!({ "public/kept": { "type": "file", "path": "/kept" } });
    let task_id = site.deployment.create(&payload);
    let finish = format!("PUT /api/queue/v1/task/{task_id}/runs/0/artifacts/");
    for call in ["PUT /api/object/v1/upload/", "/finish-upload/", &finish] {
        site.deployment.wire.fail(call, Fault::Status(404), 2);
    }
    assert_eq!(end(&site, &task_id), (RunState::Completed, json!("completed"), 1));
    assert_eq!(site.deployment.artifact(&task_id, "public/kept"), b"kept\n");
    worker.stop();
}

#[test]
fn a_report_whose_answer_is_lost_is_made_again_and_counts_once() {
    let site = Site::new();
    site.deployment.wire.fail("/failed", Fault::LostReply, 1);
    let worker = site.start(&json!({}));
    let task_id = site.deployment.create(&site.payload("exit 3"));
    assert_eq!(end(&site, &task_id), (RunState::Failed, json!("failed"), 1));
    assert_is_free(&site);
    let log = worker.stop().log;
    assert!(log.contains(r#""reason":"failed""#) && !log.contains("Failed to report"), "{log}");
}

#[test]
fn a_deadline_before_the_tasks_own_limit_ends_it_and_its_log_is_there() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let mut payload = site.payload("echo begun; sleep 1000");
    payload["maxRunTime"] = json!(3600);
    let mut definition = site.deployment.definition(&payload);
    definition["deadline"] = json!(Timestamp::now().plus(Duration::from_secs(6)));
    let task_id = site.deployment.create_task(definition);
    assert_eq!(end(&site, &task_id), (RunState::Exception, json!("deadline-exceeded"), 1));
    assert_is_free(&site);
    let log = site.deployment.log(&task_id);
    assert!(log.contains("begun") && log.contains("deadline-exceeded"), "{log}");
    worker.stop();
}

#[test]
fn a_cancelled_task_does_not_wait_for_a_registry_that_is_stuck() {
    let site = Site::new();
    let stuck = WatchedRegistry::serve_on(&site.internet, &site.worker.image(&busybox_image()));
    stuck.hold_layers_at(1000);
    let plain = json!({"plainHttp": true, "privateAddresses": true});
    let hosts = [&site.image, &stuck.name].map(|name| name.split_once('/').unwrap().0);
    let worker = site.start(&json!({"registries": {hosts[0]: plain, hosts[1]: plain}}));
    let mut payload = site.payload("true");
    payload["image"] = json!(stuck.name);
    let task_id = site.deployment.create(&payload);
    stuck.await_held();
    site.deployment.cancel(&task_id);
    // While the layer is still held back.
    assert_is_free(&site);
    assert_eq!(end(&site, &task_id), (RunState::Exception, json!("canceled"), 1));
    stuck.let_go();
    worker.stop();
}

#[test]
fn a_registry_that_is_at_fault_is_asked_as_often_as_the_configuration_says() {
    let site = Site::new();
    let tries = json!({ "maxAttempts": 3, "delayFactor": 10, "randomizationFactor": 0 });
    let worker = site.start(&json!({ "dockerConfig": tries }));
    for (faults, state, left) in [(1000, RunState::Failed, 997), (2, RunState::Completed, 0)] {
        site.registry.refuse(faults);
        let task_id = site.deployment.create(&site.payload("true"));
        assert_eq!(end(&site, &task_id).0, state, "{faults} faults: {}", site.deployment.log(&task_id));
        assert_eq!(site.registry.refuses(), left);
    }
    worker.stop();
}

#[test]
fn artifacts_that_the_queue_refuses_after_a_cancellation_are_tried_a_few_times_only() {
    for status in [400, 403] {
        let site = Site::new();
        let worker = site.start(&json!({}));
        let task_id = site.deployment.create(&site.payload("echo begun; sleep 1000"));
        site.deployment.await_running(&task_id);
        site.deployment.wire.await_asked("public%2Flogs%2Flive.log", 1);
        site.deployment.wire.fail(&format!("{task_id}/runs/0/artifacts/"), Fault::Refusal(status), 1000);
        site.deployment.cancel(&task_id);
        assert_is_free(&site);
        for name in ["live_backing.log", "live.log"] {
            let count =
                site.deployment.wire.asked(&format!("{task_id}/runs/0/artifacts/public%2Flogs%2F{name}"));
            assert!((1..=3).contains(&count), "{status}: {name} {count} times");
        }
        worker.stop();
    }
}

#[test]
fn a_task_that_signals_everybody_reaches_nobody_else() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 2 }));
    let neighbour = site.create_waiting("true");
    for script in [
        "kill -TERM -1; kill -KILL -1; echo here",
        "kill -INT 0",
        "printf '\\003' >/dev/tty; printf '\\003' | cat",
    ] {
        let task_id = site.deployment.create(&site.payload(script));
        site.deployment.await_resolved(&task_id);
    }
    assert!(site.let_go(&neighbour).contains("done"));
    assert_is_free(&site);
    let log = worker.stop().log;
    assert_eq!(log.matches("Terminating worker").count(), 1, "only at the test's own request: {log}");
}

#[test]
fn a_task_that_eats_memory_ends_and_its_neighbour_completes() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 2, "limits": { "memory": "64M" } }));
    let neighbour = site.create_waiting("true");
    let script =
        "echo hungry; exec awk 'BEGIN { s = \"0123456789abcdef\"; while (length(s) < 300000000) s = s s; }'";
    let hog = site.deployment.create(&site.payload(script));
    assert_eq!(end(&site, &hog), (RunState::Failed, json!("failed"), 1));
    let log = site.deployment.log(&hog);
    assert!(log.contains("hungry") && log.contains("memory was used up"), "{log}");
    assert!(site.let_go(&neighbour).contains("done"));
    worker.stop();
}

/// Whether the command's end or its time comes first, a run is reported once.
#[test]
fn a_command_that_ends_when_its_time_does_is_reported_once() {
    let site = Site::new();
    let worker = site.start(&json!({ "capacity": 8 }));
    // Its time began with the making of the container.
    let tasks: Vec<TaskId> = (0..60)
        .map(|number| {
            let mut payload = site.payload(&format!("exec sleep 0.{}", 880 + 2 * number));
            payload["maxRunTime"] = json!(1);
            site.deployment.create(&payload)
        })
        .collect();
    for task_id in &tasks {
        let (state, _, runs) = end(&site, task_id);
        assert!(
            matches!(state, RunState::Completed | RunState::Failed) && runs == 1,
            "{state:?}, {runs} runs"
        );
        let reports = ["completed", "failed", "exception"];
        let reports = reports.map(|word| site.deployment.wire.asked(&format!("{task_id}/runs/0/{word}")));
        assert_eq!(reports.iter().sum::<usize>(), 1, "{reports:?}");
    }
    assert_is_free(&site);
    let log = worker.stop().log;
    assert!(!log.contains("[alert-operator]"), "{log}");
}

#[test]
fn credentials_that_come_in_time_let_a_worker_go_on_that_was_refused() {
    let site = Site::new();
    let mut known = site.deployment.access()["taskcluster"].clone();
    let token = known["accessToken"].as_str().unwrap().to_owned();
    known["accessToken"] = json!("expired");
    let path = site.config(&json!({ "taskcluster": known }));
    let mut command = site.worker.command(&["start", "--host", "worker-runner", "--config", &path]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut runner = child.stdin.take().unwrap();
    let mut say = |message: &Value| writeln!(runner, "~{message}").unwrap();
    say(&json!({ "type": "welcome", "capabilities": ["graceful-termination", "new-credentials"] }));
    let log = read_until(&mut child, "task retrieval error");
    let task_id = site.deployment.create(&site.payload("true"));
    say(&json!({ "type": "new-credentials", "client-id": "worker", "access-token": token }));
    assert_eq!(end(&site, &task_id), (RunState::Completed, json!("completed"), 1));
    say(&json!({ "type": "graceful-termination", "finish-tasks": true }));
    let ended = finish(child, Duration::from_secs(60));
    assert!(ended.status.success(), "{ended:?}");
    let exchanges = site.deployment.wire.exchanges();
    let claims = exchanges.iter().filter(|it| it.request.contains("/claim-work/"));
    let mut answers: Vec<u16> = claims.map(|it| it.status).collect();
    answers.dedup();
    assert_eq!(answers, [401, 200], "{}", log.join().unwrap());
}
