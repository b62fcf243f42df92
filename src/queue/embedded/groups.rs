//! Task groups: whose tasks they take, and whether they take more.
//!
//! A group is there from its first task on. All of its tasks have the same scheduler; it outlives all of them.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, Transaction, named_params};
use serde::Serialize;

use super::pages::{self, ListedTask, Page, Part};
use super::store::{self, failed, parsed, select};
use super::{EmbeddedQueue, schedule};
use crate::queue::definition::TaskDefinition;
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, runs};
use crate::timestamp::Timestamp;

pub(super) const SCHEMA: &str = "
    CREATE TABLE task_groups (
        task_group_id TEXT PRIMARY KEY,
        scheduler_id TEXT NOT NULL,
        -- Milliseconds, as all times.
        expires INTEGER NOT NULL,
        -- Since when it takes no more tasks; NULL while it does.
        sealed INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX expiring_groups ON task_groups (expires);
";

/// How much longer than a task a group lasts that is made or prolonged for it. So it does not change with each task.
const AFTER_TASKS: Duration = Duration::from_secs(60 * 60);

/// A task group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskGroup {
    /// Its id.
    pub task_group_id: TaskId,
    /// Who schedules its tasks.
    pub scheduler_id: String,
    /// When it may be forgotten.
    pub expires: Timestamp,
    /// Since when it takes no more tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Timestamp>,
}

/// What has become of a group that was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelledGroup {
    /// How many tasks it has.
    pub size: u32,
    /// Those that were not resolved until then.
    pub cancelled: Vec<TaskId>,
}

impl TaskGroup {
    /// Refuses a group that takes more tasks.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`].
    pub fn require_sealed(&self) -> Result<(), QueueError> {
        if self.sealed.is_none() {
            let because = "it takes more tasks; seal it before".to_owned();
            return Err(QueueError::Conflict { what: named(&self.task_group_id), because });
        }
        Ok(())
    }
}

impl EmbeddedQueue {
    /// A task group.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn task_group(&self, task_group_id: &TaskId) -> Result<TaskGroup, QueueError> {
        let id = task_group_id.clone();
        self.ask(move |database, _now| load(database, &id)).await
    }

    /// A task group and its tasks, by their ids.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn list_task_group(
        &self,
        task_group_id: &TaskId,
        part: Part<TaskId>,
    ) -> Result<(TaskGroup, Page<ListedTask, TaskId>), QueueError> {
        let id = task_group_id.clone();
        self.ask(move |database, _now| Ok((load(database, &id)?, list(database, &id, &part)?))).await
    }

    /// Has a task group take no more tasks. That cannot be undone; to do it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn seal_task_group(&self, task_group_id: &TaskId) -> Result<TaskGroup, QueueError> {
        let id = task_group_id.clone();
        self.ask(move |database, now| seal(database, &id, now)).await
    }

    /// Cancels the tasks of a sealed group that are not resolved.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`], [`QueueError::Conflict`] for one that is not sealed.
    pub async fn cancel_task_group(&self, task_group_id: &TaskId) -> Result<CancelledGroup, QueueError> {
        let id = task_group_id.clone();
        self.ask(move |database, now| cancel(database, &id, now)).await
    }
}

/// Lets a task into its group, which is made if there is none.
pub(super) fn join(database: &Transaction<'_>, task: &TaskDefinition) -> Result<(), QueueError> {
    let TaskDefinition { task_group_id, scheduler_id, expires, .. } = task;
    let refused = |because| Err(QueueError::Conflict { what: named(task_group_id), because });
    match find(database, task_group_id)? {
        Some(group) if group.scheduler_id != *scheduler_id => refused(format!(
            "its tasks are those of the scheduler \"{}\", not of \"{scheduler_id}\"",
            group.scheduler_id
        )),
        Some(group) if group.sealed.is_some() => refused("it is sealed and takes no more tasks".to_owned()),
        Some(group) if group.expires >= *expires => Ok(()),
        Some(_) | None => store(database, task, expires.plus(AFTER_TASKS)),
    }
}

