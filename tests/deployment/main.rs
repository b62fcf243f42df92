//! The worker's calls against a real deployment: `cargo test --test deployment` with the variables `TASKCLUSTER_ROOT_URL`,
//! `TASKCLUSTER_CLIENT_ID` and `TASKCLUSTER_ACCESS_TOKEN` of a client that may make and claim tasks of any pool of the
//! provisioner `proj-x`. It makes tasks in pools of its own.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../it/support/caller.rs"]
mod caller;
mod published;
mod recording;
#[path = "../it/script.rs"]
mod script;

/// What the script is written with.
mod support {
    pub use crate::caller::{Answered, Signer, call, put};
}

use std::time::{Duration, Instant};

use docker_worker::queue::artifact_name::ArtifactName;
use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{
    ArtifactContent, ArtifactRequest, Claim, Created, Credentials, ErrorReason, QueueError, Reason, Standing,
    Verdict, WorkerIdentity, WorkerQueue,
};
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};
use taskcluster::{ClientBuilder, Queue};

const TEXT: &str = "text/plain; charset=utf-8";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: this test needs a deployment"))
}

fn credentials() -> Credentials {
    Credentials {
        client_id: variable("TASKCLUSTER_CLIENT_ID"),
        access_token: variable("TASKCLUSTER_ACCESS_TOKEN"),
        certificate: None,
    }
}

/// A pool of its own, and both sides of its queue.
struct Deployment {
    author: Queue,
    queue: WorkerQueue,
    pool: String,
}

impl Deployment {
    fn new() -> Deployment {
        let root_url = variable("TASKCLUSTER_ROOT_URL");
        let own = taskcluster::Credentials {
            client_id: variable("TASKCLUSTER_CLIENT_ID"),
            access_token: variable("TASKCLUSTER_ACCESS_TOKEN"),
            certificate: None,
        };
        let random = TaskId::random().unwrap().as_str().replace('_', "-").to_lowercase();
        Deployment {
            author: Queue::new(ClientBuilder::new(&root_url).credentials(own)).unwrap(),
            queue: WorkerQueue::deployment(&root_url, credentials()).unwrap(),
            pool: format!("proj-x/w{random}x"),
        }
    }

    async fn create(&self) -> TaskId {
        let task_id = TaskId::random().unwrap();
        let now = Timestamp::now();
        let task = json!({
            "taskQueueId": self.pool,
            "created": now,
            "deadline": now.plus(Duration::from_secs(3600)),
            "expires": now.plus(Duration::from_secs(7200)),
            "payload": { "image": "busybox", "maxRunTime": 60, "odd": [1.0, {"z": 1, "a": 2}] },
            "metadata": {
                "name": "n", "description": "d", "owner": "nobody@example.com", "source": "https://example.com/"
            },
        });
        self.author.createTask(task_id.as_str(), &task).await.unwrap();
        task_id
    }

    async fn claim(&self) -> Vec<Claim> {
        let worker = WorkerIdentity { worker_group: "group".to_owned(), worker_id: "worker".to_owned() };
        let work = self.queue.claim_work(&self.pool, &worker, 4).await.unwrap();
        assert!(work.unreadable.is_empty(), "{:?}", work.unreadable);
        work.claims
    }

    async fn claimed(&self) -> Claim {
        let task_id = self.create().await;
        let claim = self.claim().await.remove(0);
        assert_eq!((&claim.queue.run().task_id, claim.queue.run().run_id), (&task_id, 0));
        claim
    }

    async fn status(&self, claim: &Claim) -> Value {
        self.author.status(claim.queue.run().task_id.as_str()).await.unwrap()["status"].clone()
    }
}

fn artifact(name: &str) -> ArtifactName {
    ArtifactName::new(name).unwrap()
}

fn request(content: ArtifactContent) -> ArtifactRequest {
    ArtifactRequest { expires: Timestamp::now().plus(Duration::from_secs(600)), content }
}

