//! What there is to do in a task queue, and what is being done.

use rusqlite::{Row, Transaction, named_params};

use super::EmbeddedQueue;
use super::pages::{self, ListedTask, Page, Part, Placed};
use super::store::failed;
use crate::queue::QueueError;
use crate::queue::model::RunState;
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

/// How many tasks of a task queue are not resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTasks {
    /// Those that wait for a worker.
    pub pending: u32,
    /// Those that have one.
    pub claimed: u32,
}

/// Where a task stands in a list by time: since when it is in its state, and its id.
pub type Place = (Timestamp, TaskId);

impl EmbeddedQueue {
    /// How many tasks of a task queue are not resolved.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn count_tasks(&self, task_queue_id: &str) -> Result<OpenTasks, QueueError> {
        let task_queue_id = task_queue_id.to_owned();
        self.ask(move |database, _now| {
            let pending = count(database, &task_queue_id, RunState::Pending)?;
            let claimed = count(database, &task_queue_id, RunState::Running)?;
            Ok(OpenTasks { pending, claimed })
        })
        .await
    }

    /// The tasks of a task queue that wait for a worker, the oldest first.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn list_pending(
        &self,
        task_queue_id: &str,
        part: Part<Place>,
    ) -> Result<Page<ListedTask, Place>, QueueError> {
        let task_queue_id = task_queue_id.to_owned();
        self.ask(move |database, _now| list(database, (&task_queue_id, RunState::Pending), part)).await
    }

    /// The tasks of a task queue that a worker has, by the time of their claims.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn list_claimed(
        &self,
        task_queue_id: &str,
        part: Part<Place>,
    ) -> Result<Page<ListedTask, Place>, QueueError> {
        let task_queue_id = task_queue_id.to_owned();
        self.ask(move |database, _now| list(database, (&task_queue_id, RunState::Running), part)).await
    }
}

fn count(database: &Transaction<'_>, task_queue_id: &str, state: RunState) -> Result<u32, QueueError> {
    database
        .query_row(
            "SELECT count(*) FROM tasks
             WHERE task_queue_id = :task_queue_id AND state = :state AND due IS NOT NULL",
            named_params! { ":task_queue_id": task_queue_id, ":state": state.as_str() },
            |row| row.get(0),
        )
        .map_err(failed("count tasks"))
}

pub(super) fn list(
    database: &Transaction<'_>,
    (task_queue_id, state): (&str, RunState),
    part: Part<Place>,
) -> Result<Page<ListedTask, Place>, QueueError> {
    // Before all tasks.
    let (since, task_id) =
        part.after.map_or((0, String::new()), |(since, id)| (since.as_millis(), id.to_string()));
    pages::read(
        database,
        "list what there is to do",
        (
            "SELECT task_id, since, status, definition FROM tasks JOIN definitions USING (task_id)
             WHERE task_queue_id = :task_queue_id AND state = :state AND due IS NOT NULL
             AND (since, task_id) > (:since, :task_id) ORDER BY since, task_id",
            named_params! {
                ":task_queue_id": task_queue_id,
                ":state": state.as_str(),
                ":since": since,
                ":task_id": task_id,
            },
        ),
        part.most,
        placed,
    )
}

fn placed(row: &Row<'_>) -> rusqlite::Result<Placed<ListedTask, Place>> {
    let (task, task_id, bytes) = pages::task(row)?;
    Ok((task, (Timestamp::from_millis(row.get("since")?), task_id), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::definition::Submission;
    use crate::queue::{RunId, Verdict, WorkerIdentity, steady_clock};

    const POOL: &str = "local/docker-worker";

    #[tokio::test]
    async fn a_task_is_listed_where_it_is_and_as_long_as_it_is_open() {
        let queue = EmbeddedQueue::in_memory(steady_clock()).unwrap();
        let mut ids = Vec::new();
        for _ in 0..5 {
            let task_id = TaskId::random().unwrap();
            let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
            let task = submission.into_task(&task_id, queue.now()).unwrap().definition;
            queue.create_task(&task_id, &task).await.unwrap();
            ids.push(task_id);
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        // The last one is claimed first, and comes first among those that are claimed.
        let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        for id in [&ids[4], &ids[0]] {
            queue.claim_run(&RunId { task_id: id.clone(), run_id: 0 }, &worker).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        assert_eq!(queue.count_tasks(POOL).await.unwrap(), OpenTasks { pending: 3, claimed: 2 });
        assert_eq!(queue.count_tasks("local/other").await.unwrap(), OpenTasks { pending: 0, claimed: 0 });
        let listed = |page: &Page<ListedTask, Place>| -> Vec<TaskId> {
            page.items.iter().map(|task| task.status.task_id.clone()).collect()
        };
        let claimed = queue.list_claimed(POOL, Part { after: None, most: 9 }).await.unwrap();
        assert_eq!(listed(&claimed), [ids[4].clone(), ids[0].clone()]);
        let first = queue.list_pending(POOL, Part { after: None, most: 2 }).await.unwrap();
        assert_eq!(listed(&first), ids[1..3]);
        let rest = queue.list_pending(POOL, Part { after: first.next, most: 2 }).await.unwrap();
        assert_eq!((listed(&rest), rest.next), (vec![ids[3].clone()], None));
        queue.run(RunId { task_id: ids[4].clone(), run_id: 0 }).report(Verdict::Completed).await.unwrap();
        assert_eq!(queue.count_tasks(POOL).await.unwrap(), OpenTasks { pending: 3, claimed: 1 });
    }
}
