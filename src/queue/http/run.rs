//! One run of a deployment, with the credentials that came with its claim.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::component;
use super::finder::ArtifactFinder;
use super::object::ObjectUpload;
use super::session::{Call, Insists, Session};
use super::{ANSWER_BYTES, LASTING, PATIENCE, TIMEOUT};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::model::{ArtifactRequest, Created, PutTarget};
use crate::queue::{Credentials, QueueError, Reason, RunId, RunState, Standing, Verdict};
use crate::timestamp::Timestamp;

/// How long it is tried to learn what a task may do: it fails without.
const EXPANDING: Duration = Duration::from_secs(2 * 60);

/// A run's side of a deployment.
#[derive(Debug)]
pub(in crate::queue) struct HttpRun {
    session: Session,
    /// The present ones, for what acts in the run's name.
    credentials: watch::Sender<Credentials>,
    /// The worker's own.
    worker: Arc<Session>,
}

impl HttpRun {
    pub(super) fn new(worker: Arc<Session>, credentials: Credentials) -> HttpRun {
        let session = worker.with(credentials.clone(), TIMEOUT);
        HttpRun { session, credentials: watch::Sender::new(credentials), worker }
    }

    /// See [`RunQueue::now`](crate::queue::RunQueue::now).
    pub(in crate::queue) fn now(&self) -> Timestamp {
        self.session.clock.now()
    }

    /// See [`RunQueue::credentials`](crate::queue::RunQueue::credentials).
    pub(in crate::queue) fn credentials(&self) -> watch::Receiver<Credentials> {
        self.credentials.subscribe()
    }

    /// See [`RunQueue::expand_scopes`](crate::queue::RunQueue::expand_scopes).
    pub(in crate::queue) async fn expand_scopes(&self, scopes: &[String]) -> Result<Vec<String>, QueueError> {
        super::expand_scopes(&self.worker, scopes, EXPANDING, Insists::Always).await
    }

