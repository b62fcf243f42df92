//! The runs that a worker has now.

use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::OnceCell;
use tokio::task::{Id, JoinSet};

use super::Service;
use super::log::{Entry, Metric, TaskState};
use super::superseding::{Chosen, HeldTask};
use super::watch::watch;
use crate::interrupt::{Interrupt, Interrupter, Interrupts, Notice, channel};
use crate::queue::{Claim, Reason, RunId, Verdict};
use crate::task::carry_out;
use crate::task::claimed::Claimed;
use crate::task::resolved::Resolved;
use crate::task::secondaries::{Secondaries, SecondaryClaim, give_back};
use crate::text::chain;
use crate::timestamp::Timestamp;

/// Whether caches that nobody may have any more are gone. The first run of those that were claimed together sees to it,
/// once its claim is kept; the others wait.
type Purged = Rc<OnceCell<()>>;

/// All of them, each a task of the one loop.
#[derive(Default)]
pub(super) struct Runs {
    tasks: JoinSet<()>,
    running: HashMap<Id, (RunId, Interrupter)>,
}

impl Runs {
    pub(super) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Starts runs that were claimed together; `interrupt` ends them before they have begun.
    pub(super) fn start_all(
        &mut self,
        service: &Rc<Service>,
        claims: Vec<Claim>,
        interrupt: Option<(Interrupt, Notice)>,
    ) {
        let purged = Purged::default();
        // All of them before the first superseder is asked.
        let hold = |claim: Claim| (service.superseding.hold(&claim.queue.run().task_id), claim);
        let claims: Vec<_> = claims.into_iter().map(hold).collect();
        for (held, claim) in claims {
            self.start(service, (claim, held, Rc::clone(&purged)), interrupt);
        }
    }

    fn start(
        &mut self,
        service: &Rc<Service>,
        (claim, held, purged): (Claim, HeldTask, Purged),
        interrupt: Option<(Interrupt, Notice)>,
    ) {
        let run = claim.queue.run().clone();
        service.log.write(&Entry::ClaimedTask { run: &run, taken_until: claim.taken_until });
        let (interrupter, interrupts) = channel();
        if let Some((interrupt, notice)) = interrupt {
            interrupter.interrupt(interrupt, notice);
        }
        let service = Rc::clone(service);
        let ends = (interrupter.clone(), interrupts);
        let task = self.tasks.spawn_local(async move {
            service.carry_out_chosen((claim, held), &purged, ends).await;
        });
        self.running.insert(task.id(), (run, interrupter));
    }

    /// Ends all of them early.
    pub(super) fn interrupt(&self, why: Interrupt, notice: Notice) {
        for (_, interrupter) in self.running.values() {
            interrupter.interrupt(why, notice);
        }
    }

    /// Waits for the end of one; for ever when there is none. May be dropped at any time.
    pub(super) async fn ended(&mut self, service: &Service) {
        let Some(ended) = self.tasks.join_next_with_id().await else { return std::future::pending().await };
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        if let (Some((run, _)), Err(error)) = (self.running.remove(&id), ended) {
            service.log.write(&Entry::TaskError { run: &run, message: &error.to_string() });
            service.log.increment("task.error");
        }
    }
}

impl Service {
    /// A run, or the one that is to be carried out in its place.
    async fn carry_out_chosen(
        &self,
        (claim, _held): (Claim, HeldTask),
        purged: &Purged,
        ends: (Interrupter, Interrupts),
    ) {
        let Chosen { primary, secondaries, held: _others } = self.choose(claim, ends.1.clone()).await;
        self.carry_out((primary, secondaries), purged, ends).await;
    }

    async fn keep(&self, claims: Vec<SecondaryClaim>) -> Option<Secondaries> {
        if claims.is_empty() {
            return None;
        }
        let (store, unheard) = (self.options.store.clone(), self.superseding.unheard());
        Some(Secondaries::keep(&self.worker, store, unheard, claims).await)
    }

    /// One run from its claim until nothing of it is left.
    async fn carry_out(
        &self,
        (claim, secondaries): (Claim, Vec<SecondaryClaim>),
        purged: &Purged,
        (interrupter, interrupts): (Interrupter, Interrupts),
    ) {
        let queue = claim.queue.clone();
        let run = queue.run().clone();
        let (created, deadline) = (claim.definition.created(), claim.deadline);
        self.log.write(&Entry::RunTask { run: &run });
        if let Some(created) = created {
            self.log.count(Metric::TaskQueue, created, Some(&run));
            if run.run_id == 0 {
                let waited = queue.now().since(created);
                self.log.measure("timeToFirstClaim", waited.as_secs_f64() * 1000.0);
            }
        }
        self.log.count(Metric::TaskStart, Timestamp::now(), Some(&run));
        let poll = self.worker.config.file.status_poll();
        let ends = (interrupter.clone(), interrupts.clone());
        let (resolved, holdings) = match Claimed::begin(&self.worker, claim, self.options.clone(), ends).await
        {
            Ok(claimed) => {
                let purged_and_carried_out = async {
                    let purge = self.await_purge(purged, interrupts);
                    let ((), secondaries) = tokio::join!(purge, self.keep(secondaries));
                    carry_out(claimed.in_place_of(secondaries)).await
                };
                tokio::select! {
                    ended = purged_and_carried_out => ended,
                    () = watch((&queue, &self.log), deadline, poll, interrupter) => return,
                }
            }
            Err(not_begun) => {
                let message = format!("failed to {}", chain(not_begun.error()));
                self.log.increment("task.error");
                self.log.write(&Entry::TaskError { run: &run, message: &message });
                self.doubt_fitness();
                // Nothing of the task has happened: another worker is to have it, as when this one ends.
                interrupter.interrupt(Interrupt::Shutdown, Notice::Worker);
                let (store, unheard) = (self.options.store.clone(), self.superseding.unheard());
                let giving_back = give_back(&self.worker, store, unheard, secondaries);
                let (resolved, ()) = tokio::join!(not_begun.resolve(), giving_back);
                (resolved, None)
            }
        };
        self.tell(&run, &resolved);
        self.log.count(Metric::TaskFinish, Timestamp::now(), Some(&run));
        if let Some(holdings) = holdings {
            for problem in holdings.give_back().await {
                self.log.write(&Entry::Warning { message: &problem });
            }
        }
    }

    /// Waits until caches may be taken. A run that is interrupted takes none that matters, and leaves what it has begun to
    /// the next one.
    async fn await_purge(&self, purged: &Purged, mut interrupts: Interrupts) {
        let of_run = interrupts.clone();
        tokio::select! {
            biased;
            _ = interrupts.interrupted() => {}
            () = async { purged.get_or_init(|| self.purge(&of_run)).await; } => {}
        }
    }

    fn tell(&self, run: &RunId, resolved: &Resolved) {
        let verdict = resolved.resolution.verdict;
        let message = resolved.explanation.as_deref();
        if verdict == Verdict::Exception(Reason::InternalError) {
            self.log.write(&Entry::TaskError { run, message: message.unwrap_or_default() });
            self.log.increment("task.error");
        }
        if let Some(resources) = &resolved.document.resources {
            self.log.measure("task.runtime", resources.wall_seconds * 1000.0);
        }
        let task_state = TaskState::of(verdict);
        self.log.write(&Entry::TaskResolved { run, task_state, reason: verdict.as_str(), message });
    }
}
