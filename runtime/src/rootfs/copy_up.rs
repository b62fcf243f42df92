//! `tmpcopyup` of a tmpfs: it starts with what the image has where it is mounted.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, chownat, fchmod, fstat, futimens,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;

use crate::limits::COPY_DEPTH;

/// Copies what is in the directory `from` into the directory `to`, which is empty, with owners, modes and times.
/// No link is followed. The room is the new file system's, and the memory the container's own.
///
/// # Errors
///
/// The kernel's answer, `ENOSPC` if the copy does not fit, or `ELOOP` if it is nested too deeply.
pub fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let from = openat(from, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    chown(to, c"", &fstat(&from)?)?;
    copy_directory(&from, to, COPY_DEPTH)
}

fn copy_directory(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    let below = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let found = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let (from, to) = (open(from, name, OFlags::DIRECTORY)?, open(to, name, OFlags::DIRECTORY)?);
                copy_directory(&from, to.as_fd(), below)?;
                give(&to, &found)?;
            }
            FileType::RegularFile => {
                // Not a FIFO that somebody put there meanwhile, which would wait for a writer.
                let mut from = File::from(open(from, name, OFlags::NONBLOCK)?);
                let found = fstat(&from)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut to = File::from(openat(to, name, flags, Mode::RUSR)?);
                io::copy(&mut from, &mut to)?;
                give(&to, &found)?;
            }
            FileType::Symlink => {
                symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), to, name)?;
                chown(to, name, &found)?;
            }
            other => {
                mknodat(to, name, other, Mode::from_raw_mode(found.st_mode & 0o7777), found.st_rdev)?;
                chown(to, name, &found)?;
            }
        }
    }
    Ok(())
}

fn open(directory: impl AsFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(directory, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn chown(directory: BorrowedFd<'_>, name: &CStr, found: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    chownat(directory, name, Some(uid), Some(gid), flags)
}

/// The owner first: changing it takes set-uid bits away.
fn give(made: impl AsFd, found: &Stat) -> Result<(), Errno> {
    let made = made.as_fd();
    rustix::fs::fchown(made, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
    fchmod(made, Mode::from_raw_mode(found.st_mode & 0o7777))?;
    let nanoseconds = |value: u64| value.try_into().unwrap_or(0);
    let time = |seconds, part| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds(part) };
    let times = Timestamps {
        last_access: time(found.st_atime, found.st_atime_nsec),
        last_modification: time(found.st_mtime, found.st_mtime_nsec),
    };
    futimens(made, &times)
}
