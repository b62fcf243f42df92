//! What is done with single tasks, by whoever makes them and looks after them.

use super::{EmbeddedQueue, definitions, schedule, store};
use crate::queue::definition::TaskDefinition;
use crate::queue::model::TaskStatus;
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, ReceivedDefinition, runs};

impl EmbeddedQueue {
    /// Makes a task. Doing it again with the same definition changes nothing.
    ///
    /// # Errors
    ///
    /// [`QueueError::Conflict`] when the id is in use by another definition, or its group is sealed or of another
    /// scheduler, [`QueueError::Invalid`] for times that
    /// do not fit together, or dependencies that do not exist or expire before its deadline.
    pub async fn create_task(
        &self,
        task_id: &TaskId,
        task: &TaskDefinition,
    ) -> Result<TaskStatus, QueueError> {
        let (task_id, task) = (task_id.clone(), task.clone());
        self.ask(move |database, now| schedule::create_task(database, &task_id, &task, now)).await
    }

    /// Has a task wait for its dependencies no longer. One that has a run already stays as it is.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn schedule_task(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        let schedule = |status: &mut TaskStatus, now| {
            runs::schedule(status, now);
            Ok(())
        };
        self.change(task_id, schedule).await.map(|((), status)| status)
    }

    /// Has a task run again, with all of its retries, or for the first time whatever it waits for. One that waits for a
    /// worker or has one stays as it is.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`], [`QueueError::Conflict`] after its deadline, or when it has had 50 runs.
    pub async fn rerun_task(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, now| schedule::rerun_task(database, &task_id, now)).await
    }

    /// Cancels a task: its run becomes an exception. A task that is resolved already stays as it is.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn cancel_task(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        let cancel = |status: &mut TaskStatus, now| {
            runs::cancel(status, now);
            Ok(())
        };
        self.change(task_id, cancel).await.map(|((), status)| status)
    }

    /// The definition of a task, all defaults written out.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn definition(&self, task_id: &TaskId) -> Result<ReceivedDefinition, QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, _now| definitions::load(database, &task_id)).await
    }

    /// The state of a task and of its runs.
    ///
    /// # Errors
    ///
    /// [`QueueError::NotFound`].
    pub async fn status(&self, task_id: &TaskId) -> Result<TaskStatus, QueueError> {
        let task_id = task_id.clone();
        self.ask(move |database, _now| store::load_status(database, &task_id)).await
    }
}
