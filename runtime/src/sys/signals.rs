//! Signals: dispositions, which execve(2) passes on where they are "ignore", and numbers without a name.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Signals are numbered from 1 to this (signal(7)).
const LAST: i32 = 64;

/// `struct kernel_sigaction`: handler, flags, restorer, mask.
static DEFAULT: [u64; 4] = [0; 4];

/// Sets every signal back to its default and lets all through, so that a program inherits neither Rust's ignored
/// SIGPIPE nor what this process blocks, nor what the operator's shell ignored. Allocates nothing.
pub fn reset() -> io::Result<()> {
    // Not by libc's function, which refuses the two or three signals that it keeps for itself.
    let null: *const libc::c_void = std::ptr::null();
    for signal in 1..=LAST {
        // SAFETY: the kernel reads a `struct sigaction` of that many bytes with a mask of eight; all zero it is the
        // default disposition, which runs no code of ours. SIGKILL and SIGSTOP answer EINVAL and stay as they are.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const DEFAULT, null, size_of::<u64>()) };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it fills the set, which lives past the call.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was filled, and the null pointer asks for no old one.
    let answer = unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// pidfd_send_signal(2) by number, real-time signals included.
///
/// # Errors
///
/// The kernel's answer; `EINVAL` for a number that is no signal.
pub fn send(process: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let no_information: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null pointer asks for the information that kill(2) would give; nothing else is a pointer.
    let answer =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), number, no_information, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
