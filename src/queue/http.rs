//! The queue of a Taskcluster deployment, over HTTP.

mod clock;
mod finder;
mod object;
mod path;
mod reader;
mod refusal;
mod run;
mod session;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use self::clock::QueueClock;
use self::path::component;
use self::session::{Call, Insists, Session, misshapen};
use super::claim::{Claim, ClaimedWork, ReceivedDefinition};
use super::{Credentials, MOST_TASKS, QueueError, RunId, RunQueue, WorkerIdentity};
use crate::cache::PurgeRequest;
use crate::queue::task_id::TaskId;
use crate::scopes::minimal;
use crate::timestamp::Timestamp;

pub use self::finder::{ArtifactFinder, ArtifactPlace, Custody, LatestRun};
pub use self::object::ObjectUpload;
pub use self::reader::TaskReader;
pub(super) use self::run::HttpRun;

/// How long one attempt at a call of the worker's own may take: the queue answers a claim after 20 seconds where there is
/// nothing to claim. Whoever waits for less than that says so.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one attempt at a call about a run may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the worker's other calls are tried. It has a loop of its own around them.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a call is tried on which a run's result depends. Its claim may go before; then it is refused, if only because
/// its credentials have gone with it.
pub(super) const LASTING: Duration = Duration::from_secs(10 * 60);
/// How long an artifact of another task is looked for that a task cannot do without.
const SEARCHING: Duration = Duration::from_secs(2 * 60);
/// Bytes of one task in an answer to a claim: a definition of 10 MiB, which is the most that the queue takes, and its
/// scopes once more in credentials, where JSON is written into JSON.
const CLAIMED_BYTES: usize = 32 << 20;
/// Bytes of any other answer.
const ANSWER_BYTES: usize = 4 << 20;

/// A deployment, with the worker's credentials.
#[derive(Clone, Debug)]
pub(super) struct HttpQueue(Arc<Session>);

/// One element of the answer to `claimWork`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimReply {
    status: ClaimedStatus,
    run_id: u32,
    taken_until: Timestamp,
    credentials: Credentials,
    task: Box<RawValue>,
}

/// What a claim needs of the task's status.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimedStatus {
    task_id: TaskId,
    deadline: Timestamp,
    expires: Timestamp,
}

impl HttpQueue {
    pub(super) fn new(root_url: &str, credentials: Credentials) -> Result<HttpQueue, QueueError> {
        let clock = Arc::new(QueueClock::new());
        let session = Session::new(root_url, Some(credentials), CLAIM_TIMEOUT, clock);
        session.prepare()?;
        Ok(HttpQueue(Arc::new(session)))
    }

    /// See [`super::WorkerQueue::replace_credentials`].
    pub(super) fn replace_credentials(&self, credentials: Credentials) {
        self.0.replace(credentials);
    }

    /// See [`super::WorkerQueue::clock_skew`].
    pub(super) fn clock_skew(&self) -> Option<String> {
        self.0.clock.skew()
    }

    /// See [`super::WorkerQueue::claim_work`].
    pub(super) async fn claim_work(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
        most: usize,
    ) -> Result<ClaimedWork, QueueError> {
        #[derive(Deserialize)]
        struct Reply {
            tasks: Vec<Box<RawValue>>,
        }
        let WorkerIdentity { worker_group, worker_id } = worker;
        let body =
            json!({ "tasks": most.min(MOST_TASKS), "workerGroup": worker_group, "workerId": worker_id });
        let call = Call {
            method: "POST",
            path: format!("api/queue/v1/claim-work/{}", component(task_queue_id)),
            body: Some(&body),
            what: format!("a claim of worker {worker_group}/{worker_id} on {task_queue_id}"),
            // An answer that was lost may have claimed tasks: to ask again at once would claim more than was asked for.
            patience: Duration::ZERO,
            insists: Insists::Never,
            most: most.min(MOST_TASKS) * CLAIMED_BYTES,
        };
        let reply: Reply = self.0.ask(call).await?;
        let mut work = ClaimedWork::default();
        for text in reply.tasks {
            match self.claim(&text) {
                Ok(claim) => work.claims.push(claim),
                Err(error) => work.unreadable.push(misshapen("read a task that it gave out", &error)),
            }
        }
        Ok(work)
    }

    /// See [`super::WorkerQueue::definition`].
    pub(super) async fn definition(&self, task_id: &TaskId) -> Result<ReceivedDefinition, QueueError> {
        Ok(ReceivedDefinition::new(reader::definition(&self.0, task_id).await?))
    }

