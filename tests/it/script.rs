//! Calls of the queue and of what a worker needs beside it, and their answers without what differs each time.

#[path = "script/dependencies.rs"]
mod dependencies;
#[path = "script/groups.rs"]
mod groups;
#[path = "script/many.rs"]
mod many;
#[path = "script/pools.rs"]
mod pools;

use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::support::{Answered, Signer, call, put};

/// The pool of the script's tasks.
const POOL: &str = "proj-x/docker-worker";
const TEXT: &str = "text/plain; charset=utf-8";

/// What is known while the script is played.
struct Player<'a> {
    root_url: &'a str,
    root: &'a Signer,
    worker: &'a Signer,
    /// The credentials of the claim that was made last.
    run: Option<Signer>,
    /// A task queue of this script's own.
    own_pool: String,
    answers: Vec<Value>,
    last: Value,
}

/// Who makes a call.
#[derive(Clone, Copy)]
enum Who {
    Root,
    Worker,
    Run,
    Nobody,
    Liar,
}

use Who::{Liar, Nobody, Root, Run, Worker};

/// Makes all calls; gives what was answered to each.
pub async fn play(root_url: &str, root: &Signer, worker: &Signer) -> Vec<Value> {
    let random = TaskId::random().unwrap().as_str().replace(['-', '_'], "").to_lowercase();
    let own_pool = format!("proj-x/p{random}");
    let mut player =
        Player { root_url, root, worker, run: None, own_pool, answers: Vec::new(), last: Value::Null };
    player.make_tasks().await;
    player.refuse_tasks().await;
    player.complete().await;
    player.retry_and_cancel().await;
    player.depend().await;
    player.group().await;
    player.look_at_a_pool().await;
    player.ask_other_services().await;
    player.look_at_many().await;
    player.answers
}

fn from_now(seconds: i64) -> Value {
    json!(Timestamp::from_millis(Timestamp::now().as_millis() + seconds * 1000))
}

fn definition(more: Value) -> Value {
    let mut definition = json!({
        "taskQueueId": POOL,
        "created": from_now(0), "deadline": from_now(3600), "expires": from_now(7200),
        "payload": {"image": "busybox", "odd": [1.5, {"z": 1, "a": null}]},
        "metadata": {"name": "n", "description": "d", "owner": "o@example.com", "source": "https://example.com/"},
    });
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    definition
}

