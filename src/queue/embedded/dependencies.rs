//! Which tasks wait for which.
//!
//! A dependency that is satisfied stays so, whatever becomes of the required task. One that never can be keeps its task
//! waiting until its deadline, as in the real queue: a new run of the required task may still satisfy it.

use rusqlite::{Transaction, named_params};

use super::pages::{self, ListedTask, Page, Part};
use super::store::{self, failed, parsed, select};
use crate::queue::QueueError;
use crate::queue::definition::{Requires, TaskDefinition};
use crate::queue::model::RunState;
use crate::queue::task_id::TaskId;

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
        let Some(status) = store::find_status(database, required)? else {
            missing.push(required);
            continue;
        };
        if status.expires < task.deadline {
            expiring.push(required);
        }
        let satisfied = is_enough(any_resolution, status.state);
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

/// Whether a state of a required task is what its dependent waits for.
fn is_enough(any_resolution: bool, state: RunState) -> bool {
    state == RunState::Completed || (any_resolution && state.is_resolved())
}

fn insert(
    database: &Transaction<'_>,
    (dependent, required): (&TaskId, &TaskId),
    any_resolution: bool,
    satisfied: bool,
) -> Result<(), QueueError> {
    let insert = || {
        let mut statement = database.prepare_cached(
            "INSERT OR IGNORE INTO dependencies (dependent, required, any_resolution, satisfied)
             VALUES (:dependent, :required, :any_resolution, :satisfied)",
        )?;
        statement.execute(named_params! {
            ":dependent": dependent.as_str(),
            ":required": required.as_str(),
            ":any_resolution": any_resolution,
            ":satisfied": satisfied,
        })
    };
    insert().map(drop).map_err(failed("add a dependency"))
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

/// Notes the resolution of a task; gives the tasks that wait for nothing any more.
pub(super) fn satisfy(
    database: &Transaction<'_>,
    required: &TaskId,
    state: RunState,
) -> Result<Vec<TaskId>, QueueError> {
    let dependents = select(
        database,
        "satisfy dependencies",
        "UPDATE dependencies SET satisfied = 1
         WHERE required = :required AND satisfied = 0 AND (any_resolution = 1 OR :completed)
         RETURNING dependent",
        named_params! { ":required": required.as_str(), ":completed": state == RunState::Completed },
        |row| parsed(row, "dependent", TaskId::parse),
    )?;
    let mut ready = Vec::new();
    for dependent in dependents {
        if !is_waiting(database, &dependent)? {
            ready.push(dependent);
        }
    }
    Ok(ready)
}

/// Whether a task has dependencies that are not satisfied.
fn is_waiting(database: &Transaction<'_>, dependent: &TaskId) -> Result<bool, QueueError> {
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
            "SELECT task_id, status, definition FROM dependencies JOIN tasks ON task_id = dependent
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
