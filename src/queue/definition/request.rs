//! A definition as `createTask` takes it: complete, and within the bounds of the queue's schema.
//!
//! Source: `schemas/queue/v1/create-task-request.json`. What it leaves out gets the same defaults as in a file.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{TaskDefinition, fields};
use crate::document::finding::Findings;
use crate::document::reader::{Object, Place};
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

/// What must be there.
const REQUIRED: &[&str] = &["created", "deadline", "payload", "metadata"];
/// What must be there about it, and how many characters of it there may be.
const METADATA: &[(&str, usize)] = &[("name", 255), ("description", 32768), ("owner", 255), ("source", 4096)];
/// Characters of a tag.
const TAG_CHARS: usize = 4096;
/// How many elements lists may have.
const LISTS: &[(&str, usize)] = &[("dependencies", 10000), ("routes", 64)];
/// How the URL of a source may begin.
const SOURCES: &[&str] = &["https://", "http://", "ssh://", "git@"];

/// Letters that a word may have, and how many.
struct Word {
    key: &'static str,
    most: usize,
    others: &'static str,
}

const WORDS: &[Word] = &[
    Word { key: "provisionerId", most: 38, others: "-_" },
    Word { key: "workerType", most: 38, others: "-" },
    Word { key: "schedulerId", most: 38, others: "-_" },
    Word { key: "projectId", most: 500, others: "._/-" },
];

/// Reads a request.
pub(super) fn read(document: &Value, task_id: &TaskId, now: Timestamp) -> Result<TaskDefinition, Findings> {
    let mut findings = Findings::default();
    if let Some(object) = Place::root(document, "").object(&mut findings) {
        check(&object, &mut findings);
    }
    match fields::read(document, task_id, now, &mut findings) {
        Some(definition) if !findings.has_errors() => Ok(definition),
        _ => Err(findings),
    }
}

fn check(object: &Object<'_>, findings: &mut Findings) {
    for key in REQUIRED {
        object.required(key, findings);
    }
    let has = |key| object.member(key).is_some();
    if let Some(place) = object.member("taskQueueId")
        && !place.value.as_str().is_none_or(is_queue_id)
    {
        place.refuse("must be PROVISIONER/TYPE, the type in small letters, digits and -", findings);
    }
    let has_queue = has("taskQueueId") || (has("provisionerId") && has("workerType"));
    if !has_queue {
        findings.error("", "must have the field \"taskQueueId\", or \"provisionerId\" and \"workerType\"");
    }
    if let Some(metadata) = object.member("metadata").and_then(|place| place.object(findings)) {
        for (key, most) in METADATA {
            if let Some(place) = metadata.required(key, findings) {
                check_length(&place, *most, findings);
            }
        }
        check_source(&metadata, findings);
    }
    for word in WORDS {
        word.check(object, findings);
    }
    if let Some(tags) = object.member("tags").and_then(|place| place.object(findings)) {
        tags.members().for_each(|(_, place)| check_length(&place, TAG_CHARS, findings));
    }
    check_lists(object, findings);
    check_texts(object, findings);
}

fn check_length(place: &Place<'_>, most: usize, findings: &mut Findings) {
    if place.value.as_str().is_some_and(|text| text.chars().count() > most) {
        place.refuse(format!("must have at most {most} characters"), findings);
    }
}

/// Lists of bounded length, in which nothing comes twice.
fn check_lists(object: &Object<'_>, findings: &mut Findings) {
    for (key, most) in LISTS {
        let Some(place) = object.member(key) else { continue };
        let Value::Array(list) = place.value else { continue };
        let distinct: BTreeSet<&str> = list.iter().filter_map(Value::as_str).collect();
        if list.len() > *most {
            place.refuse(format!("must have at most {most} elements"), findings);
        } else if distinct.len() < list.iter().filter(|element| element.is_string()).count() {
            place.refuse("must not have an element twice", findings);
        }
    }
}

/// Whether a text is `PROVISIONER/TYPE`, as task queues and the pools of their workers are named.
pub(super) fn is_queue_id(text: &str) -> bool {
    let Some((provisioner, kind)) = text.split_once('/') else { return false };
    let is_short = |word: &str| (1..=38).contains(&word.len());
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_small = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    is_short(provisioner)
        && is_short(kind)
        && provisioner.bytes().all(is_word)
        && kind.bytes().all(is_small)
        && kind.starts_with(|first: char| first.is_ascii_lowercase())
        && !kind.ends_with('-')
}

