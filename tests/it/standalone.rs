//! The embedded queue behind its HTTP API: who is let in, what is refused, what a caller who goes leaves.

use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{QueueError, RunState, Verdict, WorkerIdentity};
use serde_json::json;

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