    /// See [`super::WorkerQueue::claim_run`].
    pub(super) async fn claim_run(&self, run: &RunId, worker: &WorkerIdentity) -> Result<Claim, QueueError> {
        let WorkerIdentity { worker_group, worker_id } = worker;
        let body = json!({ "workerGroup": worker_group, "workerId": worker_id });
        let RunId { task_id, run_id } = run;
        let call = Call {
            method: "POST",
            path: format!("api/queue/v1/task/{}/runs/{run_id}/claim", component(task_id.as_str())),
            body: Some(&body),
            what: run.to_string(),
            patience: PATIENCE,
            insists: Insists::Never,
            most: CLAIMED_BYTES,
        };
        let reply: Box<RawValue> = self.0.ask(call).await?;
        let claim = self.claim(&reply).map_err(|error| misshapen("read a task that it gave out", &error))?;
        if claim.queue.run() == run {
            return Ok(claim);
        }
        let because = format!("the queue gave out {} in its place", claim.queue.run());
        Err(QueueError::Foreign { what: run.to_string(), because })
    }

    fn claim(&self, text: &RawValue) -> Result<Claim, serde_json::Error> {
        let reply: ClaimReply = serde_json::from_str(text.get())?;
        let run = RunId { task_id: reply.status.task_id, run_id: reply.run_id };
        Ok(Claim {
            queue: self.resume(run, reply.credentials),
            taken_until: reply.taken_until,
            deadline: reply.status.deadline,
            expires: reply.status.expires,
            definition: ReceivedDefinition::new(reply.task),
        })
    }

    /// See [`super::WorkerQueue::quarantined_until`].
    pub(super) async fn quarantined_until(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
    ) -> Result<Option<Timestamp>, QueueError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reply {
            quarantine_until: Option<Timestamp>,
        }
        let WorkerIdentity { worker_group, worker_id } = worker;
        let (provisioner_id, worker_type) = task_queue_id.split_once('/').unwrap_or((task_queue_id, ""));
        let [provisioner_id, worker_type, worker_group, worker_id] =
            [provisioner_id, worker_type, worker_group, worker_id].map(component);
        let pool = format!("provisioners/{provisioner_id}/worker-types/{worker_type}");
        let call = Call {
            method: "GET",
            path: format!("api/queue/v1/{pool}/workers/{worker_group}/{worker_id}"),
            body: None,
            what: "whether this worker is in quarantine".to_owned(),
            patience: Duration::ZERO,
            insists: Insists::Never,
            most: ANSWER_BYTES,
        };
        let reply: Reply = self.0.ask(call).await?;
        Ok(reply.quarantine_until.filter(|until| *until > self.0.clock.now()))
    }

    /// See [`super::WorkerQueue::resume`].
    pub(super) fn resume(&self, run: RunId, credentials: Credentials) -> RunQueue {
        RunQueue::http(HttpRun::new(Arc::clone(&self.0), credentials), run)
    }

    /// See [`super::WorkerQueue::purge_requests`].
    pub(super) async fn purge_requests(&self, worker_pool_id: &str) -> Result<Vec<PurgeRequest>, QueueError> {
        #[derive(Deserialize)]
        struct Reply {
            requests: Vec<Request>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Request {
            cache_name: String,
            before: Timestamp,
        }
        let call = Call {
            method: "GET",
            path: format!("api/purge-cache/v1/purge-cache/{}", component(worker_pool_id)),
            body: None,
            what: format!("the purge requests of {worker_pool_id}"),
            patience: PATIENCE,
            insists: Insists::Never,
            most: ANSWER_BYTES,
        };
        let reply: Reply = self.0.ask(call).await?;
        let clock = &self.0.clock;
        let requests = reply.requests.into_iter();
        let request = |it: Request| PurgeRequest { cache_name: it.cache_name, before: clock.here(it.before) };
        Ok(requests.map(request).collect())
    }

    /// See [`super::WorkerQueue::expand_scopes`].
    pub(super) async fn expand_scopes(&self, scopes: &[String]) -> Result<Vec<String>, QueueError> {
        expand_scopes(&self.0, scopes, PATIENCE, Insists::Never).await
    }
}

async fn expand_scopes(
    session: &Session,
    scopes: &[String],
    patience: Duration,
    insists: Insists,
) -> Result<Vec<String>, QueueError> {
    #[derive(Deserialize)]
    struct Reply {
        scopes: Vec<String>,
    }
    // The service refuses one that comes twice, which a task may well have.
    let body = json!({ "scopes": minimal(scopes.to_vec()) });
    let call = Call {
        method: "POST",
        path: "api/auth/v1/scopes/expand".to_owned(),
        body: Some(&body),
        what: "a task's scopes".to_owned(),
        patience,
        insists,
        most: ANSWER_BYTES,
    };
    let reply: Reply = session.ask(call).await?;
    Ok(reply.scopes)
}
