//! Signals: dispositions, which execve(2) passes on where they are "ignore", and numbers without a name.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets every signal back to its default, so that a container inherits neither Rust's ignored SIGPIPE
/// nor what the operator's shell ignored.
pub fn reset_dispositions() {
    for signal in 1..libc::SIGRTMAX() {
        // SAFETY: the default disposition runs no code of ours. SIGKILL, SIGSTOP and the two that libc
        // reserves answer EINVAL and stay as they are, which is what is wanted.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
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
