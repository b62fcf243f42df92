//! What a deployment answers to a worker that publishes, for tests: enough of the queue's and the object service's
//! methods, and URLs of the storage that it is part of.

use serde_json::{Value, json};

use super::storage::Received;

/// What a name ends in that there is no answer about.
pub(super) const SILENT: &str = "silent";

/// The answer to a call of the API.
pub(super) fn answer(received: &Received, base: &str) -> Value {
    let path = received.path.trim_start_matches("/api/");
    let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
    let words: Vec<&str> = path.split('/').collect();
    let later = "2099-01-01T00:00:00.000Z";
    let credentials = json!({"clientId": "task", "accessToken": "secret", "certificate": "{}"});
    match (received.method.as_str(), words.as_slice()) {
        ("POST", ["queue", "v1", "claim-work", _]) => {
            let task_id = "fN1SbArXTPSVFNUvaOlinQ";
            let status = json!({"taskId": task_id, "deadline": later, "expires": later});
            let task = json!({});
            json!({"tasks": [{"status": status, "runId": 0, "takenUntil": later, "credentials": credentials, "task": task}]})
        }
        ("POST", ["queue", "v1", "task", _, "runs", _, "artifacts", name]) => {
            match body["storageType"].as_str() {
                Some("s3") => json!({
                    "storageType": "s3",
                    "putUrl": format!("{base}/put/{name}"),
                    "expires": later,
                    "contentType": body["contentType"],
                }),
                Some("object") => json!({
                    "storageType": "object",
                    "name": format!("t/{name}"),
                    "projectId": "none",
                    "uploadId": "fN1SbArXTPSVFNUvaOlinQ",
                    "expires": later,
                    "credentials": credentials,
                }),
                other => json!({ "storageType": other }),
            }
        }
        ("PUT", ["object", "v1", "upload", name]) => {
            let proposed = &body["proposedUploadMethods"]["putUrl"];
            let headers = json!({
                "content-type": proposed["contentType"],
                "content-length": proposed["contentLength"].to_string(),
            });
            let url = format!("{base}/put/{name}");
            json!({
                "projectId": body["projectId"],
                "uploadId": body["uploadId"],
                "expires": later,
                "uploadMethod": {"putUrl": {"url": url, "expires": later, "headers": headers}},
            })
        }
        ("PUT", ["queue", "v1", "task", ..]) | ("POST", ["object", "v1", "finish-upload", _]) => json!({}),
        (method, _) => panic!("nobody knows {method} {}", received.path),
    }
}
