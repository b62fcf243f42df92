//! How urgent tasks are, once somebody thinks otherwise. What runs goes on; its next run is as urgent as its task is then.

use rusqlite::{Transaction, named_params};

use super::store::{self, execute, parsed, select, text};
use super::{EmbeddedQueue, definitions};
use crate::queue::definition::Priority;
use crate::queue::model::TaskStatus;
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, runs};

/// Tasks of a group that are looked at in one piece.
const AT_ONCE: usize = 200;

impl EmbeddedQueue {
    /// Changes how urgent a task is that has never been resolved.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`], [`QueueError::Conflict`] for one that has been, or that is as urgent already.
    pub async fn change_priority(
        &self,
        task_id: &TaskId,
        priority: Priority,
    ) -> Result<TaskStatus, QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, _now| {
            change(database, &task_id, priority)?.ok_or_else(|| QueueError::Conflict {
                what: format!("task {task_id}"),
                because: format!("it has been resolved, or its priority is {} already", priority.as_str()),
            })
        })
        .await
    }

    /// Changes how urgent the tasks of a group are that have never been resolved, piece by piece; gives those that were
    /// not as urgent before.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`]; those of the pieces before are changed then.
    pub async fn change_group_priority(
        &self,
        task_group_id: &TaskId,
        priority: Priority,
    ) -> Result<Vec<TaskId>, QueueError> {
        let (mut changed, mut after) = (Vec::new(), None);
        loop {
            let id = task_group_id.clone();
            let piece = self.ask(move |database, _now| change_piece(database, &id, priority, after));
            let (last, piece) = piece.await?;
            changed.extend(piece);
            after = last;
            if after.is_none() {
                return Ok(changed);
            }
        }
    }
}

/// Changes a piece of a group; gives the last task that it has looked at, if there may be more, and those it has changed.
fn change_piece(
    database: &Transaction<'_>,
    task_group_id: &TaskId,
    priority: Priority,
    after: Option<TaskId>,
) -> Result<(Option<TaskId>, Vec<TaskId>), QueueError> {
    let mut open = select(
        database,
        "list what is not resolved of a task group",
        "SELECT task_id FROM tasks
         WHERE task_group_id = :task_group_id AND task_id > :after AND due IS NOT NULL AND priority <> :priority
         ORDER BY task_id LIMIT :most",
        named_params! {
            ":task_group_id": task_group_id.as_str(),
            ":after": after.as_ref().map_or("", TaskId::as_str),
            ":priority": priority as u8,
            ":most": store::limit(AT_ONCE),
        },
        |row| parsed(row, "task_id", TaskId::parse),
    )?;
    let last = open.last().filter(|_| open.len() == AT_ONCE).cloned();
    let mut changed = Vec::new();
    for task_id in open.drain(..) {
        if change(database, &task_id, priority)?.is_some() {
            changed.push(task_id);
        }
    }
    Ok((last, changed))
}

/// Gives the task's status if there is something to be changed.
fn change(
    database: &Transaction<'_>,
    task_id: &TaskId,
    priority: Priority,
) -> Result<Option<TaskStatus>, QueueError> {
    let mut status = store::load_status(database, task_id)?;
    if status.priority == priority || runs::was_ever_resolved(&status) {
        return Ok(None);
    }
    status.priority = priority;
    let call = "write a priority";
    execute(
        database,
        call,
        "UPDATE tasks SET status = :status, priority = :priority WHERE task_id = :task_id",
        named_params! {
            ":status": text(&status, call)?,
            ":priority": priority as u8,
            ":task_id": task_id.as_str(),
        },
    )?;
    definitions::set_priority(database, task_id, priority)?;
    Ok(Some(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::definition::{Submission, TaskDefinition};
    use crate::queue::{RunId, Verdict, WorkerIdentity, WorkerQueue, steady_clock};

    const POOL: &str = "local/docker-worker";

    fn worker() -> WorkerIdentity {
        WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() }
    }

    async fn make(queue: &EmbeddedQueue, group: &TaskId) -> TaskId {
        let task_id = TaskId::random().unwrap();
        let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
        let task = submission.into_task(&task_id, queue.now()).unwrap().definition;
        let task = TaskDefinition { task_group_id: group.clone(), ..task };
        queue.create_task(&task_id, &task).await.unwrap();
        task_id
    }

    async fn claim(queue: &EmbeddedQueue) -> RunId {
        let work = WorkerQueue::embedded(queue.clone()).claim_work(POOL, &worker(), 1).await.unwrap();
        work.claims[0].queue.run().clone()
    }

    #[tokio::test]
    async fn a_task_that_is_more_urgent_now_comes_first_and_says_so() {
        let queue = EmbeddedQueue::in_memory(steady_clock()).unwrap();
        let group = TaskId::random().unwrap();
        let (first, second) = (make(&queue, &group).await, make(&queue, &group).await);
        let status = queue.change_priority(&second, Priority::High).await.unwrap();
        assert_eq!((status.priority, &status), (Priority::High, &queue.status(&second).await.unwrap()));
        let known: TaskDefinition =
            serde_json::from_str(queue.definition(&second).await.unwrap().text()).unwrap();
        assert_eq!(known.priority, Priority::High);
        assert_eq!(claim(&queue).await.task_id, second);
        assert_eq!(claim(&queue).await.task_id, first);
        // Its next run is as urgent as it is by then.
        let third = make(&queue, &group).await;
        queue.change_priority(&first, Priority::Highest).await.unwrap();
        let run = RunId { task_id: first.clone(), run_id: 0 };
        queue.run(run).report(Verdict::Exception(crate::queue::Reason::WorkerShutdown)).await.unwrap();
        assert_eq!(claim(&queue).await, RunId { task_id: first, run_id: 1 });
        assert_eq!(claim(&queue).await.task_id, third);
    }

    #[tokio::test]
    async fn what_has_been_resolved_or_is_as_urgent_already_stays_as_it_is() {
        let queue = EmbeddedQueue::in_memory(steady_clock()).unwrap();
        let group = TaskId::random().unwrap();
        let mut made = Vec::new();
        for _ in 0..AT_ONCE + 3 {
            made.push(make(&queue, &group).await);
        }
        let (resolved, again) = (&made[0], &made[1]);
        for task_id in [resolved, again] {
            queue.cancel_task(task_id).await.unwrap();
        }
        queue.rerun_task(again).await.unwrap();
        for task_id in [resolved, again] {
            let refused = queue.change_priority(task_id, Priority::Low).await;
            assert!(matches!(refused, Err(QueueError::Conflict { .. })), "{refused:?}");
        }
        let refused = queue.change_priority(&made[2], Priority::Lowest).await;
        assert!(matches!(refused, Err(QueueError::Conflict { .. })), "{refused:?}");
        let mut expected = made.split_off(2);
        expected.sort();
        assert_eq!(queue.change_group_priority(&group, Priority::Low).await.unwrap(), expected);
        assert_eq!(queue.change_group_priority(&group, Priority::Low).await.unwrap(), []);
        assert_eq!(queue.status(&made[1]).await.unwrap().priority, Priority::Lowest);
    }
}
