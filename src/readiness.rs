//! Waiting for descriptors: in asynchronous code, and where a write must not lose anything.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};
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

/// Writes all of it, and waits where a write would not: whoever else has the terminal or the pipe open may have made it so
/// (`O_NONBLOCK`), and bytes would be lost. Blocks.
///
/// # Errors
///
/// What write(2) says: `EPIPE` when the reader has gone.
pub fn write_all(out: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    let out = out.as_fd();
    while !bytes.is_empty() {
        match write(out, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::from_borrowed_fd(out, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            },
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
