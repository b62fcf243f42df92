//! From the first claim to the last resolution, with kills between them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use docker_worker::random::random_fraction;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::deployment::{AT_ONCE, Deployment};
use super::faults::{Faults, LostRuns};
use super::journal::Journal;
use super::kinds::Kind;
use super::memory::Memory;
use super::verify::Ended;
use super::worker::{Entries, Worker};

/// How often the queue is asked whether all tasks are resolved, and faults are asked for.
const LOOK: Duration = Duration::from_secs(3);

/// At every such look the answer to a request for tasks is lost as well.
const LOST_CLAIM: u32 = 15;

/// A worker that has resolved nothing for so long does not get on: a claim that it has lost holds for 20 minutes.
const PATIENCE: Duration = Duration::from_secs(25 * 60);

/// More than a worker takes to be done with what it was killed with, once it can reach the queue.
const LEFT: Duration = Duration::from_secs(120);

/// Between these parts of all tasks the worker is not killed: that one life is long enough for its memory to show whether
/// it grows.
const LONG_LIFE: (f64, f64) = (0.2, 0.94);

/// After this part of all tasks the worker is killed no more.
const LAST_KILL: f64 = 0.99;

/// Of so many kills one comes after the long life.
const LATE_KILLS: usize = 5;

/// Before nearly all runs are resolved, or nothing more is, nobody has to be asked whether all tasks are.
const NEARLY_ALL: f64 = 0.97;

/// See the module's head.
pub struct Soak<'a> {
    deployment: &'a Deployment,
    worker: Worker,
    faults: Faults,
    tasks: Vec<(Kind, String)>,
    pub journal: Journal,
    /// How often the worker was killed.
    pub kills: usize,
    /// What each of its lives has had.
    pub memory: Memory,
}

