//! The methods that there are, and what their callers need.

use hyper::Method;

use super::{Api, Needs, Route};

const RECLAIM: Needs = Needs::Scope("queue:reclaim-task:<taskId>/<runId>");
const RESOLVE: Needs = Needs::Scope("queue:resolve-task:<taskId>/<runId>");
const GET_WORKER: Needs =
    Needs::Scope("queue:get-worker:<provisionerId>/<workerType>/<workerGroup>/<workerId>");
const QUARANTINE: Needs =
    Needs::Scope("queue:quarantine-worker:<provisionerId>/<workerType>/<workerGroup>/<workerId>");
/// A worker.
const WORKER: (&str, &str) =
    ("queue", "provisioners/<provisionerId>/worker-types/<workerType>/workers/<workerGroup>/<workerId>");
const LIST_GROUP: Needs = Needs::Scope("queue:list-task-group:<taskGroupId>");
const COUNT: Needs =
    Needs::Scopes(&["queue:pending-count:<taskQueueId>", "queue:claimed-count:<taskQueueId>"]);
const CREATE_ARTIFACT: Needs = Needs::Scope("queue:create-artifact:<taskId>/<runId>");

/// A row of the table.
const fn route(
    api: Api,
    (name, needs): (&'static str, Needs),
    verb: Method,
    (service, path): (&'static str, &'static str),
) -> Route {
    Route { api, name, verb, service, path, needs }
}

const fn get(api: Api, named: (&'static str, Needs), at: (&'static str, &'static str)) -> Route {
    route(api, named, Method::GET, at)
}

const fn put(api: Api, named: (&'static str, Needs), at: (&'static str, &'static str)) -> Route {
    route(api, named, Method::PUT, at)
}

const fn post(api: Api, named: (&'static str, Needs), at: (&'static str, &'static str)) -> Route {
    route(api, named, Method::POST, at)
}

const fn delete(api: Api, named: (&'static str, Needs), at: (&'static str, &'static str)) -> Route {
    route(api, named, Method::DELETE, at)
}

/// The methods of the page.
pub(super) const PAGE: &str = "page";

/// Source: each service's `references/<service>/v1/api.json`.
pub(super) const ROUTES: &[Route] = &[
    get(Api::Ping, ("ping", Needs::Nothing), ("queue", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("auth", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("purge-cache", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("object", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("index", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("secrets", "ping")),
    get(Api::Task, ("task", Needs::Scope("queue:get-task:<taskId>")), ("queue", "task/<taskId>")),
    get(Api::Status, ("status", Needs::Scope("queue:status:<taskId>")), ("queue", "task/<taskId>/status")),
    post(Api::Tasks, ("tasks", Needs::OfMethod), ("queue", "tasks")),
    post(Api::Statuses, ("statuses", Needs::OfMethod), ("queue", "tasks/status")),
    post(
        Api::ChangeTaskPriority,
        ("changeTaskPriority", Needs::OfMethod),
        ("queue", "task/<taskId>/priority"),
    ),
    post(
        Api::ChangeTaskGroupPriority,
        ("changeTaskGroupPriority", Needs::OfMethod),
        ("queue", "task-group/<taskGroupId>/priority"),
    ),
    put(Api::CreateTask, ("createTask", Needs::OfMethod), ("queue", "task/<taskId>")),
    post(Api::ScheduleTask, ("scheduleTask", Needs::OfMethod), ("queue", "task/<taskId>/schedule")),
    post(Api::RerunTask, ("rerunTask", Needs::OfMethod), ("queue", "task/<taskId>/rerun")),
    post(Api::CancelTask, ("cancelTask", Needs::OfMethod), ("queue", "task/<taskId>/cancel")),
    get(
        Api::ListDependentTasks,
        ("listDependentTasks", Needs::Scope("queue:list-dependent-tasks:<taskId>")),
        ("queue", "task/<taskId>/dependents"),
    ),
    get(Api::GetTaskGroup, ("getTaskGroup", LIST_GROUP), ("queue", "task-group/<taskGroupId>")),
    get(Api::ListTaskGroup, ("listTaskGroup", LIST_GROUP), ("queue", "task-group/<taskGroupId>/list")),
    post(Api::SealTaskGroup, ("sealTaskGroup", Needs::OfMethod), ("queue", "task-group/<taskGroupId>/seal")),
    post(
        Api::CancelTaskGroup,
        ("cancelTaskGroup", Needs::OfMethod),
        ("queue", "task-group/<taskGroupId>/cancel"),
    ),
    post(Api::ClaimWork, ("claimWork", Needs::OfMethod), ("queue", "claim-work/<*taskQueueId>")),
    post(Api::ClaimTask, ("claimTask", Needs::OfMethod), ("queue", "task/<taskId>/runs/<runId>/claim")),
    post(Api::ReclaimTask, ("reclaimTask", RECLAIM), ("queue", "task/<taskId>/runs/<runId>/reclaim")),
    post(
        Api::ReportCompleted,
        ("reportCompleted", RESOLVE),
        ("queue", "task/<taskId>/runs/<runId>/completed"),
    ),
    post(Api::ReportFailed, ("reportFailed", RESOLVE), ("queue", "task/<taskId>/runs/<runId>/failed")),
    post(
        Api::ReportException,
        ("reportException", RESOLVE),
        ("queue", "task/<taskId>/runs/<runId>/exception"),
    ),
    get(Api::GetWorker, ("getWorker", GET_WORKER), WORKER),
    put(Api::QuarantineWorker, ("quarantineWorker", QUARANTINE), WORKER),
    post(
        Api::CreateArtifact,
        ("createArtifact", CREATE_ARTIFACT),
        ("queue", "task/<taskId>/runs/<runId>/artifacts/<*name>"),
    ),
    put(
        Api::FinishArtifact,
        ("finishArtifact", CREATE_ARTIFACT),
        ("queue", "task/<taskId>/runs/<runId>/artifacts/<*name>"),
    ),
    get(
        Api::GetArtifact,
        ("getArtifact", Needs::OfMethod),
        ("queue", "task/<taskId>/runs/<runId>/artifacts/<*name>"),
    ),
    get(
        Api::GetLatestArtifact,
        ("getLatestArtifact", Needs::OfMethod),
        ("queue", "task/<taskId>/artifacts/<*name>"),
    ),
    get(
        Api::ListArtifacts,
        ("listArtifacts", Needs::Scope("queue:list-artifacts:<taskId>:<runId>")),
        ("queue", "task/<taskId>/runs/<runId>/artifacts"),
    ),
    get(
        Api::ListLatestArtifacts,
        ("listLatestArtifacts", Needs::Scope("queue:list-artifacts:<taskId>")),
        ("queue", "task/<taskId>/artifacts"),
    ),
    get(
        Api::ArtifactInfo,
        ("artifactInfo", Needs::Scope("queue:list-artifacts:<taskId>:<runId>")),
        ("queue", "task/<taskId>/runs/<runId>/artifact-info/<*name>"),
    ),
    get(
        Api::LatestArtifactInfo,
        ("latestArtifactInfo", Needs::Scope("queue:list-artifacts:<taskId>")),
        ("queue", "task/<taskId>/artifact-info/<*name>"),
    ),
    get(
        Api::Artifact,
        ("artifact", Needs::OfMethod),
        ("queue", "task/<taskId>/runs/<runId>/artifact-content/<*name>"),
    ),
    get(
        Api::LatestArtifact,
        ("latestArtifact", Needs::OfMethod),
        ("queue", "task/<taskId>/artifact-content/<*name>"),
    ),
    get(
        Api::PendingTasks,
        ("pendingTasks", Needs::Scope("queue:pending-count:<taskQueueId>")),
        ("queue", "pending/<*taskQueueId>"),
    ),
    get(Api::TaskQueueCounts, ("taskQueueCounts", COUNT), ("queue", "task-queues/<*taskQueueId>/counts")),
    get(
        Api::ListPendingTasks,
        ("listPendingTasks", Needs::Scope("queue:pending-list:<taskQueueId>")),
        ("queue", "task-queues/<*taskQueueId>/pending"),
    ),
    get(
        Api::ListClaimedTasks,
        ("listClaimedTasks", Needs::Scope("queue:claimed-list:<taskQueueId>")),
        ("queue", "task-queues/<*taskQueueId>/claimed"),
    ),
    post(Api::PurgeCache, ("purgeCache", Needs::OfMethod), ("purge-cache", "purge-cache/<*workerPoolId>")),
    get(
        Api::PurgeRequests,
        ("purgeRequests", Needs::Scope("purge-cache:purge-requests::<workerPoolId>")),
        ("purge-cache", "purge-cache/<*workerPoolId>"),
    ),
    post(Api::ExpandScopes, ("expandScopes", Needs::Scope("auth:expand-scopes")), ("auth", "scopes/expand")),
    get(
        Api::CurrentScopes,
        ("currentScopes", Needs::Scope("auth:current-scopes")),
        ("auth", "scopes/current"),
    ),
    put(Api::CreateUpload, ("createUpload", Needs::OfMethod), ("object", "upload/<*name>")),
    post(Api::FinishUpload, ("finishUpload", Needs::OfMethod), ("object", "finish-upload/<*name>")),
    get(
        Api::FindTask,
        ("findTask", Needs::Scope("index:find-task:<indexPath>")),
        ("index", "task/<indexPath>"),
    ),
    put(
        Api::InsertTask,
        ("insertTask", Needs::Scope("index:insert-task:<namespace>")),
        ("index", "task/<namespace>"),
    ),
    put(Api::SetSecret, ("set", Needs::Scope("secrets:set:<name>")), ("secrets", "secret/<*name>")),
    delete(Api::RemoveSecret, ("remove", Needs::Scope("secrets:set:<name>")), ("secrets", "secret/<*name>")),
    get(Api::ListSecrets, ("list", Needs::Scope("secrets:list-secrets")), ("secrets", "secrets")),
    get(Api::GetSecret, ("get", Needs::Scope("secrets:get:<name>")), ("secrets", "secret/<*name>")),
    // What the page needs and no service has.
    get(Api::RecentTasks, ("recentTasks", Needs::Scope("standalone:list-tasks")), (PAGE, "tasks")),
    post(Api::ValidateTask, ("validateTask", Needs::Nothing), (PAGE, "validate")),
    get(Api::ReadLog, ("readLog", Needs::OfMethod), (PAGE, "log/<taskId>/<runId>/<*name>")),
    get(Api::DiskUse, ("diskUse", Needs::Scope("standalone:show-disk-use")), (PAGE, "disk-use")),
];
