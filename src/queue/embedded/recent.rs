//! The tasks that came last, for people who look at a queue.

use rusqlite::{Row, Transaction, named_params};
use serde::Serialize;

use super::EmbeddedQueue;
use super::pages::{self, Page, Part, Placed};
use super::store::json;
use crate::queue::QueueError;
use crate::queue::model::TaskStatus;

/// A task as those see it who look for one.
#[derive(Clone, Debug, Serialize)]
pub struct RecentTask {
    /// Its state.
    pub status: TaskStatus,
    /// What it is called.
    pub name: String,
}

impl EmbeddedQueue {
    /// All tasks, the latest ones first. A place in this list is a number that grows with each new task.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn recent_tasks(&self, part: Part<i64>) -> Result<Page<RecentTask, i64>, QueueError> {
        self.ask(move |database, _now| list(database, &part)).await
    }
}

pub(super) fn list(
    database: &Transaction<'_>,
    part: &Part<i64>,
) -> Result<Page<RecentTask, i64>, QueueError> {
    pages::read(
        database,
        "list the latest tasks",
        (
            "SELECT tasks.rowid AS place, status, name FROM tasks JOIN definitions USING (task_id)
             WHERE tasks.rowid < :before ORDER BY tasks.rowid DESC",
            named_params! { ":before": part.after.unwrap_or(i64::MAX) },
        ),
        part.most,
        recent,
    )
}

fn recent(row: &Row<'_>) -> rusqlite::Result<Placed<RecentTask, i64>> {
    let task = RecentTask { status: json(row, "status")?, name: row.get("name")? };
    let bytes = task.name.len() + task.status.runs.len() * size_of_val(&task.status);
    Ok((task, row.get("place")?, bytes))
}
