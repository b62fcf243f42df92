//! What the cases of the table ask of a queue, and how the words come about in which the table says what comes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use docker_worker::cache::PurgeRequest;
use docker_worker::queue::artifact_name::ArtifactName;
use docker_worker::queue::definition::TaskDefinition;
use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{
    ArtifactContent, ArtifactInfo, ArtifactRequest, Created, EmbeddedQueue, ErrorReason, ObjectUpload,
    QueueError, RunId, RunQueue, Standing, Verdict, WorkerIdentity, WorkerQueue,
};
use docker_worker::timestamp::Timestamp;
use serde_json::json;

use crate::support::{ALL, Deployment, POOL, Terms, put};

/// A step of a case. A number is a run of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Somebody makes a task, with as many retries; it has to be resolved within 10 minutes.
    Make {
        retries: u32,
    },
    /// Somebody cancels it.
    Cancel,
    /// So many minutes pass. A claim holds for 5.
    Pass(u32),
    /// How everybody sees its runs.
    Look,
    /// The artifacts of a run that everybody sees.
    List(u32),
    /// Somebody asks for a cache to be purged.
    Purge(&'static str),
    /// Somebody puts the worker into quarantine, for so many minutes.
    Quarantine(u32),

    /// The worker asks for a task.
    Claim,
    /// What the worker is told of a run.
    Status(u32),
    Reclaim(u32),
    /// It says how a run has ended, in the queue's words.
    Report(u32, &'static str),
    /// It makes an artifact that expires with the task.
    Artifact(u32, &'static str, Content),
    /// One that expires so many minutes before the task.
    Earlier(u32, &'static str, Content, u32),
    /// One that expires after the task.
    Later(u32, &'static str, Content),
    /// It puts the bytes of an artifact where it was told to.
    Put(&'static str),
    /// It says that an object is there.
    Finish(u32, &'static str),
    /// It says so with the word for another one.
    FinishWrongly(u32, &'static str),
    /// It asks for what scopes stand for, in its own name and in a run's.
    Expand(&'static [&'static str]),
    ExpandFor(u32, &'static [&'static str]),
    PurgeRequests,
    Quarantined,
}

/// What an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    S3(&'static str),
    Object(&'static str),
    Reference(&'static str),
    Link(&'static str),
    Error(&'static str),
}

/// The media type of artifacts.
pub const TEXT: &str = "text/plain";

/// Who makes the worker's handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    Embedded,
    Deployment,
}

/// Both of them.
pub const MAKERS: [Maker; 2] = [Maker::Embedded, Maker::Deployment];

/// A case while it is played.
pub struct Play {
    pub deployment: Deployment,
    pub queue: WorkerQueue,
    task: Option<(TaskId, TaskDefinition)>,
    runs: BTreeMap<u32, RunQueue>,
    created: BTreeMap<&'static str, Created>,
}

impl Play {
    pub fn new(maker: Maker) -> Play {
        let (claim_time, long_poll) = (Duration::from_secs(5 * 60), Duration::from_millis(100));
        let deployment = Deployment::start(Terms { claim_time, long_poll });
        let queue = match maker {
            Maker::Embedded => WorkerQueue::embedded(deployment.queue.clone()),
            Maker::Deployment => deployment.seen(),
        };
        Play { deployment, queue, task: None, runs: BTreeMap::new(), created: BTreeMap::new() }
    }

    /// What comes of a step.
    pub fn ask(&mut self, ask: Ask) -> String {
        match ask {
            Ask::Make { retries } => self.make(retries),
            Ask::Cancel => self.cancel(),
            Ask::Pass(time) => self.pass(minutes(time)),
            Ask::Look => self.look(),
            Ask::List(run) => self.list(run),
            Ask::Purge(cache) => self.with_author(|it| async move { it.purge_cache(POOL, cache).await }),
            Ask::Quarantine(time) => self.quarantine(minutes(time)),
            Ask::Claim => self.claim(),
            Ask::Status(run) => self.with_run(run, |run| async move { run.status().await }, seen),
            Ask::Reclaim(run) => self.reclaim(run),
            Ask::Report(run, word) => {
                let verdict = Verdict::from_word(word).unwrap();
                self.with_run(run, move |run| async move { run.report(verdict).await }, done)
            }
            Ask::Artifact(run, name, content) => self.artifact(run, name, content, |expires| expires),
            Ask::Earlier(run, name, content, time) => self.artifact(run, name, content, |expires| {
                Timestamp::from_millis(expires.as_millis() - i64::from(time) * 60_000)
            }),
            Ask::Later(run, name, content) => {
                self.artifact(run, name, content, |expires| expires.plus(Duration::from_millis(1)))
            }
            Ask::Put(name) => self.put(name),
            Ask::Finish(run, name) => match self.created.get(name) {
                Some(Created::Object(upload)) => self.finish(run, name, upload.upload_id().to_owned()),
                other => panic!("{name} is no object: {other:?}"),
            },
            Ask::FinishWrongly(run, name) => self.finish(run, name, TaskId::random().unwrap().to_string()),
            Ask::Expand(scopes) => {
                let scopes = owned(scopes);
                self.with_queue(|queue| async move { queue.expand_scopes(&scopes).await }, listed)
            }
            Ask::ExpandFor(run, scopes) => {
                let scopes = owned(scopes);
                self.with_run(run, move |run| async move { run.expand_scopes(&scopes).await }, listed)
            }
            Ask::PurgeRequests => {
                let names = |asked: Vec<PurgeRequest>| asked.into_iter().map(|it| it.cache_name).collect();
                let say = |asked| listed(names(asked));
                self.with_queue(|queue| async move { queue.purge_requests(POOL).await }, say)
            }
            Ask::Quarantined => {
                let say = |until: Option<Timestamp>| if until.is_some() { "yes" } else { "no" }.to_owned();
                self.with_queue(|queue| async move { queue.quarantined_until(POOL, &worker()).await }, say)
            }
        }
    }

    /// The task of this case.
    pub fn task(&self) -> &(TaskId, TaskDefinition) {
        self.task.as_ref().expect("no task was made")
    }

    fn make(&mut self, retries: u32) -> String {
        let now = self.deployment.queue.now();
        let mut definition = self.deployment.definition(&json!({ "image": "busybox" }));
        definition["deadline"] = json!(now.plus(minutes(10)));
        definition["retries"] = json!(retries);
        definition["scopes"] = json!(["auth:expand-scopes"]);
        let task_id = TaskId::random().unwrap();
        let task = TaskDefinition::requested(&definition, &task_id, now).unwrap();
        self.task = Some((task_id.clone(), task.clone()));
        self.with_author(|author| async move { author.create_task(&task_id, &task).await.map(drop) })
    }

    fn cancel(&self) -> String {
        self.deployment.cancel(&self.task().0);
        done(())
    }

    fn pass(&self, time: Duration) -> String {
        self.deployment.pass(time);
        done(())
    }

    fn quarantine(&self, time: Duration) -> String {
        let until = self.deployment.queue.now().plus(time);
        self.with_author(move |it| async move { it.quarantine(POOL, &worker(), until).await.map(drop) })
    }

    fn reclaim(&self, run: u32) -> String {
        let now = self.deployment.queue.now();
        let say = |until: Timestamp| format!("{} minutes", (until.since(now).as_secs() + 30) / 60);
        self.with_run(run, |run| async move { run.reclaim().await }, say)
    }

    fn look(&self) -> String {
        let status = self.deployment.status(&self.task().0);
        let runs = status.runs.iter().map(|run| match run.reason_resolved {
            Some(verdict) => verdict.as_str().to_owned(),
            None => json!(run.state).as_str().unwrap().to_owned(),
        });
        listed(runs.collect())
    }

    fn list(&self, run: u32) -> String {
        let run = RunId { task_id: self.task().0.clone(), run_id: run };
        let author = self.deployment.queue.clone();
        let list = self.deployment.within(async move { author.list_artifacts(&run, ALL).await });
        let describe = |it: ArtifactInfo| format!("{} {}", it.name, json!(it.storage_type).as_str().unwrap());
        word(list, |list| listed(list.items.into_iter().map(describe).collect()))
    }

    fn claim(&mut self) -> String {
        let queue = self.queue.clone();
        let work = self.deployment.within(async move { queue.claim_work(POOL, &worker(), 1).await });
        word(work, |work| {
            assert!(work.unreadable.is_empty() && work.claims.len() < 2, "{work:?}");
            let Some(claim) = work.claims.into_iter().next() else { return "no task".to_owned() };
            let (task_id, task) = self.task.as_ref().unwrap();
            let received: TaskDefinition = serde_json::from_str(claim.definition.text()).unwrap();
            assert_eq!((&claim.queue.run().task_id, &received), (task_id, task));
            let run_id = claim.queue.run().run_id;
            self.runs.insert(run_id, claim.queue);
            format!("run {run_id}")
        })
    }

    fn artifact(
        &mut self,
        run: u32,
        name: &'static str,
        content: Content,
        expires: impl FnOnce(Timestamp) -> Timestamp,
    ) -> String {
        let request =
            ArtifactRequest { expires: expires(self.task().1.expires), content: content.as_requested() };
        let run = self.run(run);
        let created =
            self.deployment.within(async move { run.create_artifact(&artifact_name(name), &request).await });
        word(created, |created| {
            let what = match &created {
                Created::Done => "done",
                Created::KeepBytes | Created::Put(_) => "bytes",
                Created::Object(_) => "object",
            };
            self.created.insert(name, created);
            what.to_owned()
        })
    }

    fn put(&mut self, name: &'static str) -> String {
        match self.created.remove(name).expect("no such artifact was made") {
            Created::Done => panic!("{name} has no bytes"),
            Created::KeepBytes => done(()),
            Created::Put(target) => {
                let status = self.deployment.within(async move { put(&target.url, TEXT, "hello").await });
                assert_eq!(status, 200);
                done(())
            }
            Created::Object(upload) => {
                let uploaded = self.deployment.within(async move { (put_object(&upload).await, upload) });
                self.created.insert(name, Created::Object(uploaded.1));
                word(uploaded.0, done)
            }
        }
    }

    fn finish(&self, run: u32, name: &'static str, upload_id: String) -> String {
        let finish =
            move |run: RunQueue| async move { run.finish_artifact(&artifact_name(name), &upload_id).await };
        self.with_run(run, finish, done)
    }

    fn run(&self, run: u32) -> RunQueue {
        self.runs.get(&run).unwrap_or_else(|| panic!("run {run} was not claimed")).clone()
    }

    fn with_run<T: Send + 'static, F: Future<Output = Result<T, QueueError>> + Send + 'static>(
        &self,
        run: u32,
        ask: impl FnOnce(RunQueue) -> F,
        say: impl FnOnce(T) -> String,
    ) -> String {
        word(self.deployment.within(ask(self.run(run))), say)
    }

    fn with_queue<T: Send + 'static, F: Future<Output = Result<T, QueueError>> + Send + 'static>(
        &self,
        ask: impl FnOnce(WorkerQueue) -> F,
        say: impl FnOnce(T) -> String,
    ) -> String {
        word(self.deployment.within(ask(self.queue.clone())), say)
    }

    fn with_author<F: Future<Output = Result<(), QueueError>> + Send + 'static>(
        &self,
        ask: impl FnOnce(EmbeddedQueue) -> F,
    ) -> String {
        word(self.deployment.within(ask(self.deployment.queue.clone())), done)
    }
}

async fn put_object(upload: &ObjectUpload) -> Result<(), QueueError> {
    let Some(target) = upload.begin(TEXT, 5).await? else { return Ok(()) };
    assert_eq!(put(&target.url, TEXT, "hello").await, 200);
    upload.end("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824").await
}

impl Content {
    fn as_requested(self) -> ArtifactContent {
        let text = str::to_owned;
        match self {
            Content::S3(kind) => ArtifactContent::S3 { content_type: text(kind) },
            Content::Object(kind) => ArtifactContent::Object { content_type: text(kind) },
            Content::Reference(url) => {
                ArtifactContent::Reference { url: text(url), content_type: text(TEXT) }
            }
            Content::Link(name) => {
                ArtifactContent::Link { artifact: artifact_name(name), content_type: text(TEXT) }
            }
            Content::Error(message) => {
                let reason = ErrorReason::FileMissingOnWorker;
                ArtifactContent::Error { reason, message: text(message) }
            }
        }
    }
}

pub fn worker() -> WorkerIdentity {
    WorkerIdentity { worker_group: "group".to_owned(), worker_id: "worker".to_owned() }
}

fn artifact_name(name: &str) -> ArtifactName {
    ArtifactName::new(name).unwrap()
}

fn minutes(number: u32) -> Duration {
    Duration::from_secs(u64::from(number) * 60)
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn done((): ()) -> String {
    "done".to_owned()
}

fn seen(standing: Standing) -> String {
    match standing {
        Standing::Open => "open".to_owned(),
        Standing::Resolved(verdict) => verdict.as_str().to_owned(),
    }
}

fn listed(texts: Vec<String>) -> String {
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

/// An answer or the kind of a refusal.
fn word<T>(result: Result<T, QueueError>, say: impl FnOnce(T) -> String) -> String {
    let refusal = match result {
        Ok(value) => return say(value),
        Err(QueueError::NotFound { .. }) => "not found",
        Err(QueueError::Conflict { .. }) => "conflict",
        Err(QueueError::Invalid { .. }) => "invalid",
        Err(QueueError::NoContent { .. }) => "no content",
        Err(QueueError::Unauthenticated { .. }) => "unauthenticated",
        Err(QueueError::Unauthorized { .. }) => "unauthorized",
        Err(
            error @ (QueueError::Foreign { .. }
            | QueueError::Unreachable { .. }
            | QueueError::Internal { .. }),
        ) => panic!("{error:?}"),
    };
    refusal.to_owned()
}
