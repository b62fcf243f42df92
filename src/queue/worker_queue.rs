//! What a worker asks a queue for before it has a task.

use crate::queue::model::WorkerIdentity;
use crate::queue::{Claim, EmbeddedQueue, Maker, QueueError};

/// A queue, with the worker's rights.
#[derive(Clone, Debug)]
pub struct WorkerQueue {
    maker: Maker,
}

impl WorkerQueue {
    /// The embedded queue, as a worker sees it.
    #[must_use]
    pub fn embedded(queue: EmbeddedQueue) -> WorkerQueue {
        WorkerQueue { maker: Maker::Embedded(queue) }
    }

    /// Claims at most `most` pending tasks of a task queue, the most urgent first. None pending: an empty list.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn claim_work(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
        most: usize,
    ) -> Result<Vec<Claim>, QueueError> {
        match &self.maker {
            Maker::Embedded(queue) => queue.claim_work(task_queue_id, worker, most).await,
        }
    }
}
