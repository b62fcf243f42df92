//! What a worker asks a queue for before it has a task.

use crate::cache::PurgeRequest;
use crate::queue::http::HttpQueue;
use crate::queue::model::WorkerIdentity;
use crate::queue::task_id::TaskId;
use crate::queue::{
    Claim, ClaimedWork, Credentials, EmbeddedQueue, QueueError, ReceivedDefinition, RunId, RunQueue,
};
use crate::scopes::minimal;
use crate::timestamp::Timestamp;

/// A queue, with the worker's rights. Clones are the same worker's.
#[derive(Clone, Debug)]
pub struct WorkerQueue(Maker);

#[derive(Clone, Debug)]
enum Maker {
    Embedded(EmbeddedQueue),
    Http(HttpQueue),
}

impl WorkerQueue {
    /// The embedded queue, as a worker sees it.
    #[must_use]
    pub fn embedded(queue: EmbeddedQueue) -> WorkerQueue {
        WorkerQueue(Maker::Embedded(queue))
    }

    /// The deployment at a root URL. Nothing is asked yet; reads the certificates of this host.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`] for what is no root URL or no credentials.
    pub fn deployment(root_url: &str, credentials: Credentials) -> Result<WorkerQueue, QueueError> {
        Ok(WorkerQueue(Maker::Http(HttpQueue::new(root_url, credentials)?)))
    }

    /// Has the worker's calls signed with other credentials from now on.
    pub fn replace_credentials(&self, credentials: Credentials) {
        match &self.0 {
            // In one's own process nothing is signed.
            Maker::Embedded(_) => {}
            Maker::Http(queue) => queue.replace_credentials(credentials),
        }
    }

    /// What is wrong with this host's clock, going by the queue's answers so far: a fragment that says what to do. The
    /// queue refuses signatures of another time than its own.
    #[must_use]
    pub fn clock_skew(&self) -> Option<String> {
        match &self.0 {
            Maker::Embedded(_) => None,
            Maker::Http(queue) => queue.clock_skew(),
        }
    }

    /// Claims at most `most` pending tasks of a task queue, the most urgent first. A deployment answers after some 20
    /// seconds where none is pending; then there is no claim.
    ///
    /// # Errors
    ///
    /// [`QueueError::Unauthenticated`], [`QueueError::Unauthorized`], [`QueueError::Unreachable`],
    /// [`QueueError::Internal`].
    pub async fn claim_work(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
        most: usize,
    ) -> Result<ClaimedWork, QueueError> {
        match &self.0 {
            Maker::Embedded(queue) => queue.claim_work(task_queue_id, worker, most).await,
            Maker::Http(queue) => queue.claim_work(task_queue_id, worker, most).await,
        }
    }

    /// Claims one run, which has to be pending. The worker that has claimed it so gets it once more.
    ///
    /// # Errors
    ///
    /// As of [`WorkerQueue::claim_work`]; [`QueueError::Conflict`] when somebody has it or has had it,
    /// [`QueueError::NotFound`].
    pub async fn claim_run(&self, run: &RunId, worker: &WorkerIdentity) -> Result<Claim, QueueError> {
        match &self.0 {
            Maker::Embedded(queue) => queue.claim_run(run, worker).await,
            Maker::Http(queue) => queue.claim_run(run, worker).await,
        }
    }

    /// A task's definition, whoever's it is.
    ///
    /// # Errors
    ///
    /// As of [`WorkerQueue::claim_work`]; [`QueueError::NotFound`].
    pub async fn definition(&self, task_id: &TaskId) -> Result<ReceivedDefinition, QueueError> {
        match &self.0 {
            Maker::Embedded(queue) => queue.definition(task_id).await,
            Maker::Http(queue) => queue.definition(task_id).await,
        }
    }

    /// A run that this worker has claimed before it was started anew, and the credentials that came with it; nothing where
    /// the queue has gone with the worker.
    #[must_use]
    pub fn resume(&self, run: RunId, credentials: Credentials) -> Option<RunQueue> {
        match &self.0 {
            Maker::Embedded(_) => None,
            Maker::Http(queue) => Some(queue.resume(run, credentials)),
        }
    }

    /// Until when a worker gets no tasks because somebody has put it into quarantine, if so.
    ///
    /// # Errors
    ///
    /// As of [`WorkerQueue::claim_work`]; not every worker may ask.
    pub async fn quarantined_until(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
    ) -> Result<Option<Timestamp>, QueueError> {
        match &self.0 {
            Maker::Embedded(queue) => {
                let known = queue.worker(task_queue_id, worker).await?;
                Ok(known.and_then(|known| known.quarantined_until).filter(|until| *until > queue.now()))
            }
            Maker::Http(queue) => queue.quarantined_until(task_queue_id, worker).await,
        }
    }

    /// The caches of a worker pool that nobody may use any more.
    ///
    /// # Errors
    ///
    /// As of [`WorkerQueue::claim_work`].
    pub async fn purge_requests(&self, worker_pool_id: &str) -> Result<Vec<PurgeRequest>, QueueError> {
        match &self.0 {
            Maker::Embedded(queue) => queue.purge_requests(worker_pool_id).await,
            Maker::Http(queue) => queue.purge_requests(worker_pool_id).await,
        }
    }

    /// All scopes that somebody has who has these: what roles add to them.
    ///
    /// # Errors
    ///
    /// As of [`WorkerQueue::claim_work`].
    pub async fn expand_scopes(&self, scopes: &[String]) -> Result<Vec<String>, QueueError> {
        match &self.0 {
            // There are no roles.
            Maker::Embedded(_) => Ok(minimal(scopes.to_vec())),
            Maker::Http(queue) => queue.expand_scopes(scopes).await,
        }
    }
}
