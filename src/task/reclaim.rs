//! Keeping a claim as long as its run goes on.
//!
//! A claim holds for a while only (20 minutes), so that the queue notices a worker that is gone. A part of what is
//! left of it is waited for, half unless the configuration says otherwise, then it is prolonged. A queue that is at
//! fault, cannot be reached, does not find the run or does not take the signature is asked again as long as the claim
//! holds: the task knows nothing of it. One that refuses is asked how the run stands; where nobody else has ended it, this
//! worker does, and says so while it may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::background::Background;
use crate::claim_file::ClaimFile;
use crate::event::{Event, Events, RunEvent};
use crate::interrupt::{Interrupt, Interrupter, Notice};
use crate::queue::{QueueError, Reason, RunQueue, Standing, Verdict};
use crate::task_log::spool::Spool;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// Between two attempts to prolong a claim: the first wait, which doubles, and the longest.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];

/// The least time between two prolongations.
const PAUSE: Duration = Duration::from_secs(1);

/// How long one attempt to report an earlier run is repeated: whoever waits for the next one wants to know what is wrong.
const ATTEMPT_TIME: Duration = Duration::from_secs(10);

/// What a queue that works needs for an answer: as much has to be left of a claim for another attempt.
const ANSWER_TIME: Duration = Duration::from_secs(2);

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
    /// Where it stands for a successor of this worker, if it does.
    pub file: Option<ClaimFile>,
    /// Who hears how it goes.
    pub events: Events,
}

/// Keeps a claim until the result is dropped, which has to be before the run is reported.
pub fn keep(claim: Held) -> Background {
    Background::start(reclaim(claim))
}

async fn reclaim(mut claim: Held) {
    loop {
        let now = claim.queue.now();
        let taken_until = claim.taken_until;
        let alone = taken_until.since(now).div_f64(claim.divisor);
        let after_ms = u64::try_from(alone.as_millis()).unwrap_or(u64::MAX);
        claim.tell(&RunEvent::NextClaim { after_ms, taken_until });
        claim.queue.wait_until(now.plus(alone)).await;
        claim.tell(&RunEvent::Reclaiming { taken_until });
        match prolong(&claim.queue, taken_until, claim.told_once()).await {
            Ok(taken_until) => {
                claim.taken_until = taken_until;
                claim.tell(&RunEvent::Reclaimed { taken_until });
                claim.write_down().await;
                // Also where the queue's clock makes the new time one that is over.
                sleep(PAUSE).await;
            }
            Err(error) => {
                let message = format!("Could not reclaim task. Failed to {}", chain(&error));
                claim.tell(&RunEvent::ReclaimFailed { taken_until, message: &message });
                claim.log.error(&message);
                claim.interrupter.interrupt(why(&claim, &error).await, Notice::Reclaim);
                return;
            }
        }
    }
}

impl Held {
    fn tell(&self, event: &RunEvent<'_>) {
        self.events.emit(&Event::OfRun { event, run: self.queue.run() });
    }

    /// Tells the worker's log, and no task's, that the claim could not be prolonged: the first time of those in a row.
    fn told_once(&self) -> impl Fn(&QueueError) + use<> {
        let (events, run, taken_until) = (self.events.clone(), self.queue.run().clone(), self.taken_until);
        let is_told = AtomicBool::new(false);
        move |error| {
            if !is_told.swap(true, Ordering::Relaxed) {
                let why = chain(error);
                let message = format!(
                    "failed to prolong the claim of {run}, tried again until {taken_until}: failed to {why}"
                );
                events.emit(&Event::Warning { message: &message });
            }
        }
    }

    /// Without it the run goes on all the same: only after a crash the queue would have to notice by itself.
    async fn write_down(&self) {
        let (Some(file), Some(credentials)) = (self.file.clone(), self.queue.credentials()) else { return };
        let (taken_until, credentials) = (self.taken_until, credentials.borrow().clone());
        let written = tokio::task::spawn_blocking(move || file.renew(taken_until, credentials)).await;
        let problem = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(error) => chain(&error),
        };
        self.events.emit(&Event::Warning { message: &format!("failed to {problem}") });
    }
}

/// Prolongs a claim that holds until `taken_until`; gives the time until which it holds then. Tried until the claim is
/// over, or the queue refuses.
///
/// # Errors
///
/// The last attempt's. `failed` hears of those after which it is tried again.
pub async fn prolong(
    queue: &RunQueue,
    taken_until: Timestamp,
    failed: impl Fn(&QueueError),
) -> Result<Timestamp, QueueError> {
    let rest = || taken_until.since(queue.now());
    while_it_holds(rest, is_refusal, || queue.reclaim(), failed).await
}

