//! The embedded queue behind its HTTP API: who is let in, what is refused, what a caller who goes leaves.

use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{QueueError, RunState, Verdict, WorkerIdentity};
use serde_json::{Value, json};

use crate::support::{Deployment, POOL, Signer, Terms, call, call_signed_for};

fn worker() -> WorkerIdentity {
    WorkerIdentity { worker_group: "tests".to_owned(), worker_id: "worker".to_owned() }
}

#[test]
fn a_worker_is_who_it_says_and_claims_where_it_may() {
    let deployment = Deployment::start(Terms { long_poll: Duration::ZERO, ..Terms::default() });
    let (right, wrong) = (deployment.seen(), deployment.seen_with("guessed"));
    deployment.within(async move {
        assert!(right.claim_work(POOL, &worker(), 1).await.unwrap().claims.is_empty());
        let refused = wrong.claim_work(POOL, &worker(), 1).await;
        assert!(matches!(refused, Err(QueueError::Unauthenticated { .. })), "{refused:?}");
        let refused = right.claim_work("other/pool", &worker(), 1).await;
        assert!(matches!(refused, Err(QueueError::Unauthorized { .. })), "{refused:?}");
        let group = "not a group".to_owned();
        let refused = right.claim_work(POOL, &WorkerIdentity { worker_group: group, ..worker() }, 1).await;
        assert!(matches!(refused, Err(QueueError::Invalid { .. })), "{refused:?}");
    });
}

#[test]
fn a_request_for_tasks_waits_for_one_and_gets_none_when_its_caller_has_gone() {
    let deployment = Deployment::start(Terms::default());
    let gone = deployment.seen();
    deployment.within(async move {
        let request = async { gone.claim_work(POOL, &worker(), 1).await };
        assert!(tokio::time::timeout(Duration::from_secs(2), request).await.is_err());
    });
    let task = deployment.create(&json!({}));
    assert_eq!(deployment.status(&task).state, RunState::Pending);
    let next = deployment.seen();
    let claims =
        deployment.within(async move { next.claim_work(POOL, &worker(), 1).await.unwrap().claims.len() });
    assert_eq!((claims, deployment.status(&task).state), (1, RunState::Running));
}

