//! When a worker is to end, and what becomes of its tasks then.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::interrupt::Notice;

/// How long a worker that is told to end now has for the logs of its tasks. Whoever tells it so waits 30 seconds in some
/// clouds, and what was not reported until then is rerun only when its claim expires.
const LOG_GRACE: Duration = Duration::from_secs(20);

/// What is asked for so far. Never less than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Nothing: the worker stays.
    Stay,
    /// No new tasks; those that run come to their end.
    WhenIdle,
    /// Those that run end now, as `worker-shutdown`. Their logs are stored.
    Now,
    /// They are reported at once, whatever becomes of their logs.
    AtOnce,
}

/// The end that asks: for signals, worker-runner, the idle worker itself.
#[derive(Clone, Debug)]
pub struct ExitRequester(watch::Sender<(Exit, Notice)>);

/// The end that is asked.
#[derive(Clone, Debug)]
pub struct ExitRequests {
    asked: watch::Receiver<(Exit, Notice)>,
    /// When [`Exit::Now`] becomes [`Exit::AtOnce`], once it was asked for.
    logs_end: Option<Instant>,
}

/// Makes the two ends.
pub fn channel() -> (ExitRequester, ExitRequests) {
    let (sender, receiver) = watch::channel((Exit::Stay, Notice::Worker));
    (ExitRequester(sender), ExitRequests { asked: receiver, logs_end: None })
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

    /// Asks that those that run end now, and once more that they do so at once.
    pub fn insist(&self, notice: Notice) -> bool {
        let exit = if self.0.borrow().0 >= Exit::Now { Exit::AtOnce } else { Exit::Now };
        self.ask(exit, notice)
    }
}

impl ExitRequests {
    /// What is asked for so far.
    pub fn asked(&self) -> Exit {
        self.asked.borrow().0
    }

    /// Waits until more is asked for than `known`, and says by whom; for ever when nobody is left who could ask.
    /// [`Exit::Now`] is never passed over: each of the two interrupts the runs, and they may have been asked for before
    /// anybody looked. May be dropped at any time.
    pub async fn more_than(&mut self, known: Exit) -> (Exit, Notice) {
        let logs_end = self.logs_end.filter(|_| known == Exit::Now);
        let more = tokio::select! {
            asked = self.asked.wait_for(|(asked, _)| *asked > known) => asked.ok().map(|asked| *asked),
            () = at(logs_end) => Some((Exit::AtOnce, Notice::Clock)),
        };
        let Some(mut more) = more else { return std::future::pending().await };
        if known < Exit::Now {
            more.0 = more.0.min(Exit::Now);
        }
        if more.0 >= Exit::Now {
            self.logs_end.get_or_insert_with(|| Instant::now() + LOG_GRACE);
        }
        more
    }
}

/// Waits until then; for ever without a time.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn logs_have_their_time_and_no_more() {
        let (requester, mut requests) = channel();
        requester.ask(Exit::Now, Notice::Signal);
        assert_eq!(requests.more_than(Exit::Stay).await, (Exit::Now, Notice::Signal));
        let begin = Instant::now();
        assert_eq!(requests.more_than(Exit::Now).await, (Exit::AtOnce, Notice::Clock));
        assert_eq!(begin.elapsed().as_secs(), LOG_GRACE.as_secs());
    }

    #[tokio::test]
    async fn two_requests_at_once_are_heard_one_after_the_other() {
        let (requester, mut requests) = channel();
        assert!(requester.insist(Notice::Signal) && requester.insist(Notice::Signal));
        assert_eq!(requests.more_than(Exit::Stay).await, (Exit::Now, Notice::Signal));
        assert_eq!(requests.more_than(Exit::Now).await, (Exit::AtOnce, Notice::Signal));
    }

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
        assert!(requester.insist(Notice::Signal) && !requester.insist(Notice::Signal));
        assert_eq!(requests.more_than(Exit::Now).await, (Exit::AtOnce, Notice::Signal));
    }
}
