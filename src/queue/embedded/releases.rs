//! What has waited for a task is scheduled once that is resolved: in pieces, so that no call waits for long where thousands
//! wait for one task.
//!
//! ```text
//!   a task is resolved ──► begin: a row ──► after each turn of the thread: a piece ──► … ──► the row goes
//! ```
//!
//! The row is written with the resolution, so that a process that is killed has lost nothing: the next one goes on after the
//! last piece. What comes to depend on the task meanwhile needs no release, for it looks at the task itself.
//!
//! What was resolved first is released first, so that a task that has waited for several is scheduled when the last of them
//! was resolved. A release that fails is held back, and tried again later: the others do not wait for it.

use std::collections::BTreeSet;

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
    CREATE INDEX first_releases ON releases (resolved, required);
";

/// Dependents of one piece.
const AT_ONCE: usize = 100;

/// The resolved tasks whose releases have failed.
pub(super) type Held = BTreeSet<String>;

/// What failed.
pub(super) struct Failure {
    /// The task whose release it was; none for what goes on for all of them.
    pub(super) required: Option<TaskId>,
    pub(super) error: QueueError,
}

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

/// Whether there is something left to be done, beside what is held back.
pub(super) fn are_open(database: &Connection, held: &Held) -> Result<bool, QueueError> {
    let look = || database.prepare_cached(FIRST)?.exists(named_params! { ":held": list(held) });
    look().map_err(failed("look for what is to be released"))
}

/// Does a piece of it.
pub(super) fn go_on(database: &Connection, held: &Held) -> Result<(), Failure> {
    let of_all = |error| Failure { required: None, error };
    if !are_open(database, held).map_err(of_all)? {
        return Ok(());
    }
    let transaction = database.unchecked_transaction().map_err(failed("begin")).map_err(of_all)?;
    release_piece(&transaction, held)?;
    transaction.commit().map_err(failed("commit")).map_err(of_all)
}

pub(super) fn release_piece(database: &Transaction<'_>, held: &Held) -> Result<(), Failure> {
    let mut left = AT_ONCE;
    while left > 0 {
        let found = find_open(database, held).map_err(|error| Failure { required: None, error })?;
        let Some(release) = found else { break };
        let looked_at = release_some(database, &release, left)
            .map_err(|error| Failure { required: Some(release.required), error })?;
        left = left.saturating_sub(looked_at.max(1));
    }
    Ok(())
}

/// Looks at the next dependents of a task, at most so many; gives their number.
fn release_some(database: &Transaction<'_>, release: &Release, most: usize) -> Result<usize, QueueError> {
    let dependents = list_dependents(database, release, most)?;
    for (dependent, _) in dependents.iter().filter(|(_, is_enough)| *is_enough) {
        satisfy(database, release, dependent)?;
    }
    match dependents.last() {
        Some((last, _)) if dependents.len() == most => note_last(database, release, last)?,
        Some(_) | None => end(database, release)?,
    }
    Ok(dependents.len())
}

/// The first release that is not held back.
const FIRST: &str = "SELECT required, completed, resolved, after FROM releases
                     WHERE required NOT IN (SELECT value FROM json_each(:held)) ORDER BY resolved, required LIMIT 1";

fn list(held: &Held) -> String {
    serde_json::json!(held).to_string()
}

fn find_open(database: &Transaction<'_>, held: &Held) -> Result<Option<Release>, QueueError> {
    store::find(
        database,
        "read what is to be released",
        FIRST,
        named_params! { ":held": list(held) },
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
