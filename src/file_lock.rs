//! Locks on open files and directories (flock(2)), waited for with a bound.
//!
//! A lock belongs to the open file, so it ends with the process that holds it, whatever became of that. One that is
//! stopped or stuck keeps it: whoever waits gives up after a while and can say whom they waited for.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::time::{Duration, Instant};

use runtime::lock::holder;
pub use runtime::lock::is_at;

/// Whether others may have the lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Others who share it.
    Shared,
    /// Nobody.
    Exclusive,
}

/// A lock that nobody shares, until the value is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Locks `file` at once, if nobody else holds it.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn take(file: File) -> io::Result<Option<Lock>> {
        Ok(try_lock(&file, Hold::Exclusive)?.then_some(Lock(file)))
    }

    /// The same with a file that was found at `path`; nothing either if it is not there any more: whoever had the lock
    /// before may have moved or removed it.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn take_at(path: &Path, file: File) -> io::Result<Option<Lock>> {
        let Some(lock) = Lock::take(file)? else { return Ok(None) };
        Ok(is_at(path, &lock.0)?.then_some(lock))
    }
}

impl Drop for Lock {
    /// Closing is not enough: a process that was forked meanwhile holds the same open file until it executes its
    /// program, and with it the lock (flock(2)).
    fn drop(&mut self) {
        // Nothing that could refuse: what was locked can be unlocked.
        self.0.unlock().unwrap_or_default();
    }
}

impl Deref for Lock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

/// Why a lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it, and goes on having it.
    #[error("it is held by {holder}")]
    Held {
        /// Who.
        holder: Holder,
    },
    /// Nobody wants it any more.
    #[error("the wait for it was interrupted")]
    Unwanted,
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] io::Error),
}

/// The process that has taken a lock, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(Option<i32>);

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(out, "process {pid}"),
            None => out.write_str("a process that cannot be seen from here"),
        }
    }
}

/// Whoever waits for a lock, and goes on to do so.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    most: Duration,
    wanted: &'a dyn Fn() -> bool,
}

impl Patience<'_> {
    /// At most so long.
    pub fn of(most: Duration) -> Patience<'static> {
        Patience { most, wanted: &|| true }
    }

    /// At most so long, and only while it is wanted.
    pub fn while_wanted(most: Duration, wanted: &dyn Fn() -> bool) -> Patience<'_> {
        Patience { most, wanted }
    }
}

/// Between two attempts: the first wait, which doubles, and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(64)];

/// Locks `file`, for as long as it is open. Waits for others as long as there is patience: flock(2) itself knows no
/// bound, and a thread that waited in it could not be called back.
///
/// # Errors
///
/// [`LockError`].
pub fn lock(file: &File, hold: Hold, patience: Patience<'_>) -> Result<(), LockError> {
    let begun = Instant::now();
    let [mut wait, longest] = WAITS;
    while !try_lock(file, hold)? {
        let left = patience.most.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(LockError::Held { holder: Holder(holder(file)) });
        }
        if !(patience.wanted)() {
            return Err(LockError::Unwanted);
        }
        std::thread::park_timeout(wait.min(left));
        wait = longest.min(wait * 2);
    }
    Ok(())
}

fn try_lock(file: &File, hold: Hold) -> io::Result<bool> {
    let tried = match hold {
        Hold::Shared => file.try_lock_shared(),
        Hold::Exclusive => file.try_lock(),
    };
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const NONE: Patience<'static> = Patience { most: Duration::ZERO, wanted: &|| true };

    fn opened<const N: usize>(directory: &Path) -> [File; N] {
        [(); N].map(|()| File::open(directory).unwrap())
    }

    #[test]
    fn whoever_waits_in_vain_learns_whom_they_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second, third] = opened(directory.path());
        lock(&first, Hold::Shared, NONE).unwrap();
        lock(&second, Hold::Shared, NONE).unwrap();
        for patience in [NONE, Patience::of(Duration::from_millis(5))] {
            let refused = lock(&third, Hold::Exclusive, patience).unwrap_err();
            assert_eq!(refused.to_string(), format!("it is held by process {}", std::process::id()));
        }
    }

    #[test]
    fn a_lock_that_becomes_free_is_had() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = opened(directory.path());
        lock(&first, Hold::Exclusive, NONE).unwrap();
        let waiting =
            std::thread::spawn(move || lock(&second, Hold::Exclusive, Patience::of(Duration::from_secs(60))));
        drop(first);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn whoever_waits_can_be_called_back() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = opened(directory.path());
        lock(&first, Hold::Exclusive, NONE).unwrap();
        let looks = std::cell::Cell::new(0);
        let wanted = || looks.replace(looks.get() + 1) < 3;
        let hour = Patience::while_wanted(Duration::from_secs(3600), &wanted);
        assert!(matches!(lock(&second, Hold::Exclusive, hour), Err(LockError::Unwanted)));
    }

    #[test]
    fn a_wait_that_is_over_leaves_no_thread_and_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second, third] = opened(directory.path());
        lock(&first, Hold::Exclusive, NONE).unwrap();
        lock(&second, Hold::Exclusive, Patience::of(Duration::from_millis(5))).unwrap_err();
        first.unlock().unwrap();
        // Had the second one waited on, it would take the lock now.
        lock(&third, Hold::Exclusive, NONE).unwrap();
    }

    #[test]
    fn what_was_replaced_or_is_reached_by_a_link_is_not_had_at_its_path() {
        let parent = tempfile::tempdir().unwrap();
        let (path, link) = (parent.path().join("x"), parent.path().join("link"));
        std::fs::create_dir(&path).unwrap();
        let file = File::open(&path).unwrap();
        let is_had_at = |path| Lock::take_at(path, file.try_clone().unwrap()).unwrap().is_some();
        assert!(is_had_at(&path));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(!is_had_at(&link));
        std::fs::remove_dir(&path).unwrap();
        assert!(!is_had_at(&path));
        std::fs::create_dir(&path).unwrap();
        assert!(!is_had_at(&path));
    }

    #[test]
    fn a_lock_ends_with_its_value_although_another_process_has_the_file_open() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second, third] = opened(directory.path());
        let held = Lock::take(first).unwrap().unwrap();
        let as_a_forked_process_has_it = held.try_clone().unwrap();
        assert!(Lock::take(second).unwrap().is_none());
        drop(held);
        assert!(Lock::take(third).unwrap().is_some());
        drop(as_a_forked_process_has_it);
    }
}