impl<'a> Soak<'a> {
    pub fn new(
        deployment: &'a Deployment,
        worker: Worker,
        faults: Faults,
        tasks: Vec<(Kind, String)>,
    ) -> Soak<'a> {
        let (journal, memory) = (Journal::default(), Memory::default());
        Soak { deployment, worker, faults, tasks, journal, kills: 0, memory }
    }

    /// Has the tasks carried out by the worker, which has been started. Gives what the queue says of them when all are resolved.
    pub async fn run(&mut self, kills: usize, entries: &mut Entries) -> Vec<Ended> {
        let cancelled = self.tasks.iter().filter(|(kind, _)| *kind == Kind::IsCancelled);
        let mut to_cancel: BTreeSet<String> = cancelled.map(|(_, task_id)| task_id.clone()).collect();
        let mut cancelling = JoinSet::new();
        let mut milestones = self.milestones(kills).into_iter().peekable();
        let mut kill_at: Option<Instant> = None;
        let (mut looks, mut look) = (interval(LOOK), 0);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut resolved, mut since) = (0, Instant::now());
        loop {
            tokio::select! {
                Some(entry) = entries.recv() => {
                    if let Some(task_id) = self.journal.note(&entry).and_then(|id| to_cancel.take(&id)) {
                        cancelling.spawn(async move {
                            sleep(up_to(2)).await;
                            task_id
                        });
                    }
                    if milestones.next_if(|milestone| self.journal.count() >= *milestone).is_some() {
                        kill_at = Some(Instant::now() + up_to(1));
                    }
                }
                Some(task_id) = cancelling.join_next() => self.deployment.cancel(&task_id.unwrap()).await,
                () = until(kill_at) => {
                    kill_at = None;
                    self.worker.kill().await;
                    self.kills += 1;
                    self.memory.begin_life();
                    sleep(up_to(1)).await;
                    self.worker.start();
                }
                _ = looks.tick() => {
                    self.memory.note(self.journal.count(), self.worker.memory());
                    let gets_on = self.journal.count() > resolved;
                    if (!gets_on || self.is_nearly_over())
                        && let Some(ended) = self.ended().await
                    {
                        return ended;
                    }
                    if gets_on {
                        (resolved, since) = (self.journal.count(), Instant::now());
                    }
                    assert!(since.elapsed() < PATIENCE, "nothing was resolved for {PATIENCE:?}");
                    look += 1;
                    let lost = look % LOST_CLAIM == 0 && self.may_lose_runs(kills);
                    self.faults.ask(if lost { LostRuns::Some } else { LostRuns::None }, look).await;
                }
            }
        }
    }

    /// How many runs are resolved when the worker is killed, each time somewhere in its own part of the time.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    fn milestones(&self, kills: usize) -> Vec<usize> {
        let late = kills.div_ceil(LATE_KILLS).min(kills.saturating_sub(1));
        let (begin, end) = LONG_LIFE;
        let spread = |count: usize, from: f64, to: f64| {
            let part = (to - from) / count as f64;
            let place = move |kill: usize| from + part * (kill as f64 + random_fraction());
            (0..count).map(move |kill| (self.tasks.len() as f64 * place(kill)) as usize)
        };
        spread(kills - late, 0.0, begin).chain(spread(late, end, LAST_KILL)).collect()
    }

    fn is_nearly_over(&self) -> bool {
        self.journal.count() as f64 > self.tasks.len() as f64 * NEARLY_ALL
    }

    /// A deployment finds a lost run by itself, if late; the queue of `standalone` when that is started again, which may happen
    /// once more before what is asked for now has come about.
    fn may_lose_runs(&self, kills: usize) -> bool {
        match self.faults {
            Faults::Told { .. } => true,
            Faults::OnTheWay(_) => self.kills + 1 < kills,
        }
    }

    /// The tasks with their runs, if all are resolved.
    async fn ended(&self) -> Option<Vec<Ended>> {
        let mut ended = Vec::with_capacity(self.tasks.len());
        // The last ones are those that are still to be done.
        for some in self.tasks.rchunks(AT_ONCE) {
            let ids: Vec<&str> = some.iter().map(|(_, task_id)| task_id.as_str()).collect();
            let mut statuses = self.deployment.statuses(&ids).await;
            for (kind, task_id) in some {
                let found = statuses.remove(task_id);
                let (state, runs) = found.unwrap_or_else(|| panic!("the queue has lost task {task_id}"));
                if ["pending", "running"].contains(&state.as_str()) {
                    return None;
                }
                ended.push(Ended { kind: *kind, task_id: task_id.clone(), runs });
            }
        }
        Some(ended)
    }

    /// Ends the worker, and gives what it has left in its directories, in sentences, and its greatest memory in bytes.
    pub async fn end(&mut self, entries: &mut Entries) -> (Vec<String>, u64) {
        let mut problems = Vec::new();
        let claims = self.worker.run_directory().join("claims");
        // What a kill has left of runs may wait for an answer that comes too late.
        let begun = Instant::now();
        while listing(&claims).next().is_some() && begun.elapsed() < LEFT {
            sleep(Duration::from_millis(100)).await;
        }
        let status = self.worker.stop().await;
        if !status.success() {
            problems.push(format!("the worker ended with {status}"));
        }
        while let Ok(entry) = entries.try_recv() {
            self.journal.note(&entry);
        }
        let cleaned = self.worker.clean_up().await;
        let said = String::from_utf8_lossy(&cleaned.stderr).trim().to_owned();
        if !cleaned.status.success() || !said.ends_with("there was nothing to undo") {
            problems.push(format!("cleanup ended with {}: {said}", cleaned.status));
        }
        for directory in [self.worker.data().join("runs"), claims] {
            problems.extend(listing(&directory).map(|path| format!("left behind: {path}")));
        }
        (problems, self.worker.most_memory)
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn up_to(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(random_fraction())
}

/// What lies in a directory of the worker's, but for its mark.
fn listing(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap());
    entries.filter(|entry| entry.file_name() != ".docker-worker").map(|it| it.path().display().to_string())
}
