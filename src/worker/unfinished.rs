//! Runs that this worker had when it was killed: their logs are stored as far as they came, and the queue is told at once,
//! so that the tasks run again.
//!
//! All this goes on beside claiming, each run for itself, at most as long as its claim holds. A worker that is to end gives
//! it little time, even if it is in no hurry: a refused report may be refused until the claim is over. When that time is
//! nearly over the report comes first, and what is not done, such as a log, is left to the next start.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::Service;
use super::exit::at;
use super::log::{Entry, Metric, TaskState};
use crate::artifact::{Publisher, PublisherParts};
use crate::claim_file::HeldRun;
use crate::cleanup::Unfinished;
use crate::features::{Killed, publish_logs};
use crate::interrupt::{Interrupt, Notice, channel};
use crate::queue::{QueueError, Reason, Reporter, RunId, RunQueue, Standing, Verdict};
use crate::task::outcome::NO_STATUS;
use crate::task::reclaim::{is_refusal, prolong, settle, standing};
use crate::task_log;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// What is left of a claim for the report when the log has taken its time.
const REPORT_TIME: Duration = Duration::from_secs(30);

/// How long a log of a run that the queue has resolved already may take: the claim is no bound any more.
const LATE_LOG_TIME: Duration = Duration::from_secs(120);

/// What is kept of the time before the worker's end for the report.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a worker that has nothing else to do before its end goes on with this.
pub(super) const GRACE: Duration = Duration::from_secs(20);

/// What is told of a run that the worker could not report.
const EXPLANATION: &str =
    "The worker died while it had this task; what there is of the log was stored when it started again.";

/// What is told of one that it had reported.
const REPORTED: &str = "The worker died after it had reported this task, with its log.";

/// The last line but one of a log whose worker has died.
const DIED: &str =
    "The worker died while this task ran. Task has been aborted prematurely. Reason: worker-shutdown";

/// Bytes that the two last lines of such a log do not exceed.
const END_BYTES: u64 = 1 << 10;

/// The runs that are being resolved.
#[derive(Default)]
pub(super) struct Recovery {
    runs: JoinSet<()>,
    /// When the rest is left to the next start.
    end: watch::Sender<Option<Instant>>,
}

/// Hears when the rest is left to the next start.
type End = watch::Receiver<Option<Instant>>;

