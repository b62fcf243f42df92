//! The end of a group: whoever is in it is killed, then it is removed.
//!
//! A group is named by its path and its inode, because a replayed journal knows nothing else, and the path may have
//! passed to somebody else since: their group is neither entered nor removed. v2 has `cgroup.kill` (Linux
//! 5.14) and tells of changes through `cgroup.events`. v1 has the list of processes, and in the freezer's
//! hierarchy `freezer.state`: frozen, a fork bomb cannot outrun the list.
use super::tree::{self, DIRECTORY};
use crate::limits::CGROUP_EMPTY;
use crate::sys::signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::{Errno, pread};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How long to wait before looking again where no event is to be had: v1, or a child group in the way.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Processes pinned by a descriptor each at one time.
const BATCH: usize = 256;

/// How often a group is looked through for processes that were forked while the others got a signal.
const SIGNAL_ROUNDS: usize = 32;

/// A control group is still there, or its processes cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The path leads somewhere else: nothing was touched.
    #[error("use the control group {}: it is not in a cgroup file system", .path.display())]
    NotACgroup {
        /// The path.
        path: PathBuf,
    },
    /// Processes in it do not end, although they were killed.
    #[error("remove the control group {}: its processes {pids:?} survived SIGKILL", .path.display())]
    StillPopulated {
        /// The group.
        path: PathBuf,
        /// Who is left.
        pids: Vec<i32>,
    },
    /// The kernel refused a call.
    #[error("use the control group {}: {call}", .path.display())]
    Kernel {
        /// The group.
        path: PathBuf,
        /// Which call failed.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl RemoveError {
    pub(super) fn kernel(path: &Path, call: &'static str) -> impl FnOnce(Errno) -> RemoveError {
        move |errno| RemoveError::Kernel { path: path.to_owned(), call, source: errno.into() }
    }
}

/// Kills everything in the group `inode` at `path` and below, then removes it. That it is gone is success, whatever
/// is at its path now.
///
/// # Errors
///
/// [`RemoveError`]: the path is no control group, or processes in it do not end within ten seconds.
pub(crate) fn remove(path: &Path, inode: u64) -> Result<(), RemoveError> {
    let failed = |call| RemoveError::kernel(path, call);
    let deadline = Instant::now() + CGROUP_EMPTY;
    loop {
        // Looked at each time: rmdir(2) goes by the path.
        let Some(group) = open(path, Some(inode))? else { return Ok(()) };
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(failed("rmdir")(errno)),
        }
        let changes = Changes::of(group.as_fd());
        kill(group.as_fd()).map_err(failed("kill its processes"))?;
        if Instant::now() >= deadline {
            let pids = members(group.as_fd()).unwrap_or_default();
            return Err(RemoveError::StillPopulated { path: path.to_owned(), pids });
        }
        changes.wait().map_err(failed("poll"))?;
        remove_children(group.as_fd()).map_err(failed("remove a child group"))?;
    }
}

/// The group at `path`, if it is there and has this inode.
pub(super) fn open(path: &Path, inode: Option<u64>) -> Result<Option<OwnedFd>, RemoveError> {
    let failed = |call| RemoveError::kernel(path, call);
    let group = match rustix::fs::open(path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(group) => group,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("open")(errno)),
    };
    if tree::version(group.as_fd()).map_err(failed("statfs"))?.is_none() {
        return Err(RemoveError::NotACgroup { path: path.to_owned() });
    }
    let found = fstat(&group).map_err(failed("stat"))?.st_ino;
    Ok(inode.is_none_or(|inode| inode == found).then_some(group))
}

/// Removes the group `inode` at `path` (any, if that is not known) if nothing is in it: what others use stays.
///
/// # Errors
///
/// [`RemoveError`] for any refusal but "not empty" and "not there".
pub(crate) fn remove_if_empty(path: &Path, inode: Option<u64>) -> Result<(), RemoveError> {
    if open(path, inode)?.is_none() {
        return Ok(());
    }
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => Ok(()),
        Err(errno) => Err(RemoveError::kernel(path, "rmdir")(errno)),
    }
}

/// Kills everything in the group `inode` at `path` and below, frozen or not. That it is gone is success.
///
/// # Errors
///
/// [`RemoveError`], as [`remove`].
pub(crate) fn kill_members(path: &Path, inode: u64) -> Result<(), RemoveError> {
    let Some(group) = open(path, Some(inode))? else { return Ok(()) };
    kill(group.as_fd()).map_err(RemoveError::kernel(path, "kill its processes"))
}

/// Sends SIGKILL to everything in a group and below. Processes and groups that are gone already are no
/// error.
fn kill(group: BorrowedFd<'_>) -> Result<(), Errno> {
    if tree::write(group, "cgroup.kill", "1").is_ok() {
        return Ok(()); // The groups below are its too.
    }
    // Outside the freezer's hierarchy there is no such file, and on v2 before 5.14 another one.
    let frozen = tree::write(group, "freezer.state", "FROZEN").is_ok();
    let killed = members(group).and_then(|listed| signal(group, &listed, libc::SIGKILL));
    let killed = killed.and_then(|()| for_each_child(group, &mut kill));
    if frozen {
        tree::write(group, "freezer.state", "THAWED")?; // A frozen process only dies once it is thawed.
    }
    killed
}

