//! What has expired is forgotten, and the room that it took is given back: piece by piece, so that no call waits for long.
//!
//! Artifacts go before their tasks, for somebody else keeps their bytes: these are removed first, so that no crash leaves
//! bytes of which nobody knows.

use rusqlite::{Row, Transaction, named_params};

use super::log::Overwritten;
use super::pages::{self, Page, Placed};
use super::store::{FORGOTTEN_AT_ONCE, execute, failed, limit, parsed, select};
use super::{EmbeddedQueue, index, secrets, workers};
use crate::queue::QueueError;
use crate::queue::artifact_name::ArtifactName;
use crate::queue::model::RunId;
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

/// Artifacts of one piece.
const ARTIFACTS_AT_ONCE: usize = 500;
/// Tasks of one piece.
const TASKS_AT_ONCE: i64 = 20;
/// Dependencies of one piece, of all its tasks together: each may have ten thousand, and as many may depend on it.
const DEPENDENCIES_AT_ONCE: usize = 2000;
/// Groups of one piece.
const GROUPS_AT_ONCE: i64 = 500;
/// Pages of the database of one piece: 4 MiB.
const PAGES_AT_ONCE: i64 = 1024;

/// By what an artifact is known.
pub type ArtifactKey = (RunId, ArtifactName);

/// Where an artifact stands among those that have expired: when it has, and its row.
#[derive(Clone, Copy, Debug)]
pub struct Expired(i64, i64);

/// Whether there may be more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// There is nothing left.
    No,
    /// It was one piece of several.
    Maybe,
}

impl EmbeddedQueue {
    /// Artifacts that have expired before a point in time, a piece of them, the oldest first.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn expired_artifacts(
        &self,
        before: Timestamp,
        after: Option<Expired>,
    ) -> Result<Page<ArtifactKey, Expired>, QueueError> {
        self.ask(move |database, _now| list_expired(database, before, after)).await
    }

    /// All artifacts, a piece of them.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn artifacts(
        &self,
        after: Option<ArtifactKey>,
    ) -> Result<Page<ArtifactKey, ArtifactKey>, QueueError> {
        self.ask(move |database, _now| list_artifacts(database, after.as_ref())).await
    }

    /// Forgets such artifacts, whose bytes are removed by now. One that expires later meanwhile stays.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn forget_artifacts(
        &self,
        before: Timestamp,
        artifacts: Vec<ArtifactKey>,
    ) -> Result<(), QueueError> {
        self.ask(move |database, _now| {
            artifacts.iter().try_for_each(|artifact| forget_artifact(database, before, artifact))
        })
        .await
    }

    /// Forgets a piece of the tasks that have expired before a point in time and have no artifacts left, of the groups
    /// that have expired likewise; and a piece each of the workers that do not ask any more, and of the names and secrets that
    /// have expired by now.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn forget_tasks(&self, before: Timestamp) -> Result<More, QueueError> {
        self.overwrite(move |database, now| {
            let tasks = list_tasks(database, before)?;
            forget(database, &tasks)?;
            let groups = forget_groups(database, before)?;
            let secrets = secrets::forget(database, now)?;
            let others = [workers::forget(database, now)?, index::forget(database, now)?, secrets];
            let is_last = tasks.is_empty() && groups == 0 && others.iter().all(|it| *it < FORGOTTEN_AT_ONCE);
            let overwritten = if secrets > 0 { Overwritten::Secrets } else { Overwritten::Nothing };
            Ok((if is_last { More::No } else { More::Maybe }, overwritten))
        })
        .await
    }

    /// Gives a piece of the database's file back that nothing is in. A quarter of the file stays for what comes.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn shrink(&self) -> Result<More, QueueError> {
        self.ask(|database, _now| shrink(database)).await
    }
}

fn list_expired(
    database: &Transaction<'_>,
    before: Timestamp,
    after: Option<Expired>,
) -> Result<Page<ArtifactKey, Expired>, QueueError> {
    let Expired(expires, row) = after.unwrap_or(Expired(i64::MIN, i64::MIN));
    pages::read(
        database,
        "list expired artifacts",
        (
            "SELECT expires, rowid, task_id, run_id, name FROM artifacts
             WHERE expires < :before AND (expires, rowid) > (:expires, :row) ORDER BY expires, rowid",
            named_params! { ":before": before.as_millis(), ":expires": expires, ":row": row },
        ),
        ARTIFACTS_AT_ONCE,
        |row| {
            let (key, _, bytes) = artifact(row)?;
            Ok((key, Expired(row.get("expires")?, row.get("rowid")?), bytes))
        },
    )
}

