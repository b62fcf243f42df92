//! The thread that has the database.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::{oneshot, watch};

use super::{Clock, store, time};
use crate::queue::QueueError;
use crate::timestamp::Timestamp;

/// The longest rest while something is due: a clock may be set.
const LOOK: Duration = Duration::from_secs(30);

/// Work for the thread.
type Job = Box<dyn FnOnce(&mut Connection) + Send>;

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
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    changes: watch::Receiver<()>,
}

impl QueueThread {
    pub(super) fn start(database: Connection, clock: Arc<Clock>) -> Result<QueueThread, QueueError> {
        let (jobs, received) = channel();
        let (changed, changes) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name("queue".to_owned())
            .spawn(move || serve(database, &received, &changed, &clock))
            .map_err(|error| QueueError::Internal { call: "start its thread", source: error.into() })?;
        Ok(QueueThread { jobs: Some(jobs), thread: Some(thread), changes })
    }

    /// Word of each change, whoever or whatever makes it.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    /// One transaction, seen from `now`: all of it or, on an error, nothing. Once asked for, it is done whether or not
    /// its answer is waited for, as far as `for_whom` does not say otherwise.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        (now, for_whom): (Timestamp, ForWhom),
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.put(for_whom, move |database| transact(database, now, work)).await
    }

    /// The same for what is no transaction.
    pub(super) async fn ask_outside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.put(ForWhom::Anybody, move |database| work(database)).await
    }

    async fn put<T: Send + 'static>(
        &self,
        for_whom: ForWhom,
        work: impl FnOnce(&mut Connection) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let ended = || QueueError::Internal { call: "reach its thread", source: "it has ended".into() };
        let (answer, answered) = oneshot::channel();
        let job = move |database: &mut Connection| {
            if for_whom == ForWhom::WhoeverWaits && answer.is_closed() {
                return;
            }
            // An error is the answer's loss: whoever asked has gone.
            answer.send(work(database)).ok();
        };
        self.jobs.as_ref().ok_or_else(ended)?.send(Box::new(job)).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

impl Drop for QueueThread {
    fn drop(&mut self) {
        self.jobs.take();
        // A panic there has been told, and its callers have had an error.
        self.thread.take().map(JoinHandle::join).map_or(Ok(()), |ended| ended).unwrap_or_default();
    }
}

fn transact<T>(
    database: &mut Connection,
    now: Timestamp,
    work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, QueueError>,
) -> Result<T, QueueError> {
    time::pass(database, now)?;
    let transaction = database.transaction().map_err(store::failed("begin"))?;
    let result = work(&transaction, now)?;
    transaction.commit().map_err(store::failed("commit"))?;
    Ok(result)
}

/// The thread's life. Time that cannot pass for an error of the database is tried again after a while, and a call finds
/// the same error.
fn serve(mut database: Connection, jobs: &Receiver<Job>, changed: &watch::Sender<()>, clock: &Clock) {
    let mut is_stuck = false;
    let mut told = database.total_changes();
    loop {
        let total = database.total_changes();
        if total != told {
            told = total;
            changed.send_replace(());
        }
        let rest = match time::rest(&database, clock()) {
            Ok(None) => Duration::MAX,
            Ok(Some(rest)) if !is_stuck => rest.min(LOOK),
            Ok(Some(_)) | Err(_) => LOOK,
        };
        match jobs.recv_timeout(rest) {
            Ok(job) => job(&mut database),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                is_stuck = time::pass(&mut database, clock()).is_err();
            }
        }
    }
}