#[tokio::test]
async fn a_task_goes_from_its_claim_to_its_resolution() {
    let deployment = Deployment::new();
    let claim = deployment.claimed().await;
    let task: Value = serde_json::from_str(claim.definition.text()).unwrap();
    assert_eq!(task["payload"]["odd"], json!([1, {"z": 1, "a": 2}]));
    assert_eq!(claim.definition.read().unwrap().payload["image"], "busybox");
    assert!(claim.taken_until > claim.queue.now());
    assert_eq!(claim.queue.status().await.unwrap(), Standing::Open);

    let mut credentials = claim.queue.credentials().unwrap();
    let first = credentials.borrow_and_update().clone();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let until = claim.queue.reclaim().await.unwrap();
    assert!(until > claim.taken_until);
    assert!(credentials.has_changed().unwrap());
    assert_ne!(*credentials.borrow(), first);

    for _ in 0..2 {
        claim.queue.report(Verdict::Completed).await.unwrap();
    }
    assert_eq!(claim.queue.status().await.unwrap(), Standing::Resolved(Verdict::Completed));
    assert!(matches!(claim.queue.report(Verdict::Failed).await, Err(QueueError::Conflict { .. })));
    assert!(matches!(claim.queue.reclaim().await, Err(QueueError::Conflict { .. })));
}

