//! Standing still: everything in a group and below gets no processor until it is let go on.
//!
//! v2 has `cgroup.freeze` in every group, and tells in `cgroup.events` when all stand still. v1 has the freezer's hierarchy,
//! whose `freezer.state` goes from `FREEZING` to `FROZEN`, or stays there as long as a process waits for a device.
use super::remove::{ForChild, RemoveError, for_each_child, open};
use super::tree;
use crate::limits::STANDSTILL;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, pread};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// v1 tells nobody: how long to wait before looking again.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// A group was not brought to stand still, or to go on.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// It goes on.
    #[error(
        "pause the control group {}: within {STANDSTILL:?} not all of it stood still (a process may wait for a device); it \
         goes on as before", .path.display()
    )]
    TooSlow {
        /// The group.
        path: PathBuf,
    },
    /// It cannot be found, or is none.
    #[error(transparent)]
    Group(#[from] RemoveError),
    /// The kernel refused a call.
    #[error("{call} the control group {}", .path.display())]
    Kernel {
        /// What was tried.
        call: &'static str,
        /// The group.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Which files say it.
#[derive(Clone, Copy)]
enum Interface {
    V1,
    V2,
}

impl Interface {
    /// `None` for a group of another v1 hierarchy than the freezer's.
    fn of(group: BorrowedFd<'_>) -> Option<Interface> {
        let has = |file| {
            rustix::fs::accessat(group, file, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty())
        };
        match (has("cgroup.freeze"), has("freezer.state")) {
            (Ok(()), _) => Some(Interface::V2),
            (_, Ok(())) => Some(Interface::V1),
            _ => None,
        }
    }

    fn stop(self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        match self {
            Interface::V1 => tree::write(group, "freezer.state", "FROZEN"),
            Interface::V2 => tree::write(group, "cgroup.freeze", "1"),
        }
    }

    fn go_on(self, group: BorrowedFd<'_>) -> Result<(), Errno> {
        match self {
            Interface::V1 => tree::write(group, "freezer.state", "THAWED"),
            Interface::V2 => tree::write(group, "cgroup.freeze", "0"),
        }
    }
}

fn kernel(call: &'static str, path: &Path) -> impl FnOnce(Errno) -> FreezeError {
    move |errno| FreezeError::Kernel { call, path: path.to_owned(), source: errno.into() }
}

/// Brings the group `inode` at `path` and those below to stand still, and waits until they do. Whether it could be done
/// in this group: not in one of another v1 hierarchy, nor in one that is gone.
///
/// # Errors
///
/// [`FreezeError`]; then it goes on.
pub(crate) fn freeze(path: &Path, inode: u64) -> Result<bool, FreezeError> {
    let Some(group) = open(path, Some(inode))? else { return Ok(false) };
    let Some(interface) = Interface::of(group.as_fd()) else { return Ok(false) };
    let stopped = interface.stop(group.as_fd()).and_then(|()| match interface {
        Interface::V1 => wait_v1(group.as_fd()),
        Interface::V2 => wait_v2(group.as_fd()),
    });
    match stopped {
        Ok(true) => Ok(true),
        Ok(false) => {
            interface.go_on(group.as_fd()).map_err(kernel("let go on", path))?;
            Err(FreezeError::TooSlow { path: path.to_owned() })
        }
        Err(errno) => {
            // What failed first is what is told; a group that is gone needs nothing.
            interface.go_on(group.as_fd()).unwrap_or(());
            Err(kernel("pause", path)(errno))
        }
    }
}

fn wait_v1(group: BorrowedFd<'_>) -> Result<bool, Errno> {
    let deadline = Instant::now() + STANDSTILL;
    while tree::read(group, "freezer.state")?.trim() != "FROZEN" {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        match poll(&mut [], Some(&LOOK_AGAIN)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

fn wait_v2(group: BorrowedFd<'_>) -> Result<bool, Errno> {
    let deadline = Instant::now() + STANDSTILL;
    let events = openat(group, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    loop {
        // A change is told to who has read the file before.
        let mut text = [0; 256];
        let length = pread(&events, &mut text, 0)?;
        if text.get(..length).unwrap_or_default().split(|byte| *byte == b'\n').any(|line| line == b"frozen 1")
        {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether the group `inode` at `path` stands still, or is about to.
///
/// # Errors
///
/// [`FreezeError`].
pub(crate) fn is_frozen(path: &Path, inode: u64) -> Result<bool, FreezeError> {
    let Some(group) = open(path, Some(inode))? else { return Ok(false) };
    let read = |file| match tree::read(group.as_fd(), file) {
        Err(Errno::NODEV) => Ok(String::new()), // It went meanwhile.
        text => text.map_err(kernel("look at", path)),
    };
    Ok(match Interface::of(group.as_fd()) {
        Some(Interface::V1) => matches!(read("freezer.state")?.trim(), "FROZEN" | "FREEZING"),
        Some(Interface::V2) => {
            read("cgroup.freeze")?.trim() == "1"
                || read("cgroup.events")?.lines().any(|line| line == "frozen 1")
        }
        None => false,
    })
}

/// Lets the group `inode` at `path` and those below go on, where they are frozen: on v1 nothing in them ends before.
///
/// # Errors
///
/// [`FreezeError`].
pub(crate) fn thaw(path: &Path, inode: u64) -> Result<(), FreezeError> {
    let Some(group) = open(path, Some(inode))? else { return Ok(()) };
    thaw_tree(group.as_fd()).map_err(kernel("let go on", path))
}

fn thaw_tree(group: BorrowedFd<'_>) -> Result<(), Errno> {
    let below: &mut ForChild<'_> = &mut thaw_tree;
    match Interface::of(group).map(|interface| interface.go_on(group)) {
        None | Some(Ok(()) | Err(Errno::NOENT | Errno::NODEV)) => for_each_child(group, below),
        Some(refused) => refused,
    }
}
