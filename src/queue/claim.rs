//! What a claim brings: one run of one task.
//!
//! The definition stays exactly as the queue sent it (O21: an attestation shows it so) and is read by whoever carries out
//! the run. So a task of an odd age is that task's problem, and no other's that came with the same reply.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::queue::QueueError;
use crate::queue::run_queue::RunQueue;
use crate::timestamp::Timestamp;

/// A task that is now this worker's.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Where everything about the run is said, and which run it is.
    pub queue: RunQueue,
    /// Until when, unless it is reclaimed.
    pub taken_until: Timestamp,
    /// When it has to be resolved.
    pub deadline: Timestamp,
    /// When the task may be forgotten, and its artifacts with it.
    pub expires: Timestamp,
    /// What is to be done.
    pub definition: ReceivedDefinition,
}

/// What a queue has given out.
#[derive(Debug, Default)]
pub struct ClaimedWork {
    /// The tasks that are now this worker's.
    pub claims: Vec<Claim>,
    /// Why others, which it has given out too, are none: nobody reports them, and their claims expire.
    pub unreadable: Vec<QueueError>,
}

/// A task definition as the queue sent it, byte for byte.
#[derive(Clone, Debug)]
pub struct ReceivedDefinition(Arc<RawValue>);

/// What a worker needs of a task definition.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Task {
    /// What the task may do.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What the worker is to do, unchecked.
    pub payload: Value,
}

impl ReceivedDefinition {
    pub(super) fn new(text: Box<RawValue>) -> ReceivedDefinition {
        ReceivedDefinition(text.into())
    }

    /// The JSON.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// When the task was made, where it says so.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        #[derive(Deserialize)]
        struct Made {
            created: Timestamp,
        }
        serde_json::from_str::<Made>(self.text()).ok().map(|made| made.created)
    }

    /// What is to be done.
    ///
    /// # Errors
    ///
    /// What is in the way, where the queue has let a definition through that is none.
    pub fn read(&self) -> Result<Task, serde_json::Error> {
        serde_json::from_str(self.text())
    }
}

impl Serialize for ReceivedDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(text: &str) -> ReceivedDefinition {
        ReceivedDefinition::new(RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn a_definition_is_kept_byte_for_byte() {
        let text = r#"{"payload": {"b": 1.0, "a": 1e2}, "tags": {}, "tags": [123456789012345678901]}"#;
        assert_eq!(received(text).text(), text);
    }

    #[test]
    fn only_what_a_worker_needs_has_to_be_readable() {
        let made = received(r#"{"created": "2020-03-01T12:00:00Z"}"#).created();
        assert_eq!(made, Timestamp::parse("2020-03-01T12:00:00Z").ok());
        assert_eq!(received(r#"{"created": 5}"#).created(), None);
        let task = received(r#"{"payload": [], "created": 5, "metadata": null}"#).read().unwrap();
        assert_eq!(task, Task { scopes: Vec::new(), payload: Value::Array(Vec::new()) });
        for odd in [r#"{"scopes": []}"#, r#"{"payload": {}, "scopes": "*"}"#, "7", "null"] {
            assert!(received(odd).read().is_err(), "{odd}");
        }
    }
}
