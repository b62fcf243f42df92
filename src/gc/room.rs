//! Room on the disk that tasks need.

use std::collections::BTreeSet;
use std::io;
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

/// A disk that does not say what it has.
#[derive(Debug, thiserror::Error)]
#[error("measure the disk of {}", place.display())]
pub struct MeasureError {
    /// A directory on it.
    place: PathBuf,
    /// The kernel's answer.
    source: io::Error,
}

/// What the file system of a directory has.
///
/// # Errors
///
/// [`MeasureError`], also when the directory is not there.
pub fn measure(place: &Path) -> Result<Space, MeasureError> {
    let failed = |errno| MeasureError { place: place.to_owned(), source: io::Error::from(errno) };
    let statistics = rustix::fs::statvfs(place).map_err(failed)?;
    let bytes = |blocks: u64| blocks.saturating_mul(statistics.f_frsize);
    Ok(Space { free: bytes(statistics.f_bavail), total: bytes(statistics.f_blocks) })
}

/// Why nobody may count on there being room.
#[derive(Debug)]
pub enum Shortage {
    /// This is too little.
    Known(Space),
    /// Nobody knows what there is.
    Unknown(MeasureError),
}

impl Room {
    /// So much room on each of the disks that `places` lie on. One that cannot be looked at counts as a disk of its own.
    pub fn on_each_disk(places: &[&Path], bytes: u64) -> Vec<Room> {
        let mut seen = BTreeSet::new();
        let mut is_new = |place: &Path| device(place).is_none_or(|device| seen.insert(device));
        let places = places.iter().filter(|place| is_new(place));
        places.map(|place| Room { place: place.to_path_buf(), bytes }).collect()
    }

    /// Why nobody may count on it, if nobody may.
    pub fn shortage(&self) -> Option<Shortage> {
        match measure(&self.place) {
            Ok(space) => (space.free <= self.bytes).then_some(Shortage::Known(space)),
            Err(error) => Some(Shortage::Unknown(error)),
        }
    }

    /// Whether removing something from a directory makes room that is lacking here: it lies on the same file system.
    pub fn is_made_in(&self, directory: &Path) -> bool {
        let place = device(&self.place);
        place.is_some() && place == device(directory) && self.is_short()
    }

    /// Whether it is known that there is too little.
    fn is_short(&self) -> bool {
        matches!(self.shortage(), Some(Shortage::Known(_)))
    }
}

/// What tells the file system of a directory from others, if that can be looked at.
fn device(path: &Path) -> Option<u64> {
    std::fs::metadata(path).map(|it| it.dev()).ok()
}
