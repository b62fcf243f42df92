//! What time alone does: claims run out, deadlines come, and what has been begun goes on.

use std::time::Duration;

use rusqlite::Connection;

use super::releases::{self, Held};
use super::{schedule, store};
use crate::queue::{QueueError, runs};
use crate::timestamp::Timestamp;

/// Tasks of one transaction.
const AT_ONCE: usize = 100;

/// Brings every task up to `now`.
pub(super) fn pass(database: &Connection, now: Timestamp) -> Result<(), QueueError> {
    loop {
        let transaction = database.unchecked_transaction().map_err(store::failed("begin"))?;
        let due = store::list_due(&transaction, now, AT_ONCE)?;
        for task_id in &due {
            let mut status = store::load_status(&transaction, task_id)?;
            runs::pass_time(&mut status, now);
            schedule::settle(&transaction, &status)?;
        }
        if due.is_empty() {
            return Ok(());
        }
        transaction.commit().map_err(store::failed("commit"))?;
    }
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
