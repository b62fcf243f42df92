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
//! breaks one off that the queue holds, and waits a moment for the answer to another ([`Claiming::wind_up`]).

mod answers;
pub mod assembly;
mod claiming;
mod collecting;
pub mod control;
pub mod exit;
mod fitness;
pub mod log;
mod machine;
mod occupancy;
pub mod protocol;
mod purge;
mod quarantine;
mod reports;
pub mod runner;
mod runs;
mod superseding;
mod unfinished;
mod watch;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::claiming::Claiming;
use self::collecting::Collecting;
use self::exit::{Exit, ExitRequester, ExitRequests, at};
pub use self::fitness::Fitness;
use self::log::{Entry, Metric, WorkerLog};
use self::protocol::{Capability, FromRunner, Termination};
pub use self::purge::PurgeRights;
pub use self::quarantine::Quarantine;
use self::reports::Reports;
use self::runner::{Renewal, Runner};
use self::runs::Runs;
pub use self::superseding::Superseding;
use self::unfinished::Recovery;
use crate::cleanup::Unfinished;
use crate::interrupt::{Interrupt, Notice};
use crate::queue::{QueueError, WorkerIdentity, WorkerQueue};
use crate::task::run::{RunOptions, Worker};
use crate::text::chain;
use crate::timestamp::Timestamp;

/// What a worker is made of.
pub struct Service {
    /// What its runs share.
    pub worker: Arc<Worker>,
    /// Where tasks come from.
    pub queue: WorkerQueue,
    /// Who claims them.
    pub identity: WorkerIdentity,
    /// How each run is carried out.
    pub options: RunOptions,
    /// The worker's own log.
    pub log: WorkerLog,
    /// Whether it may have tasks.
    pub quarantine: Quarantine,
    /// Whether it can have them.
    pub fitness: Fitness,
    /// Whether it may ask which caches are to be purged.
    pub purge_rights: PurgeRights,
    /// Who stands for whom.
    pub superseding: Superseding,
}

/// How long the worker has had no task.
enum Occupation {
    /// It has not asked for any so far.
    New,
    Working,
    IdleSince(Instant),
}

/// Claims tasks and carries them out until it is asked to end and nothing runs any more; beside that, resolves what it has
/// left unfinished when it was killed. Inside a `LocalSet` only.
///
/// # Errors
///
/// [`QueueError::Unauthenticated`] or [`QueueError::Unauthorized`] when the queue refuses the worker's credentials and
/// nobody can bring others, or has not said within a minute that it can;
/// [`QueueError::Invalid`] when it cannot have such a worker or pool.
pub async fn serve(
    service: Service,
    unfinished: Vec<Unfinished>,
    mut runner: Option<Runner>,
    requester: ExitRequester,
    requests: ExitRequests,
) -> Result<(), QueueError> {
    let service = Rc::new(service);
    tell_beginning(&service.log);
    let mut recovery = Recovery::default();
    recovery.start(&service, unfinished);
    let renewal = Cell::new(Renewal::with(runner.as_ref()));
    let ended = tokio::select! {
        ended = claim_and_run(&service, recovery, &renewal, (&requester, requests)) => ended,
        () = converse(runner.as_mut(), &service, &renewal, &requester) => Ok(()),
    };
    tell_end(&service.log);
    if let Some(mut runner) = runner {
        if let Err(error) = &ended {
            let is_invalid = matches!(error, QueueError::Invalid { .. });
            let kind = if is_invalid { "invalid-configuration" } else { "invalid-credentials" };
            let description = format!("failed to {}", chain(error));
            runner.report((kind, "docker-worker cannot go on"), &description).await;
        }
        runner.shut_down();
    }
    ended
}

/// Hears worker-runner; never returns, as the worker goes on without it.
async fn converse(
    runner: Option<&mut Runner>,
    service: &Service,
    renewal: &Cell<Renewal>,
    requester: &ExitRequester,
) {
    if let Some(runner) = runner {
        while let Some(message) = runner.next().await {
            let can_renew = runner.can(Capability::NewCredentials);
            renewal.set(if can_renew { Renewal::Possible } else { Renewal::Impossible });
            match message {
                // It has been answered, and says what may come.
                FromRunner::Welcome(_) => {}
                FromRunner::GracefulTermination(termination) => {
                    let finish_tasks = termination == Termination::FinishTasks;
                    service.log.write(&Entry::GracefulTermination { finish_tasks });
                    let exit = if finish_tasks { Exit::WhenIdle } else { Exit::Now };
                    requester.ask(exit, Notice::WorkerRunner);
                }
                FromRunner::NewCredentials(credentials) => {
                    service.log.write(&Entry::NewCredentials);
                    service.queue.replace_credentials(credentials);
                }
            }
        }
        // Whoever has started this worker is gone, and with it the way to new credentials and to the host's end.
        renewal.set(Renewal::Impossible);
        requester.ask(Exit::WhenIdle, Notice::Worker);
    }
    std::future::pending().await
}

