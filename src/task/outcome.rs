//! From what happened to a run, to what is reported about it. Pure and total.
//!
//! ```text
//!   Outcome ── judge() ──► Resolution ── exit_status() ──► status of `docker-worker run`
//!   (facts)                  (for the queue, the footer,
//!                             the caches)
//! ```
//!
//! Source: `spec` of the original worker: exit code 0 and every hook without error is *completed*; an exit code that
//! `onExitStatus.retry` lists is *intermittent-task*; an interrupt outranks whatever code the kill produced.

use crate::features::Hooks;
use crate::interrupt::Interrupt;
use crate::payload::OnExitStatus;
use crate::queue::{Reason, Verdict};

/// The exit code of a run that has none of its command's own: in the footer, in resolution.json, in `onExitStatus`.
pub const NO_STATUS: i32 = -1;

/// What happened to a run: facts only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How far it came.
    pub end: End,
    /// What ended it from outside, if anything did; the first one wins.
    pub interrupt: Option<Interrupt>,
    /// The `stopped` hooks (artifacts).
    pub stopped: Hooks,
    /// The `killed` hooks (logs, attestation).
    pub killed: Hooks,
    /// The payload's wishes; empty when there is no valid payload.
    pub on_exit_status: OnExitStatus,
}

impl Outcome {
    /// The outcome of a run that came to `end` with nothing else to say.
    #[must_use]
    pub fn new(end: End) -> Outcome {
        Outcome {
            end,
            interrupt: None,
            stopped: Hooks::Done,
            killed: Hooks::Done,
            on_exit_status: OnExitStatus::default(),
        }
    }

    /// The command ended, and nobody had ended it.
    #[must_use]
    pub fn is_the_commands_own(&self) -> bool {
        self.interrupt.is_none() && matches!(self.end, End::Exited(_))
    }
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The payload was refused.
    MalformedPayload,
    /// The image is not there, or not for this task.
    ImageUnavailable,
    /// A `link` or `created` hook failed, a scope is missing, the image's user is not in its passwd: no container.
    SetupFailed,
    /// The container could not be started for another reason than the next two.
    StartFailed,
    /// The command is there but cannot be executed.
    CommandNotExecutable,
    /// The command does not exist in the image.
    CommandNotFound,
    /// A `started` hook failed; the container was killed.
    StartedHookFailed,
    /// The command ended with this status (0..=255; 128 + signal).
    Exited(u8),
    /// An interrupt came before any of these.
    Interrupted,
    /// The worker is at fault, e.g. the container's monitor died.
    WorkerFault,
    /// A resource of the worker is short for now, e.g. the disk is full.
    ResourceShort,
    /// Somebody else goes on using what the run needs of this host, e.g. the image store: another worker may have the task.
    HostBusy,
    /// This host cannot run tasks at all.
    HostUnfit,
}

/// What is reported about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// For the queue.
    pub verdict: Verdict,
    /// What the log's footer says: the command's status, or [`NO_STATUS`].
    pub exit_code: i32,
    /// For the caches that the task held.
    pub caches: Caches,
}

/// What becomes of the caches that a task held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// A later task may have them.
    Keep,
    /// They are never handed out again.
    Purge,
}

/// Judges a run.
#[must_use]
pub fn judge(outcome: &Outcome) -> Resolution {
    let judged = |verdict, exit_code| Resolution { verdict, exit_code, caches: Caches::Keep };
    if let Some(interrupt) = outcome.interrupt {
        return judged(verdict_of_interrupt(interrupt), NO_STATUS);
    }
    match outcome.end {
        End::MalformedPayload => judged(Verdict::Exception(Reason::MalformedPayload), NO_STATUS),
        End::ImageUnavailable | End::SetupFailed | End::StartedHookFailed => {
            judged(Verdict::Failed, NO_STATUS)
        }
        End::StartFailed | End::CommandNotExecutable | End::CommandNotFound => {
            unsuccessful(outcome, NO_STATUS)
        }
        End::Exited(0) => judge_success(outcome),
        End::Exited(status) => unsuccessful(outcome, i32::from(status)),
        End::Interrupted | End::WorkerFault | End::HostUnfit => {
            judged(Verdict::Exception(Reason::InternalError), NO_STATUS)
        }
        End::ResourceShort => judged(Verdict::Exception(Reason::ResourceUnavailable), NO_STATUS),
        // Of the reasons of a worker that does not stop, this one alone has the queue make a new run.
        End::HostBusy => judged(Verdict::Exception(Reason::IntermittentTask), NO_STATUS),
    }
}

