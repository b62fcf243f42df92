//! Faults of the deployment: lists for a proxy before it and for its storage, where there are such.
//!
//! Both are told with `PUT` and a JSON list. The proxy's `{path, method, times, status | drop, late, delayMs}`: the next
//! `times` requests of that method, whose path matches the regular expression, are answered with the status, or their
//! connection is closed; with `late` the request is carried out all the same. The storage's `{key, method, times, status |
//! drop, delayMs}`: the same of what is put to, or got from, that key.

use docker_worker::random::random_fraction;
use serde_json::{Value, json};
use tokio::process::Command;

/// One fault in so many is asked for at a time: the worker is to get on.
const ONE_IN: f64 = 4.0;

/// Where faults are told, if anywhere.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub of_the_proxy: Option<String>,
    pub of_the_storage: Option<String>,
}

impl Faults {
    /// Asks for some faults, in place of those that have not come about. `lost_claim`: also for an answer to a request for
    /// tasks that is lost, after which these tasks rest until the claim has expired.
    pub async fn ask(&self, lost_claim: bool) {
        let mut proxy = some(of_the_proxy());
        if lost_claim {
            proxy.insert(0, json!({ "path": "/claim-work/", "late": true, "drop": true }));
        }
        self.tell(&proxy, &some(of_the_storage())).await;
    }

    /// Wants no more.
    pub async fn end(&self) {
        self.tell(&[], &[]).await;
    }

    async fn tell(&self, proxy: &[Value], storage: &[Value]) {
        for (url, faults) in [(&self.of_the_proxy, proxy), (&self.of_the_storage, storage)] {
            if let Some(url) = url {
                put(url, faults).await;
            }
        }
    }
}

fn some(faults: Vec<Value>) -> Vec<Value> {
    faults.into_iter().filter(|_| random_fraction() * ONE_IN < 1.0).collect()
}

async fn put(url: &str, faults: &[Value]) {
    let options = ["--silent", "--show-error", "--fail", "--request", "PUT", "--data-binary"];
    let header = ["--header", "Content-Type: application/json"];
    let output = Command::new("curl")
        .args(options)
        .arg(Value::from(faults).to_string())
        .args(header)
        .arg(url)
        .output()
        .await;
    let output = output.unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What the worker asks for, and no call of whoever makes the tasks.
fn of_the_proxy() -> Vec<Value> {
    let reports = "/runs/[0-9]+/(completed|failed|exception)";
    let artifacts = "/runs/[0-9]+/artifacts/";
    vec![
        json!({ "path": "/claim-work/", "status": 500 }),
        json!({ "path": "/claim-work/", "drop": true }),
        json!({ "path": "/reclaim", "status": 503 }),
        json!({ "path": "/reclaim", "late": true, "drop": true }),
        json!({ "path": reports, "status": 503 }),
        json!({ "path": reports, "drop": true }),
        json!({ "path": reports, "late": true, "status": 500 }),
        json!({ "path": reports, "late": true, "drop": true }),
        json!({ "path": artifacts, "method": "POST", "status": 500, "times": 2 }),
        json!({ "path": artifacts, "method": "POST", "drop": true }),
        json!({ "path": artifacts, "method": "POST", "late": true, "drop": true }),
        json!({ "path": artifacts, "method": "POST", "status": 502, "delayMs": 500 }),
        json!({ "path": "/status", "status": 502 }),
        json!({ "path": "/purge-cache/", "status": 503 }),
        json!({ "path": "/auth/", "status": 503 }),
    ]
}

fn of_the_storage() -> Vec<Value> {
    vec![
        json!({ "key": "", "method": "PUT", "status": 500, "times": 2 }),
        json!({ "key": "", "method": "PUT", "status": 503, "delayMs": 300 }),
        json!({ "key": "", "method": "PUT", "drop": true }),
        json!({ "key": "", "method": "PUT", "status": 403 }),
    ]
}
