//! Named caches: directories that outlive tasks, each used by one task at a time.
//!
//! ```text
//!   <caches>/                 locked (flock) while an instance is chosen or made
//!   <caches>/<random id>/     locked by the process whose task uses it
//!                             cache.json  the cache's name, when it was made and used, who uses it
//!                             content/    what the task sees, owned by root, 0755
//! ```
//!
//! The directory's name is random; the cache's name, which a task chose, is data in `cache.json` and
//! nowhere a path. Who uses a cache stands there as well: if the worker dies, the mark stays, and the
//! instance is removed instead of being handed to a next task, since the dying container may still
//! write to it. It is removed no sooner than that container.
//!
//! Why not one index file for all: it would have to be rewritten for each task, and a crash in
//! between could lose all of them.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runtime::id::ContainerId;
use serde::{Deserialize, Serialize};

use crate::file_lock::{self, Hold};
use crate::own_directory::{Foreign, OwnDirectory, OwnDirectoryError};
use crate::random::random_hex;
use crate::remove_tree::{RemoveTreeError, remove_tree};
use crate::timestamp::Timestamp;

/// Largest `cache.json` in bytes.
const RECORD_BYTES: u64 = 64 * 1024;

/// Random bytes in the name of an instance's directory.
const ID_BYTES: usize = 16;

/// The caches of one data directory.
#[derive(Clone, Debug)]
pub struct Caches {
    directory: OwnDirectory,
}

/// An instance of a cache, held by one task.
#[derive(Debug)]
pub struct CacheLease {
    caches: Caches,
    id: String,
    record: Record,
    origin: Origin,
    _lock: File,
}

/// Whether a task found something in its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An earlier task has used it.
    Hit,
    /// It is new and empty.
    Miss,
}

/// What becomes of an instance that a task has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The next task of that cache may have it.
    Keep,
    /// It is removed.
    Purge,
}

/// What is known of an instance; `cache.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    name: String,
    created: Timestamp,
    last_used: Timestamp,
    /// The container whose task holds it.
    used_by: Option<String>,
}

