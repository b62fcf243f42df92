//! The groups of a container that runs: who is in them, and how a further process gets in.
use super::remove::{RemoveError, for_each_child, members, open};
use super::{Version, tree};
use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, openat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A way into a group.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// The file into which a process writes `0` to be in it ([`super::join_tasks`]).
    pub(crate) file: OwnedFd,
    /// On v1 only: it is the group that the limit on processes is of.
    pub(crate) counts_processes: bool,
}

/// Opens the way into the group `inode` at `path`. `None` if the group is gone.
///
/// On v2 a group that passes controllers on to its children may have no process of its own, as where the container's
/// command is an init system: then it is the group below in which `init` is.
///
/// # Errors
///
/// The kernel refused to look or open.
pub(crate) fn open_to_join(path: &Path, inode: u64, init: i32) -> Result<Option<Entrance>, RemoveError> {
    let Some(group) = open(path, Some(inode))? else { return Ok(None) };
    let failed = RemoveError::kernel(path, "open it to be joined");
    let opened = match tree::version(group.as_fd()) {
        Ok(Some(Version::V1)) => open_v1(group.as_fd()).map(Some),
        Ok(_) => open_v2(group.as_fd(), init),
        Err(errno) => Err(errno),
    };
    match opened {
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        opened => opened.map_err(failed),
    }
}

fn open_v1(group: BorrowedFd<'_>) -> Result<Entrance, Errno> {
    let counts_processes = match accessat(group, "pids.max", Access::EXISTS, AtFlags::empty()) {
        Ok(()) => true,
        Err(Errno::NOENT) => false,
        Err(errno) => return Err(errno),
    };
    Ok(Entrance { file: open_to_write(group, "tasks")?, counts_processes })
}

fn open_v2(group: BorrowedFd<'_>, init: i32) -> Result<Option<Entrance>, Errno> {
    if members(group)?.contains(&init) {
        let file = open_to_write(group, "cgroup.procs")?;
        return Ok(Some(Entrance { file, counts_processes: false }));
    }
    let mut found = None;
    for_each_child(group, &mut |child| {
        if found.is_none() {
            found = open_v2(child, init)?;
        }
        Ok(())
    })?;
    Ok(found)
}

fn open_to_write(group: BorrowedFd<'_>, file: &str) -> Result<OwnedFd, Errno> {
    openat(group, file, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Adds the processes of the group `inode` at `path` and of those below to `found`, by their numbers.
///
/// # Errors
///
/// The kernel refused to look. That the group is gone means that it has none.
pub(crate) fn processes(path: &Path, inode: u64, found: &mut BTreeSet<i32>) -> Result<(), RemoveError> {
    let Some(group) = open(path, Some(inode))? else { return Ok(()) };
    collect(group.as_fd(), found).map_err(RemoveError::kernel(path, "list its processes"))
}

fn collect(group: BorrowedFd<'_>, found: &mut BTreeSet<i32>) -> Result<(), Errno> {
    found.extend(members(group)?);
    for_each_child(group, &mut |child| collect(child, found))
}
