//! Descriptors by number: those that a parent handed over, and those that must not be handed on.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first number that is no standard stream.
pub const FIRST: RawFd = 3;

/// What the caller has handed over cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// It would be taken by a file of our own, and that would be passed on in its place.
    #[error("descriptor {number} is not open")]
    NotOpen { number: RawFd },
    /// A standard stream, or one that is to be passed on.
    #[error("descriptor {number} is the command's: give a number above those that it gets")]
    Promised { number: RawFd },
    /// One descriptor would have two owners.
    #[error("descriptor {number} is given twice")]
    Twice { number: RawFd },
    /// The kernel refused, or this is not the first call.
    #[error("take the caller's descriptors over")]
    Kernel(#[source] io::Error),
}

/// Takes over the descriptors `numbers`, which the program's caller opened for us, and closes all others but the
/// standard streams and those from [`FIRST`] on, `passed_on` of them: what the caller has left open is not ours to
/// hold. It is for the start of the program, when it has opened none of its own, and works once.
///
/// # Errors
///
/// [`TakeError`]; then nothing is closed or taken.
pub fn take_over<const N: usize>(
    passed_on: u16,
    numbers: [Option<RawFd>; N],
) -> Result<[Option<OwnedFd>; N], TakeError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(TakeError::Kernel(io::ErrorKind::AlreadyExists.into()));
    }
    let private = FIRST + RawFd::from(passed_on);
    let mut sorted: Vec<RawFd> = numbers.into_iter().flatten().collect();
    sorted.sort_unstable();
    if let Some(number) = (FIRST..private).chain(sorted.iter().copied()).find(|number| !is_open(*number)) {
        return Err(TakeError::NotOpen { number });
    }
    if let Some(number) = sorted.first().copied().filter(|number| *number < private) {
        return Err(TakeError::Promised { number });
    }
    if let Some([number, _]) = sorted.array_windows().find(|[one, next]| one == next) {
        return Err(TakeError::Twice { number: *number });
    }
    let mut from = private;
    for number in sorted {
        close(from, number - 1).map_err(TakeError::Kernel)?;
        // SAFETY: plain numbers; the descriptor is open.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        from = number + 1;
    }
    close(from, RawFd::MAX).map_err(TakeError::Kernel)?;
    // SAFETY: each is open, no two are the same, and nobody else owns one: the caller handed them over for us to take,
    // this function runs once, and what it did not take before is closed.
    Ok(numbers.map(|number| number.map(|number| unsafe { OwnedFd::from_raw_fd(number) })))
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: plain numbers; a number that is not open answers EBADF.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Closes `first` … `last`, if there is one between them.
fn close(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // None of these descriptors has an owner that will still use it: see `take_over` and `close_all_but`.
    close_range(first.cast_unsigned(), last.cast_unsigned(), 0)
}

/// Closes every descriptor from `first` on but `kept`, whoever owns it: for a process that is copied from another, and ends or
/// executes a program before anything that it got with the copy is dropped.
///
/// # Errors
///
/// The kernel's answer.
pub fn close_all_but(first: RawFd, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut sorted: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).filter(|fd| *fd >= first).collect();
    sorted.sort_unstable();
    let mut from = first;
    for number in sorted {
        close(from, number - 1)?;
        from = number + 1;
    }
    close(from, RawFd::MAX)
}

/// Marks every descriptor from `first` on close-on-exec, whoever opened it.
///
/// # Errors
///
/// The kernel's answer (Linux 5.11 knows the flag).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, CLOSE_RANGE_CLOEXEC)
}

/// linux/close_range.h.
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

/// close_range(2), which musl has no function for. Allocates nothing.
fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: plain numbers; the call touches no memory. The callers answer for whose descriptors they close.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
