//! The thread that has the database.
//!
//! It does one piece of work after another. A copy of the whole database is made in steps, and other work is done between
//! them: nobody waits for it.

use std::collections::VecDeque;
use std::fs;
use std::mem;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction};
use tokio::sync::{oneshot, watch};

use super::log::{Log, Overwritten};
use super::releases::{self, Failure, Held};
use super::time::Undone;
use super::{Clock, backup, store, time};
use crate::queue::QueueError;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// The longest rest while something is due: a clock may be set. So long is waited before what has failed is tried again.
const LOOK: Duration = Duration::from_secs(30);

/// Work for the thread.
enum Work {
    /// What is done at once.
    Job(Job),
    /// What is done in steps.
    Copy(CopyOrder),
}

type Job = Box<dyn FnOnce(&Connection, &mut Log) + Send>;

/// A copy that somebody waits for.
struct CopyOrder {
    file: PathBuf,
    answer: oneshot::Sender<Result<(), QueueError>>,
}

/// For whom something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForWhom {
    /// Also for those who do not wait for the answer any more.
    Anybody,
    /// Only for those who still do when its turn comes: what is given out to nobody is lost for a while.
    WhoeverWaits,
}

/// The way to the thread. It ends with this value, which waits for what is under way and for the database to be closed.
pub(super) struct QueueThread {
    /// Nothing once it is to end.
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    changes: watch::Receiver<()>,
    faults: watch::Receiver<Option<String>>,
}

impl QueueThread {
    pub(super) fn start(database: Connection, clock: Arc<Clock>) -> Result<QueueThread, QueueError> {
        let (work, received) = channel();
        let (changed, changes) = watch::channel(());
        let (faulty, faults) = watch::channel(None);
        let told = Told { changed, faulty };
        let thread = std::thread::Builder::new()
            .name("queue".to_owned())
            .spawn(move || serve(&database, &received, &told, &clock))
            .map_err(|error| QueueError::Internal { call: "start its thread", source: error.into() })?;
        Ok(QueueThread { work: Some(work), thread: Some(thread), changes, faults })
    }

    /// Word of each change, whoever or whatever makes it.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    /// What does not go on by itself, in a sentence; there is word of the first of several, and of none once all goes on.
    pub(super) fn faults(&self) -> watch::Receiver<Option<String>> {
        self.faults.clone()
    }

    /// One transaction, seen from `now`: all of it or, on an error, nothing. Once asked for, it is done whether or not
    /// its answer is waited for, as far as `for_whom` does not say otherwise.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        (now, for_whom): (Timestamp, ForWhom),
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (answer, answered) = oneshot::channel();
        let job = move |database: &Connection, _: &mut Log| {
            if for_whom == ForWhom::WhoeverWaits && answer.is_closed() {
                return;
            }
            // An error is the answer's loss: whoever asked has gone.
            answer.send(transact(database, now, work)).ok();
        };
        self.put(Work::Job(Box::new(job)))?;
        answered.await.map_err(|_| ended())?
    }

    /// One transaction as well, which says whether it has overwritten secrets: no file has anything of them once it is answered.
    pub(super) async fn overwrite<T: Send + 'static>(
        &self,
        now: Timestamp,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<(T, Overwritten), QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (answer, answered) = oneshot::channel();
        let job = move |database: &Connection, log: &mut Log| {
            let done = transact(database, now, work)
                .and_then(|(done, overwritten)| log.clean(database, overwritten).map(|()| done));
            // As above.
            answer.send(done).ok();
        };
        self.put(Work::Job(Box::new(job)))?;
        answered.await.map_err(|_| ended())?
    }

    /// Writes all that is in the database, changes that come meanwhile included, to a new file. It is given up with the
    /// last that waits for it; only a success leaves a file.
    pub(super) async fn copy(&self, file: PathBuf) -> Result<(), QueueError> {
        let (answer, answered) = oneshot::channel();
        self.put(Work::Copy(CopyOrder { file, answer }))?;
        answered.await.map_err(|_| ended())?
    }

    fn put(&self, work: Work) -> Result<(), QueueError> {
        self.work.as_ref().ok_or_else(ended)?.send(work).map_err(|_| ended())
    }
}

fn ended() -> QueueError {
    QueueError::Internal { call: "reach its thread", source: "it has ended".into() }
}

impl Drop for QueueThread {
    fn drop(&mut self) {
        self.work.take();
        // A panic there has been told, and its callers have had an error.
        self.thread.take().map(JoinHandle::join).map_or(Ok(()), |ended| ended).unwrap_or_default();
    }
}

fn transact<T>(
    database: &Connection,
    now: Timestamp,
    work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, QueueError>,
) -> Result<T, QueueError> {
    let passed = time::pass(database, now);
    // The only one: a piece of work begins when the one before is done.
    let transaction = database.unchecked_transaction().map_err(store::failed("begin"))?;
    let changes = database.total_changes();
    let result = work(&transaction, now);
    if let Err(Undone::Anything(error)) = passed {
        // What would change something, or is refused, may rest on what time has not done. Whoever only reads has an answer:
        // what makes room on a full disk begins with reading what has expired.
        if result.is_err() || database.total_changes() != changes {
            return Err(error);
        }
    }
    let result = result?;
    transaction.commit().map_err(store::failed("commit"))?;
    Ok(result)
}