impl Player<'_> {
    /// One call, and its answer noted under its name.
    async fn ask(&mut self, name: &str, who: Who, asked: &str, payload: Value) {
        let liar = Signer { access_token: "no token of theirs".to_owned(), ..self.worker.clone() };
        let signer = match who {
            Root => Some(self.root),
            Worker => Some(self.worker),
            Run => self.run.as_ref(),
            Nobody => None,
            Liar => Some(&liar),
        };
        let Answered { status, location, body } = call(self.root_url, signer, asked, &payload).await;
        let named = asked.split('/').find(|part| TaskId::parse(part).is_ok());
        let claimed = body.pointer("/tasks/0/status/taskId").and_then(Value::as_str);
        let task_id = named.or(claimed).unwrap_or("no task");
        let mut shown = body.clone();
        let own_type = self.own_pool.trim_start_matches("proj-x/");
        normalise(&mut shown, &[(task_id, "<task>"), (own_type, "<type>")]);
        if let Some(info) = shown.get_mut("requestInfo").and_then(Value::as_object_mut) {
            // It is the caller's own payload.
            info.insert("payload".to_owned(), json!("<payload>"));
        }
        let has_location = location.is_some();
        self.answers.push(json!({ "call": name, "status": status, "body": shown, "location": has_location }));
        if let Some(credentials) = body.pointer("/tasks/0/credentials").or(body.get("credentials")) {
            let text = |key: &str| credentials[key].as_str().unwrap().to_owned();
            let (client_id, access_token) = (text("clientId"), text("accessToken"));
            let signer = Signer { client_id, access_token, certificate: Some(text("certificate")) };
            if body["storageType"].is_null() {
                self.run = Some(signer);
            }
        }
        self.last = body;
    }

    async fn make_tasks(&mut self) {
        self.ask("ping", Nobody, "GET queue/ping", Value::Null).await;
        let id = TaskId::random().unwrap();
        let task = format!("queue/task/{id}");
        let made = definition(json!({"tags": {"a": "b"}, "priority": "low"}));
        self.ask("createTask", Root, &format!("PUT {task}"), made.clone()).await;
        self.ask("createTask again", Root, &format!("PUT {task}"), made).await;
        let other = definition(json!({"retries": 1}));
        self.ask("createTask with the id of another", Root, &format!("PUT {task}"), other).await;
        self.ask("task", Nobody, &format!("GET {task}"), Value::Null).await;
        self.ask("status", Nobody, &format!("GET {task}/status"), Value::Null).await;
        let none = TaskId::random().unwrap();
        self.ask("task of none", Nobody, &format!("GET queue/task/{none}"), Value::Null).await;
        self.ask("status of none", Nobody, &format!("GET queue/task/{none}/status"), Value::Null).await;
        self.ask("status of what is no id", Nobody, "GET queue/task/none/status", Value::Null).await;
        self.ask("cancelTask of none", Root, &format!("POST queue/task/{none}/cancel"), Value::Null).await;
        self.ask("cancelTask by nobody", Nobody, &format!("POST {task}/cancel"), Value::Null).await;
        self.ask("cancelTask", Root, &format!("POST {task}/cancel"), Value::Null).await;
        self.ask("cancelTask again", Root, &format!("POST {task}/cancel"), Value::Null).await;
        let claim = json!({"workerGroup": "g", "workerId": "w"});
        self.ask("claimTask of a cancelled one", Root, &format!("POST {task}/runs/0/claim"), claim).await;
    }

    async fn refuse_tasks(&mut self) {
        let cases = [
            ("by nobody", Nobody, json!({})),
            ("with a wrong token", Liar, json!({})),
            ("without the scopes", Worker, json!({})),
            ("without metadata", Root, json!({"metadata": null})),
            ("with a field too many", Root, json!({"other": 1})),
            ("of a bad queue", Root, json!({"taskQueueId": "p"})),
            ("of a bad priority", Root, json!({"priority": "urgent"})),
            ("of too many retries", Root, json!({"retries": 50})),
            (
                "of a bad source",
                Root,
                json!({"metadata": {"name": "n", "description": "d", "owner": "o", "source": "x"}}),
            ),
            ("made long ago", Root, json!({"created": from_now(-1000)})),
            ("made later", Root, json!({"created": from_now(1000)})),
            (
                "with a deadline in the past",
                Root,
                json!({"created": from_now(-800), "deadline": from_now(-700)}),
            ),
            (
                "with a deadline far ahead",
                Root,
                json!({"deadline": from_now(6 * 86400), "expires": from_now(7 * 86400)}),
            ),
            ("that expires before its deadline", Root, json!({"expires": from_now(60)})),
            ("with a scope of two stars", Root, json!({"scopes": ["a**"]})),
        ];
        for (case, who, more) in cases {
            let id = TaskId::random().unwrap();
            let name = format!("createTask {case}");
            self.ask(&name, who, &format!("PUT queue/task/{id}"), definition(more)).await;
        }
    }

    /// A task from its claim to its completion.
    async fn complete(&mut self) {
        let id = TaskId::random().unwrap();
        let (task, run) = (format!("queue/task/{id}"), format!("queue/task/{id}/runs/0"));
        self.ask("createTask to be completed", Root, &format!("PUT {task}"), definition(json!({}))).await;
        let claim = |more: Value| {
            let mut claim = json!({"workerGroup": "g", "workerId": "w", "tasks": 4});
            claim.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claim
        };
        let work = format!("POST queue/claim-work/{}", POOL.replace('/', "%2F"));
        self.ask("claimWork of too many", Worker, &work, claim(json!({"tasks": 33}))).await;
        self.ask("claimWork of none", Worker, &work, claim(json!({"tasks": 0}))).await;
        self.ask("claimWork by a bad group", Worker, &work, claim(json!({"workerGroup": "a b"}))).await;
        self.ask("claimWork by nobody", Nobody, &work, claim(json!({}))).await;
        self.ask("claimWork elsewhere", Worker, "POST queue/claim-work/proj-x%2Fother", claim(json!({})))
            .await;
        self.ask("claimWork", Worker, &work, claim(json!({}))).await;
        let first = self.run.clone();
        self.ask("reclaimTask by the worker", Worker, &format!("POST {run}/reclaim"), Value::Null).await;
        self.ask("reclaimTask of another run", Root, &format!("POST {task}/runs/1/reclaim"), Value::Null)
            .await;
        self.ask("reclaimTask", Run, &format!("POST {run}/reclaim"), Value::Null).await;
        self.run = first;
        self.make_artifacts(&run).await;
        self.make_object(&run).await;
        self.look_at_artifacts(&task, &run).await;
        let reason = |word: &str| json!({ "reason": word });
        self.ask("reportException as cancelled", Run, &format!("POST {run}/exception"), reason("canceled"))
            .await;
        self.ask("reportCompleted", Run, &format!("POST {run}/completed"), Value::Null).await;
        self.ask("reportCompleted again", Run, &format!("POST {run}/completed"), Value::Null).await;
        self.ask("reportFailed of a completed one", Run, &format!("POST {run}/failed"), Value::Null).await;
        let late = reason("internal-error");
        self.ask("reportException of a completed one", Run, &format!("POST {run}/exception"), late).await;
        self.ask("reclaimTask of a completed one", Run, &format!("POST {run}/reclaim"), Value::Null).await;
        let s3 = json!({"storageType": "s3", "expires": from_now(60), "contentType": TEXT});
        self.ask("createArtifact of a completed one", Run, &format!("POST {run}/artifacts/late"), s3).await;
    }

    async fn make_artifacts(&mut self, run: &str) {
        let expires = from_now(3600);
        let all = |more: Value| {
            let mut request = json!({"storageType": "s3", "expires": expires, "contentType": TEXT});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            request
        };
        let link = |artifact: &str| json!({"storageType": "link", "expires": expires, "artifact": artifact});
        let error = json!({"storageType": "error", "expires": expires, "reason": "file-missing-on-worker", "message": "m"});
        let reference = |url: &str| all(json!({"storageType": "reference", "url": url}));
        let cases = [
            ("s3", "public/s3", all(json!({}))),
            ("s3 again", "public/s3", all(json!({}))),
            ("s3 of another type", "public/s3", all(json!({"contentType": "text/html"}))),
            ("s3 that expires earlier", "public/s3", all(json!({"expires": from_now(60)}))),
            ("s3 that expires later", "public/s3", all(json!({"expires": from_now(4000)}))),
            ("private", "private/s3", all(json!({}))),
            ("after its task", "late", all(json!({"expires": from_now(9000)}))),
            ("long expired", "early", all(json!({"expires": from_now(-1000)}))),
            ("of no kind", "none", all(json!({"storageType": "azure"}))),
            ("with a field too many", "none", all(json!({"url": "http://example.com/"}))),
            ("reference", "public/log", reference("http://example.com/a")),
            ("reference elsewhere", "public/log", reference("http://example.com/b")),
            ("link over a reference", "public/log", link("public/s3")),
            ("link elsewhere", "public/log", link("public/other")),
            ("reference over a link", "public/log", reference("http://example.com/a")),
            ("reference that stays", "public/reference", reference("http://example.com/a")),
            ("error", "public/error", error.clone()),
            ("error over s3", "public/s3", error),
            ("link to itself", "public/loop", link("public/loop")),
        ];
        for (case, name, payload) in cases {
            let asked = format!("POST {run}/artifacts/{}", name.replace('/', "%2F"));
            self.ask(&format!("createArtifact {case}"), Run, &asked, payload).await;
        }
        let (by_nobody, by_root) = (all(json!({})), all(json!({})));
        self.ask("createArtifact by nobody", Nobody, &format!("POST {run}/artifacts/n"), by_nobody).await;
        let other = run.replace("runs/0", "runs/1");
        self.ask("createArtifact of another run", Root, &format!("POST {other}/artifacts/n"), by_root).await;
    }

    async fn make_object(&mut self, run: &str) {
        let at = format!("{run}/artifacts/public%2Fobject");
        let object = json!({"storageType": "object", "expires": from_now(3600), "contentType": TEXT});
        self.ask("createArtifact object", Run, &format!("POST {at}"), object).await;
        let upload = self.last["uploadId"].clone();
        let (name, project) =
            (self.last["name"].as_str().unwrap().replace('/', "%2F"), &self.last["projectId"]);
        let begin = json!({
            "projectId": project, "uploadId": upload, "expires": self.last["expires"],
            "proposedUploadMethods": {"putUrl": {"contentType": TEXT, "contentLength": 5}},
        });
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let end = json!({"projectId": project, "uploadId": upload, "hashes": {"sha256": sha256}});
        let finish = json!({ "uploadId": upload });
        let wrong = json!({ "uploadId": TaskId::random().unwrap() });
        self.ask("createUpload", Root, &format!("PUT object/upload/{name}"), begin).await;
        let url = self.last["uploadMethod"]["putUrl"]["url"].as_str().unwrap().to_owned();
        self.ask("finishArtifact too early", Run, &format!("PUT {at}"), finish.clone()).await;
        assert_eq!(put(&url, TEXT, "hello").await, 200);
        self.ask("finishUpload", Root, &format!("POST object/finish-upload/{name}"), end).await;
        self.ask("finishArtifact of another", Run, &format!("PUT {at}"), wrong).await;
        self.ask("finishArtifact", Run, &format!("PUT {at}"), finish.clone()).await;
        self.ask("finishArtifact again", Run, &format!("PUT {at}"), finish.clone()).await;
        self.ask("finishArtifact of s3", Run, &format!("PUT {run}/artifacts/public%2Fs3"), finish.clone())
            .await;
        self.ask("finishArtifact of none", Run, &format!("PUT {run}/artifacts/none"), finish).await;
    }

    async fn look_at_artifacts(&mut self, task: &str, run: &str) {
        for (name, asked) in [
            ("listArtifacts", format!("GET {run}/artifacts")),
            ("listLatestArtifacts", format!("GET {task}/artifacts")),
            ("listArtifacts of another run", format!("GET {task}/runs/1/artifacts")),
            ("getArtifact s3", format!("GET {run}/artifacts/public/s3")),
            ("getArtifact link", format!("GET {run}/artifacts/public%2Flog")),
            ("getArtifact reference", format!("GET {run}/artifacts/public%2Freference")),
            ("getArtifact error", format!("GET {run}/artifacts/public%2Ferror")),
            ("getArtifact object", format!("GET {run}/artifacts/public%2Fobject")),
            ("getArtifact of a circle", format!("GET {run}/artifacts/public%2Floop")),
            ("getArtifact of none", format!("GET {run}/artifacts/public%2Fnone")),
            ("getArtifact private", format!("GET {run}/artifacts/private%2Fs3")),
            ("getLatestArtifact", format!("GET {task}/artifacts/public%2Fs3")),
            ("artifact s3", format!("GET {run}/artifact-content/public%2Fs3")),
            ("artifact link", format!("GET {run}/artifact-content/public%2Flog")),
            ("artifact reference", format!("GET {run}/artifact-content/public%2Freference")),
            ("artifact error", format!("GET {run}/artifact-content/public%2Ferror")),
            ("artifact of none", format!("GET {run}/artifact-content/public%2Fnone")),
            ("artifact private", format!("GET {run}/artifact-content/private%2Fs3")),
            ("latestArtifact", format!("GET {task}/artifact-content/public%2Fs3")),
        ] {
            self.ask(name, Nobody, &asked, Value::Null).await;
        }
        self.ask(
            "getArtifact private by root",
            Root,
            &format!("GET {run}/artifacts/private%2Fs3"),
            Value::Null,
        )
        .await;
    }

    async fn retry_and_cancel(&mut self) {
        let id = TaskId::random().unwrap();
        let task = format!("queue/task/{id}");
        self.ask("createTask to be retried", Root, &format!("PUT {task}"), definition(json!({}))).await;
        let claim = json!({"workerGroup": "g", "workerId": "w"});
        self.ask("claimTask", Root, &format!("POST {task}/runs/0/claim"), claim.clone()).await;
        let other = json!({"workerGroup": "g", "workerId": "other"});
        self.ask("claimTask of somebody's", Root, &format!("POST {task}/runs/0/claim"), other).await;
        self.ask("claimTask of another run", Root, &format!("POST {task}/runs/1/claim"), claim.clone()).await;
        let shutdown = json!({"reason": "worker-shutdown"});
        self.ask("reportException", Run, &format!("POST {task}/runs/0/exception"), shutdown.clone()).await;
        self.ask("reportException again", Run, &format!("POST {task}/runs/0/exception"), shutdown).await;
        self.ask("claimTask of the next run", Root, &format!("POST {task}/runs/1/claim"), claim).await;
        self.ask("cancelTask that runs", Root, &format!("POST {task}/cancel"), Value::Null).await;
        self.ask("reclaimTask that is cancelled", Run, &format!("POST {task}/runs/1/reclaim"), Value::Null)
            .await;
        self.ask(
            "reportCompleted that is cancelled",
            Run,
            &format!("POST {task}/runs/1/completed"),
            Value::Null,
        )
        .await;
        let s3 = json!({"storageType": "s3", "expires": from_now(60), "contentType": TEXT});
        self.ask("createArtifact that is cancelled", Run, &format!("POST {task}/runs/1/artifacts/log"), s3)
            .await;
    }

    async fn ask_other_services(&mut self) {
        let pool = POOL.replace('/', "%2F");
        let purge = json!({"cacheName": "script"});
        self.ask(
            "purgeCache by nobody",
            Nobody,
            &format!("POST purge-cache/purge-cache/{pool}"),
            purge.clone(),
        )
        .await;
        self.ask("purgeCache", Root, &format!("POST purge-cache/purge-cache/{pool}"), purge).await;
        // The real service keeps its answers for a while.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        self.ask("purgeRequests", Worker, &format!("GET purge-cache/purge-cache/{pool}"), Value::Null).await;
        self.ask(
            "purgeRequests elsewhere",
            Worker,
            "GET purge-cache/purge-cache/proj-x%2Fother",
            Value::Null,
        )
        .await;
        let scopes = json!({"scopes": ["b", "a:b", "a:*", "b"]});
        self.ask("expandScopes", Root, "POST auth/scopes/expand", scopes.clone()).await;
        self.ask("expandScopes by nobody", Nobody, "POST auth/scopes/expand", scopes).await;
    }
}

/// Takes out what differs each time; `known` are texts and what they are shown as.
fn normalise(value: &mut Value, known: &[(&str, &str)]) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let is_any = matches!(
                    key.as_str(),
                    "accessToken"
                        | "certificate"
                        | "message"
                        | "putUrl"
                        | "url"
                        | "uploadId"
                        | "uptime"
                        | "taskGroupId"
                        | "continuationToken"
                );
                if is_any && !member.is_null() {
                    *member = json!(format!("<{key}>"));
                } else {
                    normalise(member, known);
                }
            }
        }
        Value::Array(members) => members.iter_mut().for_each(|member| normalise(member, known)),
        Value::String(text) if Timestamp::parse(text).is_ok() => *text = "<time>".to_owned(),
        Value::String(text) => {
            *text = known.iter().fold(text.clone(), |text, (known, shown)| text.replace(known, shown));
            if TaskId::parse(text).is_ok() {
                *text = "<other>".to_owned();
            }
            if let Some(at) = text.find("/until/") {
                text.truncate(at + "/until/".len());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
