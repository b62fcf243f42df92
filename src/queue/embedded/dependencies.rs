//! Which tasks wait for which.
//!
//! A dependency that is satisfied stays so, whatever becomes of the required task. One that never can be keeps its task
//! waiting until its deadline, as in the real queue: a new run of the required task may still satisfy it.

use rusqlite::{Transaction, named_params};

use super::EmbeddedQueue;
use super::pages::{self, ListedTask, Page, Part};
use super::store::{self, execute, select};
use crate::queue::QueueError;
use crate::queue::definition::{Requires, TaskDefinition};
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

pub(super) const SCHEMA: &str = "
    CREATE TABLE dependencies (
        dependent TEXT NOT NULL REFERENCES tasks,
        required TEXT NOT NULL REFERENCES tasks,
        -- 1 if any resolution of the required task is enough, 0 if it has to be completed.
        any_resolution INTEGER NOT NULL,
        -- 1 once it has been.
        satisfied INTEGER NOT NULL,
        PRIMARY KEY (dependent, required)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX dependents ON dependencies (required, dependent);
    CREATE INDEX open_dependencies ON dependencies (dependent) WHERE satisfied = 0;
";

/// Ids that a refusal names.
const NAMED: usize = 5;

/// Whether a task waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    ForNothing,
    ForOthers,
}

/// A task that another one depends on.
struct Required {
    expires: Timestamp,
    is_completed: bool,
    is_resolved: bool,
}

impl EmbeddedQueue {
    /// The tasks that depend on a task, by their ids.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn list_dependents(
        &self,
        task_id: &TaskId,
        part: Part<TaskId>,
    ) -> Result<Page<ListedTask, TaskId>, QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, _now| list(database, &task_id, &part)).await
    }
}

/// Notes what a new task depends on.
pub(super) fn add(
    database: &Transaction<'_>,
    task_id: &TaskId,
    task: &TaskDefinition,
) -> Result<Waiting, QueueError> {
    let any_resolution = task.requires == Requires::AllResolved;
    let (mut missing, mut expiring) = (Vec::new(), Vec::new());
    let mut waiting = Waiting::ForNothing;
    for required in &task.dependencies {
        let Some(found) = find(database, required)? else {
            missing.push(required);
            continue;
        };
        if found.expires < task.deadline {
            expiring.push(required);
        }
        let satisfied = found.is_completed || (any_resolution && found.is_resolved);
        if !satisfied {
            waiting = Waiting::ForOthers;
        }
        insert(database, (task_id, required), any_resolution, satisfied)?;
    }
    let refused = |because| Err(QueueError::Invalid { what: format!("task {task_id}"), because });
    if !missing.is_empty() {
        return refused(format!("it depends on tasks that do not exist: {}", names(&missing)));
    }
    if !expiring.is_empty() {
        return refused(format!("it depends on tasks that expire before its deadline: {}", names(&expiring)));
    }
    Ok(waiting)
}

/// What matters of a required task. There may be ten thousand: nothing else of them is read.
fn find(database: &Transaction<'_>, required: &TaskId) -> Result<Option<Required>, QueueError> {
    store::find(
        database,
        "look for a dependency",
        "SELECT expires, state = 'completed' AS is_completed, due IS NULL AS is_resolved FROM tasks
         WHERE task_id = :task_id",
        named_params! { ":task_id": required.as_str() },
        |row| {
            Ok(Required {
                expires: Timestamp::from_millis(row.get("expires")?),
                is_completed: row.get("is_completed")?,
                is_resolved: row.get("is_resolved")?,
            })
        },
    )
}

fn insert(
    database: &Transaction<'_>,
    (dependent, required): (&TaskId, &TaskId),
    any_resolution: bool,
    satisfied: bool,
) -> Result<(), QueueError> {
    execute(
        database,
        "add a dependency",
        "INSERT OR IGNORE INTO dependencies (dependent, required, any_resolution, satisfied)
         VALUES (:dependent, :required, :any_resolution, :satisfied)",
        named_params! {
            ":dependent": dependent.as_str(),
            ":required": required.as_str(),
            ":any_resolution": any_resolution,
            ":satisfied": satisfied,
        },
    )
    .map(drop)
}

/// Some ids, for people.
fn names(ids: &[&TaskId]) -> String {
    let mut names: Vec<&str> = ids.iter().take(NAMED).map(|id| id.as_str()).collect();
    let more = ids.len().saturating_sub(NAMED);
    let rest = format!("and {more} more");
    if more > 0 {
        names.push(&rest);
    }
    names.join(", ")
}

/// Has a task wait for another one no longer.
pub(super) fn satisfy(
    database: &Transaction<'_>,
    dependent: &TaskId,
    required: &TaskId,
) -> Result<(), QueueError> {
    execute(
        database,
        "satisfy a dependency",
        "UPDATE dependencies SET satisfied = 1 WHERE dependent = :dependent AND required = :required",
        named_params! { ":dependent": dependent.as_str(), ":required": required.as_str() },
    )
    .map(drop)
}

/// Whether a task has dependencies that are not satisfied.
pub(super) fn is_waiting(database: &Transaction<'_>, dependent: &TaskId) -> Result<bool, QueueError> {
    let open = select(
        database,
        "look for open dependencies",
        "SELECT 1 FROM dependencies WHERE dependent = :dependent AND satisfied = 0 LIMIT 1",
        named_params! { ":dependent": dependent.as_str() },
        |_| Ok(()),
    )?;
    Ok(!open.is_empty())
}

/// The tasks that depend on one, by their ids.
pub(super) fn list(
    database: &Transaction<'_>,
    required: &TaskId,
    part: &Part<TaskId>,
) -> Result<Page<ListedTask, TaskId>, QueueError> {
    store::load_status(database, required)?;
    pages::read(
        database,
        "list dependent tasks",
        (
            "SELECT task_id, status, definition
             FROM dependencies JOIN tasks ON tasks.task_id = dependent JOIN definitions USING (task_id)
             WHERE required = :required AND dependent > :after ORDER BY dependent",
            named_params! {
                ":required": required.as_str(),
                ":after": part.after.as_ref().map_or("", TaskId::as_str),
            },
        ),
        part.most,
        pages::task,
    )
}

#[cfg(test)]
mod tests;
