//! Tasks in place of others: a superseder of the test's own says which.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Reason, RunState, Verdict};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{AnsweringServer, Fault, Site};

/// Serves lists of tasks; says to everybody what the test has last told it to.
struct Superseder {
    server: AnsweringServer,
    answer: Arc<Mutex<(u16, Value)>>,
}

impl Superseder {
    fn on(site: &Site) -> Superseder {
        let answer = Arc::new(Mutex::new((200, json!({}))));
        let said = Arc::clone(&answer);
        let start = move || AnsweringServer::start(move |_, _| said.lock().unwrap().clone());
        let server = site.internet.host.within(start);
        Superseder { server, answer }
    }

    fn say(&self, status: u16, answer: Value) {
        *self.answer.lock().unwrap() = (status, answer);
    }

    fn list(&self, tasks: &[&TaskId]) {
        let names: Vec<_> = tasks.iter().map(|task| task.as_str()).collect();
        self.say(200, json!({ "supersedes": names }));
    }

    fn url(&self) -> String {
        format!("http://{}/list?of=these", self.server.address)
    }

    /// Makes a task that names it.
    fn task(&self, site: &Site, script: &str) -> TaskId {
        let mut payload = site.payload(script);
        payload["supersederUrl"] = json!(self.url());
        site.deployment.create(&payload)
    }
}

/// A superseder on this host.
fn here() -> Value {
    json!({ "superseding": { "allowPrivateAddresses": true } })
}

fn resolved(site: &Site, task: &TaskId) -> Vec<Option<Verdict>> {
    let status = site.deployment.await_resolved(task);
    status.runs.iter().map(|run| run.reason_resolved).collect()
}

fn document(site: &Site, task: &TaskId, name: &str) -> Value {
    serde_json::from_slice(&site.deployment.artifact(task, name)).unwrap()
}

const SUPERSEDED: Option<Verdict> = Some(Verdict::Exception(Reason::Superseded));
const SHUTDOWN: Option<Verdict> = Some(Verdict::Exception(Reason::WorkerShutdown));
const COMPLETED: Option<Verdict> = Some(Verdict::Completed);

