//! What went over the wire in tests, and what was recorded of the real services, held against the API references and JSON
//! schemas of Taskcluster: `make check-api REFERENCES=FILE`, which says with the variables `REFERENCES` and `EXCHANGES`
//! where both are.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod references;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use self::references::References;

/// What the worker and those who make tasks for it ask: each has to have been asked, and carried out.
const ASKED: &[&str] = &[
    "queue createTask",
    "queue cancelTask",
    "queue claimWork",
    "queue reclaimTask",
    "queue status",
    "queue reportCompleted",
    "queue reportFailed",
    "queue reportException",
    "queue createArtifact",
    "queue finishArtifact",
    "queue listLatestArtifacts",
    "queue getLatestArtifact",
    "queue getWorker",
    "purge-cache purgeRequests",
    "object createUpload",
    "object finishUpload",
];

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run make check-api REFERENCES=FILE"))
}

fn references() -> References {
    let path = variable("REFERENCES");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{path} cannot be read: {error}"));
    References::read(&text).unwrap_or_else(|error| panic!("{path} {error}"))
}

/// Fails with all that deviates.
fn assert_none(deviations: &[String]) {
    assert!(deviations.is_empty(), "{} deviations:\n{}", deviations.len(), deviations.join("\n"));
}

#[test]
fn what_went_over_the_wire_is_as_the_references_say() {
    let references = references();
    let (mut held, mut deviations) = (BTreeMap::<String, usize>::new(), Vec::new());
    for entry in fs::read_dir(variable("EXCHANGES")).unwrap() {
        let exchanges: Vec<Value> =
            serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        for exchange in exchanges {
            let request = exchange["request"].as_str().unwrap();
            let status = exchange["status"].as_u64().unwrap();
            match references.exchange(request, &exchange["payload"], status, &exchange["reply"]) {
                Ok(method) if status < 400 => *held.entry(method).or_default() += 1,
                Ok(_) => {}
                Err(deviation) => deviations.push(format!("{request}, answered {status}: {deviation}")),
            }
        }
    }
    deviations.sort();
    deviations.dedup();
    for (method, times) in &held {
        println!("{times:6} {method}");
    }
    assert_none(&deviations);
    let never: Vec<_> = ASKED.iter().filter(|method| !held.contains_key(**method)).collect();
    assert!(never.is_empty(), "no test has asked for {never:?}, or the references do not have it");
}

#[test]
fn what_the_real_services_answered_is_as_the_references_say() {
    let references = references();
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/recorded.json");
    let answers: Vec<Value> = serde_json::from_slice(&fs::read(recorded).unwrap()).unwrap();
    assert!(answers.len() > 100, "{} answers", answers.len());
    let mut deviations = Vec::new();
    for mut answer in answers {
        restore(&mut answer["body"], &mut 0);
        let call = answer["call"].as_str().unwrap().to_owned();
        let method = call.split(' ').next().unwrap();
        let reply = references.reply(method, answer["status"].as_u64().unwrap(), &answer["body"]);
        deviations.extend(reply.err().map(|deviation| format!("{call}: {deviation}")));
    }
    assert_none(&deviations);
}

/// Puts something of its kind where the recording has left out what differs each time. `others` counts the tasks of which
/// the recording only says that they are none of those that have a name.
fn restore(value: &mut Value, others: &mut u32) {
    let (task_id, time) = (json!("fN1SbArXTPSVFNUvaOlinQ"), json!("2026-01-01T00:00:00.000Z"));
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match (key.as_str(), member.as_str()) {
                    // What createUpload answers has an object of this name, what createArtifact answers a text.
                    ("putUrl", Some("<putUrl>")) => *member = json!("https://example.com/"),
                    ("uploadMethod", None) if member["putUrl"] == "<putUrl>" => {
                        let url = "https://example.com/";
                        member["putUrl"] = json!({ "url": url, "expires": time, "headers": {} });
                    }
                    _ => restore(member, others),
                }
            }
        }
        Value::Array(members) => members.iter_mut().for_each(|member| restore(member, others)),
        Value::String(text) => match text.as_str() {
            "<time>" => *value = time,
            "<task>" | "<taskGroupId>" | "<uploadId>" => *value = task_id,
            "<url>" => *value = json!("https://example.com/"),
            "<uptime>" => *value = json!(1.5),
            "<other>" => {
                *others += 1;
                *value = json!(format!("{others:08}TPSVFNUvaOlinQ"));
            }
            _ => *text = text.replace("<task>", task_id.as_str().unwrap()).replace("<type>", "type"),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
