//! Which method of which service a request is for.

use hyper::Method;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::reply::{Code, Refusal};
use crate::queue::artifact_name::ArtifactName;
use crate::queue::definition::is_queue_id;
use crate::queue::task_id::TaskId;
use crate::queue::{RunId, is_index_path};

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Ping,
    Task,
    Status,
    CreateTask,
    ScheduleTask,
    RerunTask,
    CancelTask,
    ListDependentTasks,
    GetTaskGroup,
    ListTaskGroup,
    SealTaskGroup,
    CancelTaskGroup,
    ClaimWork,
    ClaimTask,
    ReclaimTask,
    ReportCompleted,
    ReportFailed,
    ReportException,
    GetWorker,
    QuarantineWorker,
    CreateArtifact,
    FinishArtifact,
    GetArtifact,
    GetLatestArtifact,
    ListArtifacts,
    ListLatestArtifacts,
    ArtifactInfo,
    LatestArtifactInfo,
    Artifact,
    LatestArtifact,
    PendingTasks,
    TaskQueueCounts,
    ListPendingTasks,
    ListClaimedTasks,
    PurgeCache,
    PurgeRequests,
    ExpandScopes,
    CurrentScopes,
    CreateUpload,
    FinishUpload,
    FindTask,
    InsertTask,
    SetSecret,
    RemoveSecret,
    GetSecret,
    RecentTasks,
    ValidateTask,
    ReadLog,
    ListSecrets,
}

/// What a caller has to have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Needs {
    /// Nothing.
    Nothing,
    /// This scope; `<…>` stands for a parameter. It is looked at before anything else.
    Scope(&'static str),
    /// All of these, likewise.
    Scopes(&'static [&'static str]),
    /// Scopes that only the method itself can name.
    OfMethod,
}

/// A method of a service.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) api: Api,
    /// The method's name in the service's API.
    pub(super) name: &'static str,
    verb: Method,
    service: &'static str,
    /// Below `/api/<service>/v1/`, or `/page/`. `<x>` is one component, `<*x>` one or more.
    path: &'static str,
    pub(super) needs: Needs,
}

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
const PAGE: &str = "page";

