//! Opening the queue's database, in memory or in a file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::Connection;

use super::store::failed;
use super::{dependencies, groups, index, purges, secrets, store, workers};
use crate::queue::QueueError;

/// The version of the tables. A change of them has to raise it, and to bring up to it what is older. What is older than this
/// one is of no release: it is refused.
const VERSION: i64 = 3;
/// Marks a database as a queue of ours: "dwkq".
const APPLICATION: i64 = 0x6477_6b71;

/// Bytes of the write-ahead log that are kept for what comes, once a large change has gone into the database.
const JOURNAL_BYTES: i64 = 16 << 20;

const CALL: &str = "open its database";

pub(super) fn in_memory() -> Result<Connection, QueueError> {
    let mut database = Connection::open_in_memory().map_err(failed(CALL))?;
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
    }
    Ok(database)
}

/// Sets how the file is used; gives the kind of its journal.
fn prepare(database: &Connection) -> rusqlite::Result<String> {
    // One process at a time: the second one is told so at once.
    database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // So that room that is free can be given back. This has to be said before anything is written.
    database.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
}

/// Requires that a file is a queue of this version, and whole; `named` is what errors call it.
pub(super) fn check(path: &Path, named: &Path) -> Result<(), QueueError> {
    let database = Connection::open(path).map_err(failed(CALL))?;
    require_own(&database, named)?;
    let found: Result<String, _> = database.pragma_query_value(None, "quick_check", |row| row.get(0));
    match found.as_deref() {
        Ok("ok") => {}
        Ok(problem) => return Err(refused(named, &format!("it is damaged: {problem}"))),
        Err(error) => return Err(refused(named, &error)),
    }
    database.close().map_err(|(_, error)| refused(named, &error))
}

/// What is said where another process has the queue.
pub(super) fn is_in_use(path: &Path) -> QueueError {
    refused(path, &"another process has it open; use another directory, or end that one")
}

fn require_own(database: &Connection, path: &Path) -> Result<(), QueueError> {
    match versions(database, path)? {
        (APPLICATION, VERSION) => Ok(()),
        (APPLICATION, version) => {
            let text = format!(
                "it is of version {version}, and this worker knows version {VERSION} only; use another one"
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
        dependencies::SCHEMA,
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

fn refused(path: &Path, why: &dyn std::fmt::Display) -> QueueError {
    QueueError::Internal { call: CALL, source: format!("{}: {why}", path.display()).into() }
}
