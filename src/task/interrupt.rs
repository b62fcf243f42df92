//! What can end a task before its command does, and the one channel that says so.
//!
//! Every phase that waits for the outside world waits for the interrupt too. The first one wins: a
//! task whose time is over is not turned into a cancelled one by a Ctrl-C that comes later.

use tokio::sync::watch;

/// Why a task ends before its command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Somebody who may do so cancelled it: the queue, or Ctrl-C at `run`.
    Cancelled,
    /// The task's deadline has passed: the queue has resolved it.
    Deadline,
    /// The command ran longer than the payload's `maxRunTime`.
    MaxRunTime,
    /// This worker was told to stop (SIGTERM).
    Shutdown,
    /// The queue gave this run to somebody else.
    LostClaim,
}

/// The end that interrupts: given to signal handlers, timers and the reclaimer.
#[derive(Clone, Debug)]
pub struct Interrupter(watch::Sender<Option<Interrupt>>);

/// The end that is interrupted: every phase of a task holds one.
#[derive(Clone, Debug)]
pub struct Interrupts(watch::Receiver<Option<Interrupt>>);

/// Makes the two ends of one task's channel.
pub fn channel() -> (Interrupter, Interrupts) {
    let (sender, receiver) = watch::channel(None);
    (Interrupter(sender), Interrupts(receiver))
}

impl Interrupter {
    /// Interrupts the task, unless something did so before.
    pub fn interrupt(&self, reason: Interrupt) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason);
            }
            first
        });
    }
}

impl Interrupts {
    /// What has interrupted the task so far.
    pub fn current(&self) -> Option<Interrupt> {
        *self.0.borrow()
    }

    /// Waits for the interrupt. Never returns when nobody is left who could interrupt.
    pub async fn interrupted(&mut self) -> Interrupt {
        let found = match self.0.wait_for(Option::is_some).await {
            Ok(reason) => *reason,
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
    async fn the_first_interrupt_wins() {
        let (interrupter, mut interrupts) = channel();
        assert_eq!(interrupts.current(), None);
        interrupter.interrupt(Interrupt::MaxRunTime);
        interrupter.interrupt(Interrupt::Cancelled);
        drop(interrupter);
        assert_eq!(interrupts.interrupted().await, Interrupt::MaxRunTime);
        assert_eq!(interrupts.current(), Some(Interrupt::MaxRunTime));
    }
}
