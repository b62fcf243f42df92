//! What has waited for a task is scheduled once that is resolved: in pieces, so that no call waits for long where thousands
//! wait for one task.
//!
//! ```text
//!   a task is resolved ──► begin: a row ──► after each turn of the thread: a piece ──► … ──► the row goes
//! ```
//!
//! The row is written with the resolution, so that a process that is killed has lost nothing: the next one goes on after the
//! last piece. What comes to depend on the task until then is released with the others.

use rusqlite::{Connection, Transaction, named_params};

use super::dependencies;
use super::store::{self, execute, failed, parsed, select};
use crate::queue::model::{RunState, TaskStatus};
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, runs};
use crate::timestamp::Timestamp;

pub(super) const SCHEMA: &str = "
    CREATE TABLE releases (
        -- The resolved task.
        required TEXT PRIMARY KEY REFERENCES tasks,
        -- 1 if it is completed.
        completed INTEGER NOT NULL,
        -- When it was resolved, in milliseconds.
        resolved INTEGER NOT NULL,
        -- The last of its dependents that has been looked at; '' before the first.
        after TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// Dependents of one piece.
const AT_ONCE: usize = 100;

/// A resolved task whose dependents are being looked at.
struct Release {
    required: TaskId,
    completed: bool,
    resolved: Timestamp,
    after: String,
}

/// Notes that the dependents of a task are to be looked at, if it is resolved and has any.
pub(super) fn begin(database: &Transaction<'_>, status: &TaskStatus) -> Result<(), QueueError> {
    let Some(resolved) = runs::resolved(status) else { return Ok(()) };
    execute(
        database,
        "note what is to be released",
        "INSERT INTO releases (required, completed, resolved, after)
         SELECT :required, :completed, :resolved, ''
         WHERE EXISTS (SELECT 1 FROM dependencies WHERE required = :required)
         ON CONFLICT DO UPDATE
         SET completed = max(completed, excluded.completed), resolved = excluded.resolved, after = ''",
        named_params! {
            ":required": status.task_id.as_str(),
            ":completed": status.state == RunState::Completed,
            ":resolved": resolved.as_millis(),
        },
    )
    .map(drop)
}

/// Whether there is something left to be done.
pub(super) fn are_open(database: &Connection) -> Result<bool, QueueError> {
    let look = || database.prepare_cached("SELECT 1 FROM releases")?.exists([]);
    look().map_err(failed("look for what is to be released"))
}

/// Does a piece of it.
pub(super) fn go_on(database: &Connection) -> Result<(), QueueError> {
    if !are_open(database)? {
        return Ok(());
    }
    let transaction = database.unchecked_transaction().map_err(failed("begin"))?;
    release_piece(&transaction)?;
    transaction.commit().map_err(failed("commit"))
}

pub(super) fn release_piece(database: &Transaction<'_>) -> Result<(), QueueError> {
    let mut left = AT_ONCE;
    while left > 0 {
        let Some(release) = find_open(database)? else { break };
        let dependents = list_dependents(database, &release, left)?;
        for (dependent, _) in dependents.iter().filter(|(_, is_enough)| *is_enough) {
            satisfy(database, &release, dependent)?;
        }
        match dependents.last() {
            Some((last, _)) if dependents.len() == left => note_last(database, &release, last)?,
            Some(_) | None => end(database, &release)?,
        }
        left = left.saturating_sub(dependents.len().max(1));
    }
    Ok(())
}

fn find_open(database: &Transaction<'_>) -> Result<Option<Release>, QueueError> {
    store::find(
        database,
        "read what is to be released",
        "SELECT required, completed, resolved, after FROM releases ORDER BY required LIMIT 1",
        [],
        |row| {
            Ok(Release {
                required: parsed(row, "required", TaskId::parse)?,
                completed: row.get("completed")?,
                resolved: Timestamp::from_millis(row.get("resolved")?),
                after: row.get("after")?,
            })
        },
    )
}

/// The next dependents, and whether each has waited for what has happened.
fn list_dependents(
    database: &Transaction<'_>,
    release: &Release,
    most: usize,
) -> Result<Vec<(TaskId, bool)>, QueueError> {
    select(
        database,
        "list what is to be released",
        "SELECT dependent, satisfied = 0 AND (any_resolution = 1 OR :completed) AS is_enough FROM dependencies
         WHERE required = :required AND dependent > :after ORDER BY dependent LIMIT :most",
        named_params! {
            ":completed": release.completed,
            ":required": release.required.as_str(),
            ":after": release.after,
            ":most": store::limit(most),
        },
        |row| Ok((parsed(row, "dependent", TaskId::parse)?, row.get("is_enough")?)),
    )
}

/// Has a task wait for the resolved one no longer, and schedules it if it waits for nothing else.
fn satisfy(database: &Transaction<'_>, release: &Release, dependent: &TaskId) -> Result<(), QueueError> {
    dependencies::satisfy(database, dependent, &release.required)?;
    if dependencies::is_waiting(database, dependent)? {
        return Ok(());
    }
    let mut status = store::load_status(database, dependent)?;
    // When it was resolved, so that it makes no difference who looks first.
    runs::schedule(&mut status, release.resolved);
    store::store_status(database, &status)
}

fn note_last(database: &Transaction<'_>, release: &Release, last: &TaskId) -> Result<(), QueueError> {
    execute(
        database,
        "note what has been released",
        "UPDATE releases SET after = :after WHERE required = :required",
        named_params! { ":after": last.as_str(), ":required": release.required.as_str() },
    )
    .map(drop)
}

fn end(database: &Transaction<'_>, release: &Release) -> Result<(), QueueError> {
    execute(
        database,
        "end a release",
        "DELETE FROM releases WHERE required = :required",
        named_params! { ":required": release.required.as_str() },
    )
    .map(drop)
}

#[cfg(test)]
mod tests;