#[test]
fn the_last_task_that_is_to_be_had_is_carried_out_in_place_of_those_before_it() {
    let site = Site::new();
    let superseder = Superseder::on(&site);
    let [first, second, third, gone] = ["one", "two", "three", "gone"]
        .map(|word| superseder.task(&site, &format!("echo {word}; [ {word} = three ] && exit 3")));
    site.deployment.cancel(&gone);
    superseder.list(&[&first, &second, &third, &gone]);
    let worker = site.start(&here());
    assert_eq!(resolved(&site, &third), [Some(Verdict::Failed)], "the primary's own end counts");
    let log = site.deployment.log(&third);
    assert!(log.contains("\nthree\r\n"), "{log}");
    let by = json!({ "taskId": third, "runId": 0 });
    for task in [&first, &second] {
        assert!(log.contains(&format!("This task supersedes the task {task}.")), "{log}");
        assert_eq!(resolved(&site, task), [SUPERSEDED]);
        assert_eq!(document(&site, task, "public/superseded-by.json"), by);
    }
    for name in ["public/supersedes.json", "public/superses.json"] {
        let list = document(&site, &third, name);
        let listed: Vec<_> = list.as_array().unwrap().iter().map(|run| run["taskId"].clone()).collect();
        assert!(
            listed.len() == 2 && [&first, &second].iter().all(|task| listed.contains(&json!(task))),
            "{list}"
        );
    }
    let asked = superseder.server.requests();
    assert_eq!(asked[0].line(), format!("GET /list?of=these?taskId={first}"));
    let log = worker.stop().log;
    assert!(log.contains(r#""type":"while superseding - secondary claim failure""#), "{log}");
    assert_eq!(log.matches(r#""reason":"superseded""#).count(), 2, "{log}");
}

#[test]
fn a_queue_that_knows_no_superseding_gets_the_tasks_back_and_later_ones_run_alone() {
    let site = Site::new();
    let superseder = Superseder::on(&site);
    let [first, second] = ["one", "two"].map(|word| superseder.task(&site, &format!("echo {word}")));
    superseder.list(&[&first, &second]);
    site.deployment.wire.fail(
        &format!("POST /api/queue/v1/task/{first}/runs/0/exception"),
        Fault::Refusal(400),
        1,
    );
    let worker = site.start(&here());
    assert_eq!(resolved(&site, &second), [COMPLETED]);
    assert_eq!(resolved(&site, &first), [SHUTDOWN, COMPLETED]);
    let names: Vec<_> = site.deployment.artifacts(&second).into_iter().map(|(name, _)| name).collect();
    assert!(!names.iter().any(|name| name.contains("superse")), "{names:?}");
    assert_eq!(superseder.server.requests().len(), 1);
    let log = worker.stop().log;
    assert!(log.contains("the queue takes no report that a task was superseded"), "{log}");
    assert!(log.contains(r#""type":"not superseding""#), "{log}");
}

#[test]
fn whatever_is_wrong_with_a_superseder_the_task_itself_runs() {
    let site = Site::new();
    let superseder = Superseder::on(&site);
    let other = site.deployment.create(&site.payload("echo other"));
    site.deployment.cancel(&other);
    let mut worker = site.start(&here());
    let html = json!("<html>");
    for (status, answer, said) in [
        (503, json!({}), "answers with status code 503"),
        (200, html, "the answer is no list of tasks"),
        (200, json!({}), "no tasks supersede this one"),
        (200, json!({ "supersedes": [&other] }), "initial taskId not included in result from superseder"),
        (302, json!({}), "its URL is none of HTTP"),
    ] {
        superseder.say(status, answer);
        let task = superseder.task(&site, "true");
        assert_eq!(resolved(&site, &task), [COMPLETED], "{said}");
        worker.await_logged(said);
    }
    let mut payload = site.payload("true");
    payload["supersederUrl"] = json!("http://127.0.0.1:1/nobody");
    assert_eq!(resolved(&site, &site.deployment.create(&payload)), [COMPLETED]);
    payload["supersederUrl"] = json!("ftp://example.com/");
    let malformed = Some(Verdict::Exception(Reason::MalformedPayload));
    assert_eq!(resolved(&site, &site.deployment.create(&payload)), [malformed]);
    let log = worker.stop().log;
    assert!(log.contains("invalid supersederUrl in payload"), "{log}");
}

#[test]
fn a_task_leads_the_worker_to_no_superseder_among_its_neighbours_unless_they_are_allowed() {
    let site = Site::new();
    let superseder = Superseder::on(&site);
    let worker = site.start(&json!({}));
    let task = superseder.task(&site, "true");
    superseder.list(&[&task]);
    assert_eq!(resolved(&site, &task), [COMPLETED]);
    assert!(superseder.server.requests().is_empty());
    let log = worker.stop().log;
    assert!(log.contains("where a task may not lead"), "{log}");
}

#[test]
fn tasks_whose_primary_does_not_come_to_its_own_end_go_back_to_the_queue() {
    let site = Site::new();
    let superseder = Superseder::on(&site);
    let first = superseder.task(&site, "echo again");
    let second = superseder.task(&site, "echo begun; sleep 1000");
    superseder.list(&[&first, &second]);
    let worker = site.start(&here());
    site.deployment.await_printed(&second, "begun");
    assert_eq!(site.deployment.status(&first).state, RunState::Running, "both are this worker's");
    superseder.say(200, json!({}));
    site.deployment.cancel(&second);
    assert_eq!(resolved(&site, &first), [SHUTDOWN, COMPLETED]);
    assert_eq!(worker.stop().finished.status.code(), Some(0));
}

#[test]
fn a_successor_gives_back_what_a_killed_worker_held_in_place_of_others() {
    let site = Site::new();
    let superseder = Superseder::on(&site);
    let first = superseder.task(&site, "echo again");
    let second = superseder.task(&site, "echo begun; [ $RUN_ID = 1 ] || sleep 1000");
    superseder.list(&[&first, &second]);
    let worker = site.start(&here());
    site.deployment.await_printed(&second, "begun");
    worker.signal(Signal::KILL);
    drop(worker.ended());
    let worker = site.start(&here());
    for task in [&first, &second] {
        assert_eq!(resolved(&site, task), [SHUTDOWN, COMPLETED]);
    }
    worker.stop();
}

#[test]
fn a_claim_is_kept_as_long_as_its_primary_runs() {
    let terms = crate::support::Terms { claim_time: Duration::from_secs(6), ..Default::default() };
    let site = Site::with(terms);
    let superseder = Superseder::on(&site);
    let first = superseder.task(&site, "echo one");
    let second = superseder.task(&site, "sleep 15");
    superseder.list(&[&first, &second]);
    let worker = site.start(&here());
    assert_eq!(resolved(&site, &second), [COMPLETED]);
    assert_eq!(resolved(&site, &first), [SUPERSEDED]);
    worker.stop();
}
