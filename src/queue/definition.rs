//! A task definition, or a bare payload, as somebody hands it to us: bytes of JSON or YAML.
//!
//! Which of the two it is, the presence of the field `payload` decides. A definition keeps its scopes and its expiry;
//! a bare payload runs with all scopes, for whoever may start `docker-worker run` is root on this host anyway.

mod fields;
mod request;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::document::DocumentError;

use crate::document::finding::{Finding, Findings};
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

/// A task as the queue knows it: `schemas/queue/v1/task.json`, all defaults written out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskDefinition {
    /// The first half of the task queue's id.
    pub provisioner_id: String,
    /// Its second half.
    pub worker_type: String,
    /// `<provisionerId>/<workerType>`.
    pub task_queue_id: String,
    /// Who schedules it.
    pub scheduler_id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Its group; by default its own id.
    pub task_group_id: TaskId,
    /// Tasks that must be resolved before.
    pub dependencies: Vec<TaskId>,
    /// How they must be resolved.
    pub requires: Requires,
    /// Routing keys.
    pub routes: Vec<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// How many runs may be lost before it is given up.
    pub retries: u32,
    /// When it was made.
    pub created: Timestamp,
    /// When it must be resolved.
    pub deadline: Timestamp,
    /// When it may be forgotten, and its artifacts with it.
    pub expires: Timestamp,
    /// What it may do.
    pub scopes: Vec<String>,
    /// What the worker is to do; as received, so that an attestation can show it unchanged (O21).
    pub payload: Value,
    /// For people.
    pub metadata: Metadata,
    /// For people and programs.
    pub tags: BTreeMap<String, String>,
    /// For programs.
    pub extra: Map<String, Value>,
}

/// How the dependencies of a task must be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requires {
    /// All of them completed.
    AllCompleted,
    /// All of them resolved, however.
    AllResolved,
}

/// How urgent a task is, the least urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// The default.
    Lowest,
    /// Above lowest.
    VeryLow,
    /// Above very low.
    Low,
    /// Above low.
    Medium,
    /// Above medium.
    High,
    /// Above high.
    VeryHigh,
    /// Before everything else.
    Highest,
}

impl Priority {
    /// All of them, the least urgent first.
    pub const ALL: &[Priority] = &[
        Priority::Lowest,
        Priority::VeryLow,
        Priority::Low,
        Priority::Medium,
        Priority::High,
        Priority::VeryHigh,
        Priority::Highest,
    ];

    /// The queue's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Lowest => "lowest",
            Priority::VeryLow => "very-low",
            Priority::Low => "low",
            Priority::Medium => "medium",
            Priority::High => "high",
            Priority::VeryHigh => "very-high",
            Priority::Highest => "highest",
        }
    }
}

impl TaskDefinition {
    /// Reads what somebody asks a queue to make, and leaves nothing to be guessed.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; pointers into the document.
    pub fn requested(document: &Value, task_id: &TaskId, now: Timestamp) -> Result<TaskDefinition, Findings> {
        request::read(document, task_id, now)
    }
}

/// Whether a text is `PROVISIONER/TYPE`, as task queues and the pools of their workers are named.
#[must_use]
pub fn is_queue_id(text: &str) -> bool {
    request::is_queue_id(text)
}

/// What a task says about itself to people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// A title.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Whom to ask, an e-mail address.
    pub owner: String,
    /// Where it was defined, a URL.
    pub source: String,
}

/// Where a task goes that does not say where: the two halves of the local task queue's id.
const LOCAL_QUEUE: (&str, &str) = ("local", "docker-worker");
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The longest that the queue lets a deadline lie ahead.
const LONGEST_DEADLINE: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// What was handed in: an object, not judged yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Submission {
    /// It has a field `payload`: a task definition.
    Task(Value),
    /// A payload and nothing else.
    BarePayload(Value),
}

/// A task ready for a queue, and what its author should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// The definition, complete.
    pub definition: TaskDefinition,
    /// Where the payload is in the document that was handed in: `/payload`, or empty. For
    /// [`TaskContext::pointer`](super::payload::TaskContext::pointer).
    pub payload_pointer: &'static str,
    /// Warnings only; pointers into the document that was handed in.
    pub warnings: Vec<Finding>,
}

/// A task definition that no queue would take.
#[derive(Debug, thiserror::Error)]
#[error("accept the task definition: {}", join(.findings))]
pub struct DefinitionError {
    /// What is wrong, warnings included; pointers into the document that was handed in.
    pub findings: Vec<Finding>,
}

