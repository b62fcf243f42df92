//! Artifacts of a deployment's tasks where storage, queue or the task itself do not what they should.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Reason, TaskStatus, Verdict};
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::support::{
    ALL, Deployment, Fault, Internet, Site, Terms, WatchedRegistry, Worker, busybox_image, finish,
};

const LIMIT: Duration = Duration::from_secs(60);

fn verdicts(status: &TaskStatus) -> Vec<Option<Verdict>> {
    status.runs.iter().map(|run| run.reason_resolved).collect()
}

/// A payload that leaves artifacts.
fn leaving(site: &Site, script: &str, artifacts: Value) -> Value {
    let mut payload = site.payload(script);
    payload["artifacts"] = artifacts;
    payload
}

fn file(path: &str) -> Value {
    json!({ "type": "file", "path": path })
}

fn directory(path: &str) -> Value {
    json!({ "type": "directory", "path": path })
}

/// Name and storage type of what a task left beside its logs.
fn left(site: &Site, task: &TaskId) -> Vec<(String, String)> {
    let mut all = site.deployment.artifacts(task);
    all.retain(|(name, _)| !name.starts_with("public/logs/"));
    all.sort();
    all
}

fn rows(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
}

/// The head of storage's answer to who wants an artifact, in lower case.
fn head(site: &Site, task: &TaskId, name: &str) -> String {
    let url = site.deployment.artifact_url(task, name);
    let options =
        ["--silent", "--show-error", "--fail", "--location", "--output", "/dev/null", "--dump-header", "-"];
    let curl = site.deployment.program("curl", &[&options[..], &[&url]].concat()).spawn().unwrap();
    let heads = String::from_utf8(finish(curl, LIMIT).stdout).unwrap().to_lowercase();
    heads.trim_end().rsplit("\r\n\r\n").next().unwrap().to_owned()
}

#[test]
fn what_storage_refuses_is_not_repeated_and_fails_the_task_which_the_payload_may_have_tried_again() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let mut payload = leaving(&site, "echo text > /text", json!({ "public/text": file("/text") }));
    for retry in [json!([]), json!([-1])] {
        payload["onExitStatus"] = json!({ "retry": retry });
        // A second attempt would do.
        site.deployment.wire.fail("PUT /storage/", Fault::Status(413), 1);
        let task = site.deployment.create(&payload);
        let status = site.deployment.await_resolved(&task);
        if retry == json!([-1]) {
            let again = Some(Verdict::Exception(Reason::IntermittentTask));
            assert_eq!(verdicts(&status), [again, Some(Verdict::Completed)]);
            assert_eq!(site.deployment.artifact(&task, "public/text"), b"text\n");
            continue;
        }
        let log = site.deployment.log(&task);
        assert_eq!(verdicts(&status), [Some(Verdict::Failed)], "{log}");
        let said = "\n[taskcluster:error] Error uploading \"public/text\" artifact. Failed to upload it to 127.0.0.1: status code 413";
        assert_eq!(log.matches(said).count(), 1, "{log}");
        assert!(log.contains("Unsuccessful task run with exit code: -1"), "{log}");
    }
    worker.stop();
}

#[test]
fn what_passes_costs_an_artifact_nothing_but_time() {
    let site = Site::new();
    let wire = &site.deployment.wire;
    let worker = site.start(&json!({}));
    let payload = leaving(&site, "echo text > /text", json!({ "public/text": file("/text") }));
    let create = "artifacts/public%2Ftext";
    for (part, fault, times) in [
        (create, Fault::LostReply, 2),
        (create, Fault::Reset, 3),
        (create, Fault::Status(500), 2),
        ("PUT /storage/", Fault::LostReply, 1),
        ("PUT /storage/", Fault::Reset, 2),
        ("PUT /storage/", Fault::Status(503), 1),
        // The URL is over: another one is asked for.
        ("PUT /storage/", Fault::Status(403), 1),
    ] {
        wire.fail(part, fault, times);
        let task = site.deployment.create(&payload);
        let status = site.deployment.await_resolved(&task);
        assert_eq!(verdicts(&status), [Some(Verdict::Completed)], "{part} {fault:?}");
        assert_eq!(site.deployment.artifact(&task, "public/text"), b"text\n", "{part} {fault:?}");
    }
    worker.stop();
}