/// Writes a group, new or not.
fn store(database: &Transaction<'_>, task: &TaskDefinition, expires: Timestamp) -> Result<(), QueueError> {
    database
        .execute(
            "INSERT INTO task_groups (task_group_id, scheduler_id, expires)
             VALUES (:task_group_id, :scheduler_id, :expires)
             ON CONFLICT DO UPDATE SET expires = :expires",
            named_params! {
                ":task_group_id": task.task_group_id.as_str(),
                ":scheduler_id": task.scheduler_id,
                ":expires": expires.as_millis(),
            },
        )
        .map(drop)
        .map_err(failed("write a task group"))
}

fn find(database: &Transaction<'_>, id: &TaskId) -> Result<Option<TaskGroup>, QueueError> {
    database
        .query_row(
            "SELECT task_group_id, scheduler_id, expires, sealed FROM task_groups
             WHERE task_group_id = :task_group_id",
            named_params! { ":task_group_id": id.as_str() },
            group,
        )
        .optional()
        .map_err(failed("read a task group"))
}

fn load(database: &Transaction<'_>, id: &TaskId) -> Result<TaskGroup, QueueError> {
    find(database, id)?.ok_or_else(|| QueueError::NotFound { what: named(id) })
}

fn group(row: &Row<'_>) -> rusqlite::Result<TaskGroup> {
    let sealed: Option<i64> = row.get("sealed")?;
    Ok(TaskGroup {
        task_group_id: parsed(row, "task_group_id", TaskId::parse)?,
        scheduler_id: row.get("scheduler_id")?,
        expires: Timestamp::from_millis(row.get("expires")?),
        sealed: sealed.map(Timestamp::from_millis),
    })
}

pub(super) fn list(
    database: &Transaction<'_>,
    id: &TaskId,
    part: &Part<TaskId>,
) -> Result<Page<ListedTask, TaskId>, QueueError> {
    pages::read(
        database,
        "list a task group",
        (
            "SELECT task_id, status, definition FROM tasks JOIN definitions USING (task_id)
             WHERE task_group_id = :task_group_id AND task_id > :after ORDER BY task_id",
            named_params! {
                ":task_group_id": id.as_str(),
                ":after": part.after.as_ref().map_or("", TaskId::as_str),
            },
        ),
        part.most,
        pages::task,
    )
}

fn seal(database: &Transaction<'_>, id: &TaskId, now: Timestamp) -> Result<TaskGroup, QueueError> {
    database
        .execute(
            "UPDATE task_groups SET sealed = :now WHERE task_group_id = :task_group_id AND sealed IS NULL",
            named_params! { ":now": now.as_millis(), ":task_group_id": id.as_str() },
        )
        .map_err(failed("seal a task group"))?;
    load(database, id)
}

fn cancel(database: &Transaction<'_>, id: &TaskId, now: Timestamp) -> Result<CancelledGroup, QueueError> {
    load(database, id)?.require_sealed()?;
    let cancelled = list_unresolved(database, id)?;
    for task_id in &cancelled {
        let mut status = store::load_status(database, task_id)?;
        runs::cancel(&mut status, now);
        // What waits for it is scheduled later, when all of the group are cancelled.
        schedule::settle(database, &status)?;
    }
    Ok(CancelledGroup { size: count(database, id)?, cancelled })
}

fn list_unresolved(database: &Transaction<'_>, id: &TaskId) -> Result<Vec<TaskId>, QueueError> {
    select(
        database,
        "list what is not resolved of a task group",
        "SELECT task_id FROM tasks WHERE task_group_id = :task_group_id AND due IS NOT NULL ORDER BY task_id",
        named_params! { ":task_group_id": id.as_str() },
        |row| parsed(row, "task_id", TaskId::parse),
    )
}

fn count(database: &Transaction<'_>, id: &TaskId) -> Result<u32, QueueError> {
    database
        .query_row(
            "SELECT count(*) FROM tasks WHERE task_group_id = :task_group_id",
            named_params! { ":task_group_id": id.as_str() },
            |row| row.get(0),
        )
        .map_err(failed("count a task group"))
}

fn named(id: &TaskId) -> String {
    format!("task group {id}")
}

#[cfg(test)]
mod tests;
