//! Waiting for a process that is held by its pidfd, with or without a deadline.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// It exited with this status, 0..=255.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl Ended {
    /// As a shell tells it: the status, or 128 and the signal's number.
    pub fn status(self) -> i32 {
        match self {
            Ended::Exited(status) => status,
            Ended::Signaled(signal) => 128 + signal,
        }
    }
}

/// A process that was reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// How it ended.
    pub ended: Ended,
    /// Its processor time, with that of the children that it reaped itself.
    pub cpu: Duration,
}

/// Reaps a child. Blocks until it has ended.
///
/// # Errors
///
/// It is not a child of this process, or was reaped already.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Reaped> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both structures live past the call and have the layout that waitid(2) fills; the C
        // library's function is not used because it has no place for the second.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_raw_fd(),
                info.as_mut_ptr(),
                libc::WEXITED,
                usage.as_mut_ptr(),
            )
        };
        match answer {
            0 => break,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
    // SAFETY: zeroed, then filled by the kernel; all bit patterns of the plain fields are valid.
    let info = unsafe { info.assume_init() };
    // SAFETY: as above.
    let usage = unsafe { usage.assume_init() };
    // SAFETY: waitid(2) with WEXITED fills the fields of a SIGCHLD, of which this is one.
    let status = unsafe { info.si_status() };
    let ended =
        if info.si_code == libc::CLD_EXITED { Ended::Exited(status) } else { Ended::Signaled(status) };
    Ok(Reaped { ended, cpu: duration(usage.ru_utime) + duration(usage.ru_stime) })
}

/// Whether anything can be read from `fd` within `timeout`: of a pidfd, whether its process ends.
pub(crate) fn readable_within(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}