/// How a run stands whose claim would hold until `taken_until`. Asked until then, or the queue refuses to say.
///
/// # Errors
///
/// The last attempt's. `failed` hears of those after which it is tried again.
pub async fn standing(
    queue: &RunQueue,
    taken_until: Timestamp,
    failed: impl Fn(&QueueError),
) -> Result<Standing, QueueError> {
    let rest = || taken_until.since(queue.now());
    while_it_holds(rest, is_refusal, || queue.status(), failed).await
}

/// Resolves a run whose claim holds until `taken_until`, unless somebody else was first; gives how it stands then. Tried
/// until the claim is over: whatever is refused leaves the run unresolved.
///
/// # Errors
///
/// The last attempt's. `failed` hears of those after which it is tried again.
pub async fn settle(
    queue: &RunQueue,
    taken_until: Timestamp,
    verdict: Verdict,
    failed: impl Fn(&QueueError),
) -> Result<Verdict, QueueError> {
    let rest = || taken_until.since(queue.now());
    let attempt = || queue.settle_within(rest().min(ATTEMPT_TIME), verdict);
    while_it_holds(rest, |_| false, attempt, failed).await
}

/// As [`settle`] until then, whether or not a claim holds so long; but what the queue does not take is said once.
///
/// # Errors
///
/// [`QueueError::Invalid`], or the last attempt's.
pub async fn settle_until(
    queue: &RunQueue,
    until: Timestamp,
    verdict: Verdict,
) -> Result<Verdict, QueueError> {
    let rest = || until.since(queue.now());
    let attempt = || queue.settle_within(rest().min(ATTEMPT_TIME), verdict);
    let is_final = |error: &QueueError| matches!(error, QueueError::Invalid { .. });
    while_it_holds(rest, is_final, attempt, |_| {}).await
}

/// Whether the queue has answered, and will answer the same again.
#[must_use]
pub fn is_refusal(error: &QueueError) -> bool {
    match error {
        QueueError::Conflict { .. }
        | QueueError::Invalid { .. }
        | QueueError::NoContent { .. }
        | QueueError::Unauthorized { .. } => true,
        // A deployment's front end answers for a queue that is not there for now. One that has just come back may not know
        // the run yet. For a refused signature a clock that is off for a moment is enough: this host's, or the queue's.
        QueueError::Foreign { .. }
        | QueueError::NotFound { .. }
        | QueueError::Unauthenticated { .. }
        | QueueError::Unreachable { .. }
        | QueueError::Internal { .. } => false,
    }
}

async fn while_it_holds<T, F: Future<Output = Result<T, QueueError>>>(
    rest: impl Fn() -> Duration,
    is_final: impl Fn(&QueueError) -> bool,
    attempt: impl Fn() -> F,
    failed: impl Fn(&QueueError),
) -> Result<T, QueueError> {
    let [mut wait, longest] = WAITS;
    let mut cause = None;
    loop {
        // Once even of a claim that seems to be over: clocks differ, and the queue's is the one that counts.
        let error = match timeout(rest().max(ANSWER_TIME), attempt()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if is_final(&error) => return Err(error),
            Ok(Err(error)) => error,
            // What was wrong before says more than that the time is over.
            Err(_) => cause.take().unwrap_or_else(unanswered),
        };
        let spare = rest().saturating_sub(ANSWER_TIME);
        if spare.is_zero() {
            return Err(error);
        }
        failed(&error);
        cause = Some(error);
        sleep(wait.min(spare)).await;
        wait = longest.min(wait * 2);
    }
}

fn unanswered() -> QueueError {
    let source = "there was no answer until it was over".into();
    QueueError::Unreachable { what: "a claim".to_owned(), source }
}

