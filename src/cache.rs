//! Named caches: directories that outlive tasks, each used by one task at a time.
//!
//! ```text
//!   <caches>/lock             held while an instance is chosen, made or removed
//!   <caches>/<random id>/     cache.json  the cache's name, when it was made and used, its state
//!                             lock        held (flock) by the process whose task uses it
//!                             content/    what the task sees, owned by root, 0755
//! ```
//!
//! The directory's name is random; the cache's name, which a task chose, is data in `cache.json` and
//! nowhere a path. A cache that a task holds is marked `in use` on disk as well: if the worker dies,
//! the mark stays, and the instance is removed instead of being handed to a next task, since the
//! dying container may still write to it.
//!
//! Why not one index file for all: it would have to be rewritten for each task, and a crash in
//! between could lose all of them.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runtime::journal::{RemoveTreeError, remove_tree};
use serde::{Deserialize, Serialize};

use crate::run_directory::random_hex;
use crate::timestamp::Timestamp;

/// Largest `cache.json` in bytes.
const RECORD_BYTES: u64 = 64 * 1024;

/// Random bytes in the name of an instance's directory.
const ID_BYTES: usize = 16;

/// The caches of one data directory.
#[derive(Clone, Debug)]
pub struct Caches {
    directory: PathBuf,
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
    in_use: bool,
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
    /// An instance could not be removed.
    #[error(transparent)]
    Remove(#[from] RemoveTreeError),
}

fn failed<'a>(call: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CacheError + 'a {
    move |source| CacheError::Io { call, path: path.to_owned(), source }
}

impl Caches {
    /// Opens the caches in `directory`, which is made if absent, and removes the instances that are
    /// unknown or that a worker which is gone has left in use.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when the directory cannot be used, or something in it not be removed.
    pub fn open(directory: &Path) -> Result<Caches, CacheError> {
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(directory)
            .map_err(failed("make the directory", directory))?;
        let caches = Caches { directory: directory.to_owned() };
        let _alone = caches.lock()?;
        for id in caches.ids()? {
            if let Some(_held) = caches.try_hold(&id)? {
                let usable = caches.read(&id).is_some_and(|record| !record.in_use);
                if !usable {
                    remove_tree(&caches.instance(&id))?;
                }
            }
        }
        Ok(caches)
    }

