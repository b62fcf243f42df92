//! What is said about an artifact in `resolution.json`.

use serde::Serialize;

use crate::queue::artifact_name::ArtifactName;
use crate::queue::{ErrorReason, StorageType};
use crate::timestamp::Timestamp;

/// One artifact of a run. Size and hash are those of the uncompressed bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactRecord {
    /// Its name.
    pub name: ArtifactName,
    /// How the queue stores it.
    pub storage_type: StorageType,
    /// Its content type; absent for errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `gzip`, if the upload is compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Bytes; absent where there are none (links, errors).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Lower-case hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where it lies below the directory for artifacts, if not under its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_as: Option<String>,
    /// When it may be deleted.
    pub expires: Timestamp,
    /// Why there is no content: errors only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<ErrorReason>,
}
