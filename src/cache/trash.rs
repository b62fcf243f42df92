//! Instances that nobody gets any more, on their way out.
//!
//! To remove a tree takes as long as its files are many, seconds for a large cache. So an instance is moved here first,
//! at once and under the lock of all caches, and removed from here in its own time, without it. Who removes it holds its
//! lock; what lies here and is not locked was left by a worker that was killed, and the next sweep removes it.

use std::path::{Path, PathBuf};

use super::record::Record;
use super::{CacheError, failed, hold, is_id};
use crate::file_lock::Lock;
use crate::own_directory::{Foreign, OwnDirectory};
use crate::remove_tree::remove_tree;

/// The trash's name among the instances.
pub(super) const TRASH: &str = "trash";

/// Where instances go.
#[derive(Clone, Debug)]
pub(super) struct Trash(OwnDirectory);

/// An instance that no task gets any more, and whose files are still there.
#[derive(Debug)]
#[must_use = "its files stay until they are removed, or until the next sweep"]
pub struct Discarded {
    name: String,
    path: PathBuf,
    _lock: Lock,
}

impl Trash {
    /// Opens the trash of the caches in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Trash, CacheError> {
        Ok(Trash(OwnDirectory::open(&directory.join(TRASH))?))
    }

    /// Moves an instance here, whose lock the caller has.
    pub(super) fn take(&self, instance: &Path, name: String, lock: Lock) -> Result<Discarded, CacheError> {
        let path = self.0.path().join(instance.file_name().unwrap_or_default());
        std::fs::rename(instance, &path).map_err(failed("move to the trash", instance))?;
        Ok(Discarded { name, path, _lock: lock })
    }

    /// What dead workers have left here, and what is not the worker's.
    pub(super) fn left(&self) -> Result<(Vec<Discarded>, Option<Foreign>), CacheError> {
        let entries = self.0.entries(is_id, &[])?;
        let mut left = Vec::new();
        for id in entries.own {
            let path = self.0.path().join(&id);
            if let Some(lock) = hold(&path)? {
                let name = Record::read(&path).map_or(id, |record| record.name);
                left.push(Discarded { name, path, _lock: lock });
            }
        }
        Ok((left, entries.foreign))
    }
}

impl Discarded {
    /// The name of its cache, or the directory's own if that is not known.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes its files. Blocks, for as long as that takes.
    ///
    /// # Errors
    ///
    /// [`CacheError::Remove`]; the next sweep tries again.
    pub fn remove(self) -> Result<(), CacheError> {
        Ok(remove_tree(&self.path)?)
    }
}
