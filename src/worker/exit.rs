//! When a worker is to end, and what becomes of its tasks then.

use tokio::sync::watch;

use crate::interrupt::Notice;

/// What is asked for so far. Never less than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Nothing: the worker stays.
    Stay,
    /// No new tasks; those that run come to their end.
    WhenIdle,
    /// Those that run end now, as `worker-shutdown`.
    Now,
}

/// The end that asks: for signals, worker-runner, the idle worker itself.
#[derive(Clone, Debug)]
pub struct ExitRequester(watch::Sender<(Exit, Notice)>);

/// The end that is asked.
#[derive(Clone, Debug)]
pub struct ExitRequests(watch::Receiver<(Exit, Notice)>);

/// Makes the two ends.
pub fn channel() -> (ExitRequester, ExitRequests) {
    let (sender, receiver) = watch::channel((Exit::Stay, Notice::Worker));
    (ExitRequester(sender), ExitRequests(receiver))
}

impl ExitRequester {
    /// Asks; whether that is more than was asked for before.
    pub fn ask(&self, exit: Exit, notice: Notice) -> bool {
        self.0.send_if_modified(|asked| {
            let is_more = exit > asked.0;
            if is_more {
                *asked = (exit, notice);
            }
            is_more
        })
    }
}

impl ExitRequests {
    /// What is asked for so far.
    pub fn asked(&self) -> Exit {
        self.0.borrow().0
    }

    /// Waits until more is asked for than `known`, and says by whom; for ever when nobody is left who could ask.
    pub async fn more_than(&mut self, known: Exit) -> (Exit, Notice) {
        let asked = self.0.wait_for(|(asked, _)| *asked > known).await.map(|asked| *asked);
        match asked {
            Ok(asked) => asked,
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_never_taken_back() {
        let (requester, mut requests) = channel();
        assert_eq!(requests.asked(), Exit::Stay);
        assert!(requester.ask(Exit::WhenIdle, Notice::Worker));
        assert_eq!(requests.more_than(Exit::Stay).await, (Exit::WhenIdle, Notice::Worker));
        let signal = |exit| requester.ask(exit, Notice::Signal);
        assert!(!signal(Exit::WhenIdle) && !signal(Exit::Stay));
        assert!(signal(Exit::Now) && !requester.ask(Exit::Now, Notice::WorkerRunner));
        assert_eq!(requests.more_than(Exit::WhenIdle).await, (Exit::Now, Notice::Signal));
    }
}
