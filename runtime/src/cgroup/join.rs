//! The groups of a container that runs: who is in them, and how a further process gets in.
use super::remove::{RemoveError, for_each_child, members, open};
use super::{Version, tree};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Opens the file of the group `inode` at `path` into which a process of the container writes `0` to be in it
/// ([`super::join_tasks`]). `None` if the group is gone.
///
/// On v2 a group that passes controllers on to its children may have no process of its own, as where the container's
/// command is an init system: then it is the group below in which `init` is.
///
/// # Errors
///
/// The kernel refused to look or open.
pub(crate) fn open_to_join(path: &Path, inode: u64, init: i32) -> Result<Option<OwnedFd>, RemoveError> {
    let Some(group) = open(path, Some(inode))? else { return Ok(None) };
    let failed = RemoveError::kernel(path, "open it to be joined");
    let opened = match tree::version(group.as_fd()) {
        Ok(Some(Version::V1)) => open_to_write(group.as_fd(), "tasks").map(Some),
        Ok(_) => open_v2(group.as_fd(), init),
        Err(errno) => Err(errno),
    };
    match opened {
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        opened => opened.map_err(failed),
    }
}

fn open_v2(group: BorrowedFd<'_>, init: i32) -> Result<Option<OwnedFd>, Errno> {
    if members(group)?.contains(&init) {
        return open_to_write(group, "cgroup.procs").map(Some);
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