    /// Takes an instance of the cache `name`: the free one that was used last, or a new one.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when a new one cannot be made or the choice not be noted.
    pub fn take(&self, name: &str) -> Result<CacheLease, CacheError> {
        let _alone = self.lock()?;
        let mut best: Option<(String, Record, File)> = None;
        for id in self.ids()? {
            let Some(record) = self.read(&id).filter(|it| it.name == name && !it.in_use) else {
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
            Some((id, record, lock)) => self.lease(id, record, Origin::Hit, lock),
            None => self.make(name),
        }
    }

    fn make(&self, name: &str) -> Result<CacheLease, CacheError> {
        let id = random_hex(ID_BYTES).map_err(failed("name an instance in", &self.directory))?;
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
        let record = Record { name: name.to_owned(), created: now, last_used: now, in_use: true };
        let lock = self.lock_file(&id)?;
        lock.lock().map_err(failed("lock", &instance))?;
        self.lease(id, record, Origin::Miss, lock)
    }

    fn lease(
        &self,
        id: String,
        record: Record,
        origin: Origin,
        lock: File,
    ) -> Result<CacheLease, CacheError> {
        let record = Record { in_use: true, ..record };
        self.write(&id, &record)?;
        Ok(CacheLease { caches: self.clone(), id, record, origin, _lock: lock })
    }

    fn instance(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    fn lock(&self) -> Result<File, CacheError> {
        let path = self.directory.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(failed("open", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(file)
    }

    fn lock_file(&self, id: &str) -> Result<File, CacheError> {
        let path = self.instance(id).join("lock");
        File::options().create(true).append(true).open(&path).map_err(failed("open", &path))
    }

    /// Locks an instance, unless another process holds it.
    fn try_hold(&self, id: &str) -> Result<Option<File>, CacheError> {
        let file = self.lock_file(id)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed("lock", &self.instance(id))(source)),
        }
    }

    fn ids(&self) -> Result<Vec<String>, CacheError> {
        let mut ids = Vec::new();
        let read = || failed("read", &self.directory);
        for entry in std::fs::read_dir(&self.directory).map_err(read())? {
            let entry = entry.map_err(read())?;
            let is_directory = entry.file_type().map_err(read())?.is_dir();
            if let (true, Ok(name)) = (is_directory, entry.file_name().into_string()) {
                ids.push(name);
            }
        }
        Ok(ids)
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
                let record = Record { in_use: false, last_used: Timestamp::now(), ..self.record.clone() };
                self.caches.write(&self.id, &record)
            }
            Fate::Purge => {
                let _alone = self.caches.lock()?;
                Ok(remove_tree(&self.caches.instance(&self.id))?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caches() -> (tempfile::TempDir, Caches) {
        let directory = tempfile::tempdir().unwrap();
        let caches = Caches::open(&directory.path().join("caches")).unwrap();
        (directory, caches)
    }

    fn reopen(directory: &tempfile::TempDir) -> Caches {
        Caches::open(&directory.path().join("caches")).unwrap()
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
        let lease = caches.take("level-1").unwrap();
        assert_eq!(lease.origin(), Origin::Miss);
        put(&lease, "kept");
        lease.release(Fate::Keep).unwrap();
        let lease = reopen(&directory).take("level-1").unwrap();
        assert_eq!((lease.origin(), get(&lease).as_deref()), (Origin::Hit, Some("kept")));
    }

    #[test]
    fn two_tasks_never_share_an_instance() {
        let (directory, caches) = caches();
        let first = caches.take("shared").unwrap();
        put(&first, "first");
        let second = reopen(&directory).take("shared").unwrap();
        assert_eq!((second.origin(), get(&second)), (Origin::Miss, None));
        first.release(Fate::Keep).unwrap();
        second.release(Fate::Keep).unwrap();
        let (third, fourth) = (caches.take("shared").unwrap(), caches.take("shared").unwrap());
        assert_eq!((third.origin(), fourth.origin()), (Origin::Hit, Origin::Hit));
        assert_ne!(third.content(), fourth.content());
    }

    #[test]
    fn the_one_that_was_used_last_is_taken_first() {
        let (_directory, caches) = caches();
        let (first, second) = (caches.take("x").unwrap(), caches.take("x").unwrap());
        put(&first, "first");
        put(&second, "second");
        second.release(Fate::Keep).unwrap();
        let mut record = first.record.clone();
        record.last_used = Timestamp::from_millis(Timestamp::now().as_millis() + 60_000);
        record.in_use = false;
        caches.write(&first.id, &record).unwrap();
        drop(first);
        assert_eq!(get(&caches.take("x").unwrap()).as_deref(), Some("first"));
    }

    #[test]
    fn what_is_purged_or_unknown_or_left_in_use_is_gone_after_a_restart() {
        let (directory, caches) = caches();
        caches.take("purged").unwrap().release(Fate::Purge).unwrap();
        drop(caches.take("left in use").unwrap()); // The worker died.
        std::fs::create_dir(directory.path().join("caches/unknown")).unwrap();
        let kept = caches.take("held").unwrap();
        let caches = reopen(&directory);
        assert_eq!(caches.ids().unwrap(), std::slice::from_ref(&kept.id));
        assert_eq!(caches.take("left in use").unwrap().origin(), Origin::Miss);
    }

    #[test]
    fn a_name_is_never_a_path() {
        let (directory, caches) = caches();
        let lease = caches.take("../../escape").unwrap();
        assert!(lease.content().starts_with(directory.path().join("caches")));
        assert!(!directory.path().join("escape").exists());
        assert_eq!(lease.name(), "../../escape");
    }
}
