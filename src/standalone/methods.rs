//! Each method and what carries it out.

use std::collections::BTreeSet;

use serde_json::json;

use super::clients::expand;
use super::exchange::{Exchange, done, ok};
use super::reply::{Code, Refusal, Reply};
use super::routes::Api;
use super::{
    artifacts, batches, disk_use, groups, index, objects, page_methods, pools, priorities, secrets, tasks,
    work, workers,
};
use crate::cache::PurgeRequest;
use crate::queue::{Reason, Verdict};
use crate::scopes::ScopeExpression;

/// Carries a call out.
pub(super) async fn call(api: Api, it: &Exchange<'_>) -> Result<Reply, Refusal> {
    match api {
        Api::Ping => ok(&json!({ "alive": true, "uptime": it.services.uptime().as_secs_f64() })),
        Api::Task => tasks::definition(it).await,
        Api::Status => tasks::status(it).await,
        Api::CreateTask => tasks::create(it).await,
        Api::Tasks => batches::definitions(it).await,
        Api::Statuses => batches::statuses(it).await,
        Api::ChangeTaskPriority => priorities::change(it).await,
        Api::ScheduleTask => tasks::schedule(it).await,
        Api::RerunTask => tasks::rerun(it).await,
        Api::CancelTask => tasks::cancel(it).await,
        Api::ListDependentTasks => tasks::list_dependents(it).await,
        Api::GetTaskGroup => groups::get(it).await,
        Api::ListTaskGroup => groups::list(it).await,
        Api::SealTaskGroup => groups::seal(it).await,
        Api::CancelTaskGroup => groups::cancel(it).await,
        Api::ChangeTaskGroupPriority => priorities::change_group(it).await,
        Api::ClaimWork => work::claim_work(it).await,
        Api::ClaimTask => work::claim_task(it).await,
        Api::ReclaimTask => work::reclaim(it).await,
        Api::ReportCompleted => work::report(it, Verdict::Completed).await,
        Api::ReportFailed => work::report(it, Verdict::Failed).await,
        Api::ReportException => work::report(it, Verdict::Exception(reason(it)?)).await,
        Api::GetWorker => workers::get(it).await,
        Api::QuarantineWorker => workers::quarantine(it).await,
        Api::CreateArtifact => artifacts::create(it).await,
        Api::FinishArtifact => artifacts::finish(it).await,
        Api::GetArtifact => artifacts::get(it).await,
        Api::GetLatestArtifact => artifacts::get_latest(it).await,
        Api::ListArtifacts => artifacts::list(it).await,
        Api::ListLatestArtifacts => artifacts::list_latest(it).await,
        Api::ArtifactInfo => artifacts::info(it).await,
        Api::LatestArtifactInfo => artifacts::latest_info(it).await,
        Api::Artifact => artifacts::content(it).await,
        Api::LatestArtifact => artifacts::latest_content(it).await,
        Api::PendingTasks => pools::count_pending(it).await,
        Api::TaskQueueCounts => pools::count(it).await,
        Api::ListPendingTasks => pools::list_pending(it).await,
        Api::ListClaimedTasks => pools::list_claimed(it).await,
        Api::PurgeCache => purge_cache(it).await,
        Api::PurgeRequests => purge_requests(it).await,
        Api::ExpandScopes => expand_scopes(it),
        Api::CurrentScopes => ok(&json!({ "scopes": it.caller()?.scopes })),
        Api::CreateUpload => objects::create_upload(it).await,
        Api::FinishUpload => objects::finish_upload(it).await,
        Api::FindTask => index::find(it).await,
        Api::InsertTask => index::insert(it).await,
        Api::SetSecret => secrets::set(it).await,
        Api::RemoveSecret => secrets::remove(it).await,
        Api::GetSecret => secrets::get(it).await,
        Api::RecentTasks => page_methods::recent_tasks(it).await,
        Api::ValidateTask => page_methods::validate(it),
        Api::ReadLog => page_methods::read_log(it).await,
        Api::DiskUse => disk_use::see(it).await,
        Api::ListSecrets => secrets::list(it).await,
    }
}

/// Bytes of a cache's name: each is kept for a day.
const CACHE_NAME_BYTES: usize = 1024;

/// The reasons that a worker may report.
const REASONS: &[(&str, Reason)] = &[
    ("worker-shutdown", Reason::WorkerShutdown),
    ("malformed-payload", Reason::MalformedPayload),
    ("resource-unavailable", Reason::ResourceUnavailable),
    ("internal-error", Reason::InternalError),
    ("intermittent-task", Reason::IntermittentTask),
    // Of old deployments' queues.
    ("superseded", Reason::Superseded),
];

fn reason(it: &Exchange<'_>) -> Result<Reason, Refusal> {
    it.read(|payload, findings| {
        payload.refuse_unknown(&["reason"], findings);
        let place = payload.required("reason", findings)?;
        let word = place.string(findings)?;
        let known = REASONS.iter().find(|(known, _)| *known == word).map(|(_, reason)| *reason);
        if known.is_none() {
            place.refuse("is no reason that a worker may report", findings);
        }
        known
    })
}

async fn purge_cache(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let pool = it.params.text("workerPoolId");
    let cache_name = it.read(|payload, findings| {
        payload.refuse_unknown(&["cacheName"], findings);
        payload.required("cacheName", findings)?.string(findings).map(str::to_owned)
    })?;
    it.require(&ScopeExpression::Scope(format!("purge-cache:{pool}:{cache_name}")))?;
    if cache_name.len() > CACHE_NAME_BYTES {
        let message = format!("the name of a cache has at most {CACHE_NAME_BYTES} bytes");
        return Err(Refusal::new(Code::InputError, message));
    }
    it.services.queue.purge_cache(pool, &cache_name).await?;
    done()
}

async fn purge_requests(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let pool = it.params.text("workerPoolId");
    let (provisioner_id, worker_type) = pool.split_once('/').unwrap_or_default();
    let asked = it.services.queue.purge_requests(pool).await?;
    let requests = asked.into_iter().map(|PurgeRequest { cache_name, before }| {
        json!({
            "provisionerId": provisioner_id,
            "workerType": worker_type,
            "cacheName": cache_name,
            "before": before,
        })
    });
    ok(&json!({ "requests": requests.collect::<Vec<_>>() }))
}

fn expand_scopes(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let scopes: Vec<String> = it.read(|payload, findings| {
        payload.refuse_unknown(&["scopes"], findings);
        let place = payload.required("scopes", findings)?;
        let scopes = place.list(findings)?;
        let scopes: Option<Vec<String>> =
            scopes.iter().map(|place| place.string(findings).map(str::to_owned)).collect();
        let distinct: Option<BTreeSet<_>> = scopes.as_ref().map(|scopes| scopes.iter().collect());
        if distinct.map(|it| it.len()) != scopes.as_ref().map(Vec::len) {
            place.refuse("must not have a scope twice", findings);
        }
        scopes
    })?;
    ok(&json!({ "scopes": expand(&scopes) }))
}
