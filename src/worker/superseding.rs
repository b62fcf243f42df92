//! Tasks in place of others: a task may name a superseder, which lists the tasks that supersede it. All of them that are to
//! be had are claimed, and the last one in the list, which supersedes the others, is carried out.
//!
//! Whatever goes wrong with that, the task itself is carried out, alone. A worker that is killed while it claims leaves
//! claims that nobody keeps: the queue notices when they are over.

mod claims;
mod held;
mod superseder;

use std::cell::Cell;

pub(super) use self::claims::Chosen;
use self::claims::{Claimer, Trouble};
pub(super) use self::held::HeldTask;
use self::held::HeldTasks;
use self::superseder::{Alone, ask};
use super::Service;
use super::log::Entry;
use crate::download::Downloader;
use crate::interrupt::Interrupts;
use crate::payload::superseder::{is_url, url_of};
use crate::queue::task_id::TaskId;
use crate::queue::{Claim, Custody, RunId};
use crate::task::secondaries::Unheard;

/// What a worker knows of tasks that stand for others.
#[derive(Debug, Default)]
pub struct Superseding {
    downloader: Downloader,
    held: HeldTasks,
    unheard: Unheard,
    /// Whether the queue has refused to let this worker claim tasks by their names.
    barred: Cell<bool>,
}

impl Superseding {
    /// Marks a task as one that this worker has.
    pub(super) fn hold(&self, task_id: &TaskId) -> HeldTask {
        self.held.hold(task_id)
    }

    pub(super) fn unheard(&self) -> Unheard {
        self.unheard.clone()
    }
}

impl Service {
    /// The run to be carried out for one that was claimed. An interrupt ends the search.
    pub(super) async fn choose(&self, claim: Claim, mut interrupts: Interrupts) -> Chosen {
        let run = claim.queue.run().clone();
        let of_run = interrupts.clone();
        let list = tokio::select! {
            biased;
            list = self.supersedes(&claim) => list,
            _ = interrupts.interrupted() => Ok(None),
        };
        match list {
            Ok(None) => Chosen::alone(claim),
            Ok(Some((url, list))) => {
                let chosen = self.claim_all((claim, &url), &list, of_run).await;
                self.tell_chosen(&run, &chosen);
                chosen
            }
            Err(Alone::NotSuperseding(message)) => {
                self.log.write(&Entry::NotSuperseding { run: &run, message });
                Chosen::alone(claim)
            }
            Err(Alone::Error(message)) => {
                self.log.write(&Entry::SupersedingError { run: &run, message: &message });
                Chosen::alone(claim)
            }
        }
    }

    /// Who says so, and the tasks of which the last one that is to be had stands for the others, that of the claim among them;
    /// nothing without a superseder.
    async fn supersedes(&self, claim: &Claim) -> Result<Option<(String, Vec<TaskId>)>, Alone> {
        let file = &self.worker.config.file;
        // A definition that cannot be read is a fault that the run itself ends with.
        let task = claim.definition.read().ok();
        let Some(url) = task.as_ref().and_then(|task| url_of(&task.payload)) else { return Ok(None) };
        let Superseding { downloader, unheard, barred, .. } = &self.superseding;
        if !is_url(url) {
            return Err(Alone::NotSuperseding("invalid supersederUrl in payload"));
        }
        if !file.supersedes() {
            return Err(Alone::NotSuperseding("superseding.enabled is false"));
        }
        if unheard.is_known() {
            return Err(Alone::NotSuperseding("the queue takes no report that a task was superseded"));
        }
        if barred.get() {
            return Err(Alone::NotSuperseding("this worker may not claim tasks by their names"));
        }
        // The task's word leads the worker to no address of this host or its neighbours.
        let custody =
            if file.superseding.allow_private_addresses { Custody::Deployment } else { Custody::Stranger };
        let list = ask(downloader, (url, custody), &claim.queue.run().task_id).await?;
        Ok(Some((url.to_owned(), list)))
    }

    async fn claim_all(
        &self,
        (claim, url): (Claim, &str),
        list: &[TaskId],
        interrupts: Interrupts,
    ) -> Chosen {
        let Superseding { held, barred, .. } = &self.superseding;
        let trouble = |run: &RunId, trouble: &Trouble| {
            if trouble.is_of_all() && barred.replace(true) {
                return;
            }
            let message = trouble.to_string();
            self.log.write(&Entry::SecondaryClaimFailure { run, message: &message });
        };
        let pool = self.worker.config.file.worker_pool();
        let claimer = Claimer {
            queue: &self.queue,
            worker: &self.identity,
            pool: &pool,
            held,
            superseder: url,
            interrupts,
            trouble: &trouble,
        };
        claimer.claim_all(claim, list).await
    }

    fn tell_chosen(&self, initial: &RunId, Chosen { primary, secondaries, .. }: &Chosen) {
        let primary = (primary.queue.run(), primary.taken_until);
        let claims = secondaries.iter().map(|claim| (claim.queue.run(), claim.taken_until)).chain([primary]);
        for (run, taken_until) in claims.filter(|(run, _)| *run != initial) {
            self.log.write(&Entry::ClaimedTask { run, taken_until });
        }
    }
}
