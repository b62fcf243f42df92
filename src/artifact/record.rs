//! What is said about artifacts in `resolution.json`. A run may have a hundred thousand of them, and each has its record until
//! the run is over, so records are small.

use std::cmp::Ordering;
use std::collections::BTreeSet;

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
    pub content_type: Option<&'static str>,
    /// `gzip`, if the upload is compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<&'static str>,
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

/// The records of a run, by name.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeSet<ByName>);

#[derive(Debug)]
struct ByName(ArtifactRecord);

impl Records {
    /// One name is one artifact: the last that was made of it counts.
    pub(super) fn keep(&mut self, record: ArtifactRecord) {
        self.0.replace(ByName(record));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ArtifactRecord> {
        self.0.iter().map(|ByName(record)| record)
    }

    pub(super) fn into_list(self) -> Vec<ArtifactRecord> {
        self.0.into_iter().map(|ByName(record)| record).collect()
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &ByName) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByName {}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &ByName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &ByName) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}
