//! Waiting for a descriptor of the kernel's in asynchronous code.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor to wait until it can be read. Inside a tokio runtime only.
///
/// # Errors
///
/// What `epoll_ctl(2)` says.
#[expect(
    deprecated,
    reason = "its replacement is unsafe for types that may change their descriptor; an OwnedFd does not"
)]
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}
