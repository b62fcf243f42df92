//! What is known of one instance: two files beside its content.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CacheError, failed};
use crate::timestamp::Timestamp;

/// Largest `cache.json` in bytes.
const RECORD_BYTES: u64 = 64 * 1024;

/// The empty file of an instance that no task may have any more. A file of its own, not a word in `cache.json`: whoever
/// holds the instance writes that from what they read when they took it, and would undo a mark that was set meanwhile.
const MARK: &str = "purge";

/// `cache.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) created: Timestamp,
    pub(super) last_used: Timestamp,
    /// The container whose task holds it.
    pub(super) used_by: Option<String>,
}

impl Record {
    /// What is known of an instance; nothing if its record is missing or makes no sense.
    pub(super) fn read(instance: &Path) -> Option<Record> {
        let file = File::open(instance.join("cache.json")).ok()?;
        serde_json::from_reader(file.take(RECORD_BYTES)).ok()
    }

    /// Writes the record beside its place and moves it there, so that it is whole or absent.
    pub(super) fn write(&self, instance: &Path) -> Result<(), CacheError> {
        let path = instance.join("cache.json");
        let beside = instance.join("cache.json.new");
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(failed("write", &path))
    }
}

/// Marks an instance: no task gets it any more, and whoever has it does not keep it.
pub(super) fn mark(instance: &Path) -> Result<(), CacheError> {
    let path = instance.join(MARK);
    let made = File::options().create(true).append(true).open(&path);
    made.map(drop).map_err(failed("mark", &path))
}

/// Whether an instance is marked. One that cannot be looked at is: a task goes without rather than with a purged cache.
pub(super) fn is_marked(instance: &Path) -> bool {
    let looked = std::fs::symlink_metadata(instance.join(MARK));
    !looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
