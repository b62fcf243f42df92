use serde_json::json;

use super::*;
use crate::document::finding::Severity;

fn now() -> Timestamp {
    Timestamp::parse("2026-11-24T08:00:00Z").unwrap()
}

fn task_id() -> TaskId {
    TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").unwrap()
}

fn submit(document: &Value) -> Result<Submitted, DefinitionError> {
    Submission::parse(document.to_string().as_bytes()).unwrap().into_task(&task_id(), now())
}

#[test]
fn the_presence_of_payload_decides_what_a_document_is() {
    let task = json!({ "payload": { "image": "x" } });
    let payload = json!({ "image": "x" });
    assert_eq!(Submission::parse(task.to_string().as_bytes()).unwrap(), Submission::Task(task.clone()));
    assert_eq!(
        Submission::parse(payload.to_string().as_bytes()).unwrap(),
        Submission::BarePayload(payload.clone())
    );
    for document in [task, payload.clone()] {
        assert_eq!(Submission::parse(document.to_string().as_bytes()).unwrap().payload(), &payload);
    }
}

#[test]
fn a_bare_payload_gets_all_scopes_and_a_year() {
    let submitted = submit(&json!({ "image": "x" })).unwrap();
    let task = submitted.definition;
    assert_eq!(task.scopes, ["*"]);
    assert_eq!(task.expires.to_string(), "2027-11-24T08:00:00.000Z");
    assert_eq!(task.task_queue_id, "local/docker-worker");
    assert_eq!(task.task_group_id, task_id());
    assert!(task.deadline > now() && task.deadline < task.expires);
    assert_eq!((submitted.payload_pointer, submitted.warnings.len()), ("", 0));
}

#[test]
fn a_bare_payload_expires_with_its_latest_artifact_when_that_is_later() {
    let cases = [
        (vec!["2026-12-01T00:00:00Z"], "2027-11-24T08:00:00.000Z"),
        (vec!["2030-01-01T00:00:00Z", "2029-01-01T00:00:00Z"], "2030-01-01T00:00:00.000Z"),
        (vec!["not a date", "2030-01-01T00:00:00+01:00"], "2029-12-31T23:00:00.000Z"),
    ];
    for (expiries, expected) in cases {
        let artifacts: Map<String, Value> = expiries
            .iter()
            .enumerate()
            .map(|(index, expires)| (index.to_string(), json!({ "expires": expires })))
            .collect();
        let submitted = submit(&json!({ "image": "x", "artifacts": artifacts })).unwrap();
        assert_eq!(submitted.definition.expires.to_string(), expected, "{expiries:?}");
    }
}

#[test]
fn a_definition_keeps_what_it_says() {
    let document = json!({
        "provisionerId": "proj-x", "workerType": "ci", "taskQueueId": "proj-x/ci",
        "schedulerId": "s", "projectId": "p", "taskGroupId": "VFNUvaOlS6mRTtq1bArXTA",
        "dependencies": [], "requires": "all-resolved", "routes": ["r"], "priority": "very-high", "retries": 2,
        "created": "2026-11-24T07:00:00.000Z", "deadline": "2026-11-24T09:00:00.000Z",
        "expires": "2026-12-24T07:00:00.000Z",
        "scopes": ["docker-worker:cache:a"], "payload": { "image": "x", "unknown": 1.50 },
        "metadata": { "name": "n", "description": "d", "owner": "o@example.com", "source": "https://example.com" },
        "tags": { "a": "b" }, "extra": { "c": [1] },
    });
    let submitted = submit(&document).unwrap();
    assert_eq!(serde_json::to_value(&submitted.definition).unwrap(), document);
    assert_eq!(serde_json::from_value::<TaskDefinition>(document).unwrap(), submitted.definition);
    assert_eq!((submitted.payload_pointer, submitted.warnings), ("/payload", vec![]));
}

#[test]
fn a_definition_without_times_or_queue_gets_them_but_no_scopes() {
    let task = submit(&json!({ "payload": {} })).unwrap().definition;
    assert_eq!(task.scopes, Vec::<String>::new());
    assert_eq!(task.created, now());
    assert_eq!(task.deadline.to_string(), "2026-11-25T08:00:00.000Z");
    assert_eq!(task.expires.to_string(), "2027-11-25T08:00:00.000Z");
    assert_eq!((task.task_queue_id.as_str(), task.retries), ("local/docker-worker", 5));
    assert_eq!(submit(&json!({ "payload": {}, "taskQueueId": "a/b" })).unwrap().definition.worker_type, "b");
}

#[test]
fn a_definition_from_yesterday_runs_with_a_new_deadline_and_no_dependencies() {
    let submitted = submit(&json!({
        "payload": {}, "dependencies": ["VFNUvaOlS6mRTtq1bArXTA"],
        "created": "2025-01-01T00:00:00Z", "deadline": "2025-01-01T02:00:00Z", "expires": "2025-02-01T00:00:00Z",
    }))
    .unwrap();
    let task = submitted.definition;
    assert_eq!(task.deadline.to_string(), "2026-11-24T10:00:00.000Z");
    assert!(task.expires > task.deadline && task.dependencies.is_empty());
    let pointers: Vec<_> = submitted.warnings.iter().map(|finding| finding.pointer.as_str()).collect();
    assert_eq!(pointers, ["/dependencies", "/deadline", "/expires"]);
    assert!(submitted.warnings.iter().all(|finding| finding.severity == Severity::Warning));
}

#[test]
fn everything_wrong_with_a_definition_is_said_at_once() {
    let error = submit(&json!({
        "payload": [], "scope": ["x"], "priority": "hihg", "retries": 50, "deadline": "soon", "taskGroupId": "x",
        "dependencies": [7], "tags": { "a": 1 }, "taskQueueId": "a/b", "workerType": "c", "metadata": { "nam": "" },
        "extra": null,
    }))
    .unwrap_err();
    let found: Vec<_> = error
        .findings
        .iter()
        .map(|finding| (finding.pointer.as_str(), finding.message.as_str(), finding.hint.as_deref()))
        .collect();
    let expected = [
        ("/scope", "\"scope\" is not a field that exists here", Some("did you mean \"scopes\"?")),
        ("/taskQueueId", "must be provisionerId and workerType, joined by a slash", None),
        ("/deadline", "\"soon\" is not a date and time", Some("write it as 2020-03-01T12:00:00.000Z")),
        ("/taskGroupId", "\"x\" is not a task id", None),
        ("/dependencies/0", "must be a string, not a number", Some("put it in quotes")),
        ("/priority", "\"hihg\" is not a word that exists here", Some("did you mean \"high\"?")),
        ("/retries", "must be from 0 to 49", None),
        ("/payload", "must be an object, not a list", None),
        ("/metadata/nam", "\"nam\" is not a field that exists here", Some("did you mean \"name\"?")),
        ("/tags/a", "must be a string, not a number", Some("put it in quotes")),
        ("/extra", "must be an object, not null", Some("leave the field out")),
    ];
    assert_eq!(found, expected);
    let sentence = error.to_string();
    assert!(sentence.starts_with("accept the task definition: /scope: "), "{sentence}");
}
