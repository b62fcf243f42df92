//! What flock(2) leaves to ask: whether a path still leads to what was locked, and who has a lock.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{fstat, lstat, major, minor};
use rustix::io::Errno;

use crate::limits::SMALL_FILE_BYTES;

/// Whether `path` leads, by no link of its own, to the open `file`. Asked once it is locked: whoever had the lock before may have removed it.
///
/// # Errors
///
/// Either cannot be looked at.
pub fn is_at(path: &Path, file: impl AsFd) -> io::Result<bool> {
    let found = match lstat(path) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    let open = fstat(file)?;
    Ok((found.st_dev, found.st_ino) == (open.st_dev, open.st_ino))
}

/// The process that has a lock on `file`, by the kernel's own list; `None` if it cannot be seen from here. Source:
/// proc_locks(5).
pub fn holder(file: impl AsFd) -> Option<i32> {
    let status = fstat(file).ok()?;
    let (major, minor) = (major(status.st_dev), minor(status.st_dev));
    let place = format!("{major:02x}:{minor:02x}:{}", status.st_ino);
    let mut list = String::new();
    File::open("/proc/locks").ok()?.take(SMALL_FILE_BYTES).read_to_string(&mut list).ok()?;
    // "1: FLOCK  ADVISORY  WRITE 4711 fe:01:12345 0 EOF"; who waits has an arrow after the number.
    list.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, pid, found, ..] if *found == place => pid.parse().ok(),
            _ => None,
        }
    })
}
