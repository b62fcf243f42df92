//! Named caches: directories that outlive tasks, each used by one task at a time.
//!
//! ```text
//!   <caches>/                 locked (flock) while an instance is chosen or made
//!   <caches>/<random id>/     locked by the process whose task uses it
//!                             cache.json  the cache's name, when it was made and used, who uses it
//!                             purge       no task may have it any more
//!                             content/    what the task sees, owned by root, 0755
//!   <caches>/trash/<random id>/  locked by whoever removes it
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
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runtime::id::ContainerId;

use self::record::Record;
use self::trash::{TRASH, Trash};
use crate::file_lock::{Hold, Lock};
use crate::own_directory::{Entries, Foreign, OwnDirectory, OwnDirectoryError};
use crate::random::random_hex;
use crate::remove_tree::RemoveTreeError;
use crate::timestamp::Timestamp;

mod purge;
mod record;
mod trash;
mod usage;

pub use self::purge::{PurgeRequest, Purged};
pub use self::trash::Discarded;
pub use self::usage::CacheUsage;

/// Random bytes in the name of an instance's directory.
const ID_BYTES: usize = 16;

/// The caches of one data directory.
#[derive(Clone, Debug)]
pub struct Caches {
    directory: OwnDirectory,
    trash: Trash,
}

/// An instance of a cache, held by one task.
#[derive(Debug)]
pub struct CacheLease {
    caches: Caches,
    id: String,
    record: Record,
    origin: Origin,
    lock: Lock,
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
    /// The next task of that cache may have it, unless it is to be purged meanwhile.
    Keep,
    /// Nobody may.
    Purge,
}

/// What others have left among the caches.
#[derive(Debug)]
pub struct Leftovers {
    /// Nobody gets them: they only have to be removed.
    pub discarded: Vec<Discarded>,
    /// What is not the worker's, and stays.
    pub foreign: Vec<Foreign>,
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
        Ok(Caches { directory: OwnDirectory::open(directory)?, trash: Trash::open(directory)? })
    }

    /// Removes what [`Caches::leftovers`] finds. What lies beside the instances stays, and is named.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when something cannot be looked at or removed.
    pub fn sweep<E: From<CacheError>>(
        &self,
        there: impl FnOnce() -> Result<BTreeSet<String>, E>,
    ) -> Result<Vec<Foreign>, E> {
        let Leftovers { discarded, foreign } = self.leftovers(there, &|| true)?;
        discarded.into_iter().try_for_each(Discarded::remove)?;
        Ok(foreign)
    }

    /// Takes away the instances that make no sense, that are to be purged, or that a worker which is gone has left in
    /// use, unless the container that used them is still `there`; and what such a worker did not come to remove. Waits
    /// for others who take one while that is `wanted`.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when something cannot be looked at or moved, and what `there` says.
    pub fn leftovers<E: From<CacheError>>(
        &self,
        there: impl FnOnce() -> Result<BTreeSet<String>, E>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Leftovers, E> {
        let entries = self.entries().map_err(CacheError::from)?;
        {
            // Nobody makes an instance meanwhile: before it has its record and its lock it looks like a dead one.
            let _alone = self.directory.lock(Hold::Exclusive, wanted).map_err(CacheError::from)?;
            // Not before: a container that has begun since has taken an instance, and its worker may have died as well.
            let there = there()?;
            for id in entries.own {
                let instance = self.instance(&id);
                let Some(lock) = hold(&instance)? else { continue };
                let user = Record::read(&instance).map(|record| record.used_by);
                let keep = match user {
                    Some(Some(container)) => there.contains(&container),
                    Some(None) => !record::is_marked(&instance),
                    None => false,
                };
                if !keep {
                    // Its lock goes here; it is found below like those of workers that died later.
                    drop(self.trash.take(&instance, id, lock)?);
                }
            }
        }
        let (discarded, foreign) = self.trash.left()?;
        Ok(Leftovers { discarded, foreign: entries.foreign.into_iter().chain(foreign).collect() })
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
        let mut best: Option<(String, Record, Lock)> = None;
        for id in self.entries()?.own {
            let Some(record) = self.read(&id).filter(|it| it.name == name && it.used_by.is_none()) else {
                continue;
            };
            if record::is_marked(&self.instance(&id)) {
                continue;
            }
            let older = best.as_ref().is_some_and(|(_, best, _)| best.last_used >= record.last_used);
            if older {
                continue;
            }
            if let Some(lock) = hold(&self.instance(&id))? {
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
        let file = File::open(&instance).map_err(failed("open", &instance))?;
        // Nobody else has it: a sweep needs the directory alone.
        let lock = Lock::take(file).and_then(|lock| lock.ok_or(io::ErrorKind::WouldBlock.into()));
        let lock = lock.map_err(failed("lock", &instance))?;
        self.lease(id, record, container, (Origin::Miss, lock))
    }

    fn lease(
        &self,
        id: String,
        record: Record,
        container: &ContainerId,
        (origin, lock): (Origin, Lock),
    ) -> Result<CacheLease, CacheError> {
        let record = Record { used_by: Some(container.to_string()), ..record };
        record.write(&self.instance(&id))?;
        Ok(CacheLease { caches: self.clone(), id, record, origin, lock })
    }

    fn instance(&self, id: &str) -> PathBuf {
        self.directory.path().join(id)
    }

    fn entries(&self) -> Result<Entries, OwnDirectoryError> {
        self.directory.entries(is_id, &[TRASH])
    }

    fn read(&self, id: &str) -> Option<Record> {
        Record::read(&self.instance(id))
    }
}

/// Locks an instance, unless another process holds it or it is gone meanwhile.
fn hold(instance: &Path) -> Result<Option<Lock>, CacheError> {
    let file = match File::open(instance) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", instance)(error)),
    };
    Lock::take_at(instance, file).map_err(failed("lock", instance))
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

    /// Gives the instance back. Only when no process of the task's is left. What comes back is to be removed.
    ///
    /// # Errors
    ///
    /// [`CacheError`]; the instance is then removed at the next start.
    pub fn release(self, fate: Fate) -> Result<Option<Discarded>, CacheError> {
        let CacheLease { caches, id, record, lock, .. } = self;
        let instance = caches.instance(&id);
        // Nobody marks it between the look and the word that it is free.
        let _alone = caches.directory.lock(Hold::Exclusive, &|| true)?;
        if fate == Fate::Purge || record::is_marked(&instance) {
            return Ok(Some(caches.trash.take(&instance, record.name, lock)?));
        }
        let record = Record { used_by: None, last_used: Timestamp::now(), ..record };
        record.write(&instance).map(|()| None)
    }
}

#[cfg(test)]
mod tests;