/// Why a cache could not be had or given back.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file or directory could not be made, read or written.
    #[error("{call} {}: check that the file system is writable and has room", path.display())]
    Io {
        /// What was tried.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The place of the caches cannot be used.
    #[error(transparent)]
    Place(#[from] OwnDirectoryError),
    /// An instance could not be removed.
    #[error(transparent)]
    Remove(#[from] RemoveTreeError),
}

fn failed<'a>(call: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CacheError + 'a {
    move |source| CacheError::Io { call, path: path.to_owned(), source }
}

impl Caches {
    /// Opens the caches in `directory`, which is made if absent.
    ///
    /// # Errors
    ///
    /// [`CacheError::Place`] when the directory cannot be used.
    pub fn open(directory: &Path) -> Result<Caches, CacheError> {
        Ok(Caches { directory: OwnDirectory::open(directory)? })
    }

    /// Removes the instances that make no sense or that a worker which is gone has left in use, unless the container
    /// that used them is still there. What lies beside the instances stays, and is named.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when something cannot be looked at or removed.
    pub fn sweep(&self, there: &BTreeSet<&str>) -> Result<Option<Foreign>, CacheError> {
        let entries = self.directory.entries(is_id, &[])?;
        let mut unusable = Vec::new();
        {
            // Nobody makes an instance meanwhile: before it has its record and its lock it looks like a dead one.
            let _alone = self.directory.lock(Hold::Exclusive, &|| true)?;
            for id in entries.own {
                let Some(held) = self.try_hold(&id)? else { continue };
                let keep = self.read(&id).is_some_and(|record| {
                    record.used_by.is_none_or(|container| there.contains(container.as_str()))
                });
                if !keep {
                    unusable.push((id, held));
                }
            }
        }
        for (id, _held) in unusable {
            remove_tree(&self.instance(&id))?;
        }
        Ok(entries.foreign)
    }

    /// Takes an instance of the cache `name` for a container: the free one that was used last, or a new one. Waits for
    /// others who take one while that is `wanted`.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when a new one cannot be made or the choice not be noted.
    pub fn take(
        &self,
        name: &str,
        container: &ContainerId,
        wanted: &dyn Fn() -> bool,
    ) -> Result<CacheLease, CacheError> {
        let _alone = self.directory.lock(Hold::Exclusive, wanted)?;
        let mut best: Option<(String, Record, File)> = None;
        for id in self.directory.entries(is_id, &[])?.own {
            let Some(record) = self.read(&id).filter(|it| it.name == name && it.used_by.is_none()) else {
                continue;
            };
            let older = best.as_ref().is_some_and(|(_, best, _)| best.last_used >= record.last_used);
            if older {
                continue;
            }
            if let Some(lock) = self.try_hold(&id)? {
                best = Some((id, record, lock));
            }
        }
        match best {
            Some((id, record, lock)) => self.lease(id, record, container, (Origin::Hit, lock)),
            None => self.make(name, container),
        }
    }

    fn make(&self, name: &str, container: &ContainerId) -> Result<CacheLease, CacheError> {
        let id = random_hex(ID_BYTES).map_err(failed("name an instance in", self.directory.path()))?;
        let instance = self.instance(&id);
        let make = |path: &Path| {
            DirBuilder::new().mode(0o700).create(path).map_err(failed("make the directory", path))
        };
        make(&instance)?;
        let content = instance.join("content");
        make(&content)?;
        // As docker makes a volume: everybody may look in, root alone may write.
        std::fs::set_permissions(&content, Permissions::from_mode(0o755))
            .map_err(failed("set the mode of", &content))?;
        let now = Timestamp::now();
        let record = Record { name: name.to_owned(), created: now, last_used: now, used_by: None };
        let lock = File::open(&instance).map_err(failed("open", &instance))?;
        // Nobody else has it: a sweep needs the directory alone.
        lock.try_lock().map_err(|error| failed("lock", &instance)(error.into()))?;
        self.lease(id, record, container, (Origin::Miss, lock))
    }

    fn lease(
        &self,
        id: String,
        record: Record,
        container: &ContainerId,
        (origin, lock): (Origin, File),
    ) -> Result<CacheLease, CacheError> {
        let record = Record { used_by: Some(container.to_string()), ..record };
        self.write(&id, &record)?;
        Ok(CacheLease { caches: self.clone(), id, record, origin, _lock: lock })
    }

    fn instance(&self, id: &str) -> PathBuf {
        self.directory.path().join(id)
    }

    /// Locks an instance, unless another process holds it or it is gone meanwhile.
    fn try_hold(&self, id: &str) -> Result<Option<File>, CacheError> {
        let instance = self.instance(id);
        let file = match File::open(&instance) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &instance)(error)),
        };
        match file.try_lock() {
            // Another sweep may have removed it before.
            Ok(()) => {
                Ok(file_lock::is_at(&instance, &file).map_err(failed("look at", &instance))?.then_some(file))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed("lock", &instance)(source)),
        }
    }

    /// What is known of an instance; nothing if its record is missing or makes no sense.
    fn read(&self, id: &str) -> Option<Record> {
        let file = File::open(self.instance(id).join("cache.json")).ok()?;
        serde_json::from_reader(file.take(RECORD_BYTES)).ok()
    }

    /// Writes the record beside its place and moves it there, so that it is whole or absent.
    fn write(&self, id: &str, record: &Record) -> Result<(), CacheError> {
        let path = self.instance(id).join("cache.json");
        let beside = self.instance(id).join("cache.json.new");
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(failed("write", &path))
    }
}

