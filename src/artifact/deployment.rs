//! What a deployment answers to a worker that publishes, for tests: enough of the queue's and the object service's
//! methods, as strict as they are, and URLs of the storage that it is part of.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::storage::Received;

/// What a name ends in that there is no answer about.
pub(super) const SILENT: &str = "silent";

const LATER: &str = "2099-01-01T00:00:00.000Z";

/// A deployment with one task.
#[derive(Default)]
pub(super) struct Deployment {
    /// What was asked for, by name.
    artifacts: BTreeMap<String, Value>,
    reclaims: u32,
}

/// Status and body; null is none.
type Answer = (u16, Value);

/// As a service refuses.
pub(super) fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let message = format!("{message}\n\n---\n\n* errorCode:  {code}");
    (status, json!({ "code": code, "message": message }))
}

impl Deployment {
    /// The answer to a call of the API.
    pub(super) fn answer(&mut self, received: &Received, base: &str) -> Answer {
        let path = received.path.trim_start_matches("/api/");
        let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
        let words: Vec<&str> = path.split('/').collect();
        let answer = match (received.method.as_str(), words.as_slice()) {
            ("POST", ["queue", "v1", "claim-work", _]) => {
                let status = json!({"taskId": "fN1SbArXTPSVFNUvaOlinQ", "deadline": LATER, "expires": LATER});
                let credentials = self.credentials();
                let task = json!({"status": status, "runId": 0, "takenUntil": LATER, "credentials": credentials, "task": {}});
                json!({ "tasks": [task] })
            }
            ("POST", ["queue", "v1", "task", _, "runs", _, "reclaim"]) => {
                self.reclaims += 1;
                json!({ "takenUntil": LATER, "credentials": self.credentials() })
            }
            ("POST", ["queue", "v1", "task", _, "runs", _, "artifacts", name]) => {
                return self.create(name, body, base);
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
                    "expires": LATER,
                    "uploadMethod": {"putUrl": {"url": url, "expires": LATER, "headers": headers}},
                })
            }
            // It has one role.
            ("POST", ["auth", "v1", "scopes", "expand"]) => {
                let own = body["scopes"].as_array().unwrap();
                let is_builder = own.contains(&json!("assume:builder"));
                let of_role = ["docker-worker:cache:level-1-*", "docker-worker:image:h:5000/team/x:1"];
                let of_role = of_role.iter().filter(|_| is_builder).map(|&scope| json!(scope));
                json!({ "scopes": own.iter().cloned().chain(of_role).collect::<Vec<_>>() })
            }
            ("PUT", ["queue", "v1", "task", ..]) => return (204, Value::Null),
            ("POST", ["object", "v1", "finish-upload", _]) => json!({}),
            (method, _) => panic!("nobody knows {method} {}", received.path),
        };
        (200, answer)
    }

    /// Whose the next calls are: each reclaim gives other credentials.
    fn credentials(&self) -> Value {
        json!({"clientId": format!("task/{}", self.reclaims), "accessToken": "secret", "certificate": "{}"})
    }

    fn create(&mut self, name: &str, request: Value, base: &str) -> Answer {
        // As it stands in the path: what is no printable ASCII is a byte above 7f there.
        if name
            .split('%')
            .skip(1)
            .any(|escape| escape.starts_with(|digit| matches!(digit, '8'..='9' | 'A'..='F')))
        {
            return refusal(400, "InvalidRequestArguments", "name must match ^[\\x20-\\x7e]+$");
        }
        let kind = request["storageType"].as_str().unwrap_or_default().to_owned();
        match self.artifacts.get(name) {
            // An object is created with a new id each time, and so never the same one.
            Some(old) if kind == "object" || (*old != request && old["storageType"] != "reference") => {
                return refusal(409, "RequestConflict", "Artifact already exists");
            }
            Some(_) | None => {}
        }
        let content_type = request["contentType"].clone();
        self.artifacts.insert(name.to_owned(), request);
        let answer = match kind.as_str() {
            "s3" => json!({
                "storageType": "s3",
                "putUrl": format!("{base}/put/{name}"),
                "expires": LATER,
                "contentType": content_type,
            }),
            "object" => json!({
                "storageType": "object",
                "name": format!("t/{name}"),
                "projectId": "none",
                "uploadId": "fN1SbArXTPSVFNUvaOlinQ",
                "expires": LATER,
                "credentials": self.credentials(),
            }),
            other => json!({ "storageType": other }),
        };
        (200, answer)
    }
}
