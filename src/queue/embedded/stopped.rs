//! A queue that no process serves, for a copy of it as it lies there: nothing of it is brought up to this version. Whoever
//! makes a copy before the first start of another worker wants to be able to go back.

use std::fmt;
use std::fs::File;
use std::path::Path;

use rusqlite::Connection;

use super::directory::QueueDirectory;
use super::{backup, open};
use crate::queue::QueueError;

/// Such a queue, which no other process can open meanwhile.
pub struct StoppedQueue {
    database: Connection,
    /// Let go when the database is closed.
    directory: QueueDirectory,
}

impl fmt::Debug for StoppedQueue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StoppedQueue").finish_non_exhaustive()
    }
}

impl StoppedQueue {
    /// The queue in a directory. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`], also when another process has it or it is of a version that is not known.
    pub fn take(path: &Path) -> Result<StoppedQueue, QueueError> {
        let directory = QueueDirectory::take(path)?;
        let database = open::as_it_is(&directory.database())?;
        Ok(StoppedQueue { database, directory })
    }

    /// A copy of all that it has, open and without a name. Between two steps it asks whether that `goes_on`. Waits for the
    /// disk.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub fn copy(&self, goes_on: &mut dyn FnMut() -> bool) -> Result<File, QueueError> {
        let copy = self.directory.new_copy()?;
        backup::copy(&self.database, copy.path(), goes_on)?;
        File::open(copy.path()).map_err(|error| QueueError::Internal {
            call: "open the copy of its database",
            source: format!("{}: {error}", copy.path().display()).into(),
        })
    }
}