/// Source: each service's `references/<service>/v1/api.json`.
const ROUTES: &[Route] = &[
    get(Api::Ping, ("ping", Needs::Nothing), ("queue", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("auth", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("purge-cache", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("object", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("index", "ping")),
    get(Api::Ping, ("ping", Needs::Nothing), ("secrets", "ping")),
    get(Api::Task, ("task", Needs::Scope("queue:get-task:<taskId>")), ("queue", "task/<taskId>")),
    get(Api::Status, ("status", Needs::Scope("queue:status:<taskId>")), ("queue", "task/<taskId>/status")),
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
];

/// The parameters in a path, decoded.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(&'static str, String)>);

/// The method that a request is for.
pub(super) fn find(verb: &Method, path: &str) -> Option<(&'static Route, Params)> {
    at(path).find(|(route, _)| route.verb == *verb)
}

/// The HTTP methods that something can be done with at a path.
pub(super) fn verbs(path: &str) -> Vec<Method> {
    at(path).map(|(route, _)| route.verb.clone()).collect()
}

fn at(path: &str) -> impl Iterator<Item = (&'static Route, Params)> {
    let of_service =
        || path.strip_prefix("/api/")?.split_once("/v1/").filter(|(service, _)| *service != PAGE);
    let of_page = path.strip_prefix("/page/").map(|below| (PAGE, below));
    let (service, below) = of_page.or_else(of_service).unwrap_or_default();
    let parts: Vec<&str> = below.split('/').collect();
    let here = ROUTES.iter().filter(move |route| route.service == service);
    here.filter_map(move |route| Some((route, route.params(&parts)?)))
}

impl Route {
    /// Whether its payload may be large: a task, or the scopes of one.
    pub(super) fn takes_much(&self) -> bool {
        matches!(
            self.api,
            Api::CreateTask | Api::ExpandScopes | Api::ValidateTask | Api::InsertTask | Api::SetSecret
        )
    }

    /// Whether its payload is nobody's to see again.
    pub(super) fn takes_a_secret(&self) -> bool {
        self.api == Api::SetSecret
    }

    /// Whether it is answered in pages.
    pub(super) fn is_list(&self) -> bool {
        matches!(
            self.api,
            Api::ListArtifacts
                | Api::ListLatestArtifacts
                | Api::ListDependentTasks
                | Api::ListTaskGroup
                | Api::ListPendingTasks
                | Api::ListClaimedTasks
                | Api::RecentTasks
                | Api::ListSecrets
        )
    }

    /// The parameters of a path, if it is this method's.
    fn params(&self, parts: &[&str]) -> Option<Params> {
        let mut params = Params::default();
        let mut rest = parts;
        let wanted: Vec<&str> = self.path.split('/').collect();
        for (wanted, left) in wanted.iter().zip((0..wanted.len()).rev()) {
            let parameter = wanted.strip_prefix('<').and_then(|name| name.strip_suffix('>'));
            let (first, after) = rest.split_first()?;
            rest = match parameter.map(|name| (name, name.strip_prefix('*'))) {
                None if first == wanted => after,
                None => return None,
                Some((name, None)) => {
                    params.0.push((name, decode(first)?));
                    after
                }
                Some((_, Some(name))) => {
                    let (own, after) = rest.split_at_checked(rest.len().checked_sub(left)?)?;
                    params.0.push((name, decode(&own.join("/"))?));
                    after
                }
            };
        }
        rest.is_empty().then_some(params)
    }
}

fn decode(part: &str) -> Option<String> {
    let text = percent_decode_str(part).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

impl Params {
    /// One of them; empty where the route has no such one.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text)
    }

    /// A scope in which `<…>` stands for a parameter.
    pub(super) fn fill(&self, scope: &str) -> String {
        self.0.iter().fold(scope.to_owned(), |scope, (name, text)| scope.replace(&format!("<{name}>"), text))
    }

    /// Refuses what no parameter of that name can be.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        for (name, text) in &self.0 {
            match *name {
                "taskId" | "taskGroupId" => drop(self.id(name)?),
                "runId" => drop(self.run_id()?),
                "taskQueueId" | "workerPoolId" if !is_queue_id(text) => {
                    return Err(unfit(name, "PROVISIONER/TYPE"));
                }
                "indexPath" | "namespace" if !is_index_path(text) => {
                    return Err(unfit(
                        name,
                        "words of letters, digits and _!~*'()%-, with dots between them",
                    ));
                }
                "provisionerId" | "workerType" | "workerGroup" | "workerId" if !is_word(text) => {
                    return Err(unfit(name, WORD));
                }
                // Whoever uses them asks for more of them.
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn task_id(&self) -> Result<TaskId, Refusal> {
        self.id("taskId")
    }

    pub(super) fn task_group_id(&self) -> Result<TaskId, Refusal> {
        self.id("taskGroupId")
    }

    fn id(&self, name: &str) -> Result<TaskId, Refusal> {
        TaskId::parse(self.text(name)).map_err(|_| unfit(name, "a slugid"))
    }

    pub(super) fn run(&self) -> Result<RunId, Refusal> {
        Ok(RunId { task_id: self.task_id()?, run_id: self.run_id()? })
    }

    pub(super) fn artifact(&self) -> Result<ArtifactName, Refusal> {
        let name = self.text("name");
        if !name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(unfit("name", "printable ASCII"));
        }
        ArtifactName::new(name).map_err(|error| {
            Refusal::new(Code::InvalidRequestArguments, format!("the parameter name must {error}"))
        })
    }

    fn run_id(&self) -> Result<u32, Refusal> {
        let text = self.text("runId");
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).ok_or_else(|| unfit("runId", "a number"))
    }

    /// As JSON, for a refusal's reply.
    pub(super) fn to_json(&self) -> Value {
        let members = self.0.iter().map(|(name, text)| ((*name).to_owned(), Value::String(text.clone())));
        Value::Object(members.collect::<Map<_, _>>())
    }
}

/// What the name of a worker, of its group or of half of its pool is.
pub(super) const WORD: &str = "1 to 38 letters, digits, - and _";

pub(super) fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=38).contains(&text.len()) && text.bytes().all(fits)
}

fn unfit(name: &str, wanted: &str) -> Refusal {
    Refusal::new(Code::InvalidRequestArguments, format!("the parameter {name} must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(verb: &Method, path: &str) -> Option<(Api, String)> {
        let (route, params) = find(verb, path)?;
        Some((route.api, params.to_json().to_string()))
    }

    #[test]
    fn a_path_names_a_method_and_its_parameters() {
        let id = "fN1SbArXTPSVFNUvaOlinQ";
        let run = format!("/api/queue/v1/task/{id}/runs/0");
        let artifact = format!(r#"{{"name":"public/a b","runId":"0","taskId":"{id}"}}"#);
        let cases = [
            (Method::GET, "/api/queue/v1/ping".to_owned(), Some((Api::Ping, "{}".to_owned()))),
            (
                Method::GET,
                format!("{run}/artifacts/public%2Fa%20b"),
                Some((Api::GetArtifact, artifact.clone())),
            ),
            (Method::PUT, format!("{run}/artifacts/public/a%20b"), Some((Api::FinishArtifact, artifact))),
            (Method::GET, format!("{run}/artifacts/"), None),
            (Method::GET, format!("{run}/artifacts/%FF"), None),
            (Method::DELETE, format!("{run}/artifacts/a"), None),
            (Method::POST, format!("{run}/claim/more"), None),
            (
                Method::POST,
                "/api/queue/v1/claim-work/p%2Ft".to_owned(),
                Some((Api::ClaimWork, r#"{"taskQueueId":"p/t"}"#.to_owned())),
            ),
            (
                Method::GET,
                "/api/queue/v1/task-queues/p/t/pending".to_owned(),
                Some((Api::ListPendingTasks, r#"{"taskQueueId":"p/t"}"#.to_owned())),
            ),
            (
                Method::GET,
                "/api/queue/v1/task-queues/p%2Ft/counts".to_owned(),
                Some((Api::TaskQueueCounts, r#"{"taskQueueId":"p/t"}"#.to_owned())),
            ),
            (Method::GET, "/api/queue/v1/task-queues/pending".to_owned(), None),
            (Method::GET, "/api/hooks/v1/ping".to_owned(), None),
            (Method::GET, "/ping".to_owned(), None),
            (Method::GET, "/page/tasks".to_owned(), Some((Api::RecentTasks, "{}".to_owned()))),
            (Method::GET, "/api/page/v1/tasks".to_owned(), None),
        ];
        for (verb, path, expected) in cases {
            assert_eq!(found(&verb, &path), expected, "{path}");
        }
    }

    #[test]
    fn parameters_are_what_their_names_say() {
        let of = |name, text: &str| Params(vec![(name, text.to_owned())]);
        for (name, text, fits) in [
            ("runId", "0", true),
            ("runId", "+1", false),
            ("runId", "4294967296", false),
            ("taskId", "fN1SbArXTPSVFNUvaOlinQ", true),
            ("taskId", "../../etc/passwd", false),
            ("taskQueueId", "p/t", true),
            ("taskQueueId", "p/t/u", false),
            ("taskQueueId", "p", false),
            ("workerPoolId", "p/", false),
            ("workerId", "w_1", true),
            ("workerId", "", false),
            ("workerGroup", "a/b", false),
        ] {
            assert_eq!(of(name, text).check().is_ok(), fits, "{name} {text}");
        }
        for name in ["../a", "/a", "a//b", "é", "a\nb"] {
            assert!(of("name", name).artifact().is_err(), "{name}");
        }
    }
}