/// What has become of the run: what the queue has made of it, or else what this worker has to.
async fn why(claim: &Held, error: &QueueError) -> Interrupt {
    let standing = claim.queue.status().await;
    let holds = claim.taken_until > claim.queue.now();
    match standing {
        Ok(Standing::Resolved(Verdict::Exception(Reason::Canceled))) => Interrupt::Cancelled,
        Ok(Standing::Resolved(Verdict::Exception(Reason::DeadlineExceeded))) => Interrupt::Deadline,
        Ok(Standing::Open) | Err(_) if holds && is_refusal(error) => Interrupt::RefusedClaim,
        Ok(Standing::Open | Standing::Resolved(_)) | Err(_) => Interrupt::LostClaim,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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
            file: None,
            events: Events::default(),
        });
        Fixture { _awake: awake, author, queue: claim.queue, keeping, interrupts, _directory: directory }
    }

    /// Lets time pass. What a step wakes may ask the queue, and is answered before the next one.
    async fn pass(author: &EmbeddedQueue, run: &RunQueue, time: Duration) {
        let begin = tokio::time::Instant::now();
        while begin.elapsed() < time {
            tokio::time::advance(HOUR / 120).await;
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

    /// An attempt at a queue that is at fault.
    fn at_fault() -> Result<Timestamp, QueueError> {
        Err(QueueError::Unreachable { what: "the claim".to_owned(), source: "502".into() })
    }

    /// An attempt while a clock is off.
    fn unauthenticated() -> Result<Timestamp, QueueError> {
        Err(QueueError::Unauthenticated { what: "the claim".to_owned(), because: "stale".to_owned() })
    }

    /// An attempt at a front end without a queue.
    fn foreign() -> Result<Timestamp, QueueError> {
        Err(QueueError::Foreign { what: "the claim".to_owned(), because: "404".to_owned() })
    }

    /// An attempt at a queue that does not know the run yet.
    fn not_found() -> Result<Timestamp, QueueError> {
        Err(QueueError::NotFound { what: "the claim".to_owned() })
    }

    /// What is left of a claim that holds for `whole` from now on.
    fn lasting(whole: Duration) -> impl Fn() -> Duration {
        let began = tokio::time::Instant::now();
        move || whole.saturating_sub(began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_at_fault_is_asked_again_as_long_as_the_claim_holds() {
        for fault in [at_fault, unauthenticated, foreign, not_found] {
            let (rest, until) = (lasting(HOUR / 6), Timestamp::now());
            let attempt = || async {
                // Two minutes of faults, of ten.
                if rest() > Duration::from_secs(480) { fault() } else { Ok(until) }
            };
            let answered = while_it_holds(&rest, is_refusal, attempt, |_| {});
            assert_eq!(answered.await.unwrap(), until);
            assert!(rest() > Duration::from_secs(460), "{:?}", rest());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_attempt_is_made_when_it_can_just_be_answered() {
        let (rest, last) = (lasting(HOUR / 6), Cell::new(Duration::ZERO));
        let attempt = || async {
            last.set(rest());
            at_fault()
        };
        let given_up = while_it_holds(&rest, is_refusal, attempt, |_| {});
        assert!(matches!(given_up.await, Err(QueueError::Unreachable { .. })));
        assert_eq!(last.get(), ANSWER_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_comes_is_not_waited_for_longer_than_the_claim_holds() {
        let rest = lasting(HOUR / 6);
        let attempt = std::future::pending::<Result<(), _>>;
        let given_up = while_it_holds(&rest, is_refusal, attempt, |_| {}).await;
        assert!(matches!(given_up, Err(QueueError::Unreachable { .. })) && rest().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_heard_of_and_is_the_end_also_of_an_attempt_that_is_cut() {
        let (rest, heard) = (lasting(HOUR / 6), Cell::new(0));
        let attempt = || async {
            if heard.get() == 3 {
                std::future::pending::<()>().await;
            }
            unauthenticated()
        };
        let given_up = while_it_holds(&rest, is_refusal, attempt, |_| heard.set(heard.get() + 1)).await;
        assert!(matches!(given_up, Err(QueueError::Unauthenticated { .. })), "{given_up:?}");
        assert!(heard.get() == 3 && rest().is_zero(), "{} {:?}", heard.get(), rest());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_refuses_is_not_asked_again() {
        let (what, because) = (|| "it".to_owned(), || "no".to_owned());
        let refusals: [fn(String, String) -> QueueError; 3] = [
            |what, because| QueueError::Conflict { what, because },
            |what, because| QueueError::Invalid { what, because },
            |what, because| QueueError::Unauthorized { what, because },
        ];
        for refusal in refusals {
            let asked = Cell::new(0);
            let attempt = || async {
                asked.set(asked.get() + 1);
                Err::<(), _>(refusal(what(), because()))
            };
            let refused = while_it_holds(lasting(HOUR), is_refusal, attempt, |_| {}).await.unwrap_err();
            assert_eq!((asked.get(), is_refusal(&refused)), (1, true), "{refused}");
        }
    }
}
