//! Many tasks in one call.

use std::collections::BTreeSet;

use serde::Serialize;

use super::exchange::{Exchange, ok};
use super::paging;
use super::reply::{Refusal, Reply};
use crate::queue::task_id::TaskId;
use crate::queue::{ReceivedDefinition, TaskStatus};
use crate::scopes::ScopeExpression;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Definitions {
    tasks: Vec<Definition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    task_id: TaskId,
    task: ReceivedDefinition,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statuses {
    statuses: Vec<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    task_id: TaskId,
    status: TaskStatus,
}

/// `tasks`
pub(super) async fn definitions(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let ids = read(it, "queue:get-task")?;
    let page = it.services.queue.definitions(ids, paging::part(it)?).await?;
    let tasks = page.items.into_iter().map(|(task_id, task)| Definition { task_id, task });
    ok(&Definitions { tasks: tasks.collect(), continuation_token: paging::token(page.next) })
}

/// `statuses`
pub(super) async fn statuses(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let ids = read(it, "queue:status")?;
    let page = it.services.queue.statuses(ids, paging::part(it)?).await?;
    let statuses = page.items.into_iter().map(|status| Status { task_id: status.task_id.clone(), status });
    ok(&Statuses { statuses: statuses.collect(), continuation_token: paging::token(page.next) })
}

/// The tasks that a caller names who may see each of them. What can be no task's id is none that there is.
fn read(it: &Exchange<'_>, right: &str) -> Result<BTreeSet<TaskId>, Refusal> {
    let named: Vec<String> = it.read(|payload, findings| {
        payload.refuse_unknown(&["taskIds"], findings);
        let Some(place) = payload.member("taskIds") else { return Some(Vec::new()) };
        let ids = place.list(findings)?;
        ids.iter().map(|id| id.string(findings).map(str::to_owned)).collect()
    })?;
    let scopes = named.iter().map(|id| ScopeExpression::Scope(format!("{right}:{id}")));
    it.require(&ScopeExpression::AllOf(scopes.collect()))?;
    Ok(named.iter().filter_map(|id| TaskId::parse(id).ok()).collect())
}
