//! The directory of one worker process, in which others find it: `<run>/<random id>/`, 0700, locked (flock) by the process.
//!
//! Its name is shorter than a container's, and nobody else's: so nothing has to be replaced at a start, and a sweep
//! removes those whose process is gone. One that has a journal names something that the process has made for all of its
//! containers: it stays until that is undone, which is after them.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::{Places, RunDirectoryError, hold, make_directory};
use crate::directories::Directories;
use crate::file_lock::{Hold, Lock};
use crate::random::random_hex;
use crate::remove_tree::remove_tree;
use crate::undo_containers::undo_journal;

/// Random bytes in its name.
const ID_BYTES: usize = 16;

/// A worker process's own directory. It goes with this value, unless it is kept.
#[derive(Debug)]
pub struct ProcessDirectory {
    path: PathBuf,
    lock: Lock,
    is_kept: bool,
}

impl ProcessDirectory {
    /// Makes the directory. Waits for a sweep while that is `wanted`.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError`].
    pub fn create(
        directories: &Directories,
        wanted: &dyn Fn() -> bool,
    ) -> Result<ProcessDirectory, RunDirectoryError> {
        let places = Places::open(directories)?;
        let _no_sweep = places.lock(Hold::Shared, wanted)?;
        let no_id = |source| RunDirectoryError::Io { path: directories.run.clone(), source };
        let path = directories.run.join(random_hex(ID_BYTES).map_err(no_id)?);
        let lock = make_directory(&path)?;
        Ok(ProcessDirectory { path, lock, is_kept: false })
    }

    /// From now on it stays when this value goes: what it names is to be undone.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// That has been undone.
    pub fn let_go(&mut self) {
        self.is_kept = false;
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name of something in it that has few bytes wherever it is: the address of a socket has at most 107 (unix(7)).
    pub fn short_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.lock.as_raw_fd())).join(name)
    }
}

impl Drop for ProcessDirectory {
    fn drop(&mut self) {
        if !self.is_kept {
            // Best effort: a sweep removes what stays, as after a kill.
            remove_tree(&self.path).unwrap_or_default();
        }
    }
}

/// Whether a name in the run directory is one of these.
pub(super) fn is_process_id(name: &str) -> bool {
    name.len() == 2 * ID_BYTES && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The directory of a process that is gone. As long as the value lives, nobody else takes it up.
pub(super) struct DeadProcess {
    path: PathBuf,
    _lock: Lock,
}

impl DeadProcess {
    /// Takes hold of a directory, if its process is gone.
    pub(super) fn find(path: PathBuf) -> Option<DeadProcess> {
        hold(&path)?.map(|lock| DeadProcess { path, _lock: lock })
    }

    /// Undoes what the process has made for its containers, which have to be gone, and removes the directory.
    pub(super) fn remove(&self) -> Result<(), RunDirectoryError> {
        undo_journal(&self.path)?;
        Ok(remove_tree(&self.path)?)
    }

    /// Its name.
    pub(super) fn id(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}
