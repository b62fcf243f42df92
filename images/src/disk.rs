//! Free disk space, of which a reserve is kept for the rest of the host.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::limits::Limits;

/// Between two looks at the free space so much is written at most, by each of those who write.
const STEP_BYTES: u64 = 64 << 20;

/// The store's file system has too little space left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "store the image in {path:?}: it needs {needed_bytes} bytes and {available_bytes} are free beyond the reserve of \
     {reserve_bytes}; free some space, or remove images"
)]
pub struct DiskFull {
    /// The store.
    pub path: PathBuf,
    /// Bytes that would be needed.
    pub needed_bytes: u64,
    /// Bytes there are beyond the reserve.
    pub available_bytes: u64,
    /// Bytes that stay free.
    pub reserve_bytes: u64,
}

/// Checks that `needed_bytes` fit into the file system of a directory and leave the reserve.
///
/// # Errors
///
/// [`DiskFull`]. A file system that does not say what it has is taken to have enough: writing
/// will tell.
pub(crate) fn check(path: &Path, needed_bytes: u64, limits: &Limits) -> Result<(), DiskFull> {
    let full = |space: Space| space.full(path.to_owned(), needed_bytes);
    match File::open(path).and_then(|directory| Space::of(&directory, limits)) {
        Ok(space) if space.available_bytes < needed_bytes => Err(full(space)),
        _ => Ok(()),
    }
}

/// Bytes that are to stay free in a directory's file system; none if it does not say what it has.
pub(crate) fn reserve_bytes(path: &Path, limits: &Limits) -> u64 {
    let space = File::open(path).and_then(|directory| Space::of(&directory, limits));
    space.map_or(0, |space| space.reserve_bytes)
}

/// Looks at the free space again and again while something grows.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    directory: &'a Path,
    limits: &'a Limits,
    /// Bytes it had when the space was last looked at.
    seen: u64,
    /// How many it may have before the space is looked at again.
    until: u64,
}

impl<'a> Watch<'a> {
    /// Of a directory's file system.
    pub(crate) fn new(directory: &'a Path, limits: &'a Limits) -> Watch<'a> {
        Watch { directory, limits, seen: 0, until: 0 }
    }

    /// Before what grows has `bytes`.
    pub(crate) fn reached(&mut self, bytes: u64) -> Result<(), DiskFull> {
        if bytes <= self.until {
            return Ok(());
        }
        let space = File::open(self.directory).and_then(|directory| Space::of(&directory, self.limits));
        let Ok(space) = space else { return Ok(()) }; // Writing will tell.
        let needed_bytes = bytes.saturating_sub(self.seen);
        if space.available_bytes < needed_bytes {
            return Err(space.full(self.directory.to_owned(), needed_bytes));
        }
        // Others write as well: near the end it is looked at more often.
        self.until = bytes.saturating_add((space.available_bytes / 8).min(STEP_BYTES));
        self.seen = bytes;
        Ok(())
    }
}

/// Whether a directory's file system could ever have so many bytes free; also true if it does not say.
pub(crate) fn could_hold(path: &Path, bytes: u64) -> bool {
    rustix::fs::statvfs(path).map_or(true, |found| found.f_blocks.saturating_mul(found.f_frsize) > bytes)
}

/// Bytes that are free for root in a directory's file system; `None` if it does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let statistics = rustix::fs::statvfs(path).ok()?;
    Some(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

struct Space {
    available_bytes: u64,
    reserve_bytes: u64,
}

impl Space {
    fn of(file: &File, limits: &Limits) -> io::Result<Space> {
        let statistics = rustix::fs::fstatvfs(file)?;
        let total = statistics.f_blocks.saturating_mul(statistics.f_frsize);
        let free = statistics.f_bavail.saturating_mul(statistics.f_frsize);
        let reserve_bytes = limits.free_disk_bytes.max(total / 100 * limits.free_disk_percent);
        Ok(Space { available_bytes: free.saturating_sub(reserve_bytes), reserve_bytes })
    }

    fn full(self, path: PathBuf, needed_bytes: u64) -> DiskFull {
        let Space { available_bytes, reserve_bytes } = self;
        DiskFull { path, needed_bytes, available_bytes, reserve_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_not_given_away() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { free_disk_bytes: 0, free_disk_percent: 0, ..Limits::default() };
        assert_eq!(check(directory.path(), 1, &limits), Ok(()));
        let reserve = Limits { free_disk_bytes: u64::MAX, ..limits.clone() };
        let full = check(directory.path(), 1, &reserve).unwrap_err();
        assert_eq!((full.available_bytes, full.needed_bytes), (0, 1));
        let full = check(directory.path(), u64::MAX, &limits).unwrap_err();
        assert!(full.to_string().contains(&directory.path().display().to_string()), "{full}");
    }
}