impl Submission {
    /// Reads JSON or YAML and sees which of the two it is.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for what is no object in either language, or goes beyond a bound.
    pub fn parse(bytes: &[u8]) -> Result<Submission, DocumentError> {
        let document = crate::document::read(bytes)?;
        let is_task = document.get("payload").is_some();
        Ok(if is_task { Submission::Task(document) } else { Submission::BarePayload(document) })
    }

    /// Reads a document that can be nothing but a task definition. One without a payload is none, and no payload either,
    /// which would have all scopes.
    ///
    /// # Errors
    ///
    /// As of [`Submission::parse`].
    pub fn parse_task(bytes: &[u8]) -> Result<Submission, DocumentError> {
        crate::document::read(bytes).map(Submission::Task)
    }

    /// The payload, unchecked.
    #[must_use]
    pub fn payload(&self) -> &Value {
        match self {
            Submission::Task(document) => document.get("payload").unwrap_or(&Value::Null),
            Submission::BarePayload(payload) => payload,
        }
    }

    /// Makes a task of it that can run here and now. The payload is not judged: that is the claimed task's first step.
    ///
    /// # Errors
    ///
    /// [`DefinitionError`] with everything that is wrong with a definition.
    pub fn into_task(self, task_id: &TaskId, now: Timestamp) -> Result<Submitted, DefinitionError> {
        match self {
            Submission::Task(document) => {
                let mut findings = Findings::default();
                let definition = fields::read(&document, task_id, now, &mut findings);
                let definition =
                    definition.map(|definition| run_alone_and_now(definition, now, &mut findings));
                let findings = findings.into_list();
                let Some(definition) = definition else { return Err(DefinitionError { findings }) };
                Ok(Submitted { definition, payload_pointer: "/payload", warnings: findings })
            }
            Submission::BarePayload(payload) => Ok(Submitted {
                definition: wrap(payload, task_id, now),
                payload_pointer: "",
                warnings: Vec::new(),
            }),
        }
    }
}

/// A definition from elsewhere, for a run here: nobody resolves its dependencies, and it may be from yesterday.
fn run_alone_and_now(mut task: TaskDefinition, now: Timestamp, findings: &mut Findings) -> TaskDefinition {
    if !task.dependencies.is_empty() {
        task.dependencies.clear();
        findings.warning("/dependencies", "are not waited for: the task runs at once");
    }
    if task.deadline <= now {
        let time = task.deadline.since(task.created).clamp(Duration::from_secs(60), LONGEST_DEADLINE);
        task.created = now;
        task.deadline = now.plus(time);
        findings.warning("/deadline", format!("has passed; the task runs with a new one, {}", task.deadline));
    }
    if task.expires <= task.deadline {
        task.expires = task.deadline.plus(YEAR);
        findings.warning("/expires", format!("is not after the deadline; the task expires {}", task.expires));
    }
    task
}

/// The task around a bare payload: all scopes, and an expiry that suits every artifact.
fn wrap(payload: Value, task_id: &TaskId, now: Timestamp) -> TaskDefinition {
    let (provisioner_id, worker_type) = LOCAL_QUEUE;
    let expires = latest_artifact_expiry(&payload).max(Some(now.plus(YEAR)));
    TaskDefinition {
        provisioner_id: provisioner_id.to_owned(),
        worker_type: worker_type.to_owned(),
        task_queue_id: format!("{provisioner_id}/{worker_type}"),
        scheduler_id: "-".to_owned(),
        project_id: "none".to_owned(),
        task_group_id: task_id.clone(),
        dependencies: Vec::new(),
        requires: Requires::AllCompleted,
        routes: Vec::new(),
        priority: Priority::Lowest,
        retries: 5,
        created: now,
        deadline: now.plus(LONGEST_DEADLINE),
        expires: expires.unwrap_or(now),
        scopes: vec!["*".to_owned()],
        payload,
        metadata: Metadata::default(),
        tags: BTreeMap::new(),
        extra: Map::new(),
    }
}

/// The latest expiry that a payload names; what is no time is found later.
fn latest_artifact_expiry(payload: &Value) -> Option<Timestamp> {
    let artifacts = payload.get("artifacts")?.as_object()?;
    artifacts.values().filter_map(|entry| Timestamp::parse(entry.get("expires")?.as_str()?).ok()).max()
}

fn join(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests;