fn list_artifacts(
    database: &Transaction<'_>,
    after: Option<&ArtifactKey>,
) -> Result<Page<ArtifactKey, ArtifactKey>, QueueError> {
    let (task_id, run_id, name) =
        after.map_or(("", 0, ""), |(run, name)| (run.task_id.as_str(), run.run_id, name.as_str()));
    pages::read(
        database,
        "list artifacts of all tasks",
        (
            "SELECT task_id, run_id, name FROM artifacts
             WHERE (task_id, run_id, name) > (:task_id, :run_id, :name) ORDER BY task_id, run_id, name",
            named_params! { ":task_id": task_id, ":run_id": run_id, ":name": name },
        ),
        ARTIFACTS_AT_ONCE,
        artifact,
    )
}

/// An artifact from its columns.
fn artifact(row: &Row<'_>) -> rusqlite::Result<Placed<ArtifactKey, ArtifactKey>> {
    let run = RunId { task_id: parsed(row, "task_id", TaskId::parse)?, run_id: row.get("run_id")? };
    let key = (run, parsed(row, "name", ArtifactName::new)?);
    Ok((key.clone(), key, 0))
}

fn forget_artifact(
    database: &Transaction<'_>,
    before: Timestamp,
    (run, name): &ArtifactKey,
) -> Result<(), QueueError> {
    execute(
        database,
        "forget an artifact",
        "DELETE FROM artifacts
         WHERE task_id = :task_id AND run_id = :run_id AND name = :name AND expires < :before",
        named_params! {
            ":task_id": run.task_id.as_str(),
            ":run_id": run.run_id,
            ":name": name.as_str(),
            ":before": before.as_millis(),
        },
    )
    .map(drop)
}

pub(super) fn list_tasks(database: &Transaction<'_>, before: Timestamp) -> Result<Vec<TaskId>, QueueError> {
    select(
        database,
        "list expired tasks",
        "SELECT task_id FROM tasks
         WHERE expires < :before
         AND NOT EXISTS (SELECT 1 FROM artifacts WHERE artifacts.task_id = tasks.task_id)
         ORDER BY expires LIMIT :most",
        named_params! { ":before": before.as_millis(), ":most": TASKS_AT_ONCE },
        |row| parsed(row, "task_id", TaskId::parse),
    )
}

/// Forgets tasks and what they depend on, as far as that is one piece. What depends on them does not wait any more: its
/// deadline has passed.
fn forget(database: &Transaction<'_>, tasks: &[TaskId]) -> Result<(), QueueError> {
    let mut left = DEPENDENCIES_AT_ONCE;
    for task_id in tasks {
        for (dependencies, call) in [
            (
                "DELETE FROM dependencies WHERE dependent = :task_id AND required IN
                 (SELECT required FROM dependencies WHERE dependent = :task_id LIMIT :most)",
                "forget what a task depends on",
            ),
            (
                "DELETE FROM dependencies WHERE required = :task_id AND dependent IN
                 (SELECT dependent FROM dependencies WHERE required = :task_id LIMIT :most)",
                "forget what depends on a task",
            ),
        ] {
            let values = named_params! { ":task_id": task_id.as_str(), ":most": limit(left) };
            left = left.saturating_sub(execute(database, call, dependencies, values)?);
        }
        if left == 0 {
            break;
        }
        forget_task(database, task_id)?;
    }
    Ok(())
}

/// Forgets a task that nothing depends on any more.
fn forget_task(database: &Transaction<'_>, task_id: &TaskId) -> Result<(), QueueError> {
    for forget in [
        "DELETE FROM releases WHERE required = :task_id",
        "DELETE FROM definitions WHERE task_id = :task_id",
        "DELETE FROM tasks WHERE task_id = :task_id",
    ] {
        database
            .execute(forget, named_params! { ":task_id": task_id.as_str() })
            .map_err(failed("forget a task"))?;
    }
    Ok(())
}

/// Forgets groups that have no tasks left; gives their number.
fn forget_groups(database: &Transaction<'_>, before: Timestamp) -> Result<usize, QueueError> {
    database
        .execute(
            "DELETE FROM task_groups WHERE task_group_id IN
             (SELECT task_group_id FROM task_groups WHERE expires < :before
              AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.task_group_id = task_groups.task_group_id)
              LIMIT :most)",
            named_params! { ":before": before.as_millis(), ":most": GROUPS_AT_ONCE },
        )
        .map_err(failed("forget task groups"))
}

fn shrink(database: &Transaction<'_>) -> Result<More, QueueError> {
    let call = "shrink the database";
    let number = |pragma| database.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (free, all) =
        (number("freelist_count").map_err(failed(call))?, number("page_count").map_err(failed(call))?);
    let surplus = (free - all / 4).min(PAGES_AT_ONCE);
    if surplus <= 0 {
        return Ok(More::No);
    }
    // Each row of its answer is a page, so all of them have to be read.
    select(database, call, &format!("PRAGMA incremental_vacuum({surplus})"), [], |_| Ok(()))?;
    // A database in memory has no room to give back.
    let left = number("freelist_count").map_err(failed(call))?;
    Ok(if left < free { More::Maybe } else { More::No })
}

#[cfg(test)]
mod tests;
