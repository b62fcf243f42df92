//! Where an artifact of another task is: the task that the index has, that task's last run, and the place of the bytes.

use serde::Deserialize;

use super::component;
use super::session::{Call, Insists, Session};
use super::{ANSWER_BYTES, SEARCHING};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, RunId, RunState};

/// A deployment, and who looks for artifacts there: whatever they may read is found.
#[derive(Clone, Copy, Debug)]
pub struct ArtifactFinder<'a>(&'a Session);

/// The run whose artifacts are a task's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestRun {
    /// Which one.
    pub run: RunId,
    /// Whether its artifacts stay as they are: it has been reported by its worker, and takes no more.
    pub is_final: bool,
}

/// Where an artifact's bytes are.
#[derive(Clone, PartialEq, Eq)]
pub struct ArtifactPlace {
    /// A URL, for a while. It may carry a signature.
    pub url: String,
    /// Who says so.
    pub custody: Custody,
}

/// Who has an artifact's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The deployment's storage.
    Deployment,
    /// Whoever the task that made the artifact has named.
    Stranger,
}

impl std::fmt::Debug for ArtifactPlace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ArtifactPlace").field("custody", &self.custody).finish_non_exhaustive()
    }
}

impl<'a> ArtifactFinder<'a> {
    pub(super) fn new(session: &'a Session) -> ArtifactFinder<'a> {
        ArtifactFinder(session)
    }

    /// The task that the index has under a name.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`], [`QueueError::Unauthorized`], [`QueueError::Invalid`] for what can be no name there;
    /// [`QueueError::Unauthenticated`], [`QueueError::Foreign`], [`QueueError::Unreachable`] after a while.
    pub async fn indexed(&self, namespace: &str) -> Result<TaskId, QueueError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reply {
            task_id: TaskId,
        }
        let what = format!("the task \"{}\" of the index", crate::text::excerpt(namespace));
        let reply: Reply = self.0.ask(read(format!("index/v1/task/{}", component(namespace)), what)).await?;
        Ok(reply.task_id)
    }

    /// A task's last run, as far as it has one.
    ///
    /// # Errors
    ///
    /// As of [`ArtifactFinder::indexed`].
    pub async fn latest_run(&self, task_id: &TaskId) -> Result<LatestRun, QueueError> {
        #[derive(Deserialize)]
        struct Reply {
            status: Status,
        }
        #[derive(Deserialize)]
        struct Status {
            runs: Vec<Run>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Run {
            run_id: u32,
            state: RunState,
        }
        let (path, what) = (
            format!("queue/v1/task/{}/status", component(task_id.as_str())),
            format!("a run of task {task_id}"),
        );
        let reply: Reply = self.0.ask(read(path, what.clone())).await?;
        let last = reply.status.runs.into_iter().last().ok_or(QueueError::NotFound { what })?;
        Ok(LatestRun {
            run: RunId { task_id: task_id.clone(), run_id: last.run_id },
            // What is an exception takes artifacts for a while.
            is_final: matches!(last.state, RunState::Completed | RunState::Failed),
        })
    }

    /// Where the bytes of a run's artifact are. Links lead on to what they name.
    ///
    /// # Errors
    ///
    /// As of [`ArtifactFinder::indexed`]; [`QueueError::NoContent`] for an error artifact.
    pub async fn place(&self, run: &RunId, name: &ArtifactName) -> Result<ArtifactPlace, QueueError> {
        let RunId { task_id, run_id } = run;
        let (task_id, artifact) = (component(task_id.as_str()), component(name.as_str()));
        let path = format!("queue/v1/task/{task_id}/runs/{run_id}/artifacts/{artifact}");
        self.0.locate(read(path, format!("artifact \"{name}\" of {run}"))).await
    }
}

fn read<'a>(path: String, what: String) -> Call<'a> {
    Call {
        method: "GET",
        path: format!("api/{path}"),
        body: None,
        what,
        patience: SEARCHING,
        insists: Insists::Always,
        most: ANSWER_BYTES,
    }
}
