//! Tasks in place of others: a task may name a superseder, which lists the tasks that supersede it. All of them that are to
//! be had are claimed, and the last one in the list, which supersedes the others, is carried out.
//!
//! Whatever goes wrong with that, the task itself is carried out, alone.

mod held;
mod superseder;

use futures_util::future::join_all;

pub(super) use self::held::HeldTask;
use self::held::HeldTasks;
use self::superseder::{Alone, ask};
use super::Service;
use super::log::Entry;
use crate::download::Downloader;
use crate::interrupt::Interrupts;
use crate::payload::superseder::{is_url, url_of};
use crate::queue::task_id::TaskId;
use crate::queue::{Claim, Custody, QueueError, RunId, WorkerIdentity, WorkerQueue};
use crate::task::secondaries::Unheard;
use crate::text::chain;

/// What a worker knows of tasks that stand for others.
#[derive(Debug, Default)]
pub struct Superseding {
    downloader: Downloader,
    held: HeldTasks,
    unheard: Unheard,
}

/// What is carried out of some claims.
pub(super) struct Chosen {
    /// The run that is carried out.
    pub(super) primary: Claim,
    /// Those that it makes superfluous.
    pub(super) secondaries: Vec<Claim>,
    /// Tasks that nobody else here is to claim meanwhile.
    pub(super) held: Vec<HeldTask>,
}

impl Chosen {
    fn alone(claim: Claim) -> Chosen {
        Chosen { primary: claim, secondaries: Vec::new(), held: Vec::new() }
    }
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
    /// The run to be carried out for one that was claimed. An interrupt ends the question to the superseder.
    pub(super) async fn choose(&self, claim: Claim, mut interrupts: Interrupts) -> Chosen {
        let run = claim.queue.run().clone();
        let list = tokio::select! {
            biased;
            list = self.supersedes(&claim) => list,
            _ = interrupts.interrupted() => Ok(Vec::new()),
        };
        match list {
            Ok(list) if list.is_empty() => Chosen::alone(claim),
            Ok(list) => {
                let failed = |run: &RunId, error: &QueueError| {
                    let message = format!("failed to {}", chain(error));
                    self.log.write(&Entry::SecondaryClaimFailure { run, message: &message });
                };
                let Superseding { held, .. } = &self.superseding;
                let chosen = claim_all((&self.queue, &self.identity, held), claim, &list, &failed).await;
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

    /// The tasks of which the last one that is to be had stands for the others, that of the claim among them; none without
    /// a superseder.
    async fn supersedes(&self, claim: &Claim) -> Result<Vec<TaskId>, Alone> {
        let file = &self.worker.config.file;
        // A definition that cannot be read is a fault that the run itself ends with.
        let task = claim.definition.read().ok().filter(|_| file.supersedes());
        let Some(url) = task.as_ref().and_then(|task| url_of(&task.payload)) else {
            return Ok(Vec::new());
        };
        if !is_url(url) {
            return Err(Alone::NotSuperseding("invalid supersederUrl in payload"));
        }
        if self.superseding.unheard.is_known() {
            return Err(Alone::NotSuperseding("the queue takes no report that a task was superseded"));
        }
        // The task's word leads the worker to no address of this host or its neighbours.
        let custody =
            if file.superseding.allow_private_addresses { Custody::Deployment } else { Custody::Stranger };
        ask(&self.superseding.downloader, (url, custody), &claim.queue.run().task_id).await
    }

    fn tell_chosen(&self, initial: &RunId, Chosen { primary, secondaries, .. }: &Chosen) {
        for claim in secondaries.iter().chain([primary]).filter(|claim| claim.queue.run() != initial) {
            let (run, taken_until) = (claim.queue.run(), claim.taken_until);
            self.log.write(&Entry::ClaimedTask { run, taken_until });
        }
    }
}

/// Claims the first runs of all tasks in a list that is in order, but for those that this worker has.
async fn claim_all(
    (queue, worker, held): (&WorkerQueue, &WorkerIdentity, &HeldTasks),
    initial: Claim,
    list: &[TaskId],
    failed: &dyn Fn(&RunId, &QueueError),
) -> Chosen {
    let initial_id = initial.queue.run().task_id.clone();
    let mut holds = Vec::new();
    let mut claiming = Vec::new();
    for (place, task_id) in list.iter().enumerate() {
        let Some(hold) = held.hold_if_free(task_id) else { continue };
        holds.push(hold);
        claiming.push(async move {
            let run = RunId { task_id: task_id.clone(), run_id: 0 };
            match queue.claim_run(&run, worker).await {
                Ok(claim) => Some((place, claim)),
                Err(error) => {
                    failed(&run, &error);
                    None
                }
            }
        });
    }
    let own_place = list.iter().position(|task_id| *task_id == initial_id).unwrap_or(list.len());
    let mut primary = (own_place, initial);
    let mut secondaries = Vec::new();
    // In the order of the list: each supersedes those before it.
    for mut claim in join_all(claiming).await.into_iter().flatten() {
        if claim.0 > primary.0 {
            std::mem::swap(&mut claim, &mut primary);
        }
        secondaries.push(claim.1);
    }
    let primary = primary.1;
    let has = |hold: &HeldTask| {
        secondaries.iter().chain([&primary]).any(|claim| claim.queue.run().task_id == *hold.task_id())
    };
    holds.retain(has);
    Chosen { primary, secondaries, held: holds }
}

#[cfg(test)]
mod tests;