    /// See [`RunQueue::finder`](crate::queue::RunQueue::finder).
    pub(in crate::queue) fn finder(&self) -> ArtifactFinder<'_> {
        ArtifactFinder::new(&self.session)
    }

    /// See [`RunQueue::reclaim`](crate::queue::RunQueue::reclaim).
    pub(in crate::queue) async fn reclaim(&self, run: &RunId) -> Result<Timestamp, QueueError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reply {
            taken_until: Timestamp,
            credentials: Credentials,
        }
        let Reply { taken_until, credentials } =
            self.session.ask(about(run, "POST", "reclaim", None, PATIENCE)).await?;
        self.session.replace(credentials.clone());
        self.credentials.send_replace(credentials);
        Ok(taken_until)
    }

    /// See [`RunQueue::report`](crate::queue::RunQueue::report).
    pub(in crate::queue) async fn report(
        &self,
        run: &RunId,
        verdict: Verdict,
        patience: Duration,
    ) -> Result<(), QueueError> {
        #[derive(Deserialize)]
        struct Reply {
            status: IgnoredAny,
        }
        let reason = json!({ "reason": verdict.as_str() });
        let (method, body) = match verdict {
            Verdict::Completed | Verdict::Failed => (verdict.as_str(), None),
            Verdict::Exception(_) => ("exception", Some(&reason)),
        };
        // Whoever gives it less time tries again, and wants to know meanwhile what is in the way.
        let insists = if patience == LASTING { Insists::Always } else { Insists::Never };
        let call = Call { insists, ..about(run, "POST", method, body, patience) };
        let Reply { status: IgnoredAny } = self.session.ask(call).await?;
        Ok(())
    }

    /// See [`RunQueue::create_artifact`](crate::queue::RunQueue::create_artifact).
    pub(in crate::queue) async fn create_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        request: &ArtifactRequest,
    ) -> Result<Created, QueueError> {
        let internal = |error: serde_json::Error| QueueError::Internal {
            call: "write an artifact's description",
            source: error.into(),
        };
        let mut body = serde_json::to_value(&request.content).map_err(internal)?;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("expires".to_owned(), Value::String(request.expires.to_string()));
        }
        let reply: CreateReply = self.session.ask(self.artifact(run, name, "POST", &body)).await?;
        Ok(match reply {
            CreateReply::S3 { put_url, content_type, expires } => Created::Put(PutTarget {
                url: put_url,
                headers: vec![("content-type".to_owned(), content_type)],
                until: expires,
            }),
            CreateReply::Object { name, project_id, upload_id, expires, credentials } => {
                let session = self.session.part(credentials);
                Created::Object(ObjectUpload::in_service(session, name, project_id, upload_id, expires))
            }
            CreateReply::Reference | CreateReply::Link | CreateReply::Error => Created::Done,
        })
    }

    /// See [`RunQueue::finish_artifact`](crate::queue::RunQueue::finish_artifact).
    pub(in crate::queue) async fn finish_artifact(
        &self,
        run: &RunId,
        name: &ArtifactName,
        upload_id: &str,
    ) -> Result<(), QueueError> {
        let body = json!({ "uploadId": upload_id });
        self.session.tell(self.artifact(run, name, "PUT", &body)).await
    }

    /// See [`RunQueue::status`](crate::queue::RunQueue::status).
    pub(in crate::queue) async fn status(&self, run: &RunId) -> Result<Standing, QueueError> {
        let call = Call {
            method: "GET",
            path: format!("api/queue/v1/task/{}/status", component(run.task_id.as_str())),
            body: None,
            what: run.to_string(),
            patience: PATIENCE,
            insists: Insists::Never,
            most: ANSWER_BYTES,
        };
        let reply: StatusReply = self.session.ask(call).await?;
        let found = reply.status.runs.into_iter().find(|found| found.run_id == run.run_id);
        found.map(|found| found.standing()).ok_or_else(|| QueueError::NotFound { what: run.to_string() })
    }

    fn artifact<'a>(
        &self,
        run: &RunId,
        name: &ArtifactName,
        method: &'static str,
        body: &'a Value,
    ) -> Call<'a> {
        let below = format!("artifacts/{}", component(name.as_str()));
        let call = about(run, method, &below, Some(body), LASTING);
        Call { what: format!("artifact \"{name}\" of {run}"), insists: Insists::UntilInVain, ..call }
    }
}

/// A call about one run.
fn about<'a>(
    run: &RunId,
    method: &'static str,
    below: &str,
    body: Option<&'a Value>,
    patience: Duration,
) -> Call<'a> {
    let RunId { task_id, run_id } = run;
    Call {
        method,
        path: format!("api/queue/v1/task/{}/runs/{run_id}/{below}", component(task_id.as_str())),
        body,
        what: run.to_string(),
        patience,
        insists: Insists::Never,
        most: ANSWER_BYTES,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", rename_all_fields = "camelCase", tag = "storageType")]
enum CreateReply {
    S3 {
        put_url: String,
        content_type: String,
        expires: Timestamp,
    },
    Object {
        name: String,
        project_id: String,
        upload_id: String,
        expires: Timestamp,
        credentials: Credentials,
    },
    Reference,
    Link,
    Error,
}

#[derive(Deserialize)]
struct StatusReply {
    status: TaskReply,
}

#[derive(Deserialize)]
struct TaskReply {
    runs: Vec<RunReply>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunReply {
    run_id: u32,
    state: RunState,
    reason_resolved: Option<String>,
}

impl RunReply {
    /// A reason that this worker does not know is still one for which the run is over.
    fn standing(&self) -> Standing {
        match self.state {
            RunState::Unscheduled | RunState::Pending | RunState::Running => Standing::Open,
            RunState::Completed => Standing::Resolved(Verdict::Completed),
            RunState::Failed => Standing::Resolved(Verdict::Failed),
            RunState::Exception => {
                let known = self.reason_resolved.as_deref().and_then(Verdict::from_word);
                Standing::Resolved(known.unwrap_or(Verdict::Exception(Reason::Other)))
            }
        }
    }
}
