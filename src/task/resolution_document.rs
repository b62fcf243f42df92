//! `resolution.json`: what `docker-worker run` writes beside the artifacts about the run as a whole.
//!
//! The names of its fields are an interface: scripts tell a command's own status 120 from a refused payload by them.

use images::image::Image;
use serde::Serialize;

use crate::artifact::ArtifactRecord;
use crate::payload::ImageField;
use crate::queue::task_id::TaskId;
use crate::queue::{RunId, RunState};
use crate::task::outcome::Resolution;
use crate::task::resources::Resources;
use crate::timestamp::Timestamp;

/// The document.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolutionDocument {
    /// The task.
    pub task_id: TaskId,
    /// Its run.
    pub run_id: u32,
    /// `completed`, `failed` or `exception`.
    pub state: RunState,
    /// The queue's word for it: `completed`, `failed`, or the reason of the exception.
    pub reason: &'static str,
    /// The footer's exit code: the command's status, or −1.
    pub exit_code: i32,
    /// When the run was claimed.
    pub started: Timestamp,
    /// When it was resolved.
    pub resolved: Timestamp,
    /// The image, as far as the run came.
    pub image: Option<ImageUsed>,
    /// All artifacts of the run, by name.
    pub artifacts: Vec<ArtifactRecord>,
    /// What the container used, as far as there was one.
    pub resources: Option<Resources>,
}

impl ResolutionDocument {
    /// What there is to say now about a run that has left nothing.
    #[must_use]
    pub fn without_container(run: RunId, resolution: &Resolution, started: Timestamp) -> ResolutionDocument {
        ResolutionDocument {
            task_id: run.task_id,
            run_id: run.run_id,
            state: resolution.verdict.state(),
            reason: resolution.verdict.as_str(),
            exit_code: resolution.exit_code,
            started,
            resolved: Timestamp::now(),
            image: None,
            artifacts: Vec::new(),
            resources: None,
        }
    }
}

/// The image that a run used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageUsed {
    /// As the payload names it.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// That of its configuration, which Docker calls the image's id; for what is certified.
    #[serde(skip)]
    pub id: String,
    /// The digest of the artifact that it came as, if it did; for the same.
    #[serde(skip)]
    pub artifact: Option<String>,
}

impl ImageUsed {
    /// As the store has it, and by the payload's name for it.
    #[must_use]
    pub fn of(image: &Image, field: &ImageField) -> ImageUsed {
        let artifact = match field {
            ImageField::Artifact(_) => Some(image.resolved.to_string()),
            ImageField::Named { .. } => None,
        };
        let (name, digest) = (image.name.clone(), image.digest.to_string());
        ImageUsed { name, digest, id: image.id.to_string(), artifact }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::artifact_name::ArtifactName;
    use crate::queue::{ErrorReason, StorageType};

    fn example() -> ResolutionDocument {
        let at = |text| Timestamp::parse(text).unwrap();
        let file = ArtifactRecord {
            name: ArtifactName::new("public/a.txt").unwrap(),
            storage_type: StorageType::S3,
            content_type: Some("text/plain"),
            content_encoding: Some("gzip"),
            size: Some(2),
            sha256: Some("87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7".to_owned()),
            stored_as: None,
            expires: at("2027-11-24T00:00:00Z"),
            reason: None,
        };
        let missing = ArtifactRecord {
            name: ArtifactName::new("public/b.txt").unwrap(),
            storage_type: StorageType::Error,
            content_type: None,
            content_encoding: None,
            size: None,
            sha256: None,
            reason: Some(ErrorReason::FileMissingOnWorker),
            ..file.clone()
        };
        ResolutionDocument {
            task_id: TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").unwrap(),
            run_id: 0,
            state: RunState::Failed,
            reason: "failed",
            exit_code: 3,
            started: at("2026-11-24T08:00:00Z"),
            resolved: at("2026-11-24T08:00:01.500Z"),
            image: Some(ImageUsed {
                name: "busybox".to_owned(),
                digest: "sha256:9f2".to_owned(),
                id: String::new(),
                artifact: None,
            }),
            artifacts: vec![file, missing],
            resources: Some(Resources {
                wall_seconds: 1.5,
                cpu_seconds: 0.25,
                memory_peak_bytes: Some(4096),
                network_received_bytes: Some(70),
                network_sent_bytes: None,
                oom_killed: false,
            }),
        }
    }

    #[test]
    fn the_document_has_the_promised_shape() {
        let expected = r#"{
  "taskId": "fN1SbArXTPSVFNUvaOlinQ",
  "runId": 0,
  "state": "failed",
  "reason": "failed",
  "exitCode": 3,
  "started": "2026-11-24T08:00:00.000Z",
  "resolved": "2026-11-24T08:00:01.500Z",
  "image": {
    "name": "busybox",
    "digest": "sha256:9f2"
  },
  "artifacts": [
    {
      "name": "public/a.txt",
      "storageType": "s3",
      "contentType": "text/plain",
      "contentEncoding": "gzip",
      "size": 2,
      "sha256": "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7",
      "expires": "2027-11-24T00:00:00.000Z"
    },
    {
      "name": "public/b.txt",
      "storageType": "error",
      "expires": "2027-11-24T00:00:00.000Z",
      "reason": "file-missing-on-worker"
    }
  ],
  "resources": {
    "wallSeconds": 1.5,
    "cpuSeconds": 0.25,
    "memoryPeakBytes": 4096,
    "networkReceivedBytes": 70,
    "networkSentBytes": null,
    "oomKilled": false
  }
}"#;
        assert_eq!(serde_json::to_string_pretty(&example()).unwrap(), expected);
    }

    #[test]
    fn a_run_that_came_nowhere_has_null_for_image_and_resources() {
        let document = ResolutionDocument { image: None, resources: None, artifacts: vec![], ..example() };
        let value = serde_json::to_value(&document).unwrap();
        assert_eq!(value["image"], serde_json::Value::Null);
        assert_eq!(value["resources"], serde_json::Value::Null);
        assert_eq!(value["artifacts"], serde_json::json!([]));
    }
}
