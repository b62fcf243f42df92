//! A worker with tasks under worker-runner: what it is told, what it tells, and what becomes of the tasks.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use docker_worker::queue::{Reason, RunState, TaskStatus, Verdict};
use serde_json::{Value, json};

use crate::support::{AnsweringServer, Fault, Finished, Site, Worker, finish, refusal};

const LIMIT: Duration = Duration::from_secs(60);

/// All that both sides can do.
const ALL: &str = r#"["graceful-termination","shutdown","new-credentials","error-report","log"]"#;

/// worker-runner's side.
struct Conversation {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    seen: String,
}

impl Conversation {
    /// Starts a worker and greets it.
    fn begin(mut command: Command, capabilities: &str) -> Conversation {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut conversation = Conversation { child, input, output, seen: String::new() };
        conversation.say(&format!(r#"{{"type":"welcome","capabilities":{capabilities}}}"#));
        conversation
    }

    fn say(&mut self, message: &str) {
        writeln!(self.input, "~{message}").unwrap();
    }

    /// Waits until the worker writes a line with `text`.
    fn expect(&mut self, text: &str) {
        loop {
            let begin = self.seen.len();
            let count = self.output.read_line(&mut self.seen).unwrap();
            assert!(count > 0, "the worker ended without {text:?}: {}", self.seen);
            if self.seen[begin..].contains(text) {
                return;
            }
        }
    }

    /// Waits for the worker's end; gives all that it has written.
    fn end(mut self) -> (Finished, String) {
        while self.output.read_line(&mut self.seen).unwrap() > 0 {}
        (finish(self.child, LIMIT), self.seen)
    }
}

/// A worker of `site` under worker-runner.
fn begin(site: &Site, more: &Value) -> Conversation {
    let arguments = ["start", "--host", "worker-runner", "--config", &site.config(more)];
    let mut conversation = Conversation::begin(site.worker.command(&arguments), ALL);
    conversation.expect("~{\"type\":\"hello\"");
    conversation
}

/// What the worker said to worker-runner.
fn said(seen: &str) -> Vec<Value> {
    seen.lines().filter_map(|line| serde_json::from_str(line.strip_prefix('~')?).ok()).collect()
}

fn verdicts(status: &TaskStatus) -> Vec<Option<Verdict>> {
    status.runs.iter().map(|run| run.reason_resolved).collect()
}

#[test]
fn tasks_that_may_finish_do_and_no_others_are_claimed() {
    let site = Site::new();
    let mut worker = begin(&site, &json!({}));
    let mut payload = site.payload("echo begun; while [ ! -e /c/end ]; do sleep 0.1; done; echo done");
    payload["cache"] = json!({ "c": "/c" });
    let mut definition = site.deployment.definition(&payload);
    definition["scopes"] = json!(["docker-worker:cache:c"]);
    let task = site.deployment.create_task(definition);
    site.deployment.await_printed(&task, "begun");
    let next = site.deployment.create(&site.payload("true"));
    worker.say(r#"{"type":"graceful-termination","finish-tasks":true}"#);
    worker.expect("Got graceful-termination request");
    let instance = site.worker.caches().remove(0);
    fs::write(site.worker.data().join("caches").join(instance).join("content/end"), "").unwrap();
    let (finished, seen) = worker.end();
    assert!(finished.status.success(), "{finished:?}");
    assert_eq!(site.deployment.status(&task).state, RunState::Completed, "{seen}");
    assert!(site.deployment.log(&task).contains("done"));
    assert_eq!(site.deployment.status(&next).state, RunState::Pending, "{seen}");
    assert_eq!(said(&seen).last().unwrap()["type"], "shutdown", "{seen}");
    assert!(!seen.contains("spotTermination"), "{seen}");
}

#[test]
fn tasks_that_may_not_are_given_back_and_run_elsewhere() {
    let site = Site::new();
    for request in [
        r#"{"type":"graceful-termination","finish-tasks":false}"#,
        // As the original understands it.
        r#"{"type":"graceful-termination"}"#,
    ] {
        let mut worker = begin(&site, &json!({}));
        let script = "echo begun; [ $RUN_ID = 1 ] || sleep 1000";
        let task = site.deployment.create(&site.payload(script));
        site.deployment.await_printed(&task, "begun");
        worker.say(request);
        let (finished, seen) = worker.end();
        assert!(finished.status.success(), "{finished:?}");
        assert_eq!(said(&seen).last().unwrap()["type"], "shutdown", "{seen}");
        assert!(seen.contains(".spotTermination\""), "{seen}");
        let log = format!("task/{task}/runs/0/artifacts/public%2Flogs%2Flive.log");
        let url = format!("{}/api/queue/v1/{log}", site.deployment.root_url);
        let options = ["--silent", "--show-error", "--fail", "--location", "--compressed", &url];
        let curl = finish(site.deployment.program("curl", &options).spawn().unwrap(), LIMIT);
        let log = String::from_utf8(curl.stdout).unwrap();
        assert!(log.contains("begun") && log.contains("Reason: worker-shutdown"), "{log}");
        let other = site.start(&json!({ "workerId": "other" }));
        let status = site.deployment.await_resolved(&task);
        let shutdown = Some(Verdict::Exception(Reason::WorkerShutdown));
        assert_eq!(verdicts(&status), [shutdown, Some(Verdict::Completed)], "{request}: {status:#?}");
        other.stop();
    }
}

#[test]
fn new_credentials_sign_the_next_request_for_tasks() {
    let site = Site::new();
    let token = site.deployment.access()["taskcluster"]["accessToken"].clone();
    let wrong = json!({ "taskcluster": { "clientId": "worker", "accessToken": "no longer valid" } });
    // A worker that has not been greeted does not know that there may be others.
    site.deployment.wire.fail("claim-work", Fault::Held, 1);
    let mut worker = begin(&site, &wrong);
    site.deployment.wire.let_go();
    worker.expect("task retrieval error");
    let task = site.deployment.create(&site.payload("true"));
    let new = json!({ "type": "new-credentials", "client-id": "worker", "access-token": token });
    worker.say(&new.to_string());
    let status = site.deployment.await_resolved(&task);
    assert_eq!(verdicts(&status), [Some(Verdict::Completed)]);
    worker.say(r#"{"type":"graceful-termination","finish-tasks":true}"#);
    let (finished, seen) = worker.end();
    assert!(finished.status.success(), "{finished:?}");
    let reports = said(&seen).into_iter().filter(|message| message["type"] == "error-report");
    assert_eq!(reports.count(), 0, "they can be replaced: {seen}");
}

#[test]
fn a_clock_that_is_off_is_told_once_and_is_to_be_set() {
    let site = Site::new();
    let mut worker = begin(&site, &json!({}));
    site.deployment.wire.await_asked("/claim-work/", 1);
    // A signature of another time is refused.
    site.deployment.pass(Duration::from_secs(20 * 60));
    worker.expect("task retrieval error");
    // Whole seconds go by meanwhile.
    let asked = site.deployment.wire.asked("/claim-work/");
    site.deployment.wire.await_asked("/claim-work/", asked + 30);
    worker.say(r#"{"type":"graceful-termination","finish-tasks":true}"#);
    let (_, seen) = worker.end();
    let told: Vec<&str> = seen.lines().filter(|line| line.contains("task retrieval error")).collect();
    let [line] = told[..] else { panic!("{seen}") };
    assert_eq!(line.matches("this host's clock is ").count(), 1, "{line}");
    assert!(line.contains("behind the queue's: set it; if that does not help, give"), "{line}");
}

/// A worker that needs no task; gives what it says beside `hello`, and how it ended.
fn without_tasks(more: &str, capabilities: &str) -> (Vec<Value>, Finished) {
    let queue = AnsweringServer::start(|_, _| refusal(401, "ext.certificate.expiry < now"));
    let worker = Worker::new();
    let path = worker.fresh("config");
    let text = format!(
        "rootUrl: http://{}\ntaskcluster: {{clientId: me, accessToken: sesame}}\nprovisionerId: p\nworkerType: t\nworkerGroup: g\nworkerId: w\ncapacityManagement: {{diskspaceThreshold: 0}}\n{more}\n",
        queue.address
    );
    fs::write(&path, text).unwrap();
    let arguments = ["start", "--host", "worker-runner", "--config", path.to_str().unwrap()];
    let (finished, seen) = Conversation::begin(worker.command(&arguments), capabilities).end();
    let mut said = said(&seen);
    assert_eq!(said.remove(0)["type"], "hello", "{finished:?}");
    (said, finished)
}

#[test]
fn a_worker_that_cannot_go_on_says_why_before_it_ends() {
    let both = r#"["error-report","graceful-termination"]"#;
    for (more, kind, status, why) in [
        ("", "invalid-credentials", 1, "ext.certificate.expiry < now"),
        ("ed25519SigningKeyLocation: /none/key", "startup-error", 125, "/none/key"),
        ("liveLogs: none", "startup-error", 2, "liveLogs"),
    ] {
        let (said, finished) = without_tasks(more, both);
        assert_eq!(finished.status.code(), Some(status), "{more}: {finished:?}");
        assert_eq!(said.len(), 1, "{more}: {said:?}");
        assert_eq!((&said[0]["type"], &said[0]["kind"]), (&json!("error-report"), &json!(kind)), "{more}");
        let description = said[0]["description"].as_str().unwrap();
        assert!(description.contains(why), "{more}: {description}");
        assert!(String::from_utf8_lossy(&finished.stderr).contains(description), "{more}: {finished:?}");
    }
    // To one that would not understand it nothing is said.
    let (said, finished) = without_tasks("", r#"["graceful-termination"]"#);
    assert_eq!((said.len(), finished.status.code()), (0, Some(1)), "{said:?} {finished:?}");
}

#[test]
fn without_a_certificate_live_logs_are_missing_and_tasks_run() {
    let site = Site::new();
    let ssl = json!({ "certificate": "/none/crt", "key": "/none/key" });
    let logging = json!({ "secureLiveLogging": true, "liveLogAddress": "127.0.0.1" });
    let worker = site.start(&json!({ "ssl": ssl, "logging": logging }));
    let task = site.deployment.create(&site.payload("echo hello"));
    assert_eq!(site.deployment.await_resolved(&task).state, RunState::Completed);
    assert!(site.deployment.log(&task).contains("hello"));
    let log = worker.stop().log;
    assert_eq!(log.matches("[alert-operator] ssl certificate error").count(), 1, "{log}");
}

#[test]
fn a_key_for_spot_terminations_is_named_once() {
    let worker = Worker::new();
    let path = worker.fresh("config");
    fs::write(&path, "shutdown: {nodeTerminationPoll: 5000}\n").unwrap();
    let refused = worker.call(&["start", "--config", path.to_str().unwrap()]);
    let stderr = String::from_utf8(refused.stderr).unwrap();
    let sentence =
        "the cloud is not asked for the end of this machine: worker-runner, or SIGTERM, tells of it";
    assert_eq!(stderr.matches(sentence).count(), 1, "{stderr}");
}
