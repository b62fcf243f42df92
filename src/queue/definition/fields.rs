//! The fields of a task definition, all findings at once.
//!
//! Source: `schemas/queue/v1/create-task-request.json`. What the schema requires and a file for `docker-worker run`
//! may leave out (times, metadata, the task queue) gets a default.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::document::finding::Findings;
use crate::document::reader::{Object, Place};
use crate::queue::definition::{LOCAL_QUEUE, Metadata, Priority, Requires, TaskDefinition, YEAR};
use crate::queue::task_id::TaskId;
use crate::suggestion::did_you_mean;
use crate::text::excerpt;
use crate::timestamp::Timestamp;

const FIELDS: &[&str] = &[
    "provisionerId",
    "workerType",
    "taskQueueId",
    "schedulerId",
    "projectId",
    "taskGroupId",
    "dependencies",
    "requires",
    "routes",
    "priority",
    "retries",
    "created",
    "deadline",
    "expires",
    "scopes",
    "payload",
    "metadata",
    "tags",
    "extra",
];
/// How long a task without a deadline has.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);
const MOST_RETRIES: u32 = 49;

/// Reads a definition. There is one exactly when no finding is an error.
pub(super) fn read(
    document: &Value,
    task_id: &TaskId,
    now: Timestamp,
    findings: &mut Findings,
) -> Option<TaskDefinition> {
    let object = Place::root(document, "").object(findings)?;
    object.refuse_unknown(FIELDS, findings);
    let (provisioner_id, worker_type) = read_queue(&object, findings);
    let created = time(&object, "created", findings).unwrap_or(now);
    let deadline = time(&object, "deadline", findings).unwrap_or_else(|| created.plus(DEFAULT_DEADLINE));
    let expires = time(&object, "expires", findings).unwrap_or_else(|| deadline.plus(YEAR));
    let definition = TaskDefinition {
        task_queue_id: format!("{provisioner_id}/{worker_type}"),
        provisioner_id,
        worker_type,
        scheduler_id: text(&object, "schedulerId", findings).unwrap_or_else(|| "-".to_owned()),
        project_id: text(&object, "projectId", findings).unwrap_or_else(|| "none".to_owned()),
        task_group_id: id(&object, "taskGroupId", findings).unwrap_or_else(|| task_id.clone()),
        dependencies: ids(&object, "dependencies", findings),
        requires: word(&object, "requires", REQUIRES, findings).unwrap_or(Requires::AllCompleted),
        routes: texts(&object, "routes", findings),
        priority: word(&object, "priority", PRIORITIES, findings).unwrap_or(Priority::Lowest),
        retries: read_retries(&object, findings),
        created,
        deadline,
        expires,
        scopes: texts(&object, "scopes", findings),
        payload: read_payload(&object, findings),
        metadata: read_metadata(&object, findings),
        tags: read_tags(&object, findings),
        extra: read_extra(&object, findings),
    };
    (!findings.has_errors()).then_some(definition)
}

const REQUIRES: &[(&str, Requires)] =
    &[("all-completed", Requires::AllCompleted), ("all-resolved", Requires::AllResolved)];

const PRIORITIES: &[(&str, Priority)] = &[
    ("highest", Priority::Highest),
    ("very-high", Priority::VeryHigh),
    ("high", Priority::High),
    ("medium", Priority::Medium),
    ("low", Priority::Low),
    ("very-low", Priority::VeryLow),
    ("lowest", Priority::Lowest),
    // Until 2018 this was the name of the lowest.
    ("normal", Priority::Lowest),
];

/// The task queue, named as one or in its two halves.
fn read_queue(object: &Object<'_>, findings: &mut Findings) -> (String, String) {
    let whole = text(object, "taskQueueId", findings);
    let provisioner_id = text(object, "provisionerId", findings);
    let worker_type = text(object, "workerType", findings);
    let (local_provisioner, local_type) = LOCAL_QUEUE;
    let Some(whole) = whole else {
        return (
            provisioner_id.unwrap_or_else(|| local_provisioner.to_owned()),
            worker_type.unwrap_or_else(|| local_type.to_owned()),
        );
    };
    let Some((first, second)) = whole.split_once('/') else {
        findings.error("/taskQueueId", "must be PROVISIONER/TYPE");
        return (String::new(), String::new());
    };
    let differs = |half: Option<String>, expected: &str| half.is_some_and(|half| half != expected);
    if differs(provisioner_id, first) || differs(worker_type, second) {
        findings.error("/taskQueueId", "must be provisionerId and workerType, joined by a slash");
    }
    (first.to_owned(), second.to_owned())
}

