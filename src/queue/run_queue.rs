//! What is said about one run between its claim and its resolution.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::queue::artifact_name::ArtifactName;
use crate::queue::http::{ArtifactFinder, HttpRun, LASTING};
use crate::queue::model::{ArtifactRequest, Created, RunId, Standing};
use crate::queue::{Credentials, EmbeddedQueue, QueueError, Reporter, Verdict};
use crate::scopes::minimal;
use crate::timestamp::Timestamp;

/// The longest wait between two looks at the queue's clock, which goes on while this host is suspended.
const LOOK: Duration = Duration::from_secs(30);

/// From a report that is refused as if the run were resolved to the next one, where it is not known to be: at first, and at
/// most.
const CONTRADICTED: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// A queue, with the rights of one run. Clones are the same run's.
#[derive(Clone, Debug)]
pub struct RunQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    run: RunId,
    maker: Maker,
}

#[derive(Debug)]
enum Maker {
    Embedded(EmbeddedQueue),
    Http(HttpRun),
}

impl RunQueue {
    pub(super) fn embedded(queue: EmbeddedQueue, run: RunId) -> RunQueue {
        RunQueue(Arc::new(Inner { run, maker: Maker::Embedded(queue) }))
    }

    pub(super) fn http(queue: HttpRun, run: RunId) -> RunQueue {
        RunQueue(Arc::new(Inner { run, maker: Maker::Http(queue) }))
    }

    /// Which run.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.0.run
    }

    /// The present, by the clock that claims and deadlines go by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0.maker {
            Maker::Embedded(queue) => queue.now(),
            Maker::Http(queue) => queue.now(),
        }
    }

    /// Waits until it is so late by that clock.
    pub async fn wait_until(&self, due: Timestamp) {
        loop {
            let rest = due.since(self.now());
            if rest.is_zero() {
                return;
            }
            sleep(rest.min(LOOK)).await;
        }
    }

    /// The task's own credentials, which change with each reclaim: for what acts in the task's name. None where nothing
    /// is signed: the queue is in this process.
    #[must_use]
    pub fn credentials(&self) -> Option<watch::Receiver<Credentials>> {
        match &self.0.maker {
            Maker::Embedded(_) => None,
            Maker::Http(queue) => Some(queue.credentials()),
        }
    }

    /// All scopes that a task has which has these: what roles add to them. Asked for in the worker's
    /// name: a task need not be allowed to.
    ///
    /// # Errors
    ///
    /// [`QueueError::Unauthenticated`], [`QueueError::Unauthorized`], [`QueueError::Unreachable`] after two minutes, [`QueueError::Internal`].
    pub async fn expand_scopes(&self, scopes: &[String]) -> Result<Vec<String>, QueueError> {
        match &self.0.maker {
            // There are no roles.
            Maker::Embedded(_) => Ok(minimal(scopes.to_vec())),
            Maker::Http(queue) => queue.expand_scopes(scopes).await,
        }
    }

    /// Looks for artifacts of other tasks with the task's own credentials. None where there are no other tasks: the queue is
    /// in this process.
    #[must_use]
    pub fn finder(&self) -> Option<ArtifactFinder<'_>> {
        match &self.0.maker {
            Maker::Embedded(_) => None,
            Maker::Http(queue) => Some(queue.finder()),
        }
    }

    /// Prolongs the claim; gives the time until which it holds.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`]: the run is resolved (cancelled, past its deadline, claim expired). Stop working on it.
    pub async fn reclaim(&self) -> Result<Timestamp, QueueError> {
        match &self.0.maker {
            Maker::Embedded(queue) => queue.reclaim(self.run()).await,
            Maker::Http(queue) => queue.reclaim(self.run()).await,
        }
    }

    /// Resolves the run. After `worker-shutdown` and `intermittent-task` the queue makes another one, as long as there
    /// are retries left.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`] when it is resolved otherwise already, [`QueueError::Invalid`] for a reason that only
    /// the queue sets.
    pub async fn report(&self, verdict: Verdict) -> Result<(), QueueError> {
        self.report_within(LASTING, verdict).await
    }

    async fn report_within(&self, patience: Duration, verdict: Verdict) -> Result<(), QueueError> {
        if verdict.reporter() == Reporter::Queue {
            let because = "only the queue itself sets this reason".to_owned();
            return Err(QueueError::Invalid { what: format!("reason {}", verdict.as_str()), because });
        }
        match &self.0.maker {
            Maker::Embedded(queue) => queue.report(self.run(), verdict).await,
            Maker::Http(queue) => queue.report(self.run(), verdict, patience).await,
        }
    }

    /// Resolves the run, unless somebody else was first; gives how it stands then.
    ///
    /// # Errors
    ///
    /// As of [`RunQueue::report`], but never a conflict: where the queue does not say how the run stands, it is not known that
    /// it is over, and the error is [`QueueError::Foreign`].
    pub async fn settle(&self, verdict: Verdict) -> Result<Verdict, QueueError> {
        self.settle_within(LASTING, verdict).await
    }

    /// As [`RunQueue::settle`], but a deployment that is at fault has only `patience` to recover, for whoever tries again:
    /// nothing is begun after that.
    ///
    /// # Errors
    ///
    /// As of [`RunQueue::settle`].
    pub async fn settle_within(&self, patience: Duration, verdict: Verdict) -> Result<Verdict, QueueError> {
        let until = Instant::now() + patience;
        let [mut wait, longest] = CONTRADICTED;
        loop {
            let (what, because) = match self.report_within(patience, verdict).await {
                Ok(()) => return Ok(verdict),
                Err(QueueError::Conflict { what, because }) => (what, because),
                Err(error) => return Err(error),
            };
            // A front end may refuse what it knows less of than the queue, which would have the task run again.
            if let Ok(Standing::Resolved(standing)) = self.status().await {
                return Ok(standing);
            }
            if Instant::now() + wait > until {
                let because = format!("{because}, and the run is not known to be resolved");
                return Err(QueueError::Foreign { what, because });
            }
            sleep(wait).await;
            wait = longest.min(wait * 2);
        }
    }

    /// Makes an artifact, or replaces one as far as the rules allow.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`] when the run takes no more artifacts, or has one of this name that may not become
    /// this one; [`QueueError::Invalid`] when it would outlive its task.
    pub async fn create_artifact(
        &self,
        name: &ArtifactName,
        request: &ArtifactRequest,
    ) -> Result<Created, QueueError> {
        match &self.0.maker {
            Maker::Embedded(queue) => queue.create_artifact(self.run(), name, request).await,
            Maker::Http(queue) => queue.create_artifact(self.run(), name, request).await,
        }
    }

    /// Says that an artifact of storage type `object` is uploaded: from now on it is listed.
    ///
    /// # Errors
    ///
    /// [`QueueError::Invalid`] for the other storage types, which need no such word.
    pub async fn finish_artifact(&self, name: &ArtifactName, upload_id: &str) -> Result<(), QueueError> {
        match &self.0.maker {
            Maker::Embedded(queue) => queue.finish_artifact(self.run(), name, upload_id).await,
            Maker::Http(queue) => queue.finish_artifact(self.run(), name, upload_id).await,
        }
    }

    /// What the queue has made of the run.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn status(&self) -> Result<Standing, QueueError> {
        match &self.0.maker {
            Maker::Embedded(queue) => queue.standing(self.run()).await,
            Maker::Http(queue) => queue.status(self.run()).await,
        }
    }
}