/// Signals those of `numbers` that are processes of the group.
fn signal(group: BorrowedFd<'_>, numbers: &[i32], signal: i32) -> Result<(), Errno> {
    for batch in numbers.chunks(BATCH) {
        let mut held = Vec::new();
        for &number in batch {
            match Pid::from_raw(number).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
                Some(Ok(pidfd)) => held.push((number, pidfd)),
                None | Some(Err(Errno::SRCH)) => {}
                Some(Err(errno)) => return Err(errno),
            }
        }
        // The number may have passed to a stranger before it was pinned; a second look at the list tells.
        let still_listed = members(group)?;
        for (_, pidfd) in held.iter().filter(|(number, _)| still_listed.contains(number)) {
            match signals::send(pidfd.as_fd(), signal).map_err(|error| Errno::from_io_error(&error)) {
                Ok(()) | Err(Some(Errno::SRCH)) => {}
                Err(errno) => return Err(errno.unwrap_or(Errno::IO)),
            }
        }
    }
    Ok(())
}

/// Sends a signal to everything in the group `inode` at `path` and below that is not yet among those `reached`: they
/// have it from another hierarchy. That the group is gone is success.
///
/// # Errors
///
/// [`RemoveError`], as [`remove`]; `EINVAL` for a number that is no signal.
pub(crate) fn signal_members(
    path: &Path,
    inode: u64,
    number: i32,
    reached: &mut BTreeSet<i32>,
) -> Result<(), RemoveError> {
    let Some(group) = open(path, Some(inode))? else { return Ok(()) };
    for _ in 0..SIGNAL_ROUNDS {
        let before = reached.len();
        signal_new(group.as_fd(), number, reached)
            .map_err(RemoveError::kernel(path, "signal its processes"))?;
        if reached.len() == before {
            break;
        }
    }
    Ok(())
}

fn signal_new(group: BorrowedFd<'_>, number: i32, reached: &mut BTreeSet<i32>) -> Result<(), Errno> {
    let new: Vec<i32> = members(group)?.into_iter().filter(|pid| !reached.contains(pid)).collect();
    signal(group, &new, number)?;
    reached.extend(new);
    for_each_child(group, &mut |child| signal_new(child, number, reached))
}

/// The processes of a group; none if the group went meanwhile.
pub(super) fn members(group: BorrowedFd<'_>) -> Result<Vec<i32>, Errno> {
    match tree::read(group, "cgroup.procs") {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// What becomes of a group from now on: its `cgroup.events`. v1 tells of nothing, and a group that is gone neither.
struct Changes(Option<OwnedFd>);

impl Changes {
    /// Without events to be had, for whatever reason, the time is waited for: no killing rests on them.
    fn of(group: BorrowedFd<'_>) -> Changes {
        let opened = openat(group, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let read = opened.and_then(|events| {
            // Whoever has not read it is told of a change at once, whether there is any or not.
            pread(&events, &mut [0; 256], 0)?;
            Ok(events)
        });
        Changes(read.ok())
    }

    /// Waits for the next one, or until a moment has passed.
    fn wait(&self) -> Result<(), Errno> {
        let mut events: Vec<_> = self.0.iter().map(|events| PollFd::new(events, PollFlags::PRI)).collect();
        match poll(&mut events, Some(&LOOK_AGAIN)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

fn remove_children(group: BorrowedFd<'_>) -> Result<(), Errno> {
    for_each_child(group, &mut remove_children)?;
    for name in child_names(group)? {
        match unlinkat(group, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {} // The outer loop comes back.
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(super) type ForChild<'a> = dyn FnMut(BorrowedFd<'_>) -> Result<(), Errno> + 'a;

pub(super) fn for_each_child(group: BorrowedFd<'_>, act: &mut ForChild<'_>) -> Result<(), Errno> {
    for name in child_names(group)? {
        let child: OwnedFd = match openat(group, &*name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(child) => child,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        act(child.as_fd())?;
    }
    Ok(())
}

fn child_names(group: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    let entries = match Dir::read_from(group) {
        Ok(entries) => entries,
        Err(Errno::NOENT | Errno::NODEV) => return Ok(names),
        Err(errno) => return Err(errno),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT | Errno::NODEV) => break,
            Err(errno) => return Err(errno),
        };
        let dots = entry.file_name() == c"." || entry.file_name() == c"..";
        if entry.file_type() == FileType::Directory && !dots {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_change_is_not_told_of_one_that_was_before() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(unified) = unified.and_then(|line| line.split(' ').nth(4)) else { return };
        // Anybody's: nothing is changed in it.
        let mut below = std::fs::read_dir(unified).unwrap().map(|entry| entry.unwrap().path());
        let Some(group) = below.find(|path| path.join("cgroup.events").exists()) else { return };
        let group = rustix::fs::open(group, DIRECTORY, Mode::empty()).unwrap();
        let is_waited = |_| {
            let begun = Instant::now();
            Changes::of(group.as_fd()).wait().unwrap();
            begun.elapsed().as_micros() > 1_900
        };
        // Something may happen in it at this moment.
        assert!((0..20).any(is_waited));
    }

    #[test]
    fn a_directory_that_is_no_control_group_is_never_touched() {
        let scratch = tempfile::tempdir().unwrap();
        let inode = fstat(std::fs::File::open(scratch.path()).unwrap()).unwrap().st_ino;
        let removals = [remove(scratch.path(), inode), remove_if_empty(scratch.path(), Some(inode))];
        for error in removals.map(Result::unwrap_err) {
            assert!(matches!(error, RemoveError::NotACgroup { .. }), "{error}");
        }
        assert!(scratch.path().exists());
        remove(&scratch.path().join("absent"), inode).unwrap();
    }
}
