//! Undoing the containers of a worker that is gone, by the journals of their monitors.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use runtime::journal::{Journal, JournalError};
use runtime::undo::{UndoError, undo_all};

use crate::file_lock::{self, Hold, LockError, Patience};

/// Why a container is not undone.
#[derive(Debug, thiserror::Error)]
pub enum UndoContainerError {
    /// Its monitor does not end, so it may yet take a step.
    #[error(
        "wait for the container's monitor: {lock}; if it hangs, end it (kill -9), then run docker-worker cleanup"
    )]
    Monitor {
        /// Who it is.
        lock: LockError,
    },
    /// Its directory cannot be opened.
    #[error("open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Its journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something resists.
    #[error(transparent)]
    Undo(#[from] UndoError),
}

/// Kills what is left of the containers in a runtime's state directory and undoes what their
/// journals say. Waits until `deadline` for monitors that are still at it: without a worker they undo
/// everything themselves.
///
/// # Errors
///
/// The first thing that resists; the rest is tried all the same.
pub fn undo_containers(state_root: &Path, deadline: Instant) -> Result<(), UndoContainerError> {
    let failed = |source| UndoContainerError::Open { path: state_root.to_owned(), source };
    let entries = match std::fs::read_dir(state_root) {
        Ok(entries) => entries,
        // It was never made, or is gone already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut result = Ok(());
    for entry in entries {
        let undone = entry.map_err(failed).and_then(|entry| undo_container(&entry.path(), deadline));
        if result.is_ok() {
            result = undone;
        }
    }
    result
}

fn undo_container(directory: &Path, deadline: Instant) -> Result<(), UndoContainerError> {
    let file = match File::open(directory) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(UndoContainerError::Open { path: directory.to_owned(), source }),
    };
    // Its monitor holds this lock to its end. Beside it, a step that it takes now would be recorded in a journal that
    // has been undone already.
    let patience = deadline.saturating_duration_since(Instant::now());
    file_lock::lock(&file, Hold::Exclusive, Patience::of(patience))
        .map_err(|lock| UndoContainerError::Monitor { lock })?;
    undo_open(&file, directory)
}

/// Undoes what the journal in a directory says, if there is one.
///
/// # Errors
///
/// What resists.
pub fn undo_journal(directory: &Path) -> Result<(), UndoContainerError> {
    let file = match File::open(directory) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(UndoContainerError::Open { path: directory.to_owned(), source }),
    };
    undo_open(&file, directory)
}

fn undo_open(file: &File, directory: &Path) -> Result<(), UndoContainerError> {
    Journal::open(file.as_fd(), directory)?.map_or(Ok(()), |journal| Ok(undo_all(&journal)?))
}
