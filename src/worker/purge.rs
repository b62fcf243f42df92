//! Caches that nobody may have any more: asked for before tasks that might take them.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Service;
use super::log::{Entry, WorkerLog};
use crate::cache::{Discarded, PurgeRequest, Purged};
use crate::interrupt::Interrupts;
use crate::queue::QueueError;
use crate::text::chain;

/// How long tasks wait for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the log says of this worker's right to ask, where there is somebody to ask.
#[derive(Debug, Default)]
pub struct PurgeRights {
    /// That it has none: it is asked again before the next tasks, and not said again.
    told: Cell<bool>,
}

impl Service {
    /// Asks for the requests and carries them out, for a run that waits for it. A service that is at fault keeps no task
    /// from running. May be dropped at any time.
    pub(super) async fn purge(&self, interrupts: &Interrupts) {
        let worker = Arc::clone(&self.worker);
        match spawn_blocking(move || worker.caches.are_there()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return,
            Ok(Err(error)) => return tell_problem(&self.log, &chain(&error)),
            Err(error) => return tell_problem(&self.log, &chain(&error)),
        }
        let pool = self.worker.config.file.worker_pool();
        match timeout(PATIENCE, self.queue.purge_requests(&pool)).await {
            Ok(Ok(requests)) => {
                self.purge_rights.told.set(false);
                if !requests.is_empty() {
                    self.carry_out_purge(requests, interrupts.clone()).await;
                }
            }
            Ok(Err(error)) => {
                let is_refused = match error {
                    QueueError::Unauthenticated { .. }
                    | QueueError::Unauthorized { .. }
                    | QueueError::NotFound { .. }
                    | QueueError::Foreign { .. } => true,
                    QueueError::Conflict { .. }
                    | QueueError::Invalid { .. }
                    | QueueError::NoContent { .. }
                    | QueueError::Unreachable { .. }
                    | QueueError::Internal { .. } => false,
                };
                let is_told = is_refused && self.purge_rights.told.replace(true);
                if !is_told {
                    tell_problem(&self.log, &chain(&error));
                }
            }
            Err(_) => tell_problem(&self.log, "have an answer which caches are to be purged in time"),
        }
    }

    async fn carry_out_purge(&self, requests: Vec<PurgeRequest>, interrupts: Interrupts) {
        let (worker, log) = (Arc::clone(&self.worker), self.log.clone());
        // Others have the lock for as long as it takes to look at their instances.
        let wanted = move || interrupts.current().is_none();
        // To its end on that thread: whoever waits for it may be gone.
        let purge = move || match worker.caches.purge(&requests, &wanted) {
            Ok(Purged { discarded, in_use, errors }) => {
                let names = discarded.iter().map(Discarded::name).chain(in_use.iter().map(String::as_str));
                for name in names {
                    log.write(&Entry::CachePurge { name });
                }
                for error in errors {
                    tell_problem(&log, &chain(&error));
                }
                if !discarded.is_empty() {
                    // Nobody waits for it: what is left of it at the worker's end is removed at its next start.
                    drop(spawn_blocking(move || remove(discarded, &log)));
                }
            }
            // The next run asks again.
            Err(_) if !wanted() => {}
            Err(error) => tell_problem(&log, &chain(&error)),
        };
        if let Err(error) = spawn_blocking(purge).await {
            tell_problem(&self.log, &chain(&error));
        }
    }
}

fn tell_problem(log: &WorkerLog, problem: &str) {
    log.write(&Entry::Warning { message: &format!("failed to {problem}") });
}

fn remove(discarded: Vec<Discarded>, log: &WorkerLog) {
    for instance in discarded {
        let name = instance.name().to_owned();
        match instance.remove() {
            Ok(()) => log.write(&Entry::CacheRemoved { name: &name }),
            Err(error) => log.write(&Entry::CacheRemovalError { name: &name, message: &chain(&error) }),
        }
    }
}
