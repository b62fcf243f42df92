//! Workers, for those who look after them.

use serde_json::json;

use super::exchange::{Exchange, ok};
use super::reply::{Refusal, Reply};
use crate::queue::{KnownWorker, QueueError, WorkerIdentity};
use crate::timestamp::Timestamp;

/// Characters of what somebody says about a quarantine.
const INFO_CHARS: usize = 4000;

/// `getWorker`
pub(super) async fn get(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let (pool, worker) = named(it);
    let known = it.services.queue.worker(&pool, &worker).await?;
    let WorkerIdentity { worker_group, worker_id } = &worker;
    let missing = || QueueError::NotFound { what: format!("worker {worker_group}/{worker_id} of {pool}") };
    show(it, &known.ok_or_else(missing)?)
}

/// `quarantineWorker`. What somebody says about it is not kept.
pub(super) async fn quarantine(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let until = it.read(|payload, findings| {
        payload.refuse_unknown(&["quarantineUntil", "quarantineInfo"], findings);
        if let Some(place) = payload.member("quarantineInfo")
            && place.string(findings).is_some_and(|info| info.chars().count() > INFO_CHARS)
        {
            place.refuse(format!("must have at most {INFO_CHARS} characters"), findings);
        }
        payload.required("quarantineUntil", findings)?.time(findings)
    })?;
    let (pool, worker) = named(it);
    show(it, &it.services.queue.quarantine(&pool, &worker, until).await?)
}

/// The pool and the worker in a call's path.
fn named(it: &Exchange<'_>) -> (String, WorkerIdentity) {
    let text = |name| it.params.text(name).to_owned();
    let pool = format!("{}/{}", text("provisionerId"), text("workerType"));
    (pool, WorkerIdentity { worker_group: text("workerGroup"), worker_id: text("workerId") })
}

fn show(it: &Exchange<'_>, known: &KnownWorker) -> Result<Reply, Refusal> {
    let (pool, WorkerIdentity { worker_group, worker_id }) = named(it);
    ok(&json!({
        "provisionerId": it.params.text("provisionerId"),
        "workerType": it.params.text("workerType"),
        "taskQueueId": pool,
        "workerGroup": worker_group,
        "workerId": worker_id,
        "firstClaim": known.first_claim,
        "lastDateActive": known.last_active,
        "expires": known.expires,
        // As the real service: long ago where it never was.
        "quarantineUntil": known.quarantined_until.unwrap_or(Timestamp::from_millis(0)),
        "recentTasks": known.recent_tasks,
    }))
}
