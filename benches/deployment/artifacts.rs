//! A thousand small artifacts, beside curl, which is given all it needs to make the same calls: signed headers, and the URLs
//! of the first call for the second one.

use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use docker_worker::queue::{RunId, WorkerIdentity};
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::site::{Site, millis};
use crate::table::{heading, median, row, spread};

const COUNT: usize = 1000;
const BYTES: usize = 1024;
/// Calls at a time: as many as the worker makes.
const AT_ONCE: &str = "8";
/// A name that is not compressed.
const MAKE: &str =
    "mkdir /out; i=0; while [ $i -lt 1000 ]; do head -c 1024 /dev/urandom >/out/$i.png; i=$((i+1)); done";

pub async fn measure(site: &Site, rounds: usize) {
    let worker = site.start(&json!({})).await;
    let (mut none, mut ours, mut curl) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        none.push(published(site, &json!({})).await);
        let directory = json!({ "public/out": { "type": "directory", "path": "/out" } });
        ours.push(published(site, &directory).await);
        curl.push(by_curl(site).await);
    }
    worker.stop().await;
    let own: Vec<f64> = ours.iter().zip(&none).map(|(with, without)| with - without).collect();
    heading(&[&format!("{COUNT} artifacts of {BYTES} bytes, n={rounds}: min / median / max s"), "of curl"]);
    row("curl: createArtifact, then PUT", &[&spread(&curl), &"1.00"]);
    row(
        "a directory, less the same task without",
        &[&spread(&own), &format!("{:.2}", median(&own) / median(&curl))],
    );
}

/// Seconds of a run that makes the files.
async fn published(site: &Site, artifacts: &Value) -> f64 {
    let mut payload = site.payload(&["/bin/sh", "-c", MAKE]);
    payload["artifacts"] = artifacts.clone();
    let task_id = site.create(&payload).await;
    let run = site.completed(&task_id).await;
    millis(run.started.unwrap(), run.resolved.unwrap()) / 1000.0
}

/// Seconds of curl.
async fn by_curl(site: &Site) -> f64 {
    let scratch = site.directory.join("curl");
    std::fs::create_dir_all(&scratch).unwrap();
    let worker = WorkerIdentity { worker_group: "benches".to_owned(), worker_id: "curl".to_owned() };
    let pool = json!({ "image": "none", "command": [], "maxRunTime": 1 });
    let task_id = site.create_for("curl", &pool).await;
    let run = RunId { task_id, run_id: 0 };
    site.queue.claim_run(&run, &worker).await.unwrap();
    let expires = Timestamp::now().plus(std::time::Duration::from_secs(3600));
    let body = json!({ "storageType": "s3", "contentType": "image/png", "expires": expires }).to_string();
    let signer = site.signer();
    let mut create = String::new();
    for index in 0..COUNT {
        let call = format!("task/{}/runs/0/artifacts/public%2Fout%2F{index}.png", run.task_id);
        let url = format!("{}/api/queue/v1/{call}", site.root_url);
        let authorization = signer.sign("POST", &url.parse().unwrap(), &body);
        // In curl's configuration a quotation mark in a value is escaped.
        let header = format!("Authorization: {authorization}").replace('"', "\\\"");
        let data = body.replace('"', "\\\"");
        writeln!(create, "{}url = \"{url}\"\nrequest = POST\nheader = \"{header}\"", next(index)).unwrap();
        writeln!(create, "header = \"Content-Type: application/json\"\ndata-raw = \"{data}\"").unwrap();
        writeln!(create, "output = \"{}\"", scratch.join(index.to_string()).display()).unwrap();
    }
    let created = call(&scratch.join("create"), &create).await;
    let file = scratch.join("file");
    std::fs::write(&file, vec![7; BYTES]).unwrap();
    let mut put = String::new();
    for index in 0..COUNT {
        let reply = std::fs::read(scratch.join(index.to_string())).unwrap();
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        let url = reply["putUrl"].as_str().unwrap();
        writeln!(put, "{}url = \"{url}\"\nupload-file = \"{}\"", next(index), file.display()).unwrap();
        writeln!(put, "header = \"Content-Type: image/png\"\noutput = /dev/null").unwrap();
    }
    created + call(&scratch.join("put"), &put).await
}

/// What stands before a call in curl's configuration.
fn next(index: usize) -> &'static str {
    if index == 0 { "" } else { "next\n" }
}

/// Has curl make the calls of a configuration; gives the seconds that it needs.
async fn call(path: &Path, calls: &str) -> f64 {
    std::fs::write(path, calls).unwrap();
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail-early",
        "--parallel",
        "--parallel-max",
        AT_ONCE,
        "--config",
    ]);
    curl.arg(path).stdout(Stdio::null());
    let started = Instant::now();
    assert!(curl.status().await.unwrap().success());
    started.elapsed().as_secs_f64()
}
