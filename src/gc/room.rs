//! Room on the disk that tasks need.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::host::{MeasureError, Space, measure};

/// What has to be free, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// A directory on the file system that is measured.
    pub place: PathBuf,
    /// More than so many bytes.
    pub bytes: u64,
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
