//! What tasks are: their definitions, of which nothing but the priority changes.
//!
//! They lie in a table of their own, for SQLite writes a row as a whole: what a task is may be large, and what has become of
//! it is written again and again.

use rusqlite::{Transaction, named_params};
use serde::de::DeserializeOwned;

use super::store::{self, execute, json, text};
use crate::queue::definition::{Priority, TaskDefinition};
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, ReceivedDefinition};

pub(super) const SCHEMA: &str = "
    CREATE TABLE definitions (
        task_id TEXT PRIMARY KEY REFERENCES tasks,
        -- What people call the task, also in its definition. It stands before that, so that it is read without it.
        name TEXT NOT NULL,
        definition TEXT NOT NULL
    ) STRICT;
";

/// Adds the definition of a new task.
pub(super) fn insert(
    database: &Transaction<'_>,
    task_id: &TaskId,
    task: &TaskDefinition,
) -> Result<(), QueueError> {
    let call = "add a definition";
    let definition = text(task, call)?;
    let values = named_params! {
        ":task_id": task_id.as_str(),
        ":name": task.metadata.name,
        ":definition": definition,
    };
    execute(
        database,
        call,
        "INSERT INTO definitions (task_id, name, definition) VALUES (:task_id, :name, :definition)",
        values,
    )
    .map(drop)
}

/// Writes how urgent a task is into its definition.
pub(super) fn set_priority(
    database: &Transaction<'_>,
    task_id: &TaskId,
    priority: Priority,
) -> Result<(), QueueError> {
    execute(
        database,
        "write a priority",
        "UPDATE definitions SET definition = json_set(definition, '$.priority', :priority)
         WHERE task_id = :task_id",
        named_params! { ":priority": priority.as_str(), ":task_id": task_id.as_str() },
    )
    .map(drop)
}

/// The definition of a task, if there is such a task: read, or its text as it is.
pub(super) fn find<T: DeserializeOwned>(
    database: &Transaction<'_>,
    task_id: &TaskId,
) -> Result<Option<T>, QueueError> {
    store::find(
        database,
        "read a definition",
        "SELECT definition FROM definitions WHERE task_id = :task_id",
        named_params! { ":task_id": task_id.as_str() },
        |row| json(row, "definition"),
    )
}

/// The definition of a task that must be there, as a claim shows it.
pub(super) fn load(database: &Transaction<'_>, task_id: &TaskId) -> Result<ReceivedDefinition, QueueError> {
    let text = find(database, task_id)?.ok_or_else(|| store::no_such_task(task_id))?;
    Ok(ReceivedDefinition::new(text))
}
