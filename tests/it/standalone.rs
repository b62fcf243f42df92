//! The embedded queue behind its HTTP API: who is let in, what is refused, what a caller who goes leaves.

use std::time::Duration;

use docker_worker::queue::{QueueError, RunState, WorkerIdentity};
use serde_json::json;

use crate::support::{Deployment, POOL, Terms};

fn worker() -> WorkerIdentity {
    WorkerIdentity { worker_group: "tests".to_owned(), worker_id: "worker".to_owned() }
}

#[test]
fn s_a_worker_is_who_it_says_and_claims_where_it_may() {
    let deployment = Deployment::start(Terms { long_poll: Duration::ZERO, ..Terms::default() });
    let (right, wrong) = (deployment.seen(), deployment.seen_with("guessed"));
    deployment.within(async move {
        assert!(right.claim_work(POOL, &worker(), 1).await.unwrap().claims.is_empty());
        for refused in
            [wrong.claim_work(POOL, &worker(), 1).await, right.claim_work("other/pool", &worker(), 1).await]
        {
            assert!(matches!(refused, Err(QueueError::Unauthorized { .. })), "{refused:?}");
        }
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
