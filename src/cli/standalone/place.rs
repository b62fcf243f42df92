//! Where the queue lies: a directory below the data directory, with its file and the bytes of its artifacts.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cli::FAILED;
use crate::cli::refusal::Refusal;
use crate::directories::Directories;
use crate::queue::EmbeddedQueue;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// The bytes of artifacts.
pub(super) fn artifacts(directories: &Directories) -> PathBuf {
    directories.queue().join("artifacts")
}

/// The queue in its file, both made if they are missing; for one process at a time. Claims, deadlines and signatures go by
/// the wall clock, as those of its clients do.
pub(super) fn open(directories: &Directories) -> Result<EmbeddedQueue, Refusal> {
    let place = make(directories)?;
    EmbeddedQueue::in_directory(&place, Box::new(Timestamp::now))
        .map_err(|error| Refusal::because(FAILED, &error))
}

/// Has a copy take the queue's place. No process may have the queue.
pub(super) fn restore(file: &Path, directories: &Directories) -> Result<(), Refusal> {
    fs::metadata(file).map_err(|error| {
        let file = file.display();
        Refusal::new(
            FAILED,
            format!(
                "failed to restore the queue from {file}: {error}; name a copy that was made with --backup"
            ),
        )
    })?;
    let place = make(directories)?;
    EmbeddedQueue::restore(&place, file).map_err(|error| {
        let (file, place) = (file.display(), place.display());
        Refusal::new(FAILED, format!("failed to restore the queue in {place} from {file}: {}", chain(&error)))
    })
}

fn make(directories: &Directories) -> Result<PathBuf, Refusal> {
    let place = directories.queue();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&place);
    made.map_err(|error| Refusal::new(FAILED, format!("failed to make {}: {error}", place.display())))?;
    Ok(place)
}
