//! A disk that fills while tasks run: what nobody uses goes first, and if that is not enough a task ends, and then the next.
//!
//! ```text
//!   less than the low mark is free   whoever collects garbage is told, and tasks run on
//!   less than the reserve is free    a sweep is waited for; after it, if it was in vain, that run ends which has most on
//!                                    the disk, and the next one not before the files of that one are gone, or have
//!                                    had a minute to go: whom it is reported to may be slow
//! ```
//!
//! Where nobody collects garbage, as with `run`, the first half is left out.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use runtime::id::ContainerId;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::weight::weight;
use crate::host::free_bytes;
use crate::limits::DISK_RESERVE_BYTES;
use crate::registry::Phase;
use crate::task::error::TaskError;
use crate::task::outcome::End;
use crate::task::run::Worker;

mod weight;

/// How often the disk is looked at while a task runs.
const LOOK: Duration = Duration::from_secs(1);

/// How long a run waits for a sweep to make room before it ends all the same.
const SWEEP_TIME: Duration = Duration::from_secs(10);

/// How long the run that has most on the disk waits for the files of one that was ended to go.
const TURN_TIME: Duration = Duration::from_secs(60);

/// What the runs of one worker have in common when their disk is full. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct FullDisk {
    /// Held by the run that is ended for it, or by one that looks whether it is the one.
    turn: Arc<Mutex<()>>,
    /// Held by the run that weighs all of them; the others look at what came of it.
    weighed: Arc<Mutex<Option<Weighed>>>,
    collector: Arc<OnceLock<mpsc::UnboundedSender<RoomRequest>>>,
}

/// What holds for all runs until it is time for the next look.
#[derive(Debug)]
struct Weighed {
    at: Instant,
    heaviest: ContainerId,
}

/// A run's request for room. To drop it is to answer: there is no more to be had.
#[derive(Debug)]
pub struct RoomRequest(oneshot::Sender<()>);

/// As long as it lives, but [`TURN_TIME`] at most, no other run ends because the disk is full.
#[derive(Debug)]
pub(super) struct Turn {
    _held: OwnedMutexGuard<()>,
}

/// A run is to end because the disk is full.
pub(super) struct MustEnd {
    pub(super) error: TaskError,
    pub(super) turn: Option<Turn>,
}

impl RoomRequest {
    /// Whether a run waits for the answer, and ends if it does not help.
    pub fn is_waited_for(&self) -> bool {
        !self.0.is_closed()
    }
}

impl FullDisk {
    /// What runs ask for from now on. One of each worker may have it.
    pub fn requests(&self) -> mpsc::UnboundedReceiver<RoomRequest> {
        let (sender, requests) = mpsc::unbounded_channel();
        // Whoever comes second hears nothing.
        self.collector.set(sender).unwrap_or_default();
        requests
    }

