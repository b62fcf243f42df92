//! Directories in which the worker removes what it finds: they carry a marker, or it does not touch them.
//!
//! An operator may name any directory for the worker's things, one with things of their own by mistake. So
//! a directory that is not empty and has no marker is refused, and of what lies in a marked one only names of the
//! worker's own making are ever looked at.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file_lock::{self, Hold, LockError, Patience};

/// The empty file that says whose a directory is.
pub const MARKER: &str = ".docker-worker";

/// How long another worker may take to begin a task, or to look through the directory.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory of the worker's.
#[derive(Clone, Debug)]
pub struct OwnDirectory {
    path: PathBuf,
}

/// What lies in a directory of the worker's.
#[derive(Debug, Default)]
pub struct Entries {
    /// Names of the worker's own making.
    pub own: BTreeSet<String>,
    /// Others.
    pub foreign: Option<Foreign>,
}

/// Things in a directory of the worker's that are not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    place: PathBuf,
    count: usize,
    first: String,
}

impl fmt::Display for Foreign {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Foreign { place, count, first } = self;
        write!(
            out,
            "left alone in {}: {count} that docker-worker did not make, e.g. {first:?}",
            place.display()
        )
    }
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnDirectoryError {
    /// It cannot be made, opened or read.
    #[error("{call} {}: check that the file system is writable and has room, or choose another place with --data, DOCKER_WORKER_RUN or cache.volumeCachePath", path.display())]
    Io {
        /// What was tried.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is somebody else's.
    #[error("use {}: there are things in it, and no file {MARKER}, which marks what is docker-worker's; choose a directory that is empty or not there yet", path.display())]
    Unmarked {
        /// The directory.
        path: PathBuf,
    },
    /// Another worker is at it.
    #[error("lock {}: {lock}; end it if it hangs", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who.
        lock: LockError,
    },
}

impl OwnDirectory {
    /// Opens a directory; one that is missing is made, one that is empty becomes the worker's.
    ///
    /// # Errors
    ///
    /// [`OwnDirectoryError`].
    pub fn open(path: &Path) -> Result<OwnDirectory, OwnDirectoryError> {
        let failed =
            |call| move |source: io::Error| OwnDirectoryError::Io { call, path: path.to_owned(), source };
        let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
        made.map_err(failed("make the directory"))?;
        let own = OwnDirectory { path: path.to_owned() };
        if !own.is_marked().map_err(failed("look at"))? {
            let _alone = own.lock(Hold::Exclusive, &|| true)?;
            let empty = std::fs::read_dir(path).map_err(failed("read"))?.next().is_none();
            // Another worker may have marked it meanwhile.
            if !empty && !own.is_marked().map_err(failed("look at"))? {
                return Err(OwnDirectoryError::Unmarked { path: path.to_owned() });
            }
            let marked = File::options().create(true).append(true).mode(0o600).open(path.join(MARKER));
            marked.map_err(failed("mark"))?;
        }
        Ok(own)
    }

    fn is_marked(&self) -> io::Result<bool> {
        std::fs::exists(self.path.join(MARKER))
    }

    /// Keeps others from changing what lies here, as long as the value lives. Waits for them while that is `wanted`.
    ///
    /// # Errors
    ///
    /// [`OwnDirectoryError::Locked`] when somebody else does so for too long, or it is not wanted any more.
    pub fn lock(&self, hold: Hold, wanted: &dyn Fn() -> bool) -> Result<File, OwnDirectoryError> {
        let locked = |lock| OwnDirectoryError::Locked { path: self.path.clone(), lock };
        // By an open file of its own: two threads of this process keep each other out as well.
        let file = File::open(&self.path).map_err(|error| locked(error.into()))?;
        let patience = Patience::while_wanted(PATIENCE, wanted);
        file_lock::lock(&file, hold, patience).map_err(locked)?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What lies here: directories with a name that `is_own` knows, and anything else but `others`.
    ///
    /// # Errors
    ///
    /// [`OwnDirectoryError::Io`].
    pub fn entries(&self, is_own: fn(&str) -> bool, others: &[&str]) -> Result<Entries, OwnDirectoryError> {
        let failed = |source| OwnDirectoryError::Io { call: "read", path: self.path.clone(), source };
        let mut entries = Entries::default();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_own(&name) && entry.file_type().map_err(failed)?.is_dir() {
                entries.own.insert(name);
            } else if name != MARKER && !others.contains(&name.as_str()) {
                let place = self.path.clone();
                let foreign = entries.foreign.get_or_insert(Foreign { place, count: 0, first: name });
                foreign.count += 1;
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_that_is_missing_empty_or_marked_is_the_workers() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        std::fs::create_dir(path("empty")).unwrap();
        std::fs::create_dir_all(path("foreign/home")).unwrap();
        for (name, usable) in
            [("missing", true), ("missing", true), ("deep/er", true), ("empty", true), ("foreign", false)]
        {
            assert_eq!(OwnDirectory::open(&path(name)).is_ok(), usable, "{name}");
        }
        assert!(!path("foreign").join(MARKER).exists());
    }

    #[test]
    fn names_and_kinds_tell_own_things_from_others() {
        let scratch = tempfile::tempdir().unwrap();
        let own = OwnDirectory::open(scratch.path()).unwrap();
        for name in ["own-1", "own-2", "other", "known"] {
            std::fs::create_dir(scratch.path().join(name)).unwrap();
        }
        std::fs::write(scratch.path().join("own-file"), "").unwrap();
        let entries = own.entries(|name| name.starts_with("own-"), &["known"]).unwrap();
        assert_eq!(entries.own.into_iter().collect::<Vec<_>>(), ["own-1", "own-2"]);
        assert_eq!(entries.foreign.unwrap().count, 2);
    }
}
