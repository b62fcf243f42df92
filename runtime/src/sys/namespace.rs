//! ioctl_ns(2): what a namespace says of itself.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The user namespace that `namespace` belongs to.
///
/// # Errors
///
/// `EPERM` if it is none of the caller's own or below it, `ENOTTY` if `namespace` is none.
pub fn owner(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument.
    let answer = unsafe { libc::syscall(libc::SYS_ioctl, namespace.as_raw_fd(), libc::NS_GET_USERNS) };
    match RawFd::try_from(answer) {
        // SAFETY: the call has returned a new descriptor (close-on-exec, as all of ioctl_ns(2)'s); nothing owns it yet.
        Ok(owner) if owner >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(owner) }),
        _ => Err(io::Error::last_os_error()),
    }
}
