//! How much room caches take, for people.

use serde::Serialize;

use super::{CacheError, Caches};
use crate::timestamp::Timestamp;
use crate::tree_size::{TreeSize, tree_size};

/// An instance of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheUsage {
    /// The cache's name.
    pub name: String,
    /// When the instance was made.
    pub created: Timestamp,
    /// When a task gave it back last.
    pub last_used: Timestamp,
    /// Whether a task has it now.
    pub is_used: bool,
    /// Bytes that it takes on the disk.
    pub bytes: u64,
    /// Whether it takes more: it has not been looked through to its end.
    pub is_partial: bool,
}

impl Caches {
    /// All instances, the largest first. Their files are looked through as long as it `goes_on`, and nobody waits for that.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when the instances cannot be listed.
    pub fn usage(&self, goes_on: &dyn Fn() -> bool) -> Result<Vec<CacheUsage>, CacheError> {
        let mut found = Vec::new();
        for id in self.entries()?.own {
            let Some(record) = self.read(&id) else { continue };
            let TreeSize { bytes, is_partial } = tree_size(&self.instance(&id), goes_on);
            found.push(CacheUsage {
                name: record.name,
                created: record.created,
                last_used: record.last_used,
                is_used: record.used_by.is_some(),
                bytes,
                is_partial,
            });
        }
        found.sort_by(|one, other| (other.bytes, &one.name).cmp(&(one.bytes, &other.name)));
        Ok(found)
    }
}
