//! Runs, for the workers that carry them out.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::certificate::issue;
use super::exchange::{Exchange, ok};
use super::params::{WORD, is_word};
use super::reply::{Refusal, Reply, fault};
use crate::document::finding::Findings;
use crate::document::reader::Object;
use crate::queue::{
    Claim, Credentials, MOST_TASKS, QueueError, RunId, RunQueue, Task, Verdict, WorkerIdentity, WorkerQueue,
};
use crate::scopes::ScopeExpression;
use crate::timestamp::Timestamp;

/// `claimWork`: the reply waits for a task. A caller whose connection has ended when there is one gets none; for one whose
/// connection ends before the reply has come the claims run out.
pub(super) async fn claim_work(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let (worker, most) = it.read(|payload, findings| {
        payload.refuse_unknown(&["workerGroup", "workerId", "tasks"], findings);
        let worker = read_worker(payload, findings);
        let tasks = payload.required("tasks", findings)?;
        let number = tasks.integer(findings)?;
        let most = usize::try_from(number).ok().filter(|most| (1..=MOST_TASKS).contains(most));
        if most.is_none() {
            tasks.refuse(format!("must be from 1 to {MOST_TASKS}"), findings);
        }
        Some((worker?, most?))
    })?;
    let pool = it.params.text("taskQueueId");
    let scope = ScopeExpression::Scope;
    it.require(&ScopeExpression::AllOf(vec![
        scope(format!("queue:claim-work:{pool}")),
        scope(format!("queue:worker-id:{}/{}", worker.worker_group, worker.worker_id)),
    ]))?;
    let mut tasks = Vec::new();
    for claim in wait_for_work(it, pool, &worker, most).await? {
        tasks.push(describe(it, &claim, &worker).await?);
    }
    ok(&json!({ "tasks": tasks }))
}

async fn wait_for_work(
    it: &Exchange<'_>,
    pool: &str,
    worker: &WorkerIdentity,
    most: usize,
) -> Result<Vec<Claim>, QueueError> {
    let until = Instant::now() + it.services.long_poll;
    let queue = WorkerQueue::embedded(it.services.queue.clone());
    let mut changes = it.services.queue.changes();
    loop {
        changes.mark_unchanged();
        let claims = queue.claim_work(pool, worker, most).await?.claims;
        if !claims.is_empty() {
            return Ok(claims);
        }
        match timeout_at(until, changes.changed()).await {
            Ok(Ok(())) => {}
            // The time is over, or the queue is.
            Ok(Err(_)) | Err(_) => return Ok(claims),
        }
    }
}

/// `claimTask`
pub(super) async fn claim_task(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let worker = it.read(|payload, findings| {
        payload.refuse_unknown(&["workerGroup", "workerId"], findings);
        read_worker(payload, findings)
    })?;
    let run = it.params.run()?;
    let pool = it.services.queue.status(&run.task_id).await?.task_queue_id;
    let scope = ScopeExpression::Scope;
    it.require(&ScopeExpression::AllOf(vec![
        scope(format!("queue:claim-task:{pool}")),
        scope(format!("queue:worker-id:{}/{}", worker.worker_group, worker.worker_id)),
    ]))?;
    let claim = it.services.queue.claim_run(&run, &worker).await?;
    ok(&describe(it, &claim, &worker).await?)
}

/// `reclaimTask`
pub(super) async fn reclaim(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let queue = run(it)?;
    let taken_until = queue.reclaim().await?;
    let status = it.services.queue.status(&queue.run().task_id).await?;
    let worker = status.runs.iter().find(|run| run.run_id == queue.run().run_id);
    let worker = worker.and_then(|run| run.worker.clone());
    let worker = worker.ok_or_else(|| QueueError::NotFound { what: queue.run().to_string() })?;
    let definition = it.services.queue.definition(&queue.run().task_id).await?;
    let task = definition.read().map_err(|error| fault("read a definition", &error))?;
    let credentials = credentials(it, queue.run(), &worker, task, taken_until)?;
    ok(&json!({
        "status": status,
        "runId": queue.run().run_id,
        "workerGroup": worker.worker_group,
        "workerId": worker.worker_id,
        "takenUntil": taken_until,
        "credentials": credentials,
    }))
}

/// `reportCompleted`, `reportFailed`, `reportException`
pub(super) async fn report(it: &Exchange<'_>, verdict: Verdict) -> Result<Reply, Refusal> {
    let queue = run(it)?;
    queue.report(verdict).await?;
    let status = it.services.queue.status(&queue.run().task_id).await?;
    ok(&json!({ "status": status }))
}

fn run(it: &Exchange<'_>) -> Result<RunQueue, Refusal> {
    Ok(it.services.queue.run(it.params.run()?))
}

fn read_worker(payload: &Object<'_>, findings: &mut Findings) -> Option<WorkerIdentity> {
    let mut word = |key| {
        let place = payload.required(key, findings)?;
        let word = place.string(findings)?;
        if !is_word(word) {
            place.refuse(format!("must be {WORD}"), findings);
        }
        Some(word.to_owned())
    };
    let (worker_group, worker_id) = (word("workerGroup"), word("workerId"));
    Some(WorkerIdentity { worker_group: worker_group?, worker_id: worker_id? })
}

/// A claim as its worker is told of it.
async fn describe(it: &Exchange<'_>, claim: &Claim, worker: &WorkerIdentity) -> Result<Value, Refusal> {
    let run = claim.queue.run();
    let status = it.services.queue.status(&run.task_id).await?;
    let task = claim.definition.read().map_err(|error| fault("read a definition", &error))?;
    Ok(json!({
        "status": status,
        "runId": run.run_id,
        "workerGroup": worker.worker_group,
        "workerId": worker.worker_id,
        "takenUntil": claim.taken_until,
        "task": claim.definition,
        "credentials": credentials(it, run, worker, task, claim.taken_until)?,
    }))
}

/// What a run's own calls are signed with until its claim ends, and what the task may do besides.
fn credentials(
    it: &Exchange<'_>,
    run: &RunId,
    worker: &WorkerIdentity,
    task: Task,
    until: Timestamp,
) -> Result<Value, Refusal> {
    let RunId { task_id, run_id } = run;
    let WorkerIdentity { worker_group, worker_id } = worker;
    let seconds = Duration::from_millis(u64::try_from(until.as_millis()).unwrap_or_default()).as_secs();
    let client_id = format!("task-client/{task_id}/{run_id}/on/{worker_group}/{worker_id}/until/{seconds}");
    let own = ["reclaim-task", "resolve-task", "create-artifact"];
    let scopes = own.map(|right| format!("queue:{right}:{task_id}/{run_id}")).into_iter();
    temporary(it, client_id, scopes.chain(task.scopes).collect(), until)
}

/// Temporary credentials of this server's own, as JSON.
pub(super) fn temporary(
    it: &Exchange<'_>,
    client_id: String,
    scopes: Vec<String>,
    until: Timestamp,
) -> Result<Value, Refusal> {
    let made = issue(&it.services.root, client_id, scopes, (it.now, until));
    let Credentials { client_id, access_token, certificate } =
        made.map_err(|error| fault("make credentials", &error))?;
    Ok(json!({ "clientId": client_id, "accessToken": access_token, "certificate": certificate }))
}
