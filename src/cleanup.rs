//! Undoing what a worker that is gone has left behind.
//!
//! What a live worker holds is told apart by the lock that its process keeps, so a clean-up is safe
//! beside running tasks; and it may be repeated, or interrupted and begun again.

use std::fs::File;
use std::io;
use std::path::Path;

use runtime::cgroup::RemoveError;
use runtime::host::{HostFacts, HostFactsError};
use runtime::journal::{Journal, JournalError, UndoError};

use crate::cache::{CacheError, Caches};
use crate::config::Directories;
use crate::net::tables::TablesError;
use crate::run_directory::{self, RunDirectoryError, Sweep};
use crate::spec::PARENT_GROUP;

/// The name of the runtime's journal in a container's state directory.
const RUNTIME_JOURNAL: &str = "journal";

/// Why not everything could be undone.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The places of containers cannot be looked through.
    #[error(transparent)]
    Directories(#[from] RunDirectoryError),
    /// The tables of the tasks' network are still there.
    #[error(transparent)]
    Network(#[from] TablesError),
    /// The control group above the tasks' own is still there.
    #[error(transparent)]
    ParentGroup(#[from] ParentGroupError),
    /// The caches cannot be looked through.
    #[error(transparent)]
    Caches(#[from] CacheError),
}

/// Removes everything that is left of tasks whose worker is gone.
///
/// # Errors
///
/// [`CleanupError`] when a place cannot be looked through at all; what resists is in the [`Sweep`].
pub fn clean_up(directories: &Directories) -> Result<Sweep, CleanupError> {
    let sweep = run_directory::sweep(directories)?;
    crate::net::sweep(&directories.run)?;
    remove_parent_group()?;
    // Opening the caches removes those that were left in use.
    Caches::open(&directories.caches())?;
    Ok(sweep)
}

/// Why the control group above the tasks' own is still there.
#[derive(Debug, thiserror::Error)]
pub enum ParentGroupError {
    /// Nobody knows where the hierarchies are.
    #[error(transparent)]
    Facts(#[from] HostFactsError),
    /// The kernel does not let it go.
    #[error(transparent)]
    Remove(#[from] RemoveError),
}

/// Removes the control group above the tasks' own if this was the last task; another worker's keeps it.
///
/// # Errors
///
/// [`ParentGroupError`].
pub fn remove_parent_group() -> Result<(), ParentGroupError> {
    match HostFacts::gather()?.hierarchies {
        Some(hierarchies) => Ok(hierarchies.remove_if_empty(Path::new(PARENT_GROUP))?),
        None => Ok(()),
    }
}

/// Kills what is left of the containers in a runtime's state directory and undoes what their
/// journals say. Waits for a monitor that is still at it: without a worker it undoes everything itself.
///
/// # Errors
///
/// The first thing that resists; the rest is tried all the same.
pub fn undo_containers(state_root: &Path) -> Result<(), UndoError> {
    let Ok(entries) = std::fs::read_dir(state_root) else {
        // It was never made, or is gone already.
        return Ok(());
    };
    let mut result = Ok(());
    for entry in entries.flatten() {
        let undone = undo_container(&entry.path());
        if result.is_ok() {
            result = undone;
        }
    }
    result
}

fn undo_container(directory: &Path) -> Result<(), UndoError> {
    // Its monitor holds this lock to its end. Beside it, a step that it takes now would be recorded in a journal that
    // has been undone already.
    let _monitor_has_ended = match File::open(directory).and_then(|file| file.lock().map(|()| file)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(JournalError::File { call: "lock", path: directory.to_owned(), source }.into());
        }
    };
    let journal = directory.join(RUNTIME_JOURNAL);
    if journal.exists() { Ok(Journal::open(&journal)?.undo_all()?) } else { Ok(()) }
}