fn read_retries(object: &Object<'_>, findings: &mut Findings) -> u32 {
    let Some(place) = object.member("retries") else { return 5 };
    let Some(number) = place.integer(findings) else { return 0 };
    match u32::try_from(number) {
        Ok(retries) if retries <= MOST_RETRIES => retries,
        _ => {
            place.refuse(format!("must be from 0 to {MOST_RETRIES}"), findings);
            0
        }
    }
}

/// The payload itself is judged when the task runs; here it only has to be an object.
fn read_payload(object: &Object<'_>, findings: &mut Findings) -> Value {
    let Some(place) = object.required("payload", findings) else { return Value::Null };
    if place.object(findings).is_some() { place.value.clone() } else { Value::Null }
}

fn read_metadata(object: &Object<'_>, findings: &mut Findings) -> Metadata {
    let Some(metadata) = object.member("metadata").and_then(|place| place.object(findings)) else {
        return Metadata::default();
    };
    metadata.refuse_unknown(&["name", "description", "owner", "source"], findings);
    let mut field = |key| text(&metadata, key, findings).unwrap_or_default();
    Metadata {
        name: field("name"),
        description: field("description"),
        owner: field("owner"),
        source: field("source"),
    }
}

fn read_tags(object: &Object<'_>, findings: &mut Findings) -> BTreeMap<String, String> {
    let Some(tags) = object.member("tags").and_then(|place| place.object(findings)) else {
        return BTreeMap::new();
    };
    tags.members()
        .filter_map(|(name, place)| Some((name.to_owned(), place.string(findings)?.to_owned())))
        .collect()
}

fn read_extra(object: &Object<'_>, findings: &mut Findings) -> Map<String, Value> {
    let Some(place) = object.member("extra") else { return Map::new() };
    place.object(findings);
    place.value.as_object().cloned().unwrap_or_default()
}

fn text(object: &Object<'_>, key: &str, findings: &mut Findings) -> Option<String> {
    object.member(key).and_then(|place| place.string(findings)).map(str::to_owned)
}

fn texts(object: &Object<'_>, key: &str, findings: &mut Findings) -> Vec<String> {
    let list = object.member(key).and_then(|place| place.list(findings)).unwrap_or_default();
    list.iter().filter_map(|place| place.string(findings)).map(str::to_owned).collect()
}

fn id(object: &Object<'_>, key: &str, findings: &mut Findings) -> Option<TaskId> {
    object.member(key).and_then(|place| parse_id(&place, findings))
}

fn ids(object: &Object<'_>, key: &str, findings: &mut Findings) -> Vec<TaskId> {
    let list = object.member(key).and_then(|place| place.list(findings)).unwrap_or_default();
    list.iter().filter_map(|place| parse_id(place, findings)).collect()
}

fn parse_id(place: &Place<'_>, findings: &mut Findings) -> Option<TaskId> {
    let text = place.string(findings)?;
    TaskId::parse(text)
        .map_err(|_| place.refuse(format!("\"{}\" is not a task id", excerpt(text)), findings))
        .ok()
}

fn time(object: &Object<'_>, key: &str, findings: &mut Findings) -> Option<Timestamp> {
    let place = object.member(key)?;
    place.time(findings)
}

fn word<T: Copy>(object: &Object<'_>, key: &str, words: &[(&str, T)], findings: &mut Findings) -> Option<T> {
    let place = object.member(key)?;
    let text = place.string(findings)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        place.refuse(format!("\"{}\" is not a word that exists here", excerpt(text)), findings);
        findings.hint(did_you_mean(text, &known));
    }
    found
}
