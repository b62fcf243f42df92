//! File locks. They belong to the open file, so the kernel drops them with the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::StoreError;

/// A lock that is held until the value is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Closing is not enough: a process that was forked meanwhile holds the same open file until it
    /// executes its program, and with it the lock (flock(2)).
    fn drop(&mut self) {
        // The only refusal is that the descriptor is no file; then there is no lock either.
        drop(lock(&self.file, FlockOperation::Unlock));
    }
}

/// Waits for a lock that others may share.
pub(crate) fn shared(path: &Path) -> Result<Lock, StoreError> {
    wait(path, open(path)?, FlockOperation::LockShared)
}

/// Waits for the only lock.
pub(crate) fn exclusive(path: &Path) -> Result<Lock, StoreError> {
    wait(path, open(path)?, FlockOperation::LockExclusive)
}

/// Waits for the only lock on a directory.
pub(crate) fn exclusive_directory(path: &Path) -> Result<Lock, StoreError> {
    wait(path, super::layout::open_directory(path)?, FlockOperation::LockExclusive)
}

fn wait(path: &Path, file: File, operation: FlockOperation) -> Result<Lock, StoreError> {
    let locked = lock(&file, operation);
    locked.map_err(StoreError::file("lock", path))?;
    Ok(Lock { file })
}

/// Takes the only lock, or `None` if anyone holds one.
pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Lock>, StoreError> {
    let file = open(path)?;
    let taken = try_lock(&file).map_err(StoreError::file("lock", path))?;
    Ok(taken.then_some(Lock { file }))
}

/// Opens, or makes for root only, a file to be locked.
pub(crate) fn open(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    // No link: a lock on what lies elsewhere would be another's.
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(StoreError::file("open", path))
}

/// Waits for the only lock on an open file.
pub(crate) fn lock_exclusive(file: &File) -> io::Result<()> {
    lock(file, FlockOperation::LockExclusive)
}

/// Takes the only lock on an open file, or `false` if anyone holds one.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    match lock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the name still leads to the locked file; else its holder has committed or removed it.
pub(crate) fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn lock(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            done => return done.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_value_although_another_process_has_the_file_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = shared(&path).unwrap();
        let as_a_forked_process_has_it = held.file.try_clone().unwrap();
        assert!(try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(try_exclusive(&path).unwrap().is_some());
        drop(as_a_forked_process_has_it);
    }
}