    /// Waits until the run of a container has to end, if it ever has.
    pub(super) async fn ends(&self, worker: &Worker, container: &ContainerId) -> MustEnd {
        let runs = worker.config.directories.runs();
        let low_mark = worker.config.file.low_mark_bytes();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A file system that does not say has enough: writing will tell.
            match free_bytes(&runs) {
                Some(free) if free < DISK_RESERVE_BYTES => {}
                Some(free) if free < low_mark => {
                    drop(self.ask_for_room());
                    continue;
                }
                Some(_) | None => continue,
            }
            if !self.is_heaviest(worker, container, LOOK).await {
                // It waits for nothing: whoever is the heaviest has its turn at once.
                drop(self.ask_for_room());
                continue;
            }
            let turn = self.take_turn().await;
            if let Some(swept) = self.ask_for_room() {
                // However it ends, the disk says what came of it.
                timeout(SWEEP_TIME, swept).await.map(drop).unwrap_or_default();
            }
            let Some(free) = free_bytes(&runs).filter(|free| *free < DISK_RESERVE_BYTES) else { continue };
            // All were weighed before the wait: the heaviest may have removed its files since.
            if self.is_heaviest(worker, container, Duration::ZERO).await {
                let text = format!(
                    "The task was ended because the worker's disk is full: {free} bytes are free, {DISK_RESERVE_BYTES} are kept for logs and clean-up."
                );
                return MustEnd { error: TaskError::new(End::ResourceShort, text), turn };
            }
        }
    }

    /// Waits until nobody else has the turn, or has had it for long enough.
    async fn take_turn(&self) -> Option<Turn> {
        let held = timeout(TURN_TIME, Arc::clone(&self.turn).lock_owned()).await.ok()?;
        Some(Turn { _held: held })
    }

    /// Whether none of the worker's running tasks has more on the disk: the end of this one makes the most room. Goes by
    /// what was weighed no longer ago than `most_age`.
    async fn is_heaviest(&self, worker: &Worker, container: &ContainerId, most_age: Duration) -> bool {
        let all = worker.registry.all().into_iter().filter(|(_, run)| run.phase == Phase::Running);
        let others: Vec<ContainerId> =
            all.map(|(_, run)| run.container).filter(|other| other != container).collect();
        if others.is_empty() {
            return true;
        }
        let runs = worker.config.directories.runs();
        // A run that cannot be compared with others is one that ends.
        self.heaviest(runs, [others, vec![container.clone()]].concat(), most_age)
            .await
            .is_none_or(|it| it == *container)
    }

    /// The one of `running` with the most on the disk. It is looked for once in `most_age`, not by each of them.
    async fn heaviest(
        &self,
        runs: PathBuf,
        running: Vec<ContainerId>,
        most_age: Duration,
    ) -> Option<ContainerId> {
        let mut last = self.weighed.lock().await;
        if let Some(weighed) = last.as_ref().filter(|weighed| weighed.at.elapsed() < most_age) {
            return Some(weighed.heaviest.clone());
        }
        let of = move |container: &ContainerId| (weight(&runs.join(container.as_str())), container.clone());
        let weighed = spawn_blocking(move || running.iter().map(of).max());
        // What panics has said so.
        let (_, heaviest) = weighed.await.ok()??;
        *last = Some(Weighed { at: Instant::now(), heaviest: heaviest.clone() });
        Some(heaviest)
    }

    /// What comes out ends with the answer; nothing where nobody collects garbage.
    fn ask_for_room(&self) -> Option<oneshot::Receiver<()>> {
        let (request, answer) = oneshot::channel();
        self.collector.get()?.send(RoomRequest(request)).ok()?;
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_when_the_one_before_is_over_or_goes_on_for_too_long() {
        let full_disk = FullDisk::default();
        let first = full_disk.take_turn().await;
        assert!(first.is_some());
        assert!(full_disk.take_turn().await.is_none(), "two have the turn");
        drop(first);
        assert!(full_disk.take_turn().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn runs_that_look_in_the_same_second_weigh_once_and_the_one_that_is_to_end_once_more() {
        let (full_disk, scratch) = (FullDisk::default(), tempfile::tempdir().unwrap());
        let running = ["a", "b"].map(|id| ContainerId::new(id).unwrap());
        let write = |id: &ContainerId, bytes| {
            std::fs::create_dir_all(scratch.path().join(id.as_str())).unwrap();
            std::fs::write(scratch.path().join(id.as_str()).join("file"), vec![b'x'; bytes]).unwrap();
        };
        let within = |most_age| full_disk.heaviest(scratch.path().to_owned(), running.to_vec(), most_age);
        let heaviest = || within(LOOK);
        write(&running[0], 1 << 20);
        write(&running[1], 2 << 20);
        assert_eq!(heaviest().await.as_ref(), Some(&running[1]));
        write(&running[0], 3 << 20);
        assert_eq!(heaviest().await.as_ref(), Some(&running[1]), "it was weighed anew at once");
        tokio::time::advance(LOOK).await;
        assert_eq!(heaviest().await.as_ref(), Some(&running[0]));
        write(&running[1], 4 << 20);
        assert_eq!(within(Duration::ZERO).await.as_ref(), Some(&running[1]), "what has been says who ends");
    }
}
