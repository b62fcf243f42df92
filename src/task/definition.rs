//! A task definition, or a bare payload, as somebody hands it to us: bytes of JSON or YAML.
//!
//! Which of the two it is, the presence of the field `payload` decides. A definition keeps its scopes and its expiry;
//! a bare payload runs with all scopes, for whoever may start `docker-worker run` is root on this host anyway.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::finding::Finding;
use super::task_id::TaskId;
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

/// What was handed in.
#[derive(Clone, Debug, PartialEq)]
pub enum Submission {
    /// A task definition.
    Task(Box<TaskDefinition>),
    /// A payload and nothing else.
    BarePayload(Value),
}

/// A task ready for a queue, and what its author should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// A fresh id.
    pub task_id: TaskId,
    /// The definition, complete.
    pub definition: TaskDefinition,
    /// Warnings only; pointers into the document that was handed in.
    pub warnings: Vec<Finding>,
}
