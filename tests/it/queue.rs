//! What every queue must do, asked through the two handles that the worker knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use docker_worker::queue::artifact_name::ArtifactName;
use docker_worker::queue::definition::{Priority, Submission, TaskDefinition};
use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{
    ArtifactContent, ArtifactRequest, Claim, Created, EmbeddedQueue, ErrorReason, QueueError, Reason, RunId,
    RunQueue, RunState, Standing, StorageType, Verdict, WorkerIdentity, WorkerQueue,
};
use docker_worker::timestamp::Timestamp;

const TASK_QUEUE: &str = "local/docker-worker";
const TEXT: &str = "text/plain; charset=utf-8";

/// A queue and the hand on its clock.
struct Fixture {
    /// The side of whoever makes tasks.
    author: EmbeddedQueue,
    /// The worker's side.
    queue: WorkerQueue,
    millis: Arc<AtomicI64>,
}

impl Fixture {
    fn new() -> Fixture {
        let millis = Arc::new(AtomicI64::new(1_800_000_000_000));
        let clock = Arc::clone(&millis);
        let author =
            EmbeddedQueue::in_memory(Box::new(move || Timestamp::from_millis(clock.load(Ordering::Relaxed))));
        let author = author.unwrap();
        Fixture { queue: WorkerQueue::embedded(author.clone()), author, millis }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::Relaxed))
    }

    fn pass(&self, time: Duration) {
        self.millis.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    fn task(&self, task_id: &TaskId) -> TaskDefinition {
        let submission = Submission::parse(b"{\"image\": \"busybox\", \"maxRunTime\": 60}").unwrap();
        submission.into_task(task_id, self.now()).unwrap().definition
    }

    async fn claim(&self, most: usize) -> Vec<Claim> {
        self.queue.claim_work(TASK_QUEUE, &worker(), most).await.unwrap().claims
    }

    /// A task that this worker has claimed.
    async fn claimed(&self) -> RunQueue {
        let task_id = TaskId::random().unwrap();
        self.author.create_task(&task_id, &self.task(&task_id)).await.unwrap();
        let claim = self.claim(1).await.remove(0);
        assert_eq!(*claim.queue.run(), RunId { task_id, run_id: 0 });
        claim.queue
    }

    async fn create(
        &self,
        run: &RunQueue,
        name: &str,
        content: ArtifactContent,
    ) -> Result<Created, QueueError> {
        let request = ArtifactRequest { expires: self.now().plus(Duration::from_secs(3600)), content };
        run.create_artifact(&artifact(name), &request).await
    }

    async fn names(&self, run: &RunQueue) -> Vec<String> {
        let list = self.author.list_artifacts(run.run()).await.unwrap();
        list.iter().map(|artifact| artifact.name.as_str().to_owned()).collect()
    }
}

fn worker() -> WorkerIdentity {
    WorkerIdentity { worker_group: "group".to_owned(), worker_id: "worker".to_owned() }
}

fn artifact(name: &str) -> ArtifactName {
    ArtifactName::new(name).unwrap()
}

fn s3() -> ArtifactContent {
    ArtifactContent::S3 { content_type: TEXT.to_owned() }
}

fn is_conflict<T>(result: Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::Conflict { .. }))
}

fn is_invalid<T>(result: Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::Invalid { .. }))
}

fn is_not_found<T>(result: Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::NotFound { .. }))
}

#[tokio::test]
async fn a_task_goes_from_its_definition_to_its_resolution() {
    let fixture = Fixture::new();
    let task_id = TaskId::random().unwrap();
    let task = fixture.task(&task_id);
    let created = fixture.author.create_task(&task_id, &task).await.unwrap();
    assert_eq!((created.state, created.runs.len()), (RunState::Pending, 1));

    let claims = fixture.claim(5).await;
    assert_eq!(claims.len(), 1);
    let claim = &claims[0];
    assert_eq!(serde_json::from_str::<TaskDefinition>(claim.definition.text()).unwrap(), task);
    assert_eq!(claim.queue.status().await.unwrap(), Standing::Open);
    assert_eq!(fixture.author.status(&task_id).await.unwrap().runs[0].worker, Some(worker()));
    assert!(claim.taken_until > fixture.now());
    assert!(fixture.claim(5).await.is_empty());

    fixture.pass(Duration::from_secs(600));
    assert!(claim.queue.reclaim().await.unwrap() > claim.taken_until);
    claim.queue.report(Verdict::Completed).await.unwrap();
    assert_eq!(fixture.author.status(&task_id).await.unwrap().state, RunState::Completed);
    assert_eq!(claim.queue.status().await.unwrap(), Standing::Resolved(Verdict::Completed));
    assert!(is_conflict(claim.queue.reclaim().await));
}

#[tokio::test]
async fn creating_a_task_twice_changes_nothing_unless_the_definition_differs() {
    let fixture = Fixture::new();
    let task_id = TaskId::random().unwrap();
    let task = fixture.task(&task_id);
    let first = fixture.author.create_task(&task_id, &task).await.unwrap();
    assert_eq!(fixture.author.create_task(&task_id, &task).await.unwrap(), first);
    let other = TaskDefinition { priority: Priority::High, ..task };
    assert!(is_conflict(fixture.author.create_task(&task_id, &other).await));
}

