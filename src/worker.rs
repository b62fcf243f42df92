//! A worker of a deployment: it claims tasks and has them carried out, for months.
//!
//! ```text
//!                    ┌────────────────────── one loop, one thread ─────────────────────┐
//!   signals ────────►│ exit ─► claiming ─► queue (long poll)                           │
//!   worker-runner ──►│              │ claims                                           │
//!                    │              ▼                                                  │
//!                    │            runs: task::carry_out, watch (deadline, cancelled)   │──► log, metrics
//!                    └─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A run is not `Send`: all of them are tasks of a `LocalSet`, and what blocks goes to threads of its own. A request for
//! tasks is not dropped while it is under way, as the queue may have given out a task already; only a worker that ends
//! waits no longer than [`CLAIM_GRACE`] for its answer.

pub mod assembly;
mod claiming;
pub mod exit;
pub mod log;
pub mod protocol;
pub mod runner;
mod runs;
mod watch;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::claiming::Claiming;
use self::exit::{Exit, ExitRequester, ExitRequests};
use self::log::{Entry, Metric, WorkerLog};
use self::runs::Runs;
use crate::artifact::Store;
use crate::interrupt::Interrupt;
use crate::queue::{WorkerIdentity, WorkerQueue};
use crate::task::run::Worker;
use crate::timestamp::Timestamp;

/// How long a worker that ends waits for the answer to a request for tasks.
const CLAIM_GRACE: Duration = Duration::from_secs(2);

/// How often the worker says that it lives.
const ALIVE: Duration = Duration::from_secs(30);

/// What a worker is made of.
pub struct Service {
    /// What its runs share.
    pub worker: Arc<Worker>,
    /// Where tasks come from.
    pub queue: WorkerQueue,
    /// Who claims them.
    pub identity: WorkerIdentity,
    /// Where artifacts go.
    pub store: Store,
    /// The worker's own log.
    pub log: WorkerLog,
}

/// How long the worker has had no task.
enum Occupation {
    Working,
    IdleSince(Instant),
}

/// Claims tasks and carries them out until it is asked to end and nothing runs any more. Inside a `LocalSet` only.
pub async fn serve(service: Service, requester: ExitRequester, mut requests: ExitRequests) {
    let service = Rc::new(service);
    let file = &service.worker.config.file;
    let capacity = usize::try_from(file.capacity()).unwrap_or(usize::MAX);
    let (mut runs, mut claiming) = (Runs::default(), Claiming::new(file.poll_interval()));
    let mut alive = interval(ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut occupation = Occupation::IdleSince(Instant::now());
    let mut exit = Exit::Stay;
    let mut patience = None;
    service.log.write(&Entry::Start);
    service.log.count(Metric::WorkerReady, Timestamp::now(), None);
    loop {
        if exit > Exit::Stay && runs.count() == 0 && !claiming.is_under_way() {
            break;
        }
        let free = if exit == Exit::Stay { capacity.saturating_sub(runs.count()) } else { 0 };
        claiming.begin(&service, free);
        let grace_end = patience.filter(|_| claiming.is_under_way());
        occupation = occupation.look(runs.count(), &service.log);
        let idle_end = occupation.end(file.idle_time()).filter(|_| exit == Exit::Stay);
        tokio::select! {
            asked = requests.more_than(exit) => {
                exit = asked;
                patience.get_or_insert_with(|| Instant::now() + CLAIM_GRACE);
                if exit == Exit::Now {
                    runs.interrupt(Interrupt::Shutdown);
                }
            }
            claims = claiming.answer(free > 0, &service.log) => {
                for claim in claims {
                    // It was asked for before the worker was told to end: somebody else may have it.
                    let interrupt = (exit > Exit::Stay).then_some(Interrupt::Shutdown);
                    runs.start(&service, claim, interrupt);
                }
            }
            () = runs.ended(&service) => claiming.hurry(),
            () = at(grace_end) => claiming.give_up(),
            () = at(idle_end) => {
                requester.ask(Exit::WhenIdle);
            }
            _ = alive.tick() => service.log.alive(ALIVE),
        }
    }
    service.log.write(&Entry::Shutdown);
    service.log.count(Metric::InstanceShutdown, Timestamp::now(), None);
    service.log.write(&Entry::Exit);
}

/// Waits until then; for ever without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Occupation {
    fn look(self, running: usize, log: &WorkerLog) -> Occupation {
        match self {
            Occupation::Working if running == 0 => {
                log.write(&Entry::Uptime { uptime: log.uptime() });
                log.write(&Entry::Idle);
                Occupation::IdleSince(Instant::now())
            }
            Occupation::IdleSince(_) if running > 0 => {
                log.write(&Entry::Working);
                Occupation::Working
            }
            Occupation::Working | Occupation::IdleSince(_) => self,
        }
    }

    /// When the worker has been idle for too long.
    fn end(&self, idle_time: Option<Duration>) -> Option<Instant> {
        match self {
            Occupation::Working => None,
            Occupation::IdleSince(since) => idle_time.map(|time| *since + time),
        }
    }
}
