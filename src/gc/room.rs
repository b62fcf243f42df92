//! Room on the disk that tasks need.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What has to be free, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// A directory on the file system that is measured.
    pub place: PathBuf,
    /// More than so many bytes.
    pub bytes: u64,
}

/// What a file system has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// That anybody may still write.
    pub free: u64,
    /// In all.
    pub total: u64,
}

impl Room {
    /// What there is, if it is too little. A file system that does not say has enough: writing will tell.
    pub fn shortage(&self) -> Option<Space> {
        let statistics = rustix::fs::statvfs(&self.place).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(statistics.f_frsize);
        let space = Space { free: bytes(statistics.f_bavail), total: bytes(statistics.f_blocks) };
        (space.free <= self.bytes).then_some(space)
    }

    /// Whether what is removed from a directory makes room here: it lies on the same file system.
    pub fn is_made_in(&self, directory: &Path) -> bool {
        let device = |path: &Path| std::fs::metadata(path).map(|it| it.dev()).ok();
        let place = device(&self.place);
        place.is_some() && place == device(directory)
    }
}
