//! What workers call: they claim runs, keep their claims, and say how runs have ended.

use super::EmbeddedQueue;
use super::schedule::{self, Claimant, Claimed};
use crate::queue::model::{RunId, WorkerIdentity};
use crate::queue::{Claim, ClaimedWork, QueueError, Standing, Verdict, runs};
use crate::timestamp::Timestamp;

impl EmbeddedQueue {
    /// See [`super::WorkerQueue::claim_work`].
    pub(in crate::queue) async fn claim_work(
        &self,
        task_queue_id: &str,
        worker: &WorkerIdentity,
        most: usize,
    ) -> Result<ClaimedWork, QueueError> {
        let (task_queue_id, worker, time) = (task_queue_id.to_owned(), worker.clone(), self.claim_time);
        let claimed = self
            .give(move |database, now| {
                let claimant = Claimant { worker, now, time };
                schedule::claim_work(database, &task_queue_id, &claimant, most)
            })
            .await?;
        let claims = claimed.into_iter().map(|claimed| self.claim(claimed));
        Ok(ClaimedWork { claims: claims.collect(), unreadable: Vec::new() })
    }

    /// Claims one run, which has to be pending. The worker that has it gets it once more.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`], [`QueueError::Conflict`] when somebody has it or has had it.
    pub async fn claim_run(&self, run: &RunId, worker: &WorkerIdentity) -> Result<Claim, QueueError> {
        let (run, worker, time) = (run.clone(), worker.clone(), self.claim_time);
        let claimed = self
            .give(move |database, now| schedule::claim_run(database, &run, &Claimant { worker, now, time }));
        Ok(self.claim(claimed.await?))
    }

    fn claim(&self, claimed: Claimed) -> Claim {
        Claim {
            queue: self.run(claimed.run),
            taken_until: claimed.taken_until,
            deadline: claimed.deadline,
            expires: claimed.expires,
            definition: claimed.definition,
        }
    }

    /// See [`RunQueue::reclaim`].
    pub(in crate::queue) async fn reclaim(&self, run: &RunId) -> Result<Timestamp, QueueError> {
        let (id, time) = (run.clone(), self.claim_time);
        let reclaimed = self.change(&run.task_id, move |status, now| runs::reclaim(status, &id, now, time));
        reclaimed.await.map(|(until, _)| until)
    }

    /// See [`RunQueue::report`].
    pub(in crate::queue) async fn report(&self, run: &RunId, verdict: Verdict) -> Result<(), QueueError> {
        let run = run.clone();
        self.ask(move |database, now| schedule::report(database, &run, verdict, now)).await
    }

    /// See [`RunQueue::status`].
    pub(in crate::queue) async fn standing(&self, run: &RunId) -> Result<Standing, QueueError> {
        let status = self.status(&run.task_id).await?;
        Ok(runs::find(&status, run)?.reason_resolved.map_or(Standing::Open, Standing::Resolved))
    }
}
