//! Caches that nobody may have any more: asked for before tasks that might take them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Service;
use super::log::{Entry, WorkerLog};
use crate::cache::{Discarded, PurgeRequest, Purged};
use crate::text::chain;

/// How long tasks wait for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Service {
    /// Asks for the requests and carries them out. A service that is at fault keeps no task from running.
    pub(super) async fn purge(&self) {
        let worker = Arc::clone(&self.worker);
        match spawn_blocking(move || worker.caches.are_there()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return,
            Ok(Err(error)) => return self.tell_purge_problem(&chain(&error)),
            Err(error) => return self.tell_purge_problem(&chain(&error)),
        }
        let pool = self.worker.config.file.worker_pool();
        match timeout(PATIENCE, self.queue.purge_requests(&pool)).await {
            Ok(Ok(requests)) if requests.is_empty() => {}
            Ok(Ok(requests)) => self.carry_out_purge(requests).await,
            Ok(Err(error)) => self.tell_purge_problem(&chain(&error)),
            Err(_) => self.tell_purge_problem("have an answer which caches are to be purged in time"),
        }
    }

    async fn carry_out_purge(&self, requests: Vec<PurgeRequest>) {
        let worker = Arc::clone(&self.worker);
        // Others have the lock for as long as it takes to look at their instances.
        match spawn_blocking(move || worker.caches.purge(&requests, &|| true)).await {
            Ok(Ok(Purged { discarded, errors, .. })) => {
                for error in errors {
                    self.tell_purge_problem(&chain(&error));
                }
                let log = self.log.clone();
                if !discarded.is_empty() {
                    // Nobody waits for it: what is left of it at the worker's end is removed at its next start.
                    drop(spawn_blocking(move || remove(discarded, &log)));
                }
            }
            Ok(Err(error)) => self.tell_purge_problem(&chain(&error)),
            Err(error) => self.tell_purge_problem(&chain(&error)),
        }
    }

    fn tell_purge_problem(&self, problem: &str) {
        self.log.write(&Entry::Warning { message: &format!("failed to {problem}") });
    }
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