fn is_id(name: &str) -> bool {
    name.len() == 2 * ID_BYTES && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl CacheLease {
    /// The directory that the task sees.
    pub fn content(&self) -> PathBuf {
        self.caches.instance(&self.id).join("content")
    }

    /// The cache's name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Whether an earlier task has used it.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Gives the instance back. Only when no process of the task's is left.
    ///
    /// # Errors
    ///
    /// [`CacheError`]; the instance is then removed at the next start.
    pub fn release(self, fate: Fate) -> Result<(), CacheError> {
        match fate {
            Fate::Keep => {
                let record = Record { used_by: None, last_used: Timestamp::now(), ..self.record.clone() };
                self.caches.write(&self.id, &record)
            }
            // The mark and the lock keep others away until the directory is gone.
            Fate::Purge => Ok(remove_tree(&self.caches.instance(&self.id))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caches() -> (tempfile::TempDir, Caches) {
        let directory = tempfile::tempdir().unwrap();
        let caches = reopen(&directory, &[]);
        (directory, caches)
    }

    /// What a next worker sees, if the containers `there` have resisted.
    fn reopen(directory: &tempfile::TempDir, there: &[&str]) -> Caches {
        let caches = Caches::open(&directory.path().join("caches")).unwrap();
        caches.sweep(&there.iter().copied().collect()).unwrap();
        caches
    }

    fn take(caches: &Caches, name: &str) -> CacheLease {
        caches.take(name, &ContainerId::new("container").unwrap(), &|| true).unwrap()
    }

    fn put(lease: &CacheLease, text: &str) {
        std::fs::write(lease.content().join("file"), text).unwrap();
    }

    fn get(lease: &CacheLease) -> Option<String> {
        std::fs::read_to_string(lease.content().join("file")).ok()
    }

    #[test]
    fn a_cache_persists_over_restarts() {
        let (directory, caches) = caches();
        let lease = take(&caches, "level-1");
        assert_eq!(lease.origin(), Origin::Miss);
        put(&lease, "kept");
        lease.release(Fate::Keep).unwrap();
        let lease = take(&reopen(&directory, &[]), "level-1");
        assert_eq!((lease.origin(), get(&lease).as_deref()), (Origin::Hit, Some("kept")));
    }

    #[test]
    fn two_tasks_never_share_an_instance() {
        let (directory, caches) = caches();
        let first = take(&caches, "shared");
        put(&first, "first");
        let second = take(&reopen(&directory, &[]), "shared");
        assert_eq!((second.origin(), get(&second)), (Origin::Miss, None));
        first.release(Fate::Keep).unwrap();
        second.release(Fate::Keep).unwrap();
        let (third, fourth) = (take(&caches, "shared"), take(&caches, "shared"));
        assert_eq!((third.origin(), fourth.origin()), (Origin::Hit, Origin::Hit));
        assert_ne!(third.content(), fourth.content());
    }

    #[test]
    fn the_one_that_was_used_last_is_taken_first() {
        let (_directory, caches) = caches();
        let (first, second) = (take(&caches, "x"), take(&caches, "x"));
        put(&first, "first");
        put(&second, "second");
        second.release(Fate::Keep).unwrap();
        let mut record = first.record.clone();
        record.last_used = Timestamp::from_millis(Timestamp::now().as_millis() + 60_000);
        record.used_by = None;
        caches.write(&first.id, &record).unwrap();
        drop(first);
        assert_eq!(get(&take(&caches, "x")).as_deref(), Some("first"));
    }

    #[test]
    fn what_is_purged_or_unknown_or_left_in_use_is_gone_after_a_restart() {
        let (directory, caches) = caches();
        take(&caches, "purged").release(Fate::Purge).unwrap();
        drop(take(&caches, "left in use")); // The worker died.
        std::fs::create_dir(directory.path().join("caches").join("0".repeat(2 * ID_BYTES))).unwrap();
        let kept = take(&caches, "held");
        let caches = reopen(&directory, &[]);
        let left = caches.directory.entries(is_id, &[]).unwrap().own;
        assert_eq!(left, BTreeSet::from([kept.id.clone()]));
        assert_eq!(take(&caches, "left in use").origin(), Origin::Miss);
    }

    #[test]
    fn a_cache_stays_as_long_as_the_container_that_may_write_to_it_and_is_nobody_elses() {
        let (directory, caches) = caches();
        let content = take(&caches, "x").content(); // The worker died.
        let caches = reopen(&directory, &["container"]);
        assert!(content.exists());
        assert_eq!(take(&caches, "x").origin(), Origin::Miss);
        reopen(&directory, &[]);
        assert!(!content.exists());
    }

    #[test]
    fn what_the_worker_did_not_make_is_left_alone_and_named() {
        let (directory, caches) = caches();
        let place = directory.path().join("caches");
        for name in ["home", "0123456789abcdef", &"A".repeat(2 * ID_BYTES)] {
            std::fs::create_dir_all(place.join(name).join("files")).unwrap();
        }
        let foreign = caches.sweep(&BTreeSet::new()).unwrap().unwrap().to_string();
        assert!(foreign.contains("3 that docker-worker did not make"), "{foreign}");
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 3 + 1, "and the marker");
    }

    #[test]
    fn a_name_is_never_a_path() {
        let (directory, caches) = caches();
        let lease = take(&caches, "../../escape");
        assert!(lease.content().starts_with(directory.path().join("caches")));
        assert!(!directory.path().join("escape").exists());
        assert_eq!(lease.name(), "../../escape");
    }
}
