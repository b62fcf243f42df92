//! How urgent tasks are, once somebody thinks otherwise.

use serde_json::json;

use super::exchange::{Exchange, ok};
use super::reply::{Code, Refusal, Reply};
use crate::queue::definition::Priority;
use crate::scopes::ScopeExpression;

/// `changeTaskPriority`
pub(super) async fn change(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let priority = read(it)?;
    let task_id = it.params.task_id()?;
    let status = it.services.queue.status(&task_id).await?;
    it.require(&ScopeExpression::AnyOf(vec![
        ScopeExpression::Scope(format!("queue:change-task-priority:{task_id}")),
        ScopeExpression::Scope(format!("queue:change-task-priority-in-queue:{}", status.task_queue_id)),
    ]))?;
    if status.deadline <= it.now {
        let message = format!("the deadline of task {task_id} has passed: {}", status.deadline);
        return Err(Refusal::new(Code::RequestConflict, message));
    }
    ok(&json!({ "status": it.services.queue.change_priority(&task_id, priority).await? }))
}

/// `changeTaskGroupPriority`
pub(super) async fn change_group(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let priority = read(it)?;
    let group = it.services.queue.task_group(&it.params.task_group_id()?).await?;
    let (id, scheduler_id) = (&group.task_group_id, &group.scheduler_id);
    let scope = format!("queue:change-task-group-priority:{scheduler_id}/{id}");
    it.require(&ScopeExpression::Scope(scope))?;
    let changed = it.services.queue.change_group_priority(id, priority).await?;
    ok(&json!({
        "taskGroupId": id,
        "schedulerId": scheduler_id,
        "newPriority": priority,
        "tasksAffected": changed.len(),
        "taskIds": changed,
    }))
}

fn read(it: &Exchange<'_>) -> Result<Priority, Refusal> {
    it.read(|payload, findings| {
        payload.refuse_unknown(&["newPriority"], findings);
        let place = payload.required("newPriority", findings)?;
        let word = place.string(findings)?;
        let known = Priority::ALL.iter().find(|priority| priority.as_str() == word);
        if known.is_none() {
            place.refuse("is no priority", findings);
        }
        known.copied()
    })
}
