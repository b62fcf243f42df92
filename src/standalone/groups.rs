//! Task groups.

use serde::Serialize;
use serde_json::json;

use super::exchange::{Exchange, ok};
use super::paging;
use super::reply::{Refusal, Reply};
use crate::queue::task_id::TaskId;
use crate::queue::{CancelledGroup, ListedTask, TaskGroup};
use crate::scopes::ScopeExpression;
use crate::timestamp::Timestamp;

/// `getTaskGroup`
pub(super) async fn get(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    ok(&it.services.queue.task_group(&it.params.task_group_id()?).await?)
}

/// `listTaskGroup`
pub(super) async fn list(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Listed {
        task_group_id: TaskId,
        scheduler_id: String,
        expires: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        sealed: Option<Timestamp>,
        tasks: Vec<ListedTask>,
        #[serde(skip_serializing_if = "Option::is_none")]
        continuation_token: Option<String>,
    }
    let id = it.params.task_group_id()?;
    let (group, page) = it.services.queue.list_task_group(&id, paging::part(it)?).await?;
    let TaskGroup { task_group_id, scheduler_id, expires, sealed } = group;
    let (tasks, continuation_token) = (page.items, paging::token(page.next));
    ok(&Listed { task_group_id, scheduler_id, expires, sealed, tasks, continuation_token })
}

/// `sealTaskGroup`
pub(super) async fn seal(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let group = it.services.queue.task_group(&it.params.task_group_id()?).await?;
    require(it, "seal-task-group", &group)?;
    ok(&it.services.queue.seal_task_group(&group.task_group_id).await?)
}

/// `cancelTaskGroup`
pub(super) async fn cancel(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let group = it.services.queue.task_group(&it.params.task_group_id()?).await?;
    // As the real queue: whoever may not cancel it is told so only then.
    group.require_sealed()?;
    require(it, "cancel-task-group", &group)?;
    let CancelledGroup { size, cancelled } =
        it.services.queue.cancel_task_group(&group.task_group_id).await?;
    ok(&json!({
        "taskGroupId": group.task_group_id,
        "taskGroupSize": size,
        "cancelledCount": cancelled.len(),
        "taskIds": cancelled,
    }))
}

fn require(it: &Exchange<'_>, right: &str, group: &TaskGroup) -> Result<(), Refusal> {
    let TaskGroup { scheduler_id, task_group_id, .. } = group;
    it.require(&ScopeExpression::Scope(format!("queue:{right}:{scheduler_id}/{task_group_id}")))
}
