//! What can end a task before its command does, and the one channel that says so.
//!
//! Every phase that waits for the outside world waits for the interrupt too. The first one wins: a
//! task whose time is over is not turned into a cancelled one by a Ctrl-C that comes later. Later ones are counted: what goes
//! on all the same ends with them. The log ends with a person's only: a deadline that passes while a cancelled task's log is
//! stored is no reason to lose it.

use serde::{Serialize, Serializer};
use tokio::sync::watch;

/// Why a task ends before its command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Somebody who may do so cancelled it in the queue.
    Cancelled,
    /// Whoever started `run` cancelled it there: Ctrl-C.
    CancelledHere,
    /// The task's deadline has passed: the queue has resolved it.
    Deadline,
    /// The command ran longer than the payload's `maxRunTime`.
    MaxRunTime,
    /// This worker was told to stop (SIGTERM).
    Shutdown,
    /// The queue gave this run to somebody else, or could not be asked until it did.
    LostClaim,
    /// The queue refuses to prolong the claim of a run that is still this worker's.
    RefusedClaim,
}

impl Interrupt {
    /// The queue may have resolved the run, so that it takes nothing more from this worker.
    pub fn may_come_from_the_queue(self) -> bool {
        match self {
            Interrupt::Cancelled | Interrupt::Deadline | Interrupt::LostClaim | Interrupt::RefusedClaim => {
                true
            }
            Interrupt::CancelledHere | Interrupt::MaxRunTime | Interrupt::Shutdown => false,
        }
    }

    /// Somebody waits for the end. A worker that is told to stop tells each of its runs once, also one that somebody has ended
    /// before: only when it is told again, that is impatience.
    fn is_impatience(self, was_shut_down: bool) -> bool {
        match self {
            Interrupt::CancelledHere => true,
            Interrupt::Shutdown => was_shut_down,
            Interrupt::Cancelled
            | Interrupt::Deadline
            | Interrupt::LostClaim
            | Interrupt::RefusedClaim
            | Interrupt::MaxRunTime => false,
        }
    }

    /// Its name in events.
    pub fn word(self) -> &'static str {
        match self {
            Interrupt::Cancelled => "canceled",
            Interrupt::CancelledHere => "canceled-here",
            Interrupt::Deadline => "deadline-exceeded",
            Interrupt::LostClaim => "lost-claim",
            Interrupt::RefusedClaim => "refused-claim",
            Interrupt::Shutdown => "worker-shutdown",
            Interrupt::MaxRunTime => "max-run-time",
        }
    }
}

impl Serialize for Interrupt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// By what the worker has notice that a task is to end. The log says it, for nobody else can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A signal.
    Signal,
    /// Somebody on this host, over the worker's control socket.
    ControlSocket,
    /// worker-runner, by `graceful-termination`.
    WorkerRunner,
    /// The queue, when the claim was to be prolonged.
    Reclaim,
    /// The queue, when it was asked how the run stands.
    Status,
    /// A clock of the worker's.
    Clock,
    /// The worker itself, which has come to its end.
    Worker,
}

impl Notice {
    /// Its name in events.
    pub fn word(self) -> &'static str {
        match self {
            Notice::Signal => "signal",
            Notice::ControlSocket => "control-socket",
            Notice::WorkerRunner => "worker-runner",
            Notice::Reclaim => "reclaim",
            Notice::Status => "status",
            Notice::Clock => "clock",
            Notice::Worker => "worker",
        }
    }
}

impl Serialize for Notice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// The end that interrupts: given to signal handlers, timers and the reclaimer.
#[derive(Clone, Debug)]
pub struct Interrupter(watch::Sender<Arrivals>);

/// The end that is interrupted: every phase of a task holds one.
#[derive(Clone, Debug)]
pub struct Interrupts(watch::Receiver<Arrivals>);

#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    first: Option<(Interrupt, Notice)>,
    was_shut_down: bool,
    count: usize,
    urgency: usize,
}

/// Makes the two ends of one task's channel.
pub fn channel() -> (Interrupter, Interrupts) {
    let (sender, receiver) = watch::channel(Arrivals::default());
    (Interrupter(sender), Interrupts(receiver))
}

impl Interrupter {
    /// Interrupts the task; why, unless something did so before.
    pub fn interrupt(&self, reason: Interrupt, notice: Notice) {
        self.0.send_modify(|arrivals| {
            let is_first = arrivals.first.is_none();
            arrivals.first.get_or_insert((reason, notice));
            arrivals.count += 1;
            if is_first || reason.is_impatience(arrivals.was_shut_down) {
                arrivals.urgency += 1;
            }
            arrivals.was_shut_down |= reason == Interrupt::Shutdown && notice != Notice::ControlSocket;
        });
    }
}

impl Interrupts {
    /// What has interrupted the task so far.
    pub fn current(&self) -> Option<Interrupt> {
        self.first().map(|(reason, _)| reason)
    }

    /// The same, and by what the worker knows it.
    pub fn first(&self) -> Option<(Interrupt, Notice)> {
        self.0.borrow().first
    }

    /// How many interrupts there were so far.
    pub fn count(&self) -> usize {
        self.0.borrow().count
    }

    /// How many there were so far, of the later ones only those of somebody who is impatient.
    pub fn urgency(&self) -> usize {
        self.0.borrow().urgency
    }

    /// Waits until there were more than so many. Never returns when nobody is left who could interrupt.
    pub async fn more_than(&mut self, count: usize) {
        self.wait(|arrivals| arrivals.count > count).await;
    }

    /// Waits until it is more urgent than that. Never returns when nobody is left who could interrupt.
    pub async fn more_urgent_than(&mut self, urgency: usize) {
        self.wait(|arrivals| arrivals.urgency > urgency).await;
    }

    async fn wait(&mut self, is_so: impl Fn(&Arrivals) -> bool) {
        if self.0.wait_for(is_so).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the interrupt. Never returns when nobody is left who could interrupt.
    pub async fn interrupted(&mut self) -> Interrupt {
        let found = match self.0.wait_for(|arrivals| arrivals.first.is_some()).await {
            Ok(arrivals) => arrivals.first.map(|(reason, _)| reason),
            Err(_) => None,
        };
        match found {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_interrupt_wins_and_a_persons_later_ones_are_urgent() {
        let (interrupter, mut interrupts) = channel();
        assert_eq!((interrupts.current(), interrupts.count()), (None, 0));
        interrupter.interrupt(Interrupt::MaxRunTime, Notice::Clock);
        for (later, notice, urgency) in [
            (Interrupt::Cancelled, Notice::Status, 1),
            (Interrupt::LostClaim, Notice::Reclaim, 1),
            (Interrupt::Deadline, Notice::Clock, 1),
            (Interrupt::Shutdown, Notice::ControlSocket, 1),
            (Interrupt::Shutdown, Notice::Signal, 1),
            (Interrupt::Shutdown, Notice::Signal, 2),
            (Interrupt::CancelledHere, Notice::Signal, 3),
        ] {
            interrupter.interrupt(later, notice);
            assert_eq!(interrupts.urgency(), urgency, "{later:?}");
        }
        assert_eq!(interrupts.count(), 8);
        drop(interrupter);
        assert_eq!(interrupts.interrupted().await, Interrupt::MaxRunTime);
        assert_eq!(interrupts.current(), Some(Interrupt::MaxRunTime));
        assert_eq!(interrupts.first(), Some((Interrupt::MaxRunTime, Notice::Clock)));
    }
}