/// Whom the thread tells what happens.
struct Told {
    changed: watch::Sender<()>,
    faulty: watch::Sender<Option<String>>,
}

/// The thread's life.
fn serve(database: &Connection, work: &Receiver<Work>, told: &Told, clock: &Clock) {
    let mut turns = Turns {
        database,
        work,
        told,
        clock,
        log: Log::found(),
        changes: database.total_changes(),
        is_time_stuck: false,
        are_releases_stuck: false,
        held: Held::new(),
        held_since: Instant::now(),
        orders: VecDeque::new(),
    };
    while turns.take(Duration::MAX).is_continue() {
        while let Some(order) = turns.orders.pop_front() {
            turns.copy(&order.file, order.answer);
        }
    }
}

/// What the thread does, one after the other.
struct Turns<'a> {
    database: &'a Connection,
    work: &'a Receiver<Work>,
    told: &'a Told,
    clock: &'a Clock,
    log: Log,
    /// The changes that there was word of.
    changes: u64,
    /// Whether what goes on by itself did not, for an error of the database: it is tried again after a while, and after each
    /// call.
    is_time_stuck: bool,
    are_releases_stuck: bool,
    /// What cannot be released, and since when that is not tried.
    held: Held,
    held_since: Instant,
    /// Copies that wait for the one that is being made.
    orders: VecDeque<CopyOrder>,
}

impl Turns<'_> {
    /// One piece of work, or what time does; at most `longest` is waited for either. An end once nobody can ask any more.
    fn take(&mut self, longest: Duration) -> ControlFlow<()> {
        match self.work.recv_timeout(self.rest().min(longest)) {
            Ok(Work::Job(job)) => {
                job(self.database, &mut self.log);
                // As long as calls come there is no other time to see whether it goes on again.
                if self.is_time_stuck {
                    self.pass_time();
                }
            }
            Ok(Work::Copy(order)) => self.orders.push_back(order),
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            Err(RecvTimeoutError::Timeout) => self.pass_time(),
        }
        // After whatever was done: what a call has begun has gone as far as may be when the next one comes.
        self.release();
        let total = self.database.total_changes();
        if total != self.changes {
            self.changes = total;
            self.told.changed.send_replace(());
        }
        ControlFlow::Continue(())
    }

    /// Sees to what is due.
    fn pass_time(&mut self) {
        let passed = time::pass(self.database, (self.clock)());
        let was_stuck = mem::replace(&mut self.is_time_stuck, passed.is_err());
        match passed {
            Err(undone) => self.tell(undone.to_string()),
            Ok(()) if was_stuck => self.tell_if_all_goes_on(),
            Ok(()) => {}
        }
    }

    /// Does a piece of what is to be released.
    fn release(&mut self) {
        if self.held_since.elapsed() >= LOOK {
            self.tell_if_all_goes_on();
            self.held.clear();
            self.held_since = Instant::now();
        }
        let Err(Failure { required, error }) = releases::go_on(self.database, &self.held) else {
            if mem::take(&mut self.are_releases_stuck) {
                self.tell_if_all_goes_on();
            }
            return;
        };
        let error = chain(&error);
        match required {
            Some(task_id) => {
                self.tell(format!("failed to release what waits for task {task_id}: {error}"));
                self.held.insert(task_id.to_string());
            }
            None => {
                self.tell(format!("failed to release what waits for tasks: {error}"));
                self.are_releases_stuck = true;
            }
        }
    }

    fn tell_if_all_goes_on(&self) {
        if self.held.is_empty() && !self.is_stuck() {
            self.told.faulty.send_if_modified(|fault| fault.take().is_some());
        }
    }

    fn is_stuck(&self) -> bool {
        self.is_time_stuck || self.are_releases_stuck
    }

    /// Tells of what fails, unless it is known that something does.
    fn tell(&self, fault: String) {
        self.told.faulty.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(fault);
            is_first
        });
    }

    /// Until something is due, as far as that can be told.
    fn rest(&self) -> Duration {
        match time::rest(self.database, &self.held, (self.clock)()) {
            Ok(None) if self.held.is_empty() => Duration::MAX,
            Ok(Some(rest)) if !self.is_stuck() => rest.min(LOOK),
            Ok(_) | Err(_) => LOOK,
        }
    }

    fn copy(&mut self, file: &Path, answer: oneshot::Sender<Result<(), QueueError>>) {
        let database = self.database;
        let mut goes_on = || !answer.is_closed() && self.take(Duration::ZERO).is_continue();
        let copied = backup::copy(database, file, &mut goes_on);
        if let Err(Ok(())) = answer.send(copied) {
            // Nobody knows of it.
            fs::remove_file(file).unwrap_or_default();
        }
    }
}
