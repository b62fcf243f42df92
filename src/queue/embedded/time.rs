//! What time alone does: claims run out, deadlines come, and what has been begun goes on.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use rusqlite::Connection;

use super::releases::{self, Held};
use super::{schedule, store};
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, runs};
use crate::text::chain;
use crate::timestamp::Timestamp;

/// Tasks of one transaction.
const AT_ONCE: usize = 100;

/// What time has not done.
#[derive(Debug)]
pub(super) enum Undone {
    /// What it does to tasks whose status cannot be read, the first of which is named. All others are as they have to be.
    Unreadable(TaskId, QueueError),
    /// Whatever is due: nothing can be written, say.
    Anything(QueueError),
}

impl fmt::Display for Undone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Undone::Unreadable(task_id, error) => {
                write!(formatter, "failed to see to what is due of task {task_id}: {}", chain(error))
            }
            Undone::Anything(error) => write!(formatter, "failed to see to what is due: {}", chain(error)),
        }
    }
}

/// Brings every task up to `now`.
pub(super) fn pass(database: &Connection, now: Timestamp) -> Result<(), Undone> {
    let mut unreadable = Vec::new();
    while pass_some(database, now, &mut unreadable).map_err(Undone::Anything)?.is_continue() {}
    unreadable.into_iter().next().map_or(Ok(()), |(task_id, error)| Err(Undone::Unreadable(task_id, error)))
}

/// The same for some of them, beside those that are known to be unreadable. There may be more until it breaks.
fn pass_some(
    database: &Connection,
    now: Timestamp,
    unreadable: &mut Vec<(TaskId, QueueError)>,
) -> Result<ControlFlow<()>, QueueError> {
    let transaction = database.unchecked_transaction().map_err(store::failed("begin"))?;
    let mut due = store::list_due(&transaction, now, AT_ONCE + unreadable.len())?;
    due.retain(|task_id| unreadable.iter().all(|(known, _)| known != task_id));
    if due.is_empty() {
        return Ok(ControlFlow::Break(()));
    }
    for task_id in due {
        match store::load_status(&transaction, &task_id) {
            Ok(mut status) => {
                runs::pass_time(&mut status, now);
                schedule::settle(&transaction, &status)?;
            }
            Err(error) => unreadable.push((task_id, error)),
        }
    }
    transaction.commit().map_err(store::failed("commit"))?;
    Ok(ControlFlow::Continue(()))
}

/// How long nothing is due, beside releases that are held back; None if nothing ever is.
pub(super) fn rest(
    database: &Connection,
    held: &Held,
    now: Timestamp,
) -> Result<Option<Duration>, QueueError> {
    if releases::are_open(database, held)? {
        return Ok(Some(Duration::ZERO));
    }
    Ok(store::next_due(database)?.map(|due| due.since(now)))
}
