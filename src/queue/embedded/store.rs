//! The rows of the embedded queue's database for tasks, and how all rows are read and written.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, named_params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::queue::model::TaskStatus;
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, runs};
use crate::timestamp::Timestamp;

pub(super) const SCHEMA: &str = "
    CREATE TABLE tasks (
        task_id TEXT PRIMARY KEY,
        task_queue_id TEXT NOT NULL,
        task_group_id TEXT NOT NULL,
        -- In the queue's words.
        state TEXT NOT NULL,
        -- 0 is the least urgent.
        priority INTEGER NOT NULL,
        -- Since when the last run is in its state; 0 if there is none. All times in milliseconds.
        since INTEGER NOT NULL,
        -- When time alone changes the task; NULL once it is resolved.
        due INTEGER,
        expires INTEGER NOT NULL,
        status TEXT NOT NULL
    ) STRICT;
    CREATE INDEX pending_tasks ON tasks (task_queue_id, priority DESC, since) WHERE state = 'pending';
    CREATE INDEX open_tasks ON tasks (task_queue_id, state, since, task_id) WHERE due IS NOT NULL;
    CREATE INDEX tasks_of_groups ON tasks (task_group_id, task_id);
    CREATE INDEX due_tasks ON tasks (due) WHERE due IS NOT NULL;
    CREATE INDEX expiring_tasks ON tasks (expires);
";

/// Rows that are forgotten in one piece of what has expired.
pub(super) const FORGOTTEN_AT_ONCE: usize = 500;

/// Names the call that failed.
pub(super) fn failed(call: &'static str) -> impl FnOnce(rusqlite::Error) -> QueueError {
    move |source| QueueError::Internal { call, source: source.into() }
}

/// What a query gives, row by row.
pub(super) fn select<T>(
    database: &Transaction<'_>,
    call: &'static str,
    query: &str,
    wanted: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, QueueError> {
    let select = || {
        let mut statement = database.prepare_cached(query)?;
        statement.query_map(wanted, read)?.collect::<Result<_, _>>()
    };
    select().map_err(failed(call))
}

/// The first row that a query gives, if there is one.
pub(super) fn find<T>(
    database: &Transaction<'_>,
    call: &'static str,
    query: &str,
    wanted: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, QueueError> {
    let find = || database.prepare_cached(query)?.query_row(wanted, read).optional();
    find().map_err(failed(call))
}

/// Changes rows; gives their number.
pub(super) fn execute(
    database: &Transaction<'_>,
    call: &'static str,
    change: &str,
    values: impl Params,
) -> Result<usize, QueueError> {
    let execute = || database.prepare_cached(change)?.execute(values);
    execute().map_err(failed(call))
}

/// The status of a task, if there is such a task.
pub(super) fn find_status(
    database: &Transaction<'_>,
    task_id: &TaskId,
) -> Result<Option<TaskStatus>, QueueError> {
    find(
        database,
        "read a status",
        "SELECT status FROM tasks WHERE task_id = :task_id",
        named_params! { ":task_id": task_id.as_str() },
        |row| json(row, "status"),
    )
}

/// The status of a task that must be there.
pub(super) fn load_status(database: &Transaction<'_>, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
    find_status(database, task_id)?.ok_or_else(|| no_such_task(task_id))
}

/// Whether time changes a task no more.
pub(super) fn is_resolved(database: &Transaction<'_>, task_id: &TaskId) -> Result<bool, QueueError> {
    let found = find(
        database,
        "see whether a task is resolved",
        "SELECT due IS NULL FROM tasks WHERE task_id = :task_id",
        named_params! { ":task_id": task_id.as_str() },
        |row| row.get(0),
    )?;
    Ok(found.unwrap_or_default())
}

/// Adds a task that has no run yet.
pub(super) fn insert_task(database: &Transaction<'_>, status: &TaskStatus) -> Result<(), QueueError> {
    let call = "add a task";
    execute(
        database,
        call,
        "INSERT INTO tasks
         (task_id, task_queue_id, task_group_id, state, priority, since, due, expires, status)
         VALUES
         (:task_id, :task_queue_id, :task_group_id, :state, :priority, 0, :due, :expires, :status)",
        named_params! {
            ":task_id": status.task_id.as_str(),
            ":task_queue_id": status.task_queue_id,
            ":task_group_id": status.task_group_id.as_str(),
            ":state": status.state.as_str(),
            ":priority": status.priority as u8,
            ":due": runs::due(status).map(Timestamp::as_millis),
            ":expires": status.expires.as_millis(),
            ":status": text(status, call)?,
        },
    )
    .map(drop)
}

/// Writes the status of a task.
pub(super) fn store_status(database: &Transaction<'_>, status: &TaskStatus) -> Result<(), QueueError> {
    let call = "write a status";
    execute(
        database,
        call,
        "UPDATE tasks SET status = :status, state = :state, since = :since, due = :due
         WHERE task_id = :task_id",
        named_params! {
            ":status": text(status, call)?,
            ":state": status.state.as_str(),
            ":due": runs::due(status).map(Timestamp::as_millis),
            ":since": runs::since(status).map_or(0, Timestamp::as_millis),
            ":task_id": status.task_id.as_str(),
        },
    )
    .map(drop)
}

/// At most `most` tasks of a task queue that wait for a worker, the most urgent first, then the oldest.
pub(super) fn list_pending(
    database: &Transaction<'_>,
    task_queue_id: &str,
    most: usize,
) -> Result<Vec<TaskId>, QueueError> {
    select(
        database,
        "list pending tasks",
        "SELECT task_id FROM tasks WHERE task_queue_id = :task_queue_id AND state = 'pending'
         ORDER BY priority DESC, since, rowid LIMIT :most",
        named_params! { ":task_queue_id": task_queue_id, ":most": limit(most) },
        |row| parsed(row, "task_id", TaskId::parse),
    )
}

/// At most `most` tasks that time has changed by `now`.
pub(super) fn list_due(
    database: &Transaction<'_>,
    now: Timestamp,
    most: usize,
) -> Result<Vec<TaskId>, QueueError> {
    select(
        database,
        "list tasks that are due",
        "SELECT task_id FROM tasks WHERE due <= :now ORDER BY due LIMIT :most",
        named_params! { ":now": now.as_millis(), ":most": limit(most) },
        |row| parsed(row, "task_id", TaskId::parse),
    )
}

/// When time changes a task next.
pub(super) fn next_due(database: &Connection) -> Result<Option<Timestamp>, QueueError> {
    let call = "see what is due next";
    let mut statement =
        database.prepare_cached("SELECT min(due) FROM tasks WHERE due IS NOT NULL").map_err(failed(call))?;
    let due: Option<i64> = statement.query_row([], |row| row.get(0)).map_err(failed(call))?;
    Ok(due.map(Timestamp::from_millis))
}

/// A number of rows as SQL takes it.
pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// What is said where there is no task of that id.
pub(super) fn no_such_task(task_id: &TaskId) -> QueueError {
    QueueError::NotFound { what: format!("task {task_id}") }
}

/// A value as JSON for a column.
pub(super) fn text(value: &impl Serialize, call: &'static str) -> Result<String, QueueError> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
        .map_err(failed(call))
}

/// A value from a column of JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &'static str) -> rusqlite::Result<T> {
    parsed(row, column, |text| serde_json::from_str(text))
}

/// A value from a column of text.
pub(super) fn parsed<T, E>(
    row: &Row<'_>,
    column: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> rusqlite::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let index = row.as_ref().column_index(column)?;
    let text: String = row.get(index)?;
    parse(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}