/// The worker's `/etc/hosts`, which is the test's, loses the deployment's name.
#[test]
fn a_deployment_whose_name_is_unknown_for_a_while_costs_an_artifact_nothing_but_time() {
    let internet = Internet::new();
    let deployment = Deployment::start_on(&internet, Terms::default());
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let know = |name: &str| fs::write(hosts.path(), format!("127.0.0.1 localhost {name}\n")).unwrap();
    know("tc.test");
    let bind = "mount --bind \"$0\" /etc/hosts";
    let worker = Worker::on_changed(&internet, bind, hosts.path().to_str().unwrap());
    let registry = WatchedRegistry::serve_on(&internet, &worker.image(&busybox_image()));
    let site = Site { deployment, worker, image: registry.name.clone(), registry, internet };
    let root_url = site.deployment.root_url.replace("127.0.0.1", "tc.test");
    let worker = site.start(&json!({ "rootUrl": root_url }));
    let task = site.create_waiting("true");
    know("");
    // Connections that are open need no name.
    site.deployment.wire.fail("/", Fault::Reset, 4);
    let deadline = Instant::now() + LIMIT;
    let mut asked = 0;
    // The task's status is asked for each second.
    while std::mem::replace(&mut asked, site.deployment.wire.asked("/")) != asked {
        assert!(Instant::now() < deadline, "the worker still reaches the deployment");
        thread::park_timeout(Duration::from_secs(3));
    }
    site.release();
    thread::park_timeout(Duration::from_secs(3));
    assert_eq!(site.deployment.wire.asked("/"), asked);
    know("tc.test");
    let status = site.deployment.await_resolved(&task);
    assert_eq!(verdicts(&status), [Some(Verdict::Completed)], "{status:#?}");
    assert!(site.deployment.log(&task).contains("done"));
    worker.stop();
}

#[test]
fn an_upload_may_outlast_the_credentials_with_which_it_began() {
    let site = Site::with(Terms { claim_time: Duration::from_secs(8), ..Terms::default() });
    let wire = &site.deployment.wire;
    let worker = site.start(&json!({}));
    let payload = leaving(&site, "echo text > /text", json!({ "public/text": file("/text") }));
    wire.fail("PUT /storage/", Fault::Held, 1);
    let task = site.deployment.create(&payload);
    wire.await_asked("/reclaim", 3);
    wire.let_go();
    // The logs come after it.
    let status = site.deployment.await_resolved(&task);
    assert_eq!(verdicts(&status), [Some(Verdict::Completed)], "{status:#?}");
    assert!(site.deployment.log(&task).contains("Successful task run"));
    worker.stop();
}

#[test]
fn a_queue_that_takes_no_artifacts_is_asked_once_for_each() {
    let site = Site::new();
    let wire = &site.deployment.wire;
    let worker = site.start(&json!({}));
    for status in [400, 403] {
        let task = site.deployment.create(&site.payload("yes | head -c 5000000; sleep 1"));
        let create = format!("POST /api/queue/v1/task/{task}/runs/0/artifacts/");
        // Not before the live log is known.
        wire.await_asked(&create, 1);
        wire.fail(&create, Fault::Refusal(status), usize::MAX);
        let resolved = site.deployment.await_resolved(&task);
        assert_eq!(verdicts(&resolved), [Some(Verdict::Failed)], "{status}");
        assert_eq!(wire.asked(&create), 3, "{status}: the live log, the backing log, the link");
    }
    let next = site.deployment.create(&site.payload("true"));
    assert_eq!(verdicts(&site.deployment.await_resolved(&next)), [Some(Verdict::Completed)]);
    worker.stop();
}

#[test]
fn a_name_that_the_queue_does_not_take_has_one_line_and_fails_the_task_and_the_others_are_there() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let script = "mkdir /d; echo a > /d/plain; echo b > /d/naïve; printf c > \"/d/$(printf 'no\\377utf8')\"";
    let payload =
        leaving(&site, script, json!({ "public/d": directory("/d"), "public/é": file("/d/plain") }));
    let task = site.deployment.create(&payload);
    let status = site.deployment.await_resolved(&task);
    let log = site.deployment.log(&task);
    assert_eq!(verdicts(&status), [Some(Verdict::Failed)], "{log}");
    assert_eq!(left(&site, &task), rows(&[("public/d/plain", "s3")]), "{log}");
    for name in ["public/d/naïve", "public/é", "public/d/no\u{fffd}utf8"] {
        let said = format!("\n[taskcluster:error] Error uploading \"{name}\"");
        assert_eq!(log.matches(&said).count(), 1, "{name}: {log}");
    }
    worker.stop();
}

