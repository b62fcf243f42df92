//! clone3(2): new processes that are held by a pidfd from their first moment.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Proof that this process has one thread, so that a forked copy of it finds no lock held by a thread
/// that was not copied.
#[derive(Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Looks whether this process has one thread. It then has to stay so: nothing in this crate starts
    /// a thread.
    ///
    /// # Errors
    ///
    /// There are several threads, or `/proc` cannot be read.
    pub fn witness() -> io::Result<SingleThreaded> {
        // The kernel counts a directory for each thread as a link: 2 for itself, 1 for each thread.
        match rustix::fs::stat("/proc/self/task")?.st_nlink {
            3 => Ok(SingleThreaded(())),
            _ => Err(io::Error::other("this process has several threads, and forking one of them is unsafe")),
        }
    }
}

/// `CLONE_NEW*` bits of linux/sched.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// The bits themselves.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// These and `flag`, one of `libc::CLONE_NEW*`.
    #[must_use]
    pub fn with(self, flag: libc::c_int) -> Namespaces {
        Namespaces(self.0 | u64::from(flag.cast_unsigned()))
    }
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The new process.
        child: OwnedFd,
        /// Its number here. It stays the child's until the child is reaped.
        pid: i32,
    },
}

/// Forks into new namespaces and, on cgroup v2, straight into a control group.
pub fn clone3(
    _alone: &SingleThreaded,
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Forked> {
    fork(namespaces.bits(), cgroup)
}

/// Forks a process whose parent is this one's own (CLONE_PARENT of clone(2)): that one can wait for both.
pub fn clone_sibling(_alone: &SingleThreaded) -> io::Result<Forked> {
    fork(u64::from(libc::CLONE_PARENT.cast_unsigned()), None)
}

/// The call itself, for callers that show in another way that the child is safe.
pub(super) fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    let into_cgroup = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    // A sibling's end is told as its maker's is: it may not say how.
    let is_sibling = flags & u64::from(libc::CLONE_PARENT.cast_unsigned()) != 0;
    let exit_signal = if is_sibling { 0 } else { u64::from(libc::SIGCHLD.cast_unsigned()) };
    let group = cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned()));
    let mut args = CloneArgs {
        flags: flags | u64::from(libc::CLONE_PIDFD.cast_unsigned()) | into_cgroup,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal,
        cgroup: group,
        ..CloneArgs::default()
    };
    // SAFETY: `args` and `pidfd` live past the call and the size is that of `args`. With no stack given
    // and memory not shared the child runs on a copy of ours, as after fork(2).
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent {
            // SAFETY: CLONE_PIDFD made the kernel store a new descriptor here; nothing else owns it.
            child: unsafe { OwnedFd::from_raw_fd(pidfd) },
            pid: i32::try_from(pid).map_err(io::Error::other)?,
        }),
    }
}

/// Linux 5.7, linux/sched.h.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of linux/sched.h, as of Linux 5.7.
#[derive(Default)]
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}
