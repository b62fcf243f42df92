//! What a disk has.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, fstatvfs, statvfs};

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
    Ok(Space::of(statvfs(place).map_err(failed)?))
}

impl Space {
    /// What the file system of something that is open has.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn around(place: impl AsFd) -> io::Result<Space> {
        Ok(Space::of(fstatvfs(place)?))
    }

    fn of(statistics: StatVfs) -> Space {
        let bytes = |blocks: u64| blocks.saturating_mul(statistics.f_frsize);
        Space { free: bytes(statistics.f_bavail), total: bytes(statistics.f_blocks) }
    }
}
