//! Claiming the tasks of a list by their names.

use std::cell::Cell;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

use super::held::{HeldTask, HeldTasks};
use crate::interrupt::Interrupts;
use crate::payload::superseder::{is_one_host, url_of};
use crate::queue::task_id::TaskId;
use crate::queue::{Claim, QueueError, ReceivedDefinition, RunId, WorkerIdentity, WorkerQueue};
use crate::task::secondaries::SecondaryClaim;
use crate::text::chain;

/// Tasks that are asked for at a time: each answer may hold the largest of definitions.
const AT_ONCE: usize = 4;

/// How long after an interrupt an answer is waited for that may bring a claim.
const GRACE: Duration = Duration::from_secs(2);

/// What is carried out of some claims.
pub(in crate::worker) struct Chosen {
    /// The run that is carried out.
    pub(in crate::worker) primary: Claim,
    /// Those that it makes superfluous.
    pub(in crate::worker) secondaries: Vec<SecondaryClaim>,
    /// Tasks that nobody else here is to claim meanwhile.
    pub(in crate::worker) held: Vec<HeldTask>,
}

impl Chosen {
    pub(super) fn alone(claim: Claim) -> Chosen {
        Chosen { primary: claim, secondaries: Vec::new(), held: Vec::new() }
    }
}

/// Who claims, and for whom.
pub(super) struct Claimer<'a> {
    pub(super) queue: &'a WorkerQueue,
    pub(super) worker: &'a WorkerIdentity,
    /// Whose tasks it carries out.
    pub(super) pool: &'a str,
    /// The tasks that it has.
    pub(super) held: &'a HeldTasks,
    /// The URL of who has listed them.
    pub(super) superseder: &'a str,
    /// After one no more are claimed.
    pub(super) interrupts: Interrupts,
    /// Hears of each task that is not to be had.
    pub(super) trouble: &'a dyn Fn(&RunId, &Trouble),
}

/// Why a task is not to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Its own author has not put it under that superseder: who listed it may not end it.
    #[error("it is no task of this pool, or names no superseder at the same host")]
    Stranger,
    /// The queue says no, or nothing.
    #[error("failed to {}", chain(.0))]
    Queue(#[from] QueueError),
}

impl Trouble {
    /// Whether it is the same with every task.
    pub(super) fn is_of_all(&self) -> bool {
        matches!(self, Trouble::Queue(QueueError::Unauthorized { .. }))
    }
}

impl Claimer<'_> {
    /// Claims the first runs of all tasks in a list that is in order, but for those that this worker has.
    pub(super) async fn claim_all(&self, initial: Claim, list: &[TaskId]) -> Chosen {
        let own_place = place_of(list, &initial);
        let mut chosen = Chosen::alone(initial);
        let mut place_of_primary = own_place;
        let is_barred = Cell::new(false);
        let interrupts = self.interrupts.clone();
        let over = async {
            interrupts.clone().interrupted().await;
            sleep(GRACE).await;
        };
        let claims =
            stream::iter(list).map(|task_id| self.claim(task_id, &is_barred)).buffer_unordered(AT_ONCE);
        let mut claims = Box::pin(claims.filter_map(std::future::ready).take_until(Box::pin(over)));
        while let Some((mut claim, held)) = claims.next().await {
            chosen.held.push(held);
            // Each supersedes those before it.
            let place = place_of(list, &claim);
            if place > place_of_primary {
                std::mem::swap(&mut claim, &mut chosen.primary);
                place_of_primary = place;
            }
            chosen.secondaries.push(claim.into());
        }
        drop(claims);
        chosen
    }

    async fn claim(&self, task_id: &TaskId, is_barred: &Cell<bool>) -> Option<(Claim, HeldTask)> {
        if is_barred.get() || self.interrupts.current().is_some() {
            return None;
        }
        let held = self.held.hold_if_free(task_id)?;
        let run = RunId { task_id: task_id.clone(), run_id: 0 };
        match self.claim_run(&run).await {
            Ok(claim) => Some((claim, held)),
            Err(trouble) => {
                is_barred.set(is_barred.get() || trouble.is_of_all());
                (self.trouble)(&run, &trouble);
                None
            }
        }
    }

    /// Looks at the task before it is claimed: a claim that is given back costs a try.
    async fn claim_run(&self, run: &RunId) -> Result<Claim, Trouble> {
        let definition = self.queue.definition(&run.task_id).await?;
        if !self.may_stand_for_others(&definition) {
            return Err(Trouble::Stranger);
        }
        drop(definition);
        Ok(self.queue.claim_run(run, self.worker).await?)
    }

    fn may_stand_for_others(&self, definition: &ReceivedDefinition) -> bool {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Listed {
            task_queue_id: Option<String>,
            provisioner_id: Option<String>,
            worker_type: Option<String>,
            payload: Value,
        }
        let Ok(listed) = serde_json::from_str::<Listed>(definition.text()) else { return false };
        let Listed { task_queue_id, provisioner_id, worker_type, payload } = listed;
        let of_old = provisioner_id.zip(worker_type).map(|(one, two)| format!("{one}/{two}"));
        task_queue_id.or(of_old).as_deref() == Some(self.pool)
            && url_of(&payload).is_some_and(|url| is_one_host(url, self.superseder))
    }
}

fn place_of(list: &[TaskId], claim: &Claim) -> usize {
    list.iter().position(|task_id| *task_id == claim.queue.run().task_id).unwrap_or(0)
}

#[cfg(test)]
mod tests;
