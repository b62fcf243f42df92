//! Removes a control group after a crash: whoever is still in it is killed first.
//!
//! Works on the bare path, because a replay knows nothing else: cgroup v2 has `cgroup.kill` and
//! `cgroup.events`, v1 has the list of processes, and `freezer.state` where the group is in the freezer's
//! hierarchy (frozen first, so that a fork bomb cannot outrun the list).

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, StatFs};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::limits::{CGROUP_EMPTY, SMALL_FILE_BYTES};

/// A control group is still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveCgroupError {
    /// The path leads somewhere else: nothing was touched.
    #[error("remove the control group {}: it is not in a cgroup file system", path.display())]
    NotACgroup {
        /// The path.
        path: PathBuf,
    },
    /// Processes in it do not end, although they were killed.
    #[error("remove the control group {}: its processes {pids:?} survived SIGKILL", path.display())]
    StillPopulated {
        /// The group.
        path: PathBuf,
        /// Who is left.
        pids: Vec<i32>,
    },
    /// The kernel refused a call.
    #[error("remove the control group {}: {call}", path.display())]
    Kernel {
        /// The group.
        path: PathBuf,
        /// Which call failed.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Kills everything in the group at `path` and below, then removes it. Nothing there is success.
///
/// # Errors
///
/// The path is no control group, or processes in it do not end within ten seconds.
pub fn remove_cgroup(path: &Path) -> Result<(), RemoveCgroupError> {
    let failed =
        |call, errno: Errno| RemoveCgroupError::Kernel { path: path.to_owned(), call, source: errno.into() };
    let deadline = Instant::now() + CGROUP_EMPTY;
    let group = match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
        Ok(group) => group,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed("open", errno)),
    };
    if !is_cgroup(&rustix::fs::fstatfs(&group).map_err(|errno| failed("fstatfs", errno))?) {
        return Err(RemoveCgroupError::NotACgroup { path: path.to_owned() });
    }
    loop {
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(failed("rmdir", errno)),
        }
        kill_all(group.as_fd()).map_err(|errno| failed("kill", errno))?;
        if Instant::now() >= deadline {
            let pids = processes(group.as_fd()).unwrap_or_default();
            return Err(RemoveCgroupError::StillPopulated { path: path.to_owned(), pids });
        }
        wait_for_change(group.as_fd()).map_err(|errno| failed("poll", errno))?;
        remove_children(group.as_fd()).map_err(|errno| failed("remove a child group", errno))?;
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of linux/magic.h.
fn is_cgroup(file_system: &StatFs) -> bool {
    matches!(u32::try_from(file_system.f_type), Ok(0x0027_e0eb | 0x6367_7270))
}

fn kill_all(group: BorrowedFd<'_>) -> Result<(), Errno> {
    if write(group, "cgroup.kill", b"1").is_ok() {
        return Ok(()); // Linux 5.14, and it reaches the descendants too.
    }
    for_each_child(group, &mut |child| kill_all(child))?;
    // A frozen process of v1 dies only once it is thawed, but a thawed fork bomb outruns the list.
    // Outside the freezer's hierarchy there is no such file, which is fine.
    let frozen = write(group, "freezer.state", b"FROZEN").is_ok();
    let killed = kill_listed(group);
    if frozen {
        write(group, "freezer.state", b"THAWED")?;
    }
    killed
}

fn kill_listed(group: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut held = Vec::new();
    for number in processes(group)? {
        let Some(pid) = Pid::from_raw(number) else { continue };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => held.push((number, pidfd)),
            Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno),
        }
    }
    // The number may have passed to a stranger before it was pinned; a second look at the list tells.
    let still_listed = processes(group)?;
    for (_, pidfd) in held.iter().filter(|(number, _)| still_listed.contains(number)) {
        match pidfd_send_signal(pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn processes(group: BorrowedFd<'_>) -> Result<Vec<i32>, Errno> {
    let file =
        match rustix::fs::openat(group, "cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT | Errno::NODEV) => return Ok(Vec::new()), // The group went meanwhile.
            Err(errno) => return Err(errno),
        };
    let mut text = String::new();
    match file.take(SMALL_FILE_BYTES).read_to_string(&mut text) {
        Ok(_) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(Vec::new()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Waits until `cgroup.events` (v2) changes; v1 tells nothing, so there it is a short timeout.
fn wait_for_change(group: BorrowedFd<'_>) -> Result<(), Errno> {
    let events = rustix::fs::openat(group, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let short = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    let polled = match &events {
        Ok(events) => poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&short)),
        Err(_) => poll(&mut [], Some(&short)),
    };
    match polled {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn remove_children(group: BorrowedFd<'_>) -> Result<(), Errno> {
    for name in child_names(group)? {
        if let Ok(child) = rustix::fs::openat(group, &*name, DIRECTORY, Mode::empty()) {
            remove_children(child.as_fd())?;
        }
        match rustix::fs::unlinkat(group, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {} // The outer loop comes back.
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

type ForChild<'a> = dyn FnMut(BorrowedFd<'_>) -> Result<(), Errno> + 'a;

fn for_each_child(group: BorrowedFd<'_>, act: &mut ForChild<'_>) -> Result<(), Errno> {
    for name in child_names(group)? {
        match rustix::fs::openat(group, &*name, DIRECTORY, Mode::empty()) {
            Ok(child) => act(child.as_fd())?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn child_names(group: BorrowedFd<'_>) -> Result<Vec<std::ffi::CString>, Errno> {
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

fn write(group: BorrowedFd<'_>, name: &str, value: &[u8]) -> Result<(), Errno> {
    let file: OwnedFd = rustix::fs::openat(group, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, value).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_control_group_is_never_touched() {
        let scratch = tempfile::tempdir().unwrap();
        let error = remove_cgroup(scratch.path()).unwrap_err();
        assert!(matches!(error, RemoveCgroupError::NotACgroup { .. }), "{error}");
        assert!(scratch.path().exists());
        remove_cgroup(&scratch.path().join("absent")).unwrap();
    }
}
