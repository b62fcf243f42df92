//! What ends a run from the queue's side although its claim is kept: its deadline, and a cancellation.
//!
//! The queue tells a worker of neither. Without a look at the status a cancelled task would go on until its claim is
//! prolonged the next time, which is some ten minutes.

use std::time::Duration;

use super::log::{Entry, RunEntry, WorkerLog};
use crate::interrupt::{Interrupt, Interrupter, Notice};
use crate::queue::{Reason, RunQueue, Standing, Verdict};
use crate::timestamp::Timestamp;

/// Interrupts a run when its time or its task is over. Never returns: what it watches ends it.
pub(super) async fn watch(
    (queue, log): (&RunQueue, &WorkerLog),
    deadline: Timestamp,
    poll: Option<Duration>,
    interrupter: Interrupter,
) {
    let (interrupt, notice) = tokio::select! {
        () = queue.wait_until(deadline) => (Interrupt::Deadline, Notice::Clock),
        interrupt = resolved(queue, poll) => (interrupt, Notice::Status),
    };
    log.write(&Entry::OfRun { entry: RunEntry::Cancelling { reason: interrupt }, run: queue.run() });
    interrupter.interrupt(interrupt, notice);
    std::future::pending().await
}

/// Looks at the run's status until somebody else has ended it. What fails now is tried again: the claim's own keeper
/// notices a queue that is gone for good.
async fn resolved(queue: &RunQueue, poll: Option<Duration>) -> Interrupt {
    let Some(poll) = poll else { return std::future::pending().await };
    loop {
        tokio::time::sleep(poll).await;
        let Ok(standing) = queue.status().await else { continue };
        match standing {
            Standing::Resolved(Verdict::Exception(Reason::Canceled)) => return Interrupt::Cancelled,
            Standing::Resolved(Verdict::Exception(Reason::DeadlineExceeded)) => return Interrupt::Deadline,
            Standing::Resolved(Verdict::Exception(Reason::ClaimExpired | Reason::Other)) => {
                return Interrupt::LostClaim;
            }
            // Still running, or this worker's own report.
            Standing::Open | Standing::Resolved(_) => {}
        }
    }
}
