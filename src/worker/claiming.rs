//! Asking the queue for tasks: when, and how many.
//!
//! The queue holds a request for some 20 seconds when it has none (long poll). So the next one follows at once; only
//! after one that was answered early without a task, or that failed, a while passes, and ever more where nobody knows it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Service;
use super::collecting::Collecting;
use crate::queue::{ClaimedWork, QueueError};

/// A request that took this long was held by the queue.
const LONG_POLL: Duration = Duration::from_secs(10);

/// One that is under way for so long counts as held: a queue that gives tasks out for it would have answered.
const HELD: Duration = Duration::from_secs(2);

/// How long a worker that ends waits for the answer to another: until it would count as held as well.
const GRACE: Duration = HELD;

/// The longest wait before a queue is asked again that is not where the configuration says.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// What the queue answers.
type Answer = Result<ClaimedWork, QueueError>;

/// The one request that may be under way, and the time of the next.
pub(super) struct Claiming {
    pause: Duration,
    /// The wait after an answer that brought nothing; longer than the pause where there is no such queue.
    wait: Duration,
    due: Instant,
    /// When what is under way went out to the queue, if it has.
    asked: Rc<Cell<Option<Instant>>>,
    request: Option<Pin<Box<dyn Future<Output = Answer>>>>,
    was_answered: bool,
    /// The refusal that the log has last, if the queue has not answered otherwise since.
    told: Option<String>,
}

impl Claiming {
    pub(super) fn new(pause: Duration) -> Claiming {
        Claiming {
            pause,
            wait: pause,
            due: Instant::now(),
            asked: Rc::default(),
            request: None,
            was_answered: false,
            told: None,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.request.is_some()
    }

    /// Whether the first request was answered, or the time of it has passed.
    pub(super) fn was_answered(&self) -> bool {
        self.was_answered
    }

    /// What the log says of the queue's refusal, to be kept up by whoever hears the answers.
    pub(super) fn told(&mut self) -> &mut Option<String> {
        &mut self.told
    }

    /// Asks for at most `free` tasks, if it is time, there is room for them on the disk, and a run can begin here.
    pub(super) fn begin(&mut self, service: &Rc<Service>, collecting: &mut Collecting, free: usize) {
        let now = Instant::now();
        // A rehearsal may succeed where the next run fails again, and each has cost its task a try.
        self.due = service.fitness.doubted_at().map_or(self.due, |at| self.due.max(at + self.pause));
        if free == 0 || self.request.is_some() || now < self.due {
            return;
        }
        if !collecting.has_room(service, free) {
            self.due = now + self.pause;
            return;
        }
        self.asked.set(None);
        let (service, asked) = (Rc::clone(service), Rc::clone(&self.asked));
        let request = async move {
            if !service.is_fit().await {
                return Ok(ClaimedWork::default());
            }
            let pool = service.worker.config.file.worker_pool();
            asked.set(Some(Instant::now()));
            let answer = service.queue.claim_work(&pool, &service.identity, free).await;
            if answer.as_ref().is_ok_and(|work| work.claims.is_empty()) {
                service.look_for_quarantine().await;
            }
            answer
        };
        self.request = Some(Box::pin(request));
    }

    /// Waits for the answer; without a request for the time of the next one, which gives no task, or for ever where
    /// there is no room for any. May be dropped at any time.
    pub(super) async fn answer(&mut self, has_room: bool) -> Answer {
        let Some(request) = &mut self.request else {
            if has_room {
                sleep_until(self.due).await;
                self.was_answered = true;
                return Ok(ClaimedWork::default());
            }
            return std::future::pending().await;
        };
        let answer = request.await;
        (self.request, self.was_answered) = (None, true);
        if answer.is_ok() {
            self.told = None;
        }
        let now = Instant::now();
        let was_held = self.went_out_before(LONG_POLL);
        let brought_tasks = answer.as_ref().is_ok_and(|work| !work.claims.is_empty());
        self.wait = match answer {
            Err(QueueError::Foreign { .. } | QueueError::NotFound { .. }) => {
                self.pause.max(LONGEST_WAIT.min(2 * self.wait))
            }
            Ok(_) | Err(_) => self.pause,
        };
        self.due = if brought_tasks || (answer.is_ok() && was_held) { now } else { now + self.wait };
        answer
    }

    /// There is room again: the next request need not wait.
    pub(super) fn hurry(&mut self) {
        self.due = self.due.min(Instant::now());
    }

    /// No more tasks are wanted: breaks a request off that has not gone out, or that is held. It would else be given the
    /// very tasks that the worker hands back because it ends. What a queue gives out that is slower than [`HELD`] is lost
    /// until its claim expires. Until the time that this returns the answer to a younger one is to be waited for.
    pub(super) fn wind_up(&mut self) -> Instant {
        if self.asked.get().is_none() || self.went_out_before(HELD) {
            self.request = None;
        }
        Instant::now() + GRACE
    }

    /// Whether the request went out longer ago than `time`.
    fn went_out_before(&self, time: Duration) -> bool {
        self.asked.get().is_some_and(|asked| asked.elapsed() > time)
    }

    /// Waits no longer. A task that the queue has given out meanwhile is lost until its claim expires.
    pub(super) fn give_up(&mut self) {
        self.request = None;
    }
}
