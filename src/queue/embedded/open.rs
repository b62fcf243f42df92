//! Opening the queue's database, in memory or in a file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::store::failed;
use super::{artifacts, definitions, dependencies, groups, index, purges, releases, secrets, store, workers};
use crate::queue::QueueError;

/// The version of the tables. A change of them has to raise it, and to bring up to it what is older: see [`CHANGES`].
const VERSION: i64 = 5;
/// What is older than this is of no release: it is refused.
const OLDEST: i64 = 3;
/// What makes the tables of a version those of the next one. A row that is not as it should be costs nobody the others: of a
/// definition that is no JSON its text is the definition, which whoever claims the task finds to be none.
const CHANGES: &[(i64, &str)] = &[
    (
        3,
        "CREATE TABLE definitions (
             task_id TEXT PRIMARY KEY REFERENCES tasks,
             name TEXT NOT NULL,
             definition TEXT NOT NULL
         ) STRICT;
         INSERT INTO definitions (task_id, name, definition)
             SELECT task_id,
                    CASE WHEN json_valid(definition) THEN ifnull(definition ->> '$.metadata.name', '') ELSE '' END,
                    CASE WHEN json_valid(definition) THEN definition ELSE json_quote(definition) END
             FROM tasks;
         ALTER TABLE tasks DROP COLUMN definition;
         CREATE TABLE releases (
             required TEXT PRIMARY KEY REFERENCES tasks,
             completed INTEGER NOT NULL,
             resolved INTEGER NOT NULL,
             after TEXT NOT NULL
         ) STRICT, WITHOUT ROWID;",
    ),
    (4, "CREATE INDEX first_releases ON releases (resolved, required);"),
];
/// Marks a database as a queue of ours: "dwkq".
const APPLICATION: i64 = 0x6477_6b71;

/// Bytes of the write-ahead log that are kept for what comes, once a large change has gone into the database.
const JOURNAL_BYTES: i64 = 16 << 20;

/// Statements that are kept prepared: more than there are.
const STATEMENTS: usize = 128;

const CALL: &str = "open its database";

pub(super) fn in_memory() -> Result<Connection, QueueError> {
    let mut database = Connection::open_in_memory().map_err(failed(CALL))?;
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    create_tables(&mut database)?;
    Ok(database)
}

pub(super) fn in_file(path: &Path) -> Result<Connection, QueueError> {
    // Definitions may hold secrets; SQLite gives the files beside it the same mode.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| refused(path, &error))?;
    let mut database = Connection::open(path).map_err(failed(CALL))?;
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    match prepare(&database) {
        Ok(mode) if mode == "wal" => {}
        Ok(mode) => {
            return Err(refused(path, &format!("its journal cannot be a write-ahead log but {mode}")));
        }
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            return Err(is_in_use(path));
        }
        Err(error) => return Err(refused(path, &error)),
    }
    // With a write-ahead log: all of it outlives this process, and only the last moments not a loss of power.
    database.pragma_update(None, "synchronous", "NORMAL").map_err(failed(CALL))?;
    database.pragma_update(None, "journal_size_limit", JOURNAL_BYTES).map_err(failed(CALL))?;
    if versions(&database, path)? == (0, 0) {
        create_tables(&mut database)?;
    } else {
        require_own(&database, path)?;
        bring_up(&mut database).map_err(|error| not_brought_up(path, &error))?;
    }
    Ok(database)
}

/// A file that is there, of a version that is known, as it is: nothing of it is brought up.
pub(super) fn as_it_is(path: &Path) -> Result<Connection, QueueError> {
    // Also for writing: what lies in its log is read only by whoever could take that into the file.
    let database =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed(CALL))?;
    database.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(|error| refused(path, &error))?;
    require_own(&database, path)?;
    Ok(database)
}

/// Sets how the file is used; gives the kind of its journal.
fn prepare(database: &Connection) -> rusqlite::Result<String> {
    // One process at a time: the second one is told so at once.
    database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // So that room that is free can be given back. This has to be said before anything is written.
    database.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // So that the file keeps nothing of a secret that is removed.
    database.pragma_update(None, "secure_delete", "ON")?;
    database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
}

/// Requires that a file is a queue of a version that is known, and whole, and makes it one of this version: it is opened
/// after it has taken the place of another one, which is too late to find that this fails. `named` is what errors call it.
pub(super) fn check(path: &Path, named: &Path) -> Result<(), QueueError> {
    let mut database = Connection::open(path).map_err(failed(CALL))?;
    require_own(&database, named)?;
    let found: Result<String, _> = database.pragma_query_value(None, "quick_check", |row| row.get(0));
    match found.as_deref() {
        Ok("ok") => {}
        Ok(problem) => return Err(refused(named, &format!("it is damaged: {problem}"))),
        Err(error) => return Err(refused(named, &error)),
    }
    bring_up(&mut database).map_err(|error| not_brought_up(named, &error))?;
    database.close().map_err(|(_, error)| refused(named, &error))
}

/// What is said where another process has the queue.
pub(super) fn is_in_use(path: &Path) -> QueueError {
    refused(path, &"another process has it open; use another directory, or end that one")
}

fn not_brought_up(path: &Path, error: &rusqlite::Error) -> QueueError {
    refused(path, &format!("its tables cannot be brought up to this version: {error}"))
}

/// Requires a queue of a version that this worker knows.
fn require_own(database: &Connection, path: &Path) -> Result<(), QueueError> {
    match versions(database, path)? {
        (APPLICATION, OLDEST..=VERSION) => Ok(()),
        (APPLICATION, version) => {
            let text = format!(
                "it is of version {version}, and this worker knows the versions {OLDEST} to {VERSION}; use another \
                 worker, or another directory"
            );
            Err(refused(path, &text))
        }
        _ => Err(refused(path, &"it is no queue of this worker's; use another one")),
    }
}

/// Whose a database is, and of which version; zeros if it is empty.
fn versions(database: &Connection, path: &Path) -> Result<(i64, i64), QueueError> {
    let number = |pragma| database.pragma_query_value(None, pragma, |row| row.get(0));
    let versions = number("application_id").and_then(|id| Ok((id, number("user_version")?)));
    versions.map_err(|error| refused(path, &error))
}

/// Makes the tables of an empty database; nothing of them is there before all are.
fn create_tables(database: &mut Connection) -> Result<(), QueueError> {
    let call = "create its tables";
    let transaction = database.transaction().map_err(failed(call))?;
    for tables in [
        store::SCHEMA,
        artifacts::SCHEMA,
        definitions::SCHEMA,
        dependencies::SCHEMA,
        releases::SCHEMA,
        groups::SCHEMA,
        workers::SCHEMA,
        purges::SCHEMA,
        index::SCHEMA,
        secrets::SCHEMA,
    ] {
        transaction.execute_batch(tables).map_err(failed(call))?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed(call))?;
    transaction.pragma_update(None, "user_version", VERSION).map_err(failed(call))?;
    transaction.commit().map_err(failed(call))
}

/// Brings the tables of an earlier version up to this one: all of them or, whatever ends this process, none.
fn bring_up(database: &mut Connection) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (_, change) in CHANGES.iter().filter(|(from, _)| *from >= version) {
        transaction.execute_batch(change)?;
    }
    if version < VERSION {
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> QueueError {
    QueueError::Internal { call: CALL, source: format!("{}: {why}", path.display()).into() }
}

#[cfg(test)]
mod tests;
