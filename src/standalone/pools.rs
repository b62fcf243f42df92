//! Task queues: what there is to do in them, and what is being done.

use serde::Serialize;
use serde_json::json;

use super::exchange::{Exchange, ok};
use super::paging;
use super::reply::{Refusal, Reply};
use crate::queue::task_id::TaskId;
use crate::queue::{ListedTask, OpenTasks, Page, Place, ReceivedDefinition, RunStatus, WorkerIdentity};
use crate::timestamp::Timestamp;

/// `pendingTasks`
pub(super) async fn count_pending(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let (pool, (provisioner_id, worker_type)) = named(it);
    let OpenTasks { pending, .. } = it.services.queue.count_tasks(pool).await?;
    ok(&json!({
        "provisionerId": provisioner_id,
        "workerType": worker_type,
        "taskQueueId": pool,
        "pendingTasks": pending,
    }))
}

/// `taskQueueCounts`
pub(super) async fn count(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let (pool, (provisioner_id, worker_type)) = named(it);
    let OpenTasks { pending, claimed } = it.services.queue.count_tasks(pool).await?;
    ok(&json!({
        "provisionerId": provisioner_id,
        "workerType": worker_type,
        "taskQueueId": pool,
        "pendingTasks": pending,
        "claimedTasks": claimed,
    }))
}

/// A run that waits for a worker or has one, as it is listed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OpenRun {
    task_id: TaskId,
    run_id: u32,
    #[serde(flatten)]
    stage: Stage,
    task: ReceivedDefinition,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Stage {
    Pending {
        inserted: Timestamp,
    },
    Claimed {
        #[serde(flatten)]
        worker: WorkerIdentity,
        claimed: Timestamp,
    },
}

/// `listPendingTasks`
pub(super) async fn list_pending(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let page = it.services.queue.list_pending(named(it).0, paging::part(it)?).await?;
    show(page, |run| Some(Stage::Pending { inserted: run.scheduled }))
}

/// `listClaimedTasks`
pub(super) async fn list_claimed(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let page = it.services.queue.list_claimed(named(it).0, paging::part(it)?).await?;
    show(page, |run| Some(Stage::Claimed { worker: run.worker.clone()?, claimed: run.started? }))
}

fn show(
    page: Page<ListedTask, Place>,
    stage: impl Fn(&RunStatus) -> Option<Stage>,
) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Listed {
        tasks: Vec<OpenRun>,
        #[serde(skip_serializing_if = "Option::is_none")]
        continuation_token: Option<String>,
    }
    let tasks = page.items.into_iter().filter_map(|ListedTask { status, definition }| {
        let run = status.runs.last()?;
        Some(OpenRun { run_id: run.run_id, stage: stage(run)?, task_id: status.task_id, task: definition })
    });
    ok(&Listed { tasks: tasks.collect(), continuation_token: paging::token(page.next) })
}

/// The task queue in a call's path, and its two halves.
fn named<'a>(it: &'a Exchange<'_>) -> (&'a str, (&'a str, &'a str)) {
    let pool = it.params.text("taskQueueId");
    (pool, pool.split_once('/').unwrap_or_default())
}