fn verdict_of_interrupt(interrupt: Interrupt) -> Verdict {
    match interrupt {
        Interrupt::Cancelled | Interrupt::CancelledHere => Verdict::Exception(Reason::Canceled),
        Interrupt::Deadline => Verdict::Exception(Reason::DeadlineExceeded),
        // Nobody reports it: the queue sees the claim run out, and makes another run.
        Interrupt::LostClaim => Verdict::Exception(Reason::ClaimExpired),
        // Nobody else does before the claim runs out, and the command is killed.
        Interrupt::RefusedClaim => Verdict::Exception(Reason::InternalError),
        Interrupt::Shutdown => Verdict::Exception(Reason::WorkerShutdown),
        // No exception: the task itself took too long.
        Interrupt::MaxRunTime => Verdict::Failed,
    }
}

/// The command ended with 0: what the hooks did decides.
fn judge_success(outcome: &Outcome) -> Resolution {
    match (outcome.stopped, outcome.killed) {
        (Hooks::Done, Hooks::Done) => {
            Resolution { verdict: Verdict::Completed, exit_code: 0, caches: caches_after(outcome, 0) }
        }
        (Hooks::Failed, _) => unsuccessful(outcome, NO_STATUS),
        // O22: the footer says 0 already, but a task without its log is not trustworthy. 0 in `retry` means nothing.
        (Hooks::Done, Hooks::Failed) => Resolution { exit_code: 0, ..unsuccessful(outcome, NO_STATUS) },
    }
}

/// The container ran or was to run, and the task is no success: `onExitStatus` has a say.
fn unsuccessful(outcome: &Outcome, exit_code: i32) -> Resolution {
    let verdict = if outcome.on_exit_status.retry.contains(&i64::from(exit_code)) {
        Verdict::Exception(Reason::IntermittentTask)
    } else {
        Verdict::Failed
    };
    Resolution { verdict, exit_code, caches: caches_after(outcome, exit_code) }
}

/// `onExitStatus.purgeCaches` may list any status, 0 too (as d2g does; the original looked at it after failures only).
fn caches_after(outcome: &Outcome, exit_code: i32) -> Caches {
    let purge = outcome.on_exit_status.purge_caches.contains(&i64::from(exit_code));
    if purge { Caches::Purge } else { Caches::Keep }
}

/// The status with which `docker-worker run` exits.
#[must_use]
pub fn exit_status(outcome: &Outcome, resolution: &Resolution) -> u8 {
    const NO_STATUS_OF_THE_COMMAND: u8 = 123;
    match (outcome.interrupt, resolution.verdict) {
        (Some(Interrupt::CancelledHere), _) => return 130,
        (Some(Interrupt::MaxRunTime), _) => return 124,
        (_, Verdict::Exception(Reason::MalformedPayload)) => return 120,
        (None, Verdict::Exception(_)) if outcome.end == End::HostUnfit => return 125,
        (_, Verdict::Exception(_)) => return 122,
        (_, Verdict::Completed) => return 0,
        (_, Verdict::Failed) => {}
    }
    match outcome.end {
        End::ImageUnavailable => 121,
        End::CommandNotExecutable => 126,
        End::CommandNotFound => 127,
        // With 0 it failed all the same: an upload did.
        End::Exited(status) if status != 0 => status,
        _ => NO_STATUS_OF_THE_COMMAND,
    }
}

#[cfg(test)]
mod tests;
