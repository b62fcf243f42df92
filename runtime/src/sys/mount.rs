//! mount_setattr(2), which rustix does not wrap.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::mount_attr::Depth;

/// `struct mount_attr` of linux/mount.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear, before those to set are set.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`; 0 leaves propagation alone.
    pub propagation: u64,
    /// The user namespace for `MOUNT_ATTR_IDMAP`.
    pub user_namespace: u64,
}

/// Changes the mount whose root `mount` is.
///
/// # Errors
///
/// The kernel's answer; `EINVAL` if `mount` is not the root of a mount.
pub fn mount_setattr(mount: BorrowedFd<'_>, depth: Depth, attr: &MountAttr) -> io::Result<()> {
    let recursive = if depth == Depth::Recursive { libc::AT_RECURSIVE } else { 0 };
    let flags = libc::AT_EMPTY_PATH | recursive;
    // SAFETY: the path is a NUL-terminated constant, `attr` lives past the call, and the size is its own.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
