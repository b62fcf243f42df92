//! What can end a task before its command does, and the one channel that says so.
//!
//! Every phase that waits for the outside world waits for the interrupt too. The first one wins: a
//! task whose time is over is not turned into a cancelled one by a Ctrl-C that comes later. Later ones
//! are counted: what goes on all the same, such as storing the log, ends with them.

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
    /// The queue gave this run to somebody else.
    LostClaim,
}

impl Interrupt {
    /// The queue may have resolved the run, so that it takes nothing more from this worker.
    pub fn may_come_from_the_queue(self) -> bool {
        match self {
            Interrupt::Cancelled | Interrupt::Deadline | Interrupt::LostClaim => true,
            Interrupt::CancelledHere | Interrupt::MaxRunTime | Interrupt::Shutdown => false,
        }
    }

    /// Its name in events.
    pub fn word(self) -> &'static str {
        match self {
            Interrupt::Cancelled => "canceled",
            Interrupt::CancelledHere => "canceled-here",
            Interrupt::Deadline => "deadline-exceeded",
            Interrupt::LostClaim => "lost-claim",
            Interrupt::Shutdown => "worker-shutdown",
            Interrupt::MaxRunTime => "max-run-time",
        }
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

/// The end that interrupts: given to signal handlers, timers and the reclaimer.
#[derive(Clone, Debug)]
pub struct Interrupter(watch::Sender<Arrivals>);

/// The end that is interrupted: every phase of a task holds one.
#[derive(Clone, Debug)]
pub struct Interrupts(watch::Receiver<Arrivals>);

#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    first: Option<(Interrupt, Notice)>,
    count: usize,
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
            arrivals.first.get_or_insert((reason, notice));
            arrivals.count += 1;
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

    /// Waits until there were more than so many. Never returns when nobody is left who could interrupt.
    pub async fn more_than(&mut self, count: usize) {
        if self.0.wait_for(|arrivals| arrivals.count > count).await.is_err() {
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
    async fn the_first_interrupt_wins_and_the_others_are_counted() {
        let (interrupter, mut interrupts) = channel();
        assert_eq!((interrupts.current(), interrupts.count()), (None, 0));
        interrupter.interrupt(Interrupt::MaxRunTime, Notice::Clock);
        interrupter.interrupt(Interrupt::Cancelled, Notice::Status);
        drop(interrupter);
        assert_eq!(interrupts.interrupted().await, Interrupt::MaxRunTime);
        assert_eq!((interrupts.current(), interrupts.count()), (Some(Interrupt::MaxRunTime), 2));
        assert_eq!(interrupts.first(), Some((Interrupt::MaxRunTime, Notice::Clock)));
    }
}
