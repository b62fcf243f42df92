//! The directory of a demo: where it lies, who holds it, and how it goes.
//!
//! A demo keeps a lock (flock) on its directory. One whose lock is free belongs to a demo that was killed, and
//! `cleanup` removes it with what the demo's last task left. The place is open to every user: what is not a
//! directory of the worker's own user is never looked into.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::directories::Directories;
use crate::file_lock::Lock;
use crate::random::random_hex;
use crate::remove_tree::{RemoveTreeError, remove_tree};
use crate::run_directory::{self, RunDirectoryError};

/// Where demos make their directories: on a disk, where `/tmp` may be none.
pub const PLACE: &str = "/var/tmp";

/// How many directories a demo makes until one is its own.
const ATTEMPTS: u32 = 16;

/// What their names begin with.
const PREFIX: &str = "docker-worker-demo.";

/// The directory of one demo, held until the demo ends.
#[derive(Debug)]
pub struct DemoDirectory {
    path: PathBuf,
    _lock: Lock,
}

/// Why what a killed demo left is still there.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Demos cannot be looked for, or one cannot be looked at.
    #[error("look at {}", path.display())]
    Look {
        /// What was looked at.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A task of the demo's cannot be undone.
    #[error(transparent)]
    Task(#[from] RunDirectoryError),
    /// A file resists.
    #[error(transparent)]
    Remove(#[from] RemoveTreeError),
}

impl DemoDirectory {
    /// Makes the directory of a new demo.
    ///
    /// # Errors
    ///
    /// When it cannot be made or locked.
    pub fn create() -> io::Result<DemoDirectory> {
        for _ in 0..ATTEMPTS {
            let path = Path::new(PLACE).join(format!("{PREFIX}{}", random_hex(8)?));
            DirBuilder::new().mode(0o700).create(&path)?;
            // A sweep that comes between takes the directory for a dead one's, and removes it under the lock.
            if let Some(lock) = hold(&path)? {
                return Ok(DemoDirectory { path, _lock: lock });
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "each directory was removed as soon as it was made"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The places of the demo's own tasks.
    pub fn directories(&self) -> Directories {
        directories(&self.path)
    }

    /// Removes the directory.
    ///
    /// # Errors
    ///
    /// When something in it resists.
    pub fn remove(self) -> Result<(), RemoveTreeError> {
        remove_tree(&self.path)
    }
}

/// Removes what killed demos have left, and gives the directories that are gone now. Those of living demos, and of
/// killed ones whose task still runs, are left alone.
///
/// # Errors
///
/// The first thing that resists.
pub fn sweep() -> Result<Vec<PathBuf>, SweepError> {
    let failed = |source| SweepError::Look { path: PLACE.into(), source };
    let mut removed = Vec::new();
    for entry in std::fs::read_dir(PLACE).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && sweep_one(&entry.path())? {
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

/// Whether the directory was a dead demo's and is gone.
fn sweep_one(path: &Path) -> Result<bool, SweepError> {
    let failed = |source| SweepError::Look { path: path.to_owned(), source };
    let Some(directory) = hold(path).map_err(failed)? else { return Ok(false) };
    if directory.metadata().map_err(failed)?.uid() != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    let mut tasks = run_directory::sweep(&directories(path), &|_| false)?;
    if let Some((_, error)) = tasks.failed.pop() {
        return Err(error.into());
    }
    if !tasks.alive.is_empty() {
        return Ok(false);
    }
    remove_tree(path)?;
    Ok(true)
}

fn directories(demo: &Path) -> Directories {
    Directories { data: demo.join("data"), run: demo.join("run"), volume_caches: None }
}

/// Locks a directory, unless somebody else holds it, or it is none or gone. What is held is what lies at the path: in
/// [`PLACE`] only its owner can put another there.
fn hold(path: &Path) -> io::Result<Option<Lock>> {
    match open(path) {
        Ok(directory) => Lock::take_at(path, directory),
        Err(error) if is_no_directory(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// A link is no directory either, as it is not followed.
fn is_no_directory(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_a_directory_that_lies_at_the_path_and_is_nobody_elses() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        std::fs::create_dir(at("free")).unwrap();
        std::fs::create_dir(at("held")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink(at("free"), at("link")).unwrap();
        let _held = hold(&at("held")).unwrap().unwrap();
        for (name, expected) in
            [("free", true), ("held", false), ("file", false), ("link", false), ("gone", false)]
        {
            assert_eq!(hold(&at(name)).unwrap().is_some(), expected, "{name}");
        }
    }
}
