//! Undoing what a worker that is gone has left behind.
//!
//! What a live worker holds is told apart by the lock that its process keeps, so a clean-up is safe
//! beside running tasks; and it may be repeated, or interrupted and begun again.

use std::collections::BTreeSet;

use crate::cache::{CacheError, Caches};
use crate::directories::Directories;
use crate::net::tables::TablesError;
use crate::parent_group::{self, ParentGroupError};
use crate::run_directory::{self, RunDirectoryError, Sweep};

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
    let mut sweep = run_directory::sweep(directories)?;
    crate::net::sweep(&directories.run)?;
    parent_group::remove()?;
    // Whatever resisted may still write to its caches.
    let there: BTreeSet<&str> =
        sweep.failed.iter().map(|(id, _)| id).chain(&sweep.alive).map(String::as_str).collect();
    let foreign = Caches::open(&directories.caches())?.sweep(&there)?;
    sweep.foreign.extend(foreign);
    Ok(sweep)
}
