//! From the host's root to the container's.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::Root;
use super::mount::attach_at;
use crate::mount_attr::Depth;
use crate::sys::mount::{MountAttr, mount_setattr};

/// The root could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum PivotError {
    /// Mount events would still go between this namespace and the host's.
    #[error("make all mounts private: is / a mount point?")]
    Private(#[source] io::Error),
    /// The new root cannot be put in place.
    #[error("attach the new root")]
    Attach(#[source] io::Error),
    /// pivot_root(2) answers EINVAL where / is the kernel's initial ramfs.
    #[error("pivot into the new root: is / of the host its initial ramfs?")]
    Pivot(#[source] io::Error),
    /// The host's tree would stay reachable.
    #[error("detach the old root")]
    Detach(#[source] io::Error),
}

/// Cuts this mount namespace off from the one that it was copied from.
///
/// # Errors
///
/// The kernel's answer.
pub fn make_private() -> Result<(), PivotError> {
    let failed = |errno: rustix::io::Errno| PivotError::Private(errno.into());
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let private = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    mount_setattr(root.as_fd(), Depth::Recursive, &private).map_err(PivotError::Private)
}

/// Attaches the new root on top of the old one. Lookups of absolute paths start at the process's root,
/// which is below, so the host's paths keep working until [`pivot`], and no path of the host is needed as
/// a mount point.
///
/// # Errors
///
/// The kernel's answer.
pub fn attach_root(root: &Root) -> Result<(), PivotError> {
    let failed = |errno: rustix::io::Errno| PivotError::Attach(errno.into());
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    attach_at(root.as_fd(), old.as_fd()).map_err(failed)
}

/// Makes `root` the root of this process and of the mount namespace; the host's tree is gone from both.
///
/// # Errors
///
/// The kernel's answer.
pub fn pivot(root: &Root) -> Result<(), PivotError> {
    fchdir(root).map_err(|errno| PivotError::Pivot(errno.into()))?;
    // The old root ends up mounted over the new one ("." is both), where "." then detaches it.
    pivot_root(".", ".").map_err(|errno| PivotError::Pivot(errno.into()))?;
    unmount(".", UnmountFlags::DETACH).map_err(|errno| PivotError::Detach(errno.into()))?;
    chdir("/").map_err(|errno| PivotError::Detach(errno.into()))
}
