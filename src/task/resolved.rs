//! A run that is over, and the way there for those that have no log to say why: they could not begin, or the worker
//! panicked.

use crate::claim_file::ClaimFile;
use crate::interrupt::Interrupts;
use crate::queue::{Reason, Reporter, RunQueue, Verdict};
use crate::task::outcome::{End, Outcome, Resolution, exit_status, judge};
use crate::task::resolution_document::ResolutionDocument;
use crate::task::run::Began;
use crate::text::chain;

/// A run that is over.
#[derive(Debug)]
pub struct Resolved {
    /// What was reported.
    pub resolution: Resolution,
    /// The status for `docker-worker run`.
    pub exit_status: u8,
    /// What went wrong, as far as it did, as the log says it: why the status is not the command's own.
    pub explanation: Option<String>,
    /// The content of `resolution.json`.
    pub document: ResolutionDocument,
}

/// What is known of a run whatever becomes of it.
pub(super) struct Identity {
    pub(super) queue: RunQueue,
    /// Where it stands for a successor of this worker, if it does.
    pub(super) file: Option<ClaimFile>,
    pub(super) interrupts: Interrupts,
    pub(super) began: Began,
}

/// What came of telling the queue how a run ended.
pub(super) struct Report {
    /// What stands there then, which may be what somebody else said before. An error is a sentence.
    pub(super) standing: Result<Verdict, String>,
    /// Why the claim's file is still there although nobody needs it: a sentence.
    pub(super) resisting: Option<String>,
}

impl Identity {
    /// Tells the queue how the run ended, if that is for this worker to do, and forgets it, unless a successor may still
    /// have to tell.
    pub(super) async fn report(&self, verdict: Verdict) -> Report {
        let settled = match verdict.reporter() {
            Reporter::Queue => Ok(verdict),
            Reporter::Worker => self.queue.settle(verdict).await,
        };
        let resisting = if settled.is_ok() { self.forget().await } else { None };
        let standing =
            settled.map_err(|error| format!("Failed to report the task: failed to {}", chain(&error)));
        Report { standing, resisting }
    }

    /// A run that is resolved, or somebody else's, needs nobody any more who could tell of it. Says what resists.
    async fn forget(&self) -> Option<String> {
        let file = self.file.clone()?;
        match tokio::task::spawn_blocking(move || file.remove()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("Failed to {}.", chain(&error))),
            Err(error) => Some(format!("Failed to remove the claim's file: {error}.")),
        }
    }

    /// Resolves a run that is at its end without a log; `why` is for the operator.
    pub(super) async fn resolve_without_log(self, end: End, mut why: String) -> Resolved {
        let outcome = Outcome { interrupt: self.interrupts.current(), ..Outcome::new(end) };
        let mut resolution = judge(&outcome);
        let Report { standing, resisting } = self.report(resolution.verdict).await;
        resolution.verdict = standing.unwrap_or_else(|problem| {
            why = format!("{why} {problem}");
            Verdict::Exception(Reason::InternalError)
        });
        if let Some(problem) = resisting {
            why = format!("{why} {problem}");
        }
        let run = self.queue.run().clone();
        Resolved {
            resolution,
            exit_status: exit_status(&outcome, &resolution),
            explanation: Some(why),
            document: ResolutionDocument::without_container(run, &resolution, self.began.at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::{Interrupt, Notice, channel};
    use crate::queue::definition::Submission;
    use crate::queue::task_id::TaskId;
    use crate::queue::{EmbeddedQueue, Standing, WorkerIdentity, WorkerQueue, steady_clock};

    /// A run that has just been claimed.
    async fn claimed() -> RunQueue {
        let author = EmbeddedQueue::in_memory(steady_clock()).unwrap();
        let task_id = TaskId::random().unwrap();
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        let definition = submission.into_task(&task_id, author.now()).unwrap().definition;
        author.create_task(&task_id, &definition).await.unwrap();
        let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        let queue = WorkerQueue::embedded(author);
        queue.claim_work(&definition.task_queue_id, &worker, 1).await.unwrap().claims.remove(0).queue
    }

    #[tokio::test]
    async fn a_run_without_a_log_is_reported_with_its_reason() {
        for (end, interrupt, reason, exit_status) in [
            (End::HostUnfit, None, Reason::InternalError, 125),
            (End::ResourceShort, None, Reason::ResourceUnavailable, 122),
            (End::WorkerFault, None, Reason::InternalError, 122),
            (End::HostUnfit, Some(Interrupt::Shutdown), Reason::WorkerShutdown, 122),
        ] {
            let queue = claimed().await;
            let (interrupter, interrupts) = channel();
            interrupt.into_iter().for_each(|interrupt| interrupter.interrupt(interrupt, Notice::Signal));
            let identity = Identity { queue: queue.clone(), file: None, interrupts, began: Began::now() };
            let resolved = identity.resolve_without_log(end, "Why.".to_owned()).await;
            let verdict = Verdict::Exception(reason);
            assert_eq!(queue.status().await.unwrap(), Standing::Resolved(verdict), "{end:?}");
            assert_eq!(
                (resolved.resolution.verdict, resolved.exit_status),
                (verdict, exit_status),
                "{end:?}"
            );
            assert_eq!(resolved.explanation.as_deref(), Some("Why."));
        }
    }

    #[tokio::test]
    async fn what_others_have_made_of_the_run_stands() {
        let queue = claimed().await;
        queue.report(Verdict::Failed).await.unwrap();
        let identity = Identity { queue, file: None, interrupts: channel().1, began: Began::now() };
        let resolved = identity.resolve_without_log(End::HostUnfit, "Why.".to_owned()).await;
        assert_eq!(resolved.resolution.verdict, Verdict::Failed);
        assert_eq!(resolved.explanation.as_deref(), Some("Why."));
    }
}