#[tokio::test]
async fn times_that_do_not_fit_together_are_refused() {
    let fixture = Fixture::new();
    let task_id = TaskId::random().unwrap();
    let task = fixture.task(&task_id);
    let now = fixture.now();
    let day = Duration::from_secs(24 * 60 * 60);
    let cases = [
        TaskDefinition { deadline: task.created, ..task.clone() },
        TaskDefinition { created: Timestamp::from_millis(0), deadline: now, ..task.clone() },
        TaskDefinition { deadline: now.plus(day * 6), ..task.clone() },
        TaskDefinition { expires: task.deadline, ..task.clone() },
    ];
    for task in cases {
        assert!(is_invalid(fixture.author.create_task(&task_id, &task).await), "{task:?}");
    }
    assert!(is_not_found(fixture.author.status(&task_id).await));
}

#[tokio::test]
async fn the_most_urgent_task_is_claimed_first_then_the_oldest() {
    let fixture = Fixture::new();
    let mut ids = Vec::new();
    for priority in [Priority::Low, Priority::Highest, Priority::Low, Priority::Lowest] {
        let task_id = TaskId::random().unwrap();
        let task = TaskDefinition { priority, ..fixture.task(&task_id) };
        fixture.author.create_task(&task_id, &task).await.unwrap();
        fixture.pass(Duration::from_millis(1));
        ids.push(task_id);
    }
    let elsewhere = TaskId::random().unwrap();
    let task = TaskDefinition { task_queue_id: "other/queue".to_owned(), ..fixture.task(&elsewhere) };
    fixture.author.create_task(&elsewhere, &task).await.unwrap();

    let mut order = Vec::new();
    for most in [1, 2, 9] {
        let claims = fixture.claim(most).await;
        assert!(claims.len() <= most);
        order.extend(claims.into_iter().map(|claim| claim.queue.run().task_id.clone()));
    }
    assert_eq!(order, [&ids[1], &ids[0], &ids[2], &ids[3]].map(Clone::clone));
}

#[tokio::test]
async fn a_worker_that_stops_hands_its_task_to_the_next() {
    let fixture = Fixture::new();
    let run = fixture.claimed().await;
    run.report(Verdict::Exception(Reason::WorkerShutdown)).await.unwrap();
    let claims = fixture.claim(1).await;
    assert_eq!(*claims[0].queue.run(), RunId { run_id: 1, ..run.run().clone() });
}

#[tokio::test]
async fn a_claim_that_is_forgotten_goes_to_the_next_worker() {
    let fixture = Fixture::new();
    let run = fixture.claimed().await;
    fixture.pass(Duration::from_secs(20 * 60));
    assert!(is_conflict(run.report(Verdict::Completed).await));
    let claims = fixture.claim(1).await;
    assert_eq!(claims[0].queue.run().run_id, 1);
    let status = fixture.author.status(&run.run().task_id).await.unwrap();
    assert_eq!(status.runs[0].reason_resolved, Some(Verdict::Exception(Reason::ClaimExpired)));
}

#[tokio::test]
async fn a_cancelled_run_is_lost_to_its_worker_but_takes_its_log() {
    let fixture = Fixture::new();
    let run = fixture.claimed().await;
    let status = fixture.author.cancel_task(&run.run().task_id).await.unwrap();
    assert_eq!(status.runs[0].reason_resolved, Some(Verdict::Exception(Reason::Canceled)));
    assert!(is_conflict(run.reclaim().await));
    assert!(is_conflict(run.report(Verdict::Failed).await));
    let created = fixture.create(&run, "public/logs/live_backing.log", s3()).await.unwrap();
    assert!(matches!(created, Created::KeepBytes));
    fixture.pass(Duration::from_secs(26 * 60));
    assert!(is_conflict(fixture.create(&run, "late", s3()).await));
}

#[tokio::test]
async fn only_the_queue_says_that_a_task_was_cancelled() {
    let fixture = Fixture::new();
    let run = fixture.claimed().await;
    for reason in [Reason::Canceled, Reason::DeadlineExceeded] {
        assert!(is_invalid(run.report(Verdict::Exception(reason)).await), "{reason:?}");
    }
    assert_eq!(fixture.author.status(&run.run().task_id).await.unwrap().state, RunState::Running);
}

