//! Which method of which service a request is for.

mod table;

use hyper::Method;

use self::table::{PAGE, ROUTES};
use super::params::Params;

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Ping,
    Task,
    Status,
    CreateTask,
    Tasks,
    Statuses,
    ChangeTaskPriority,
    ChangeTaskGroupPriority,
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
    DiskUse,
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
    here.filter_map(move |route| Some((route, Params::of(route.path, &parts)?)))
}

impl Route {
    /// Whether its payload may be large: a task, the scopes of one, or the ids of many.
    pub(super) fn takes_much(&self) -> bool {
        matches!(
            self.api,
            Api::CreateTask
                | Api::Tasks
                | Api::Statuses
                | Api::ExpandScopes
                | Api::ValidateTask
                | Api::InsertTask
                | Api::SetSecret
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
            Api::Tasks
                | Api::Statuses
                | Api::ListArtifacts
                | Api::ListLatestArtifacts
                | Api::ListDependentTasks
                | Api::ListTaskGroup
                | Api::ListPendingTasks
                | Api::ListClaimedTasks
                | Api::RecentTasks
                | Api::ListSecrets
        )
    }
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
}
