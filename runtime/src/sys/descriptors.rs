//! Descriptors by number: those that a parent handed over, and those that must not be handed on.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes over descriptor `number`, which the program's caller opened for us, and makes it
/// close-on-exec.
///
/// # Errors
///
/// It is a standard stream, or not open.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: plain numbers; a number that is not open answers EBADF.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the contract of the command line it is ours from here on: each option
    // that names a descriptor is taken once, before this program opens any of its own under that number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Marks every descriptor from `first` on close-on-exec, whoever opened it.
///
/// # Errors
///
/// The kernel's answer (Linux 5.11 knows the flag).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: plain numbers; the call does not touch memory.
    let answer =
        unsafe { libc::close_range(first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The first of the descriptors 3 … `last` that is not open. One that the caller promised and did not open
/// would be taken by a file of our own, and that would be passed on in its place.
pub fn first_missing(last: u32) -> Option<i32> {
    // SAFETY: plain numbers; a number that is not open answers EBADF.
    (3..=last.cast_signed()).find(|number| unsafe { libc::fcntl(*number, libc::F_GETFD) } == -1)
}

/// Lets the descriptors 3 … `last` through the coming execve(2). Those that are not open are skipped.
pub fn keep_over_exec_to(last: u32) {
    for number in 3..=last.cast_signed() {
        // SAFETY: plain numbers; a number that is not open answers EBADF, which is what "skipped" means.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    }
}