fn check_source(metadata: &Object<'_>, findings: &mut Findings) {
    let Some(place) = metadata.member("source") else { return };
    let is_source = |text: &str| SOURCES.iter().any(|start| text.starts_with(start));
    if place.value.as_str().is_some_and(|text| !is_source(text)) {
        place.refuse("must be a URL of http, https or ssh", findings);
    }
}

/// Scopes and routes, whose letters and lengths are bounded.
fn check_texts(object: &Object<'_>, findings: &mut Findings) {
    let is_scope = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let is_route = |text: &str| (1..=249).contains(&text.len());
    let mut check = |key, fits: &dyn Fn(&str) -> bool, must: &str| {
        let Some(Value::Array(list)) = object.member(key).map(|place| place.value) else { return };
        for (index, text) in list.iter().enumerate() {
            if text.as_str().is_some_and(|text| !fits(text)) {
                findings.error(format!("/{key}/{index}"), must);
            }
        }
    };
    check("scopes", &is_scope, "must be printable ASCII");
    check("routes", &is_route, "must have 1 to 249 bytes");
}

impl Word {
    fn check(&self, object: &Object<'_>, findings: &mut Findings) {
        let Some(place) = object.member(self.key) else { return };
        let Some(text) = place.value.as_str() else { return };
        let fits = |letter: char| letter.is_ascii_alphanumeric() || self.others.contains(letter);
        if text.is_empty() || text.len() > self.most || !text.chars().all(fits) {
            let Word { most, others, .. } = self;
            place.refuse(format!("must be 1 to {most} letters, digits and {others}"), findings);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request() -> Value {
        json!({
            "taskQueueId": "p/t", "created": "2026-01-01T00:00:00Z", "deadline": "2026-01-02T00:00:00Z",
            "payload": {}, "metadata": {"name": "n", "description": "d", "owner": "o", "source": "https://x"}
        })
    }

    fn read_with(pointer: &str, value: Option<Value>) -> Result<TaskDefinition, Findings> {
        let mut request = request();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let members = request.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Some(value) => members.insert(key.to_owned(), value),
            None => members.remove(key),
        };
        read(&request, &TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").unwrap(), Timestamp::now())
    }

    #[test]
    fn a_request_is_complete_or_refused() {
        assert!(read_with("/tags", Some(json!({}))).is_ok());
        for pointer in [
            "/taskQueueId",
            "/created",
            "/deadline",
            "/payload",
            "/metadata",
            "/metadata/name",
            "/metadata/description",
            "/metadata/owner",
            "/metadata/source",
        ] {
            assert!(read_with(pointer, None).is_err(), "{pointer}");
        }
    }

    #[test]
    fn each_field_is_within_the_schemas_bounds() {
        for (pointer, value, fits) in [
            ("/workerType", json!("t"), true),
            ("/workerType", json!("t_u"), false),
            ("/provisionerId", json!("q"), false),
            ("/taskQueueId", json!("p"), false),
            ("/taskQueueId", json!("p/t/u"), false),
            ("/taskQueueId", json!("P_/t-1"), true),
            ("/taskQueueId", json!("p/T"), false),
            ("/taskQueueId", json!("p/1"), false),
            ("/taskQueueId", json!("p/t-"), false),
            ("/taskQueueId", json!(format!("p/{}", "t".repeat(39))), false),
            ("/schedulerId", json!(""), false),
            ("/schedulerId", json!("x".repeat(38)), true),
            ("/schedulerId", json!("x".repeat(39)), false),
            ("/projectId", json!("a:b"), false),
            ("/metadata/source", json!("javascript:x"), false),
            ("/scopes", json!(["a b"]), true),
            ("/scopes", json!(["a\nb"]), false),
            ("/routes", json!([""]), false),
            ("/routes", json!((0..64).map(|it| it.to_string()).collect::<Vec<_>>()), true),
            ("/routes", json!((0..65).map(|it| it.to_string()).collect::<Vec<_>>()), false),
            ("/routes", json!(["a", "a"]), false),
            ("/scopes", json!(["a", "a"]), true),
            ("/tags", json!({"a": "é".repeat(4096)}), true),
            ("/tags", json!({"a": "é".repeat(4097)}), false),
            ("/metadata/name", json!("x".repeat(255)), true),
            ("/metadata/name", json!("x".repeat(256)), false),
            ("/metadata/description", json!("x".repeat(32769)), false),
            ("/retries", json!(50), false),
            ("/payload", json!([]), false),
            ("/unknown", json!(1), false),
        ] {
            assert_eq!(read_with(pointer, Some(value.clone())).is_ok(), fits, "{pointer} {value}");
        }
    }
}