#[tokio::test]
async fn artifacts_of_every_kind_are_listed_by_name() {
    let fixture = Fixture::new();
    let run = fixture.claimed().await;
    let reference =
        ArtifactContent::Reference { url: "http://x/log".to_owned(), content_type: TEXT.to_owned() };
    let link = ArtifactContent::Link { artifact: artifact("d"), content_type: TEXT.to_owned() };
    let error =
        ArtifactContent::Error { reason: ErrorReason::FileMissingOnWorker, message: "not there".to_owned() };
    for (name, content) in [("d", s3()), ("c", reference), ("b", link), ("a", error)] {
        let created = fixture.create(&run, name, content).await.unwrap();
        let has_bytes = matches!(created, Created::KeepBytes);
        assert_eq!(has_bytes, name == "d", "{name}: {created:?}");
    }
    let list = fixture.author.list_artifacts(run.run()).await.unwrap();
    let found: Vec<_> = list.iter().map(|artifact| (artifact.name.as_str(), artifact.storage_type)).collect();
    let expected = [
        ("a", StorageType::Error),
        ("b", StorageType::Link),
        ("c", StorageType::Reference),
        ("d", StorageType::S3),
    ];
    assert_eq!(found, expected);
    assert_eq!(list[3].content_type, TEXT);
}

#[tokio::test]
async fn a_live_log_becomes_a_link_and_stays_one() {
    let fixture = Fixture::new();
    let run = fixture.claimed().await;
    let live = "public/logs/live.log";
    let reference =
        |url: &str| ArtifactContent::Reference { url: url.to_owned(), content_type: TEXT.to_owned() };
    let link = ArtifactContent::Link {
        artifact: artifact("public/logs/live_backing.log"),
        content_type: TEXT.to_owned(),
    };
    for content in [reference("http://x/1"), reference("http://x/2"), link.clone(), link] {
        fixture.create(&run, live, content).await.unwrap();
    }
    assert!(is_conflict(fixture.create(&run, live, reference("http://x/3")).await));
    assert!(is_conflict(fixture.create(&run, live, s3()).await));
    let list = fixture.author.list_artifacts(run.run()).await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].storage_type, StorageType::Link);
}

#[tokio::test]
async fn an_artifact_cannot_outlive_its_task_or_change_its_type() {
    let fixture = Fixture::new();
    let run = fixture.claimed().await;
    let expires = fixture.author.status(&run.run().task_id).await.unwrap().expires;
    let late = ArtifactRequest { expires: expires.plus(Duration::from_millis(1)), content: s3() };
    assert!(is_invalid(run.create_artifact(&artifact("a"), &late).await));
    fixture.create(&run, "a", s3()).await.unwrap();
    let html = ArtifactContent::S3 { content_type: "text/html".to_owned() };
    assert!(is_conflict(fixture.create(&run, "a", html).await));
    let earlier = ArtifactRequest { expires: fixture.now(), content: s3() };
    assert!(is_conflict(run.create_artifact(&artifact("a"), &earlier).await));
}

#[tokio::test]
async fn a_resolved_run_takes_no_artifacts_and_a_new_run_has_none() {
    let fixture = Fixture::new();
    let run = fixture.claimed().await;
    fixture.create(&run, "a", s3()).await.unwrap();
    run.report(Verdict::Exception(Reason::IntermittentTask)).await.unwrap();
    let next = fixture.claim(1).await.remove(0).queue;
    assert_eq!(fixture.names(&next).await, Vec::<String>::new());
    next.report(Verdict::Failed).await.unwrap();
    assert!(is_conflict(fixture.create(&next, "b", s3()).await));
    assert_eq!(fixture.names(&run).await, ["a"]);
    let absent = RunId { run_id: 2, ..run.run().clone() };
    assert!(is_not_found(fixture.author.list_artifacts(&absent).await));
}

#[tokio::test]
async fn an_object_is_listed_once_it_is_finished() {
    let fixture = Fixture::new();
    let run = fixture.claimed().await;
    let object = ArtifactContent::Object { content_type: TEXT.to_owned() };
    let created = fixture.create(&run, "o", object.clone()).await.unwrap();
    let Created::Object(upload) = &created else { panic!("{created:?}") };
    let upload_id = upload.upload_id();
    let again = fixture.create(&run, "o", object.clone()).await.unwrap();
    assert!(matches!(again, Created::Object(again) if again.upload_id() == upload_id));
    assert_eq!(fixture.names(&run).await, Vec::<String>::new());
    assert!(is_invalid(run.finish_artifact(&artifact("o"), "another").await));
    for _ in 0..2 {
        run.finish_artifact(&artifact("o"), upload_id).await.unwrap();
        assert_eq!(fixture.names(&run).await, ["o"]);
    }
    assert!(matches!(fixture.create(&run, "o", object).await.unwrap(), Created::Done));
    assert_eq!(fixture.names(&run).await, ["o"]);
    assert!(is_not_found(run.finish_artifact(&artifact("p"), upload_id).await));
    fixture.create(&run, "s", s3()).await.unwrap();
    assert!(is_invalid(run.finish_artifact(&artifact("s"), upload_id).await));
}

#[tokio::test]
async fn tasks_that_nobody_made_are_not_found() {
    let fixture = Fixture::new();
    let run = RunId { task_id: TaskId::random().unwrap(), run_id: 0 };
    assert!(is_not_found(fixture.author.status(&run.task_id).await));
    assert!(is_not_found(fixture.author.cancel_task(&run.task_id).await));
    assert!(is_not_found(fixture.author.list_artifacts(&run).await));
}
