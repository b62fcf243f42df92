//! What a deployment answers to the script, for the tests that hold the embedded queue against it.

use std::time::Duration;

use crate::script::play;
use crate::support::Signer;
use crate::variable;

/// The scopes of a worker of the script's pool.
const WORKER: [&str; 4] = [
    "queue:claim-work:proj-x/docker-worker",
    "queue:worker-id:*",
    "purge-cache:purge-requests::proj-x/docker-worker",
    "auth:expand-scopes",
];

/// Compares with `tests/it/recorded.json`, or with the variable `RECORD` writes it. The deployment must have no pending
/// task in the pool, and the client all scopes.
#[tokio::test]
async fn what_is_recorded_is_what_is_answered() {
    let (client_id, token) = (variable("TASKCLUSTER_CLIENT_ID"), variable("TASKCLUSTER_ACCESS_TOKEN"));
    let own = taskcluster::Credentials::new(client_id, token);
    let worker = own.create_named_temp_creds("script/worker", Duration::from_secs(3600), WORKER).unwrap();
    let signer = |it: taskcluster::Credentials| Signer {
        client_id: it.client_id,
        access_token: it.access_token,
        certificate: it.certificate,
    };
    let answers = play(&variable("TASKCLUSTER_ROOT_URL"), &signer(own), &signer(worker)).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/recorded.json");
    if std::env::var_os("RECORD").is_some() {
        let text = serde_json::to_string_pretty(&answers).unwrap() + "\n";
        return std::fs::write(path, text).unwrap();
    }
    let recorded: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (answered, recorded) in answers.iter().zip(&recorded) {
        assert_eq!(answered, recorded);
    }
    assert_eq!(answers.len(), recorded.len());
}
