//! Where the queue lies: a directory below the data directory, with its file and the bytes of its artifacts.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::cli::FAILED;
use crate::cli::refusal::Refusal;
use crate::directories::Directories;
use crate::queue::EmbeddedQueue;
use crate::timestamp::Timestamp;

/// The queue's own file.
pub(super) fn database(directories: &Directories) -> PathBuf {
    directories.queue().join("queue.sqlite")
}

/// The bytes of artifacts.
pub(super) fn artifacts(directories: &Directories) -> PathBuf {
    directories.queue().join("artifacts")
}

/// The queue in its file, both made if they are missing; for one process at a time. Claims, deadlines and signatures go by
/// the wall clock, as those of its clients do.
pub(super) fn open(directories: &Directories) -> Result<EmbeddedQueue, Refusal> {
    let place = directories.queue();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&place);
    made.map_err(|error| Refusal::new(FAILED, format!("failed to make {}: {error}", place.display())))?;
    EmbeddedQueue::in_file(&database(directories), Box::new(Timestamp::now))
        .map_err(|error| Refusal::because(FAILED, &error))
}
