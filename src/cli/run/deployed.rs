//! A task of a deployment, for a run here: its definition, and what its roles let it do. The deployment is only read.

use std::env;

use serde_json::{Value, json};

use super::MALFORMED;
use crate::cli::environment;
use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::cli::{HOST_UNFIT, WRONG_USE};
use crate::queue::definition::Submission;
use crate::queue::task_id::TaskId;
use crate::queue::{Credentials, QueueError, TaskReader};
use crate::standalone::RootUrl;
use crate::text::{chain, escaped};

/// What a scope begins with that stands for a role's.
const ROLE: &str = "assume:";

/// Fetches the definition of a task, with the credentials of the environment if there are such. A signal ends the process
/// meanwhile, as nobody listens for it yet.
///
/// # Errors
///
/// The deployment does not give it out, within a minute, or gives out what is no definition.
pub(super) fn fetch(
    root_url: &RootUrl,
    task_id: &TaskId,
    operator: &Operator,
) -> Result<Submission, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Refusal::new(HOST_UNFIT, format!("failed to start: {error}")))?;
    let credentials = credentials_of_environment();
    let is_signed = credentials.is_some();
    let fetched = runtime.block_on(async {
        let reader = TaskReader::new(root_url.as_str(), credentials)?;
        let definition = reader.definition(task_id).await?;
        Ok((reader, definition))
    });
    let (reader, definition) = match fetched {
        Ok(fetched) => fetched,
        Err(error) => {
            // The name of the deployment's host may still be asked for, for longer than anybody waits.
            runtime.shutdown_background();
            return Err(refused((root_url, task_id), &error, is_signed));
        }
    };
    let mut submission = Submission::parse_task(definition.get().as_bytes())
        .map_err(|error| Refusal::because(MALFORMED, &error))?;
    if let Submission::Task(document) = &mut submission {
        runtime.block_on(add_roles(document, &reader, operator));
    }
    // Its end is that of its threads: what follows has to be done while there is only one.
    drop(runtime);
    Ok(submission)
}

/// The deployment, for what the task needs of it while it runs here.
///
/// # Errors
///
/// [`QueueError::Internal`] for what is no root URL or no credentials.
pub(super) fn reader(root_url: &RootUrl) -> Result<TaskReader, QueueError> {
    TaskReader::new(root_url.as_str(), credentials_of_environment())
}

fn credentials_of_environment() -> Option<Credentials> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    Some(Credentials {
        client_id: variable("TASKCLUSTER_CLIENT_ID")?,
        access_token: variable("TASKCLUSTER_ACCESS_TOKEN")?,
        certificate: variable("TASKCLUSTER_CERTIFICATE"),
    })
}

/// What a deployment, or what has answered in its place, has to do with it that there is no task.
fn refused((root_url, task_id): (&RootUrl, &TaskId), error: &QueueError, is_signed: bool) -> Refusal {
    let sentence = match error {
        QueueError::NotFound { .. } => format!(
            "{root_url} has no task {task_id}, or has it no more; check --task-id and the deployment's URL"
        ),
        QueueError::Unauthenticated { because, .. } | QueueError::Unauthorized { because, .. } => {
            let remedy = if is_signed {
                "TASKCLUSTER_CLIENT_ID, TASKCLUSTER_ACCESS_TOKEN and TASKCLUSTER_CERTIFICATE have to be those of a client that may read the task, or left out if everybody may"
            } else {
                "set TASKCLUSTER_CLIENT_ID and TASKCLUSTER_ACCESS_TOKEN of a client that may read the task"
            };
            format!("{root_url} does not give out task {task_id}: {}; {remedy}", escaped(because))
        }
        QueueError::Foreign { because, .. } => format!(
            "what answers at {root_url} is no Taskcluster deployment, or one that is out of order: {}; check its URL{}",
            escaped(because),
            if root_url.as_str().starts_with("http:") { ", which most often begins with https" } else { "" }
        ),
        QueueError::Unreachable { source, .. } => format!(
            "no answer comes from {root_url}: {}; check its URL and the network{}, or try again later",
            escaped(&chain(source.as_ref())),
            by_proxies(&environment::proxies())
        ),
        QueueError::Conflict { .. }
        | QueueError::Invalid { .. }
        | QueueError::NoContent { .. }
        | QueueError::Internal { .. } => format!(
            "failed to fetch task {task_id} from {root_url}: {}; check its URL, or try again later",
            escaped(&chain(error))
        ),
    };
    Refusal::new(WRONG_USE, sentence)
}

/// What else may be in the way of a call.
fn by_proxies(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(", and the proxy that the environment names ({})", names.join(", "))
}

/// Writes the scopes of a task's roles beside its own: here nobody knows of roles.
async fn add_roles(document: &mut Value, reader: &TaskReader, operator: &Operator) {
    let scopes: Option<Vec<String>> =
        document.get("scopes").and_then(|scopes| serde_json::from_value(scopes.clone()).ok());
    // What is no list of texts is found with everything else that is wrong.
    let Some(own) = scopes.filter(|scopes| scopes.iter().any(|scope| scope.starts_with(ROLE))) else {
        return;
    };
    match (reader.expand_scopes(&own).await, document.get_mut("scopes")) {
        (Ok(expanded), Some(scopes)) => *scopes = json!(expanded),
        (Err(error), _) => operator.note(&format!(
            "the task has its own scopes only, not those of its roles: failed to {}",
            escaped(&chain(&error))
        )),
        (Ok(_), None) => {}
    }
}