impl Recovery {
    pub(super) fn count(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn start(&mut self, service: &Rc<Service>, unfinished: Vec<Unfinished>) {
        for run in unfinished {
            let (service, end) = (Rc::clone(service), self.end.subscribe());
            // Until it is resolved nobody here claims it by its name.
            let held = service.superseding.hold(&run.held.run.task_id);
            self.runs.spawn_local(async move {
                service.take_up(run, end).await;
                drop(held);
            });
        }
    }

    /// Waits for the end of one, or of the time for them; for ever when there is neither. May be dropped at any time.
    pub(super) async fn ended(&mut self, service: &Service) {
        let end = self.end.borrow().filter(|_| !self.runs.is_empty());
        tokio::select! {
            Some(ended) = self.runs.join_next() => {
                if let Err(error) = ended {
                    service.warn(&format!("failed to resolve an earlier run: {error}"));
                }
            }
            () = at(end) => {
                let left = self.runs.len();
                service.warn(&format!("left earlier runs that are not done with to the next start: {left}"));
                self.runs = JoinSet::new();
            }
        }
    }

    /// Leaves what is not done then to the next start. The earliest such time counts.
    pub(super) fn end_by(&mut self, end: Instant) {
        self.end.send_modify(|known| *known = Some(known.map_or(end, |known| known.min(end))));
    }
}

/// Waits until the end of the time for all this is near; for ever while there is none.
async fn is_near(mut end: End) {
    loop {
        let known = *end.borrow_and_update();
        let near = known.map(|end| end.checked_sub(LAST_WORDS).unwrap_or(end));
        tokio::select! {
            () = at(near) => return,
            changed = end.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

impl Service {
    async fn take_up(&self, mut unfinished: Unfinished, end: End) {
        let held = &unfinished.held;
        if let Some(queue) = self.queue.resume(held.run.clone(), held.credentials.clone()) {
            let failed = self.told_once(format!("failed to take up {}", held.run));
            match prolong(&queue, held.taken_until, failed).await {
                Ok(taken_until) => {
                    unfinished.held.taken_until = taken_until;
                    self.resolve(&queue, &unfinished, end).await;
                }
                Err(error) => self.look_after(&queue, &unfinished, &error, end).await,
            }
        }
        let run = unfinished.held.run.clone();
        let removed = spawn_blocking(move || unfinished.remove()).await;
        if let Err(problem) = removed.map_err(|error| chain(&error)).flatten() {
            self.warn(&format!("failed to remove what is left of {run}: {problem}"));
        }
    }

    /// The run is still this worker's. A log that cannot be stored in time keeps nobody from trying the task again.
    /// While the claim holds the queue is told again: only what it knows, or is about to know, may be forgotten here.
    async fn resolve(&self, queue: &RunQueue, unfinished: &Unfinished, end: End) {
        let HeldRun { run, taken_until, .. } = &unfinished.held;
        self.end_log(unfinished).await;
        self.write_down(queue, unfinished).await;
        let rest = || taken_until.since(queue.now());
        let stored = tokio::select! {
            stored = self.store_log(queue, unfinished, rest().saturating_sub(REPORT_TIME)) => stored,
            () = is_near(end) => Err("the worker is to end".to_owned()),
        };
        let verdict = Verdict::Exception(Reason::WorkerShutdown);
        let failed = self.told_once(format!("failed to report {run}"));
        match settle(queue, *taken_until, verdict, failed).await {
            Ok(standing) if standing == verdict => self.tell_resolved(unfinished, standing, EXPLANATION),
            Ok(standing) => self.tell_resolved(unfinished, standing, explanation(standing)),
            Err(error) => self.tell_over(run, &error),
        }
        if let Err(problem) = stored {
            self.warn(&format!("failed to store the log of {run}: {problem}; trying once more"));
            self.store_log_late(queue, unfinished).await;
        }
    }

    /// Its claim cannot be prolonged: somebody has cancelled it, or it was resolved just before its worker died, or the
    /// queue is gone. One that only refuses to prolong it may still take the report.
    async fn look_after(&self, queue: &RunQueue, unfinished: &Unfinished, error: &QueueError, end: End) {
        let HeldRun { run, taken_until, .. } = &unfinished.held;
        let standing = match error {
            // Nothing is in a hurry: the run is over, and only the queue knows how.
            QueueError::Conflict { .. } => {
                let failed = self.told_once(format!("failed to learn how {run} has ended"));
                standing(queue, *taken_until, failed).await
            }
            error if is_refusal(error) => queue.status().await,
            error => return self.tell_over(run, error),
        };
        let Ok(Standing::Resolved(verdict)) = standing else {
            self.warn(&format!("failed to take up {run}: failed to {}", chain(error)));
            return self.resolve(queue, unfinished, end).await;
        };
        let by_a_start = verdict == Verdict::Exception(Reason::WorkerShutdown) && has_died(unfinished).await;
        if by_a_start || verdict.reporter() == Reporter::Queue {
            self.end_log(unfinished).await;
            self.store_log_late(queue, unfinished).await;
        }
        let explanation = if by_a_start { EXPLANATION } else { explanation(verdict) };
        self.tell_resolved(unfinished, verdict, explanation);
    }

    /// Warns of what is tried again, the first time.
    fn told_once(&self, what: String) -> impl Fn(&QueueError) {
        let is_told = Cell::new(false);
        move |error| {
            if !is_told.replace(true) {
                self.warn(&format!("{what}: failed to {}", chain(error)));
            }
        }
    }

    fn tell_over(&self, run: &RunId, error: &QueueError) {
        self.warn(&format!("gave up {run}, whose claim is over: failed to {}", chain(error)));
    }

    async fn end_log(&self, unfinished: &Unfinished) {
        let held = &unfinished.held;
        if let Some((_, log)) = unfinished.log()
            && let Err(error) = end_log(log, held.began).await
        {
            self.warn(&format!("failed to end the log of {}: {error}", held.run));
        }
    }

    fn tell_resolved(&self, Unfinished { held, .. }: &Unfinished, verdict: Verdict, explanation: &str) {
        let (task_state, message) = (TaskState::of(verdict), Some(explanation));
        self.log.write(&Entry::TaskResolved {
            run: &held.run,
            task_state,
            reason: verdict.as_str(),
            message,
        });
        self.log.count(Metric::TaskFinish, Timestamp::now(), Some(&held.run));
    }

    /// For the case that this worker is killed as well.
    async fn write_down(&self, queue: &RunQueue, unfinished: &Unfinished) {
        let Some(credentials) = queue.credentials() else { return };
        let (file, taken_until) = (unfinished.file.clone(), unfinished.held.taken_until);
        let credentials = credentials.borrow().clone();
        let written = spawn_blocking(move || file.renew(taken_until, credentials)).await;
        if let Ok(Err(error)) = &written {
            self.warn(&format!("failed to {}", chain(error)));
        }
    }

    /// Of an exception the queue still takes artifacts for a while.
    async fn store_log_late(&self, queue: &RunQueue, unfinished: &Unfinished) {
        if let Err(problem) = self.store_log(queue, unfinished, LATE_LOG_TIME).await {
            self.warn(&format!("failed to store the log of {}: {problem}", unfinished.held.run));
        }
    }

    /// Stores the log, as far as the run came to have one, in at most `limit`.
    async fn store_log(
        &self,
        queue: &RunQueue,
        unfinished: &Unfinished,
        limit: Duration,
    ) -> Result<(), String> {
        let held = &unfinished.held;
        let Some((scratch, log)) = unfinished.log() else { return Ok(()) };
        let (interrupter, interrupts) = channel();
        // As after any other interrupt. The next one ends what cannot be dropped.
        interrupter.interrupt(Interrupt::Shutdown, Notice::Worker);
        let publisher = self.publisher(queue, held, scratch, interrupts);
        let killed = Killed { log: &log, image_id: None, image_artifact: None, publisher: &publisher };
        let problem = match timeout(limit, publish_logs(&held.logs, killed)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        interrupter.interrupt(Interrupt::Shutdown, Notice::Worker);
        Err(problem)
    }

    fn publisher(
        &self,
        queue: &RunQueue,
        held: &HeldRun,
        scratch: &Path,
        interrupts: crate::interrupt::Interrupts,
    ) -> Publisher {
        Publisher::new(PublisherParts {
            queue: queue.clone(),
            expires: held.expires,
            store: self.options.store.clone(),
            reserved: Vec::new(),
            scratch: scratch.to_owned(),
            log: None,
            config: Arc::new(self.worker.config.file.clone()),
            events: self.log.events(),
            interrupts,
        })
    }
}

/// What is told of a run that the queue knows to be over without this start's report.
fn explanation(standing: Verdict) -> &'static str {
    match standing.reporter() {
        Reporter::Queue => EXPLANATION,
        Reporter::Worker => REPORTED,
    }
}

/// Whether a start of the worker has ended the log: then it may have reported the run, and not have stored the log.
async fn has_died(unfinished: &Unfinished) -> bool {
    let Some((_, log)) = unfinished.log() else { return false };
    let look = move || File::open(log).and_then(|log| has_ended(&log));
    // A log that cannot be read cannot be stored either.
    spawn_blocking(look).await.is_ok_and(|looked| looked.unwrap_or(false))
}

/// Says at the log's end why there is no more of it, unless a start of the worker that was cut short has said so.
async fn end_log(log: PathBuf, began: Timestamp) -> io::Result<()> {
    let now = Timestamp::now();
    let text = task_log::error(DIED) + &task_log::footer(now, NO_STATUS, now.since(began));
    let write = move || {
        let mut log = File::options().read(true).append(true).open(log)?;
        if has_ended(&log)? { Ok(()) } else { log.write_all(text.as_bytes()) }
    };
    spawn_blocking(write).await.map_err(io::Error::other)?
}

fn has_ended(log: &File) -> io::Result<bool> {
    let length = log.metadata()?.len();
    let mut end = vec![0; usize::try_from(length.min(END_BYTES)).unwrap_or_default()];
    log.read_exact_at(&mut end, length - length.min(END_BYTES))?;
    let end = String::from_utf8_lossy(&end);
    Ok(end.lines().nth_back(1).is_some_and(|line| line.ends_with(DIED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_is_ended_once_however_often_the_worker_starts() {
        for text in ["", "so far\nand no", &"x".repeat(5000)] {
            let directory = tempfile::tempdir().unwrap();
            let log = directory.path().join("log");
            std::fs::write(&log, text).unwrap();
            for _ in 0..3 {
                end_log(log.clone(), Timestamp::now()).await.unwrap();
            }
            let ended = std::fs::read_to_string(&log).unwrap();
            assert!(ended.starts_with(text) && ended.ends_with(" seconds\n"), "{ended}");
            assert_eq!(ended.matches(DIED).count(), 1, "{ended}");
            assert_eq!(ended.matches("task run with exit code").count(), 1, "{ended}");
        }
    }
}
