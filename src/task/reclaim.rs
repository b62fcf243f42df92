//! Keeping a claim as long as its run goes on.
//!
//! A claim holds for a while only (20 minutes), so that the queue notices a worker that is gone. A part of what is
//! left of it is waited for, half unless the configuration says otherwise, then it is prolonged. What the queue answers is also the only way in which it tells a worker that
//! a task was cancelled.

use std::time::Duration;

use crate::background::Background;
use crate::interrupt::{Interrupt, Interrupter};
use crate::queue::{QueueError, Reason, RunQueue, Standing, Verdict};
use crate::task_log::spool::Spool;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// The longest wait between two looks at the queue's time, which goes on while this host is suspended.
const LOOK: Duration = Duration::from_secs(30);

/// What has to be left of a claim for another attempt after one that failed.
const LAST_ATTEMPT: Duration = Duration::from_secs(30);

/// A claim that is to be kept.
pub struct Held {
    /// Where, and of which run.
    pub queue: RunQueue,
    /// Until when it holds.
    pub taken_until: Timestamp,
    /// By what the time that is left of it is divided: the claim is left alone for that long. More than 1.
    pub divisor: f64,
    /// Told when it is lost.
    pub interrupter: Interrupter,
    /// Where it says why.
    pub log: Spool,
}

/// Keeps a claim until the result is dropped, which has to be before the run is reported.
pub fn keep(claim: Held) -> Background {
    Background::start(reclaim(claim))
}

async fn reclaim(mut claim: Held) {
    loop {
        let now = claim.queue.now();
        wait_until(&claim.queue, now.plus(claim.taken_until.since(now).div_f64(claim.divisor))).await;
        let error = match claim.queue.reclaim().await {
            Ok(taken_until) => {
                claim.taken_until = taken_until;
                continue;
            }
            Err(error) => error,
        };
        let is_final = matches!(error, QueueError::Conflict { .. } | QueueError::NotFound { .. });
        if is_final || claim.taken_until.since(claim.queue.now()) < LAST_ATTEMPT {
            claim.log.error(&format!("Could not reclaim task. Failed to {}", chain(&error)));
            claim.interrupter.interrupt(why(&claim).await);
            return;
        }
    }
}

async fn wait_until(queue: &RunQueue, due: Timestamp) {
    loop {
        let rest = due.since(queue.now());
        if rest.is_zero() {
            return;
        }
        tokio::time::sleep(rest.min(LOOK)).await;
    }
}

/// What the queue has made of the run.
async fn why(claim: &Held) -> Interrupt {
    match claim.queue.status().await {
        Ok(Standing::Resolved(Verdict::Exception(Reason::Canceled))) => Interrupt::Cancelled,
        Ok(Standing::Resolved(Verdict::Exception(Reason::DeadlineExceeded))) => Interrupt::Deadline,
        Ok(Standing::Open | Standing::Resolved(_)) | Err(_) => Interrupt::LostClaim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::{Interrupts, channel};
    use crate::queue::definition::Submission;
    use crate::queue::task_id::TaskId;
    use crate::queue::{EmbeddedQueue, RunState, WorkerIdentity, WorkerQueue, steady_clock};

    const HOUR: Duration = Duration::from_secs(3600);

    struct Fixture {
        /// Keeps the event loop from moving the test's clock by itself while it waits for the queue's thread.
        _awake: Background,
        /// The author's side.
        author: EmbeddedQueue,
        queue: RunQueue,
        keeping: Background,
        interrupts: Interrupts,
        _directory: tempfile::TempDir,
    }

    /// A run that has just been claimed. Its time is that of the test's event loop.
    async fn claimed() -> Fixture {
        let awake = Background::start(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let author = EmbeddedQueue::in_memory(steady_clock()).unwrap();
        let task_id = TaskId::random().unwrap();
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        let mut definition = submission.into_task(&task_id, author.now()).unwrap().definition;
        definition.deadline = author.now().plus(6 * HOUR);
        author.create_task(&task_id, &definition).await.unwrap();
        let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        let queue = WorkerQueue::embedded(author.clone());
        let claim = queue.claim_work(&definition.task_queue_id, &worker, 1).await.unwrap().claims.remove(0);
        let (interrupter, interrupts) = channel();
        let directory = tempfile::tempdir().unwrap();
        let keeping = keep(Held {
            queue: claim.queue.clone(),
            taken_until: claim.taken_until,
            divisor: 2.0,
            interrupter,
            log: Spool::create(&directory.path().join("log"), 1 << 20).unwrap(),
        });
        Fixture { _awake: awake, author, queue: claim.queue, keeping, interrupts, _directory: directory }
    }

    /// Lets time pass. What a step wakes may ask the queue, and is answered before the next one.
    async fn pass(author: &EmbeddedQueue, run: &RunQueue, time: Duration) {
        let begin = tokio::time::Instant::now();
        while begin.elapsed() < time {
            tokio::time::advance(LOOK).await;
            for _ in 0..3 {
                author.status(&run.run().task_id).await.unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_of_hours_stays_this_workers_and_is_resolved_as_it_says() {
        let Fixture { _awake, author, queue, keeping, interrupts, _directory } = claimed().await;
        pass(&author, &queue, 5 * HOUR).await;
        assert_eq!(interrupts.current(), None);
        drop(keeping);
        queue.report(Verdict::Completed).await.unwrap();
        let status = author.status(&queue.run().task_id).await.unwrap();
        assert_eq!((status.state, status.runs.len()), (RunState::Completed, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_nobody_keeps_is_lost() {
        let Fixture { _awake, author, queue, keeping, _directory, .. } = claimed().await;
        drop(keeping);
        pass(&author, &queue, HOUR).await;
        assert!(matches!(queue.report(Verdict::Completed).await, Err(QueueError::Conflict { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_queue_does_to_a_run_interrupts_it() {
        let Fixture { _awake, author, queue, keeping: _keeping, interrupts, _directory } = claimed().await;
        author.cancel_task(&queue.run().task_id).await.unwrap();
        pass(&author, &queue, HOUR).await;
        assert_eq!(interrupts.current(), Some(Interrupt::Cancelled));

        let Fixture { _awake, author, queue, keeping: _keeping, interrupts, _directory } = claimed().await;
        pass(&author, &queue, 7 * HOUR).await;
        assert_eq!(interrupts.current(), Some(Interrupt::Deadline));
    }
}
