//! File locks. They belong to the open file, so the kernel drops them with the process. One that is stopped or stuck keeps
//! them: whoever waits gives up after a while, or when nobody wants it any more, and says whom it waited for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::StoreError;

/// Says which process has a lock on an open file, as far as that can be seen.
pub type Holder = for<'a> fn(BorrowedFd<'a>) -> Option<i32>;

/// How a lock is waited for.
#[derive(Clone, Copy)]
pub(crate) struct Waiting<'a> {
    /// At most so long.
    pub(crate) most: Duration,
    /// Only while that holds.
    pub(crate) wanted: &'a dyn Fn() -> bool,
    /// Says for whom.
    pub(crate) holder: Holder,
}

/// Between two attempts: the first wait, which doubles, and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(64)];

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
        flock(&self.file, FlockOperation::Unlock).unwrap_or_default();
    }
}

/// Waits for a lock that others may share.
pub(crate) fn shared(path: &Path, waiting: Waiting<'_>) -> Result<Lock, StoreError> {
    let file = open(path)?;
    wait(path, &file, FlockOperation::NonBlockingLockShared, waiting)?;
    Ok(Lock { file })
}

/// Waits for the only lock.
pub(crate) fn exclusive(path: &Path, waiting: Waiting<'_>) -> Result<Lock, StoreError> {
    let file = open(path)?;
    wait_alone(path, &file, waiting)?;
    Ok(Lock { file })
}

/// Waits for the only lock on a directory.
pub(crate) fn exclusive_directory(path: &Path, waiting: Waiting<'_>) -> Result<Lock, StoreError> {
    let file = super::layout::open_directory(path)?;
    wait_alone(path, &file, waiting)?;
    Ok(Lock { file })
}

/// Waits for the only lock on an open file.
pub(crate) fn wait_alone(path: &Path, file: &File, waiting: Waiting<'_>) -> Result<(), StoreError> {
    wait(path, file, FlockOperation::NonBlockingLockExclusive, waiting)
}

/// flock(2) itself knows no bound, and a thread that waits in it cannot be called back: so it is asked again and again.
fn wait(path: &Path, file: &File, operation: FlockOperation, waiting: Waiting<'_>) -> Result<(), StoreError> {
    let begun = Instant::now();
    let [mut pause, longest] = WAITS;
    while !try_operation(file, operation).map_err(StoreError::file("lock", path))? {
        let left = waiting.most.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let holder = match (waiting.holder)(file.as_fd()) {
                Some(pid) => format!("process {pid}"),
                None => "a process that cannot be seen from here".to_owned(),
            };
            return Err(StoreError::Locked { path: path.to_owned(), holder });
        }
        if !(waiting.wanted)() {
            return Err(StoreError::Unwanted { path: path.to_owned() });
        }
        std::thread::park_timeout(pause.min(left));
        pause = longest.min(pause * 2);
    }
    Ok(())
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

/// Takes the only lock on an open file, or `false` if anyone holds one.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    try_operation(file, FlockOperation::NonBlockingLockExclusive)
}

fn try_operation(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at_most(most: Duration, wanted: &dyn Fn() -> bool) -> Waiting<'_> {
        Waiting { most, wanted, holder: |_| Some(4711) }
    }

    #[test]
    fn whoever_waits_in_vain_learns_whom_they_waited_for_and_can_be_called_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let _held = exclusive(&path, at_most(Duration::ZERO, &|| true)).unwrap();
        for most in [Duration::ZERO, Duration::from_millis(5)] {
            let refused = shared(&path, at_most(most, &|| true)).unwrap_err();
            assert!(refused.to_string().ends_with("it is held by process 4711"), "{refused}");
        }
        let looks = std::cell::Cell::new(0);
        let wanted = || looks.replace(looks.get() + 1) < 3;
        let unwanted = exclusive(&path, at_most(Duration::from_secs(3600), &wanted));
        assert!(matches!(unwanted, Err(StoreError::Unwanted { .. })), "{unwanted:?}");
    }

    #[test]
    fn a_lock_ends_with_its_value_although_another_process_has_the_file_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = shared(&path, at_most(Duration::ZERO, &|| true)).unwrap();
        let as_a_forked_process_has_it = held.file.try_clone().unwrap();
        assert!(try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(try_exclusive(&path).unwrap().is_some());
        drop(as_a_forked_process_has_it);
    }
}