async fn claim_and_run(
    service: &Rc<Service>,
    mut recovery: Recovery,
    renewal: &Cell<Renewal>,
    (requester, mut requests): (&ExitRequester, ExitRequests),
) -> Result<(), QueueError> {
    let file = &service.worker.config.file;
    let capacity = usize::try_from(file.capacity()).unwrap_or(usize::MAX);
    let (mut runs, mut claiming) = (Runs::default(), Claiming::new(file.poll_interval()));
    let mut collecting = Collecting::new(service);
    let mut reports = Reports::new(&service.worker.config, capacity);
    let mut occupation = Occupation::New;
    let (mut exit, mut asked_by) = (Exit::Stay, Notice::Worker);
    let (mut patience, mut failure) = (None, None);
    loop {
        let busy = runs.count() + recovery.count();
        reports.note(runs.count(), &service.log);
        if exit > Exit::Stay && runs.count() == 0 && !claiming.is_under_way() {
            if recovery.count() == 0 {
                break;
            }
            recovery.end_by(Instant::now() + unfinished::GRACE);
        }
        let free = if exit == Exit::Stay { capacity.saturating_sub(runs.count()) } else { 0 };
        claiming.begin(service, &mut collecting, free);
        let grace_end = patience.filter(|_| claiming.is_under_way());
        occupation = occupation.look(busy, &claiming, &service.log);
        let idle_end = occupation.end(file.idle_time()).filter(|_| exit == Exit::Stay);
        tokio::select! {
            asked = requests.more_than(exit) => {
                count_termination(&service.log, exit, asked);
                (exit, asked_by) = asked;
                let grace_end = claiming.wind_up();
                patience = Some(grace_end);
                if exit >= Exit::Now {
                    recovery.end_by(grace_end);
                    // The first time ends the tasks, the second one what is done for them after that.
                    runs.interrupt(Interrupt::Shutdown, asked_by);
                }
            }
            answer = claiming.answer(free > 0) => {
                let (claims, refused) = service.heard(answer, renewal.get(), claiming.told());
                if refused.is_some() {
                    failure = failure.or(refused);
                    requester.ask(Exit::WhenIdle, Notice::Worker);
                }
                // Those that were asked for before the worker was told to end are somebody else's.
                let interrupt = (exit > Exit::Stay).then_some((Interrupt::Shutdown, asked_by));
                runs.start_all(service, claims, interrupt);
                if exit == Exit::AtOnce {
                    runs.interrupt(Interrupt::Shutdown, asked_by);
                }
            }
            () = runs.ended(service) => claiming.hurry(),
            () = collecting.made_room(service) => claiming.hurry(),
            () = recovery.ended(service) => {}
            () = at(grace_end) => claiming.give_up(),
            () = at(idle_end) => {
                requester.ask(Exit::WhenIdle, Notice::Worker);
            }
            () = reports.tell(&service.log) => {}
        }
    }
    collecting.stop().await;
    failure.map_or(Ok(()), Err)
}

fn tell_beginning(log: &WorkerLog) {
    log.count(Metric::InstanceBoot, machine::boot_time(), None);
    log.write(&Entry::Start);
    log.increment("workerStart");
    log.measure("workerStart", machine::uptime() * 1000.0);
    log.count(Metric::WorkerReady, Timestamp::now(), None);
}

/// Counts that tasks are to end now: as a rule their machine goes, for somebody pays more for it.
fn count_termination(log: &WorkerLog, known: Exit, (asked, by): (Exit, Notice)) {
    if known < Exit::Now && asked >= Exit::Now && matches!(by, Notice::Signal | Notice::WorkerRunner) {
        log.increment("spotTermination");
    }
}

fn tell_end(log: &WorkerLog) {
    log.write(&Entry::Shutdown);
    log.count(Metric::InstanceShutdown, Timestamp::now(), None);
    log.write(&Entry::Exit);
}

impl Service {
    fn warn(&self, message: &str) {
        self.log.write(&Entry::Warning { message });
    }
}

impl Occupation {
    fn look(self, running: usize, claiming: &Claiming, log: &WorkerLog) -> Occupation {
        match self {
            Occupation::New if running == 0 && !claiming.was_answered() => self,
            Occupation::New | Occupation::Working if running == 0 => {
                log.write(&Entry::Uptime { uptime: log.uptime() });
                log.write(&Entry::Idle);
                Occupation::IdleSince(Instant::now())
            }
            Occupation::New | Occupation::IdleSince(_) if running > 0 => {
                log.write(&Entry::Working);
                Occupation::Working
            }
            Occupation::New | Occupation::Working | Occupation::IdleSince(_) => self,
        }
    }

    /// When the worker has been idle for too long.
    fn end(&self, idle_time: Option<Duration>) -> Option<Instant> {
        match self {
            Occupation::New | Occupation::Working => None,
            Occupation::IdleSince(since) => idle_time.and_then(|time| since.checked_add(time)),
        }
    }
}