/// What is answered to whoever makes a task whose payload has so many bytes.
fn make(deployment: &Deployment, signer: Option<Signer>, bytes: usize) -> (u16, String) {
    let definition = deployment.definition(&json!({ "filling": "x".repeat(bytes) }));
    let (root_url, task_id) = (deployment.root_url.clone(), TaskId::random().unwrap());
    let asked = format!("PUT queue/task/{task_id}");
    let answered =
        deployment.within(async move { call(&root_url, signer.as_ref(), &asked, &definition).await });
    (answered.status, answered.body["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn only_who_has_signed_may_send_much_and_nobody_more_than_the_real_queue_takes() {
    let deployment = Deployment::start(Terms::default());
    let (root, small, large) = (deployment.signer("root"), 10 << 10, 9 << 20);
    let liar = Signer { access_token: "guessed".to_owned(), ..root.clone() };
    let refused = |status, code: &str| (status, code.to_owned());
    for (signer, bytes, expected) in [
        (Some(root.clone()), large, refused(200, "")),
        (Some(root), 10 << 20, refused(413, "InputTooLarge")),
        (Some(liar.clone()), small, refused(401, "AuthenticationFailed")),
        (Some(liar), large, refused(413, "InputTooLarge")),
        (None, small, refused(403, "InsufficientScopes")),
        (None, large, refused(413, "InputTooLarge")),
    ] {
        assert_eq!(make(&deployment, signer.clone(), bytes), expected, "{signer:?} {bytes}");
    }
}

#[test]
fn a_payload_that_was_not_signed_is_refused() {
    let deployment = Deployment::start(Terms { long_poll: Duration::ZERO, ..Terms::default() });
    let (root_url, signer) = (deployment.root_url.clone(), deployment.signer("worker"));
    let asked = format!("POST queue/claim-work/{}", POOL.replace('/', "%2F"));
    let claim = |tasks: u32| json!({ "workerGroup": "g", "workerId": "w", "tasks": tasks });
    let statuses = deployment.within(async move {
        let call = async |sent: u32, signed: u32| {
            call_signed_for(&root_url, Some(&signer), &asked, &claim(sent), &claim(signed)).await.status
        };
        [call(1, 1).await, call(2, 1).await]
    });
    assert_eq!(statuses, [200, 401]);
}

#[test]
fn a_task_has_as_many_scopes_as_the_credentials_of_its_worker_hold() {
    let deployment = Deployment::start(Terms { long_poll: Duration::ZERO, ..Terms::default() });
    // As JSON a byte for each of the quotes and the comma more.
    let scopes = |bytes: usize| vec!["s".repeat(125); bytes / 128];
    let (root_url, root) = (deployment.root_url.clone(), deployment.signer("root"));
    let mut too_many = deployment.definition(&json!({}));
    too_many["scopes"] = json!(scopes((32 << 10) + 128));
    let refused = deployment.within(async move {
        let asked = format!("PUT queue/task/{}", TaskId::random().unwrap());
        call(&root_url, Some(&root), &asked, &too_many).await
    });
    assert_eq!((refused.status, &refused.body["code"]), (400, &json!("InputError")));
    let mut enough = deployment.definition(&json!({}));
    enough["scopes"] = json!(scopes(32 << 10));
    let task = deployment.create_task(enough);
    let queue = deployment.seen();
    deployment.within(async move {
        let claim = queue.claim_work(POOL, &worker(), 1).await.unwrap().claims.remove(0);
        claim.queue.reclaim().await.unwrap();
        claim.queue.report(Verdict::Completed).await.unwrap();
    });
    assert_eq!(deployment.status(&task).state, RunState::Completed);
}

/// What is answered to a caller.
fn asked(deployment: &Deployment, signer: Option<&Signer>, request: &str, payload: &Value) -> (u16, Value) {
    let (root_url, signer, request) = (deployment.root_url.clone(), signer.cloned(), request.to_owned());
    let payload = payload.clone();
    let answered =
        deployment.within(async move { call(&root_url, signer.as_ref(), &request, &payload).await });
    (answered.status, answered.body)
}

#[test]
fn many_tasks_are_looked_at_in_one_call_and_those_that_there_are_not_are_left_out() {
    let deployment = Deployment::start(Terms { long_poll: Duration::ZERO, ..Terms::default() });
    let mut ids = [(); 3].map(|()| deployment.create(&json!({})));
    ids.sort();
    let named = json!({ "taskIds": [ids[1], ids[0], TaskId::random().unwrap(), ids[2], ids[2], "no id"] });
    for (request, list, member) in
        [("POST queue/tasks", "tasks", "task"), ("POST queue/tasks/status", "statuses", "status")]
    {
        let (status, first) = asked(&deployment, None, request, &named);
        let found: Vec<_> = first[list].as_array().unwrap().iter().map(|it| it["taskId"].clone()).collect();
        assert_eq!((status, json!(found)), (200, json!(ids)), "{first}");
        assert_eq!(first[list][0][member]["taskQueueId"], POOL, "{first}");
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let (_, page) = asked(&deployment, None, &format!("{request}?limit=1{token}"), &named);
            found.extend(page[list].as_array().unwrap().iter().map(|it| it["taskId"].clone()));
            let Some(next) = page["continuationToken"].as_str() else { break };
            token = format!("&continuationToken={next}");
        }
        assert_eq!(json!(found), json!(ids));
        assert_eq!(asked(&deployment, None, request, &json!({})), (200, json!({ list: [] })));
        let worker = deployment.signer("worker");
        assert_eq!(asked(&deployment, Some(&worker), request, &json!({ "taskIds": "all" })).0, 400);
    }
}

#[test]
fn the_priority_of_tasks_is_changed_by_those_who_may_until_they_are_resolved() {
    let deployment = Deployment::start(Terms { long_poll: Duration::ZERO, ..Terms::default() });
    let (root, other) = (deployment.signer("root"), deployment.signer("worker"));
    let ids = [(); 2].map(|()| deployment.create(&json!({})));
    let high = json!({ "newPriority": "high" });
    let change = format!("POST queue/task/{}/priority", ids[1]);
    for (signer, payload, status) in [
        (&other, high.clone(), 403),
        (&root, json!({ "newPriority": "urgent" }), 400),
        (&root, high.clone(), 200),
        (&root, high.clone(), 409),
    ] {
        let answered = asked(&deployment, Some(signer), &change, &payload);
        assert_eq!(answered.0, status, "{payload}: {answered:?}");
    }
    let absent = format!("POST queue/task/{}/priority", TaskId::random().unwrap());
    assert_eq!(asked(&deployment, Some(&root), &absent, &high).0, 404);
    let (_, task) = asked(&deployment, None, &format!("GET queue/task/{}", ids[1]), &Value::Null);
    assert_eq!(task["priority"], "high");
    let group = task["taskGroupId"].as_str().unwrap();
    let change = format!("POST queue/task-group/{group}/priority");
    let low = json!({ "newPriority": "low" });
    assert_eq!(asked(&deployment, Some(&other), &change, &low).0, 403);
    let expected = |changed: &[&TaskId]| {
        json!({
            "taskGroupId": group, "schedulerId": "-", "newPriority": "low",
            "tasksAffected": changed.len(), "taskIds": changed,
        })
    };
    for changed in [&[&ids[1]][..], &[]] {
        assert_eq!(asked(&deployment, Some(&root), &change, &low), (200, expected(changed)));
    }
    let queue = deployment.seen();
    let first = deployment.within(async move {
        queue.claim_work(POOL, &worker(), 1).await.unwrap().claims.remove(0).queue.run().task_id.clone()
    });
    assert_eq!(first, ids[1]);
}
