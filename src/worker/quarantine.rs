//! Why an idle worker may get no tasks although there are some: somebody has put it into quarantine.
//!
//! The queue answers such a worker as if nothing were pending. It can only be asked, by those who may.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Service;
use super::log::Entry;
use crate::queue::QueueError;
use crate::timestamp::Timestamp;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(5 * 60);

/// How long the next request for tasks waits for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known so far.
#[derive(Debug)]
pub struct Quarantine {
    /// When the queue is asked again; never where the worker may not.
    due: Cell<Option<Instant>>,
    /// Until when it is, as it was told last.
    told: Cell<Option<Timestamp>>,
}

impl Default for Quarantine {
    fn default() -> Quarantine {
        Quarantine { due: Cell::new(Some(Instant::now())), told: Cell::default() }
    }
}

impl Service {
    /// Says once in the log that this worker is in quarantine. To be called when there was no task for it.
    pub(super) async fn look_for_quarantine(&self) {
        let Quarantine { due, told } = &self.quarantine;
        let now = Instant::now();
        if due.get().is_none_or(|due| due > now) {
            return;
        }
        due.set(Some(now + PAUSE));
        let pool = self.worker.config.file.worker_pool();
        let asked = timeout(PATIENCE, self.queue.quarantined_until(&pool, &self.identity));
        // It does not matter enough to say that it is not known.
        let Ok(answer) = asked.await else { return };
        match answer {
            Ok(until) => {
                if let Some(until) = until.filter(|until| told.get() != Some(*until)) {
                    let message =
                        format!("the queue gives this worker no tasks until {until}: it is in quarantine");
                    self.log.write(&Entry::Warning { message: &message });
                }
                told.set(until);
            }
            Err(
                QueueError::Unauthenticated { .. }
                | QueueError::Unauthorized { .. }
                | QueueError::Invalid { .. }
                | QueueError::NoContent { .. },
            ) => due.set(None),
            Err(
                QueueError::Foreign { .. }
                | QueueError::NotFound { .. }
                | QueueError::Conflict { .. }
                | QueueError::Unreachable { .. }
                | QueueError::Internal { .. },
            ) => {}
        }
    }
}