#[test]
fn a_file_that_has_a_logs_name_takes_no_logs_place() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let script =
        "mkdir -p /l/logs; for f in live.log live_backing.log own.log; do echo forged > /l/logs/$f; done";
    let task = site.deployment.create(&leaving(&site, script, json!({ "public": directory("/l") })));
    let status = site.deployment.await_resolved(&task);
    let log = site.deployment.log(&task);
    assert_eq!(verdicts(&status), [Some(Verdict::Completed)], "{log}");
    assert!(!log.contains("forged"), "{log}");
    assert_eq!(site.deployment.artifact(&task, "public/logs/own.log"), b"forged\n");
    let artifacts = site.deployment.artifacts(&task);
    let expected = rows(&[
        ("public/logs/live.log", "link"),
        ("public/logs/live_backing.log", "s3"),
        ("public/logs/own.log", "s3"),
    ]);
    assert_eq!(artifacts, expected, "{log}");
    worker.stop();
}

#[test]
fn an_artifact_has_the_type_encoding_expiry_and_entry_that_it_should() {
    let site = Site::new();
    let worker = site.start(&json!({ "artifacts": { "maxBytes": 1_000_000 } }));
    let script = "mkdir -p /d/sub /d/empty; echo text > /d/a.txt; echo {} > /d/sub/b.json; echo png > /d/c.png
        ln -s a.txt /d/link; ln -s /d/a.txt /outside; mkfifo /d/fifo; truncate -s 900000 /d/sparse; truncate -s 1000001 /d/large
        echo kept > /volume/v.html";
    let expires = Timestamp::now().plus(Duration::from_secs(4000));
    let payload = leaving(
        &site,
        script,
        json!({
            "public/d": { "type": "directory", "path": "/d", "expires": expires },
            "public/link": file("/outside"),
            "public/none": file("/none"),
            "public/wrong": directory("/d/a.txt"),
            "public/volume": { "type": "volume", "path": "/volume" },
        }),
    );
    let task = site.deployment.create(&payload);
    let status = site.deployment.await_resolved(&task);
    let log = site.deployment.log(&task);
    assert_eq!(verdicts(&status), [Some(Verdict::Completed)], "{log}");
    let expected = rows(&[
        ("public/d/a.txt", "s3"),
        ("public/d/c.png", "s3"),
        ("public/d/large", "error"),
        ("public/d/sparse", "s3"),
        ("public/d/sub/b.json", "s3"),
        ("public/link", "s3"),
        ("public/none", "error"),
        ("public/volume/v.html", "s3"),
        ("public/wrong", "error"),
    ]);
    assert_eq!(left(&site, &task), expected, "{log}");
    for (name, content_type, encoding) in [
        ("public/d/a.txt", "text/plain", Some("gzip")),
        ("public/d/sub/b.json", "application/json", Some("gzip")),
        ("public/d/c.png", "image/png", None),
        ("public/volume/v.html", "text/html", Some("gzip")),
    ] {
        let head = head(&site, &task, name);
        let is_type = |line: &str| line == format!("content-type: {content_type}");
        assert!(head.lines().any(is_type), "{name}: {head}");
        assert_eq!(head.contains("content-encoding: gzip"), encoding.is_some(), "{name}: {head}");
    }
    assert_eq!(site.deployment.artifact(&task, "public/d/sparse"), vec![0; 900_000]);
    let (queue, run) =
        (site.deployment.queue.clone(), docker_worker::queue::RunId { task_id: task, run_id: 0 });
    let list = site.deployment.within(async move { queue.list_artifacts(&run, ALL).await.unwrap().items });
    let expiry = |name: &str| list.iter().find(|it| it.name.as_str() == name).unwrap().expires;
    assert_eq!(expiry("public/d/sub/b.json"), expires);
    assert!(expiry("public/link") > expires, "the task's own");
    worker.stop();
}

#[test]
fn five_hundred_artifacts_take_no_more_memory_than_a_few() {
    let site = Site::new();
    let worker = site.start(&json!({ "artifacts": { "skipCompressionExtensions": [".raw"] } }));
    let run = |count: u32| {
        let script =
            format!("mkdir /d; for i in $(seq {count}); do head -c 200000 /dev/urandom > /d/$i.raw; done");
        let task = site.deployment.create(&leaving(&site, &script, json!({ "public/d": directory("/d") })));
        let status = site.deployment.await_resolved(&task);
        assert_eq!(verdicts(&status), [Some(Verdict::Completed)], "{}", site.deployment.log(&task));
    };
    run(20);
    let before = worker.most_memory();
    run(500);
    let grown = worker.most_memory() - before;
    assert!(grown < 16 << 20, "{grown} bytes for 96 MB");
    worker.stop();
}
