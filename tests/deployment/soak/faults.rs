//! Faults of the queue and its storage: of `standalone` by the wire before it, of a deployment by lists for a proxy before
//! it and for its storage, where there are such.
//!
//! Both lists are told with `PUT` and a JSON list. The proxy's `{path, method, times, status | drop, late, delayMs}`: the next
//! `times` requests of that method, whose path matches the regular expression, are answered with the status, or their
//! connection is closed; with `late` the request is carried out all the same. The storage's `{key, method, times, status |
//! drop, delayMs}`: the same of what is put to, or got from, that key.

use std::sync::Arc;
use std::time::Duration;

use docker_worker::random::random_fraction;
use serde_json::{Value, json};
use tokio::process::Command;

use super::support::{Fault, Wire};

/// One fault in so many is asked for at a time: the worker is to get on.
const ONE_IN: f64 = 4.0;

/// More than the worker waits for an answer.
const TOO_LATE: Duration = Duration::from_secs(40);

/// So often an answer may come too late, which holds a task up for as long.
const TIME_OUT: u32 = 10;

/// Where faults are told, if anywhere.
#[derive(Clone)]
pub enum Faults {
    OnTheWay(Arc<Wire>),
    Told { of_the_proxy: Option<String>, of_the_storage: Option<String> },
}

/// Whether tasks may rest until their claim has expired, or its worker is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostRuns {
    None,
    Some,
}

impl Faults {
    /// Asks for some faults, in place of those that have not come about: the `look`th time.
    pub async fn ask(&self, lost: LostRuns, look: u32) {
        let (of_the_proxy_url, of_the_storage_url) = match self {
            Faults::OnTheWay(wire) => return ask_wire(wire, lost, look),
            Faults::Told { of_the_proxy, of_the_storage } => (of_the_proxy, of_the_storage),
        };
        let mut proxy = some(of_the_proxy());
        if lost == LostRuns::Some {
            proxy.insert(0, json!({ "path": "/claim-work/", "late": true, "drop": true }));
        }
        tell(of_the_proxy_url, &proxy).await;
        tell(of_the_storage_url, &some(of_the_storage())).await;
    }

    /// Wants no more.
    pub async fn end(&self) {
        match self {
            Faults::OnTheWay(wire) => wire.fail_no_more(),
            Faults::Told { of_the_proxy, of_the_storage } => {
                tell(of_the_proxy, &[]).await;
                tell(of_the_storage, &[]).await;
            }
        }
    }

    /// How many there were, as far as that can be told.
    pub fn counted(&self) -> Option<String> {
        let Faults::OnTheWay(wire) = self else { return None };
        let counts: Vec<String> =
            wire.failed().into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        Some(counts.join(", "))
    }
}

fn ask_wire(wire: &Wire, lost: LostRuns, look: u32) {
    wire.fail_no_more();
    if lost == LostRuns::Some {
        wire.fail("/claim-work/", Fault::LostReply, 1);
        wire.fail("/completed", Fault::Refusal(409), 1);
    }
    if look.is_multiple_of(TIME_OUT) {
        for part in some(vec!["/completed", "/artifacts/", "/status"]) {
            wire.fail(part, Fault::Late(TOO_LATE), 1);
        }
    }
    for (part, fault) in some(on_the_way()) {
        wire.fail(part, fault, 1);
    }
}

async fn tell(url: &Option<String>, faults: &[Value]) {
    if let Some(url) = url {
        put(url, faults).await;
    }
}

fn some<T>(faults: Vec<T>) -> Vec<T> {
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
fn on_the_way() -> Vec<(&'static str, Fault)> {
    let slow = Fault::Late(Duration::from_millis(500));
    vec![
        ("/claim-work/", Fault::Status(500)),
        ("/claim-work/", Fault::Reset),
        ("/completed", Fault::Status(503)),
        ("/completed", Fault::Reset),
        ("/completed", Fault::LostReply),
        ("/completed", Fault::Page),
        ("/failed", Fault::LostReply),
        ("/exception", Fault::Status(500)),
        ("/exception", Fault::LostReply),
        ("/artifacts/", Fault::Status(500)),
        ("/artifacts/", Fault::Reset),
        ("/artifacts/", Fault::LostReply),
        ("/artifacts/", slow),
        ("/status", Fault::Status(502)),
        ("/status", Fault::Refusal(409)),
        ("/purge-cache/", Fault::Status(503)),
        ("/auth/", Fault::Status(503)),
        ("PUT /storage/", Fault::Status(500)),
        ("PUT /storage/", Fault::Reset),
        ("PUT /storage/", Fault::LostReply),
        ("PUT /storage/", slow),
    ]
}

/// The same for a deployment's.
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