#[tokio::test]
async fn each_verdict_is_what_the_queue_shows_and_may_be_said_twice() {
    let deployment = Deployment::new();
    let reasons = [
        Reason::MalformedPayload,
        Reason::WorkerShutdown,
        Reason::InternalError,
        Reason::ResourceUnavailable,
        Reason::IntermittentTask,
    ];
    for verdict in reasons.map(Verdict::Exception).into_iter().chain([Verdict::Failed]) {
        let claim = deployment.claimed().await;
        for _ in 0..2 {
            claim.queue.report(verdict).await.unwrap();
        }
        assert_eq!(deployment.status(&claim).await["runs"][0]["reasonResolved"], verdict.as_str());
        if deployment.status(&claim).await["state"] == "pending" {
            deployment.claim().await[0].queue.report(Verdict::Failed).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_cancelled_run_is_noticed_and_takes_its_log() {
    let deployment = Deployment::new();
    let claim = deployment.claimed().await;
    deployment.author.cancelTask(claim.queue.run().task_id.as_str()).await.unwrap();
    let canceled = Verdict::Exception(Reason::Canceled);
    assert_eq!(claim.queue.status().await.unwrap(), Standing::Resolved(canceled));
    assert!(matches!(claim.queue.reclaim().await, Err(QueueError::Conflict { .. })));
    let log = request(ArtifactContent::S3 { content_type: TEXT.to_owned() });
    let created = claim.queue.create_artifact(&artifact("public/logs/live_backing.log"), &log).await.unwrap();
    assert!(matches!(created, Created::Put(_)));
}

#[tokio::test]
async fn artifacts_of_every_kind_are_listed() {
    let deployment = Deployment::new();
    let claim = deployment.claimed().await;
    let text = || TEXT.to_owned();
    let s3 = ArtifactContent::S3 { content_type: text() };
    let created =
        claim.queue.create_artifact(&artifact("public/a b/1?#%25.log"), &request(s3)).await.unwrap();
    let Created::Put(target) = created else { panic!("{created:?}") };
    assert!(target.url.starts_with("http") && target.until > Timestamp::now());
    let others = [
        (
            "public/logs/live.log",
            ArtifactContent::Reference { url: "http://x/".to_owned(), content_type: text() },
        ),
        (
            "public/logs/live.log",
            ArtifactContent::Link { artifact: artifact("public/a b/1?#%25.log"), content_type: text() },
        ),
        (
            "public/missing",
            ArtifactContent::Error {
                reason: ErrorReason::FileMissingOnWorker,
                message: "not there".to_owned(),
            },
        ),
    ];
    for (name, content) in others {
        let created = claim.queue.create_artifact(&artifact(name), &request(content)).await.unwrap();
        assert!(matches!(created, Created::Done), "{name}: {created:?}");
    }
    let task_id = &claim.queue.run().task_id;
    let list = deployment.author.listLatestArtifacts(task_id.as_str(), None, None).await.unwrap();
    let mut found: Vec<(String, String)> = Vec::new();
    for artifact in list["artifacts"].as_array().unwrap() {
        found.push((
            artifact["name"].as_str().unwrap().into(),
            artifact["storageType"].as_str().unwrap().into(),
        ));
    }
    found.sort();
    let expected =
        [("public/a b/1?#%25.log", "s3"), ("public/logs/live.log", "link"), ("public/missing", "error")];
    assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    let late = ArtifactRequest {
        expires: claim.expires.plus(Duration::from_secs(1)),
        ..request(ArtifactContent::S3 { content_type: text() })
    };
    let refused = claim.queue.create_artifact(&artifact("late"), &late).await;
    assert!(matches!(refused, Err(QueueError::Invalid { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_object_is_given_a_place_and_finished() {
    let deployment = Deployment::new();
    let claim = deployment.claimed().await;
    let object = request(ArtifactContent::Object { content_type: TEXT.to_owned() });
    let created = claim.queue.create_artifact(&artifact("public/o"), &object).await.unwrap();
    let Created::Object(upload) = created else { panic!("{created:?}") };
    let target = upload.begin(TEXT, 5).await.unwrap().unwrap();
    assert!(!target.headers.is_empty(), "{:?}", target.headers);
    let refused =
        claim.queue.finish_artifact(&artifact("public/o"), TaskId::random().unwrap().as_str()).await;
    assert!(refused.is_err());
    println!("{refused:?}");
}

#[tokio::test]
async fn nothing_pending_is_an_answer_after_a_while() {
    let deployment = Deployment::new();
    let begin = Instant::now();
    assert!(deployment.claim().await.is_empty());
    assert!(begin.elapsed() > Duration::from_secs(10));
    assert_eq!(deployment.queue.clock_skew(), None);
}

#[tokio::test]
async fn what_the_worker_asks_other_services_is_answered() {
    let deployment = Deployment::new();
    assert!(deployment.queue.purge_requests(&deployment.pool).await.unwrap().is_empty());
    let scopes = deployment.queue.expand_scopes(&["a:b".to_owned()]).await.unwrap();
    assert_eq!(scopes, ["a:b"]);
}

#[tokio::test]
async fn credentials_that_are_none_are_said_to_be() {
    let deployment = Deployment::new();
    let wrong = Credentials { access_token: "wrong".to_owned(), ..credentials() };
    deployment.queue.replace_credentials(wrong);
    let error = deployment.queue.expand_scopes(&[]).await.unwrap_err();
    assert!(matches!(error, QueueError::Unauthenticated { .. }), "{error:?}");
    println!("{error}");
    deployment.queue.replace_credentials(credentials());
    deployment.queue.expand_scopes(&[]).await.unwrap();
}

#[tokio::test]
async fn a_deployment_that_is_not_there_is_unreachable() {
    let queue = WorkerQueue::deployment("http://127.0.0.1:1", credentials()).unwrap();
    let begin = Instant::now();
    let error = queue.expand_scopes(&[]).await.unwrap_err();
    assert!(matches!(error, QueueError::Unreachable { .. }), "{error:?}");
    assert!((Duration::from_secs(3)..Duration::from_secs(12)).contains(&begin.elapsed()));
    for no_url in ["", "nowhere", "http://"] {
        let error = WorkerQueue::deployment(no_url, credentials()).unwrap_err();
        assert!(matches!(error, QueueError::Internal { .. }), "{error:?}");
    }
}
