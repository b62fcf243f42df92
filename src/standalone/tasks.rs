//! Tasks, for those who make them and look at them.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::exchange::{Exchange, invalid, ok};
use super::paging;
use super::reply::{Code, Refusal, Reply};
use crate::queue::definition::{Priority, TaskDefinition};
use crate::queue::task_id::TaskId;
use crate::queue::{ListedTask, TaskStatus};
use crate::scopes::ScopeExpression;

/// Bytes of a task's scopes as JSON. The real queue has no such bound, and makes credentials that no server accepts: they
/// come with each call of the task's worker, in a header.
const SCOPES_BYTES: usize = 32 << 10;

/// How far a definition's time may be from the present.
const DRIFT: Duration = Duration::from_secs(15 * 60);

/// `createTask`
pub(super) async fn create(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let task_id = it.params.task_id()?;
    let task = TaskDefinition::requested(it.payload()?, &task_id, it.now).map_err(invalid)?;
    permit(it, &task)?;
    let status = it.services.queue.create_task(&task_id, &task).await?;
    ok(&json!({ "status": status }))
}

/// `task`
pub(super) async fn definition(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    ok(&it.services.queue.definition(&it.params.task_id()?).await?)
}

/// `status`
pub(super) async fn status(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let status = it.services.queue.status(&it.params.task_id()?).await?;
    ok(&json!({ "status": status }))
}

/// `scheduleTask`
pub(super) async fn schedule(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let task_id = permitted(it, "schedule-task").await?;
    let status = it.services.queue.schedule_task(&task_id).await?;
    ok(&json!({ "status": status }))
}

/// `rerunTask`
pub(super) async fn rerun(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let task_id = permitted(it, "rerun-task").await?;
    let status = it.services.queue.rerun_task(&task_id).await?;
    ok(&json!({ "status": status }))
}

/// `cancelTask`
pub(super) async fn cancel(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let task_id = permitted(it, "cancel-task").await?;
    let status = it.services.queue.cancel_task(&task_id).await?;
    ok(&json!({ "status": status }))
}

/// The task of a call, for a caller who may do something to it, and not after its deadline.
async fn permitted(it: &Exchange<'_>, right: &str) -> Result<TaskId, Refusal> {
    let task_id = it.params.task_id()?;
    let TaskStatus { scheduler_id, task_group_id, project_id, deadline, .. } =
        it.services.queue.status(&task_id).await?;
    let scope = ScopeExpression::Scope;
    it.require(&ScopeExpression::AnyOf(vec![
        scope(format!("queue:{right}:{scheduler_id}/{task_group_id}/{task_id}")),
        scope(format!("queue:{right}-in-project:{project_id}")),
        ScopeExpression::AllOf(vec![
            scope(format!("queue:{right}")),
            scope(format!("assume:scheduler-id:{scheduler_id}/{task_group_id}")),
        ]),
    ]))?;
    if deadline < it.now {
        let message = format!("the deadline of task {task_id} has passed: {deadline}");
        return Err(Refusal::new(Code::RequestConflict, message));
    }
    Ok(task_id)
}

/// `listDependentTasks`
pub(super) async fn list_dependents(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Dependents {
        task_id: TaskId,
        tasks: Vec<ListedTask>,
        #[serde(skip_serializing_if = "Option::is_none")]
        continuation_token: Option<String>,
    }
    let task_id = it.params.task_id()?;
    let page = it.services.queue.list_dependents(&task_id, paging::part(it)?).await?;
    ok(&Dependents { task_id, tasks: page.items, continuation_token: paging::token(page.next) })
}

/// Refuses a definition that is complete, for what it says or for who says it.
pub(super) fn permit(it: &Exchange<'_>, task: &TaskDefinition) -> Result<(), Refusal> {
    check_scopes(task)?;
    it.require(&required(task))?;
    check(it, task)
}

/// Refuses a task whose scopes are too many for its own credentials.
fn check_scopes(task: &TaskDefinition) -> Result<(), Refusal> {
    let bytes: usize = task.scopes.iter().map(|scope| json!(scope).to_string().len() + 1).sum();
    if bytes > SCOPES_BYTES {
        let message = format!("the scopes take {bytes} bytes; credentials hold {SCOPES_BYTES} at most");
        return Err(Refusal::new(Code::InputError, message));
    }
    Ok(())
}

/// What whoever makes a task has to have.
fn required(task: &TaskDefinition) -> ScopeExpression {
    let scope = ScopeExpression::Scope;
    let pool = &task.task_queue_id;
    let priorities = Priority::ALL.iter().filter(|priority| **priority >= task.priority);
    let priorities =
        priorities.map(|priority| scope(format!("queue:create-task:{}:{pool}", priority.as_str())));
    let mut all: Vec<_> = task.scopes.iter().cloned().map(scope).collect();
    all.extend(task.routes.iter().map(|route| scope(format!("queue:route:{route}"))));
    all.push(scope(format!("queue:create-task:project:{}", task.project_id)));
    all.push(scope(format!("queue:scheduler-id:{}", task.scheduler_id)));
    all.push(ScopeExpression::AnyOf(priorities.collect()));
    ScopeExpression::AllOf(all)
}

/// What else can be said against a definition.
fn check(it: &Exchange<'_>, task: &TaskDefinition) -> Result<(), Refusal> {
    let refused = |message: &str| Err(Refusal::new(Code::InputError, message));
    let far = task.created.since(it.now).max(it.now.since(task.created)) > DRIFT;
    if far {
        return refused("created must be the present, give or take 15 minutes");
    }
    if task.scopes.iter().any(|scope| scope.ends_with("**")) {
        return refused("a scope must not end with **");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::timestamp::Timestamp;

    fn task(more: Value) -> TaskDefinition {
        let now = Timestamp::now();
        let mut task = json!({
            "taskQueueId": "p/t", "created": now, "deadline": now.plus(DRIFT), "payload": {},
            "metadata": {"name": "n", "description": "d", "owner": "o", "source": "https://example.com"}
        });
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        TaskDefinition::requested(&task, &TaskId::random().unwrap(), now).unwrap()
    }

    #[test]
    fn whoever_makes_a_task_needs_what_it_may_do_and_the_right_to_make_it() {
        let task = task(json!({"scopes": ["s:a"], "routes": ["r"], "priority": "high"}));
        let all = ["s:*", "queue:route:r", "queue:create-task:project:none", "queue:scheduler-id:-"];
        let held = |priority: &str| -> Vec<String> {
            let own = format!("queue:create-task:{priority}:p/t");
            all.iter().map(|&scope| scope.to_owned()).chain([own]).collect()
        };
        for (priority, enough) in [("highest", true), ("high", true), ("medium", false), ("normal", false)] {
            assert_eq!(required(&task).missing(&held(priority)).is_none(), enough, "{priority}");
        }
        for lacking in all {
            let rest: Vec<String> = held("high").into_iter().filter(|scope| scope != lacking).collect();
            assert!(required(&task).missing(&rest).is_some(), "{lacking}");
        }
    }
}
