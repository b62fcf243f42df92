//! Dropping instances: because somebody asks for it, or because the disk is short.

use super::record::{self, Record};
use super::{CacheError, Caches, Discarded};
use crate::file_lock::Hold;
use crate::timestamp::Timestamp;

/// Nobody may get what was in a cache before a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeRequest {
    /// The cache's name.
    pub cache_name: String,
    /// Instances made before this go, by this host's clock.
    pub before: Timestamp,
}

/// What became of the instances that were to go.
#[derive(Debug, Default)]
pub struct Purged {
    /// Nobody had them: they are out of reach, and only have to be removed.
    pub discarded: Vec<Discarded>,
    /// Names of the caches of those that a task has: they go when it gives them back.
    pub in_use: Vec<String>,
    /// What kept others from going. Those that could be marked go when a task gives them back, or at the next start.
    pub errors: Vec<CacheError>,
}

impl Caches {
    /// Whether there is any instance at all, and so anything that could be purged.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when the directory cannot be read.
    pub fn are_there(&self) -> Result<bool, CacheError> {
        Ok(!self.entries()?.own.is_empty())
    }

    /// Carries out purge requests, all in one pass: no task that takes a cache from now on gets what they name. Waits for
    /// others who take one while that is `wanted`.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when the directory cannot be locked or read. An instance that cannot be marked or moved keeps no
    /// other one from going.
    pub fn purge(&self, requests: &[PurgeRequest], wanted: &dyn Fn() -> bool) -> Result<Purged, CacheError> {
        let _alone = self.directory.lock(Hold::Exclusive, wanted)?;
        let mut purged = Purged::default();
        for id in self.entries()?.own {
            let Some(record) = self.read(&id) else { continue };
            let asked = |it: &PurgeRequest| it.cache_name == record.name && record.created < it.before;
            if !requests.iter().any(asked) {
                continue;
            }
            // Before anything else that may fail.
            let marked = record::mark(&self.instance(&id));
            match self.discard(&id, record) {
                Ok(Ok(discarded)) => purged.discarded.push(discarded),
                Ok(Err(record)) => {
                    purged.in_use.push(record.name);
                    purged.errors.extend(marked.err());
                }
                Err(error) => purged.errors.push(error),
            }
        }
        Ok(purged)
    }

    /// Discards the free instance that was used longest ago, of whatever cache; nothing when no instance is free.
    ///
    /// # Errors
    ///
    /// [`CacheError`].
    pub fn discard_oldest(&self, wanted: &dyn Fn() -> bool) -> Result<Option<Discarded>, CacheError> {
        let _alone = self.directory.lock(Hold::Exclusive, wanted)?;
        let own = self.entries()?.own;
        let mut known: Vec<_> = own.into_iter().filter_map(|id| Some((self.read(&id)?, id))).collect();
        known.sort_by_key(|(record, _)| record.last_used);
        for (record, id) in known {
            if let Ok(discarded) = self.discard(&id, record)? {
                return Ok(Some(discarded));
            }
        }
        Ok(None)
    }

    /// Moves an instance to the trash, unless a task has it, or a container that a dead worker has left may have it.
    fn discard(&self, id: &str, record: Record) -> Result<Result<Discarded, Record>, CacheError> {
        if record.used_by.is_some() {
            return Ok(Err(record));
        }
        let instance = self.instance(id);
        match super::hold(&instance)? {
            Some(lock) => Ok(Ok(self.trash.take(&instance, record.name, lock)?)),
            None => Ok(Err(record)),
        }
    }
}
