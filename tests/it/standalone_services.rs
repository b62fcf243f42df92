//! What the embedded queue has of other services than the queue's: the index, secrets.

use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Verdict, WorkerIdentity};
use serde_json::{Value, json};

use crate::support::{Answered, Deployment, POOL, Signer, Terms, call};

fn start() -> Deployment {
    Deployment::start(Terms { long_poll: Duration::ZERO, ..Terms::default() })
}

fn asked(deployment: &Deployment, signer: Option<Signer>, request: &str, payload: Value) -> Answered {
    let (root_url, request) = (deployment.root_url.clone(), request.to_owned());
    deployment.within(async move { call(&root_url, signer.as_ref(), &request, &payload).await })
}

/// Makes a task with these members and has a worker complete it.
fn complete(deployment: &Deployment, more: &Value) -> TaskId {
    let mut definition = deployment.definition(&json!({}));
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let task_id = deployment.create_task(definition);
    let queue = deployment.seen();
    deployment.within(async move {
        let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        let claim = queue.claim_work(POOL, &worker, 1).await.unwrap().claims.remove(0);
        claim.queue.report(Verdict::Completed).await.unwrap();
    });
    task_id
}

#[test]
fn a_completed_task_has_the_names_that_its_routes_ask_for() {
    let deployment = start();
    let find = |path: &str| asked(&deployment, None, &format!("GET index/task/{path}"), Value::Null);
    assert_eq!(find("x.latest").status, 404);
    let routes = json!(["index.x.latest", "index.x.latest.all", "index.not/a.name", "other.x.latest"]);
    let extra = json!({ "index": { "rank": 5, "data": { "of": "first" } } });
    let first = complete(&deployment, &json!({ "routes": routes, "extra": extra }));
    let found = find("x.latest").body;
    let expires = deployment.definition(&json!({}))["expires"].as_str().unwrap()[..10].to_owned();
    assert_eq!((&found["namespace"], &found["taskId"]), (&json!("x.latest"), &json!(first)));
    assert_eq!((&found["rank"], &found["data"]), (&json!(5), &json!({ "of": "first" })));
    assert!(found["expires"].as_str().unwrap().starts_with(&expires), "{found}");
    assert_eq!(find("x.latest.all").body["taskId"], json!(first));
    // A lower rank does not take a name away, a higher one does.
    complete(&deployment, &json!({ "routes": ["index.x.latest"] }));
    assert_eq!(find("x.latest").body["taskId"], json!(first));
    let extra = json!({ "index": { "rank": 6 } });
    let third = complete(&deployment, &json!({ "routes": ["index.x.latest"], "extra": extra }));
    assert_eq!(find("x.latest").body["taskId"], json!(third));
    let extra = json!({ "index": { "rank": "high" } });
    complete(&deployment, &json!({ "routes": ["index.y"], "extra": extra }));
    assert_eq!(find("y").status, 404);
}

#[test]
fn a_task_is_put_under_a_name_by_those_who_may() {
    let deployment = start();
    let (root, worker) = (deployment.signer("root"), deployment.signer("worker"));
    let task_id = TaskId::random().unwrap();
    let entry = |rank: Value, expires: &str| json!({ "taskId": task_id, "rank": rank, "data": {}, "expires": expires });
    let (later, past) = ("2999-01-01T00:00:00.000Z", "2001-01-01T00:00:00.000Z");
    let put = |signer: &Signer, path: &str, payload: Value| {
        asked(&deployment, Some(signer.clone()), &format!("PUT index/task/{path}"), payload)
    };
    for (signer, path, payload, status) in [
        (&root, "a.b", entry(json!(1.5), later), 200),
        (&worker, "a.b", entry(json!(1.5), later), 403),
        (&root, "a%2Fb", entry(json!(1.5), later), 400),
        (&root, "a..b", entry(json!(1.5), later), 400),
        (&root, "a.b", entry(json!("1"), later), 400),
        (&root, "a.b", json!({}), 400),
        (&root, "old", entry(json!(0), past), 200),
    ] {
        let answered = put(signer, path, payload.clone());
        assert_eq!(answered.status, status, "{path} {payload}: {answered:?}");
    }
    let find = |path: &str| asked(&deployment, None, &format!("GET index/task/{path}"), Value::Null);
    let expected =
        json!({ "namespace": "a.b", "taskId": task_id, "rank": 1.5, "data": {}, "expires": later });
    assert_eq!((find("a.b").body, find("old").status), (expected, 404));
}

#[test]
fn a_secret_is_read_by_those_who_may_and_shown_to_nobody_else() {
    let deployment = start();
    let (root, worker) = (deployment.signer("root"), deployment.signer("worker"));
    let asked = |signer: Option<&Signer>, request: &str, payload: Value| {
        asked(&deployment, signer.cloned(), request, payload)
    };
    let value = json!({ "secret": { "password": "hush" }, "expires": "2999-01-01T00:00:00.000Z" });
    let name = "secret/project%2Fx/deploy";
    assert_eq!(asked(Some(&root), &format!("PUT secrets/{name}"), value.clone()).body, json!({}));
    assert_eq!(asked(Some(&root), &format!("GET secrets/{name}"), Value::Null).body, value);
    let listed = asked(Some(&root), "GET secrets/secrets?limit=1", Value::Null).body;
    assert_eq!(listed, json!({ "secrets": ["project/x/deploy"] }));
    assert_eq!(asked(Some(&worker), "GET secrets/secrets", Value::Null).status, 403);
    for (signer, request, payload, status) in [
        (None, "GET", Value::Null, 403),
        (Some(&worker), "GET", Value::Null, 403),
        (Some(&worker), "PUT", value.clone(), 403),
        (Some(&root), "PUT", json!({ "secret": "hush", "expires": "never" }), 400),
        (Some(&worker), "DELETE", Value::Null, 403),
        (Some(&root), "DELETE", Value::Null, 200),
        (Some(&root), "DELETE", Value::Null, 200),
        (Some(&root), "GET", Value::Null, 404),
    ] {
        let answered = asked(signer, &format!("{request} secrets/{name}"), payload);
        assert_eq!(answered.status, status, "{request}: {answered:?}");
        assert!(!answered.body.to_string().contains("hush"), "{request}: {answered:?}");
    }
}
