//! Locks on open files and directories (flock(2)), waited for with a bound.
//!
//! A lock belongs to the open file, so it ends with the process that holds it, whatever became of that. One that is
//! stopped or stuck keeps it: whoever waits gives up after a while and can say whom they waited for.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;
use std::time::Duration;

/// Whether others may have the lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Others who share it.
    Shared,
    /// Nobody.
    Exclusive,
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
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] io::Error),
}

/// The process that has taken a lock, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(out, "process {pid}"),
            None => out.write_str("a process that cannot be seen from here"),
        }
    }
}

/// Locks `file`, for as long as it is open. Waits for others at most so long.
///
/// # Errors
///
/// [`LockError`].
pub fn lock(file: &File, hold: Hold, patience: Duration) -> Result<(), LockError> {
    let tried = match hold {
        Hold::Shared => file.try_lock_shared(),
        Hold::Exclusive => file.try_lock(),
    };
    match tried {
        Ok(()) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error.into()),
        Err(TryLockError::WouldBlock) => {}
    }
    // flock(2) has no time limit. A thread that waits on after its time is up takes the lock for a moment at most: the
    // open file is closed by then, and its lock goes with the thread's own descriptor.
    let (tell, told) = mpsc::sync_channel(1);
    let waiting = file.try_clone()?;
    std::thread::Builder::new().name("file lock".to_owned()).spawn(move || {
        let locked = match hold {
            Hold::Shared => waiting.lock_shared(),
            Hold::Exclusive => waiting.lock(),
        };
        drop(waiting);
        if tell.send(locked).is_err() {
            // Nobody waits any more.
        }
    })?;
    match told.recv_timeout(patience) {
        Ok(locked) => Ok(locked?),
        Err(_) => Err(LockError::Held { holder: holder(file) }),
    }
}

/// Who has a lock on this file, by the kernel's own list.
fn holder(file: &File) -> Holder {
    let find = || {
        let status = file.metadata().ok()?;
        let device = status.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let name = format!("{major:02x}:{minor:02x}:{}", status.ino());
        let list = std::fs::read_to_string("/proc/locks").ok()?;
        // "1: FLOCK  ADVISORY  WRITE 4711 fe:01:12345 0 EOF"; who waits has an arrow after the number.
        list.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields.as_slice() {
                [_, "FLOCK", _, _, pid, place, ..] if *place == name => pid.parse().ok(),
                _ => None,
            }
        })
    };
    Holder(find())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_in_vain_learns_whom_they_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second, third] = [(); 3].map(|()| File::open(directory.path()).unwrap());
        lock(&first, Hold::Shared, Duration::ZERO).unwrap();
        lock(&second, Hold::Shared, Duration::ZERO).unwrap();
        let refused = lock(&third, Hold::Exclusive, Duration::ZERO).unwrap_err();
        assert_eq!(refused.to_string(), format!("it is held by process {}", std::process::id()));
    }

    #[test]
    fn a_lock_that_becomes_free_is_had() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = [(); 2].map(|()| File::open(directory.path()).unwrap());
        lock(&first, Hold::Exclusive, Duration::ZERO).unwrap();
        let waiting = std::thread::spawn(move || lock(&second, Hold::Exclusive, Duration::from_secs(60)));
        drop(first);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn whoever_gave_up_does_not_keep_the_lock_later() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second, third] = [(); 3].map(|()| File::open(directory.path()).unwrap());
        lock(&first, Hold::Exclusive, Duration::ZERO).unwrap();
        lock(&second, Hold::Exclusive, Duration::ZERO).unwrap_err();
        drop((first, second));
        lock(&third, Hold::Exclusive, Duration::from_secs(60)).unwrap();
    }
}
