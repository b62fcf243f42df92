//! The group above the containers' own: whoever names it shares it, and it goes with the last of them.
use super::remove::{RemoveError, remove_if_empty};
use super::tree::{DIRECTORY, write};
use super::{Hierarchies, Hierarchy};
use rustix::fs::{Mode, openat};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Bounds the memory of all containers below one parent together: `groups` are a container's own. While
/// that exists its parent does, so the limit cannot land in a group that is being removed. Where the
/// container has ended already, and its parent with it, there is nothing left to bound.
///
/// # Errors
///
/// The kernel's refusal of the value.
pub fn limit_parent_memory(groups: &[OwnedFd], bytes: u64) -> io::Result<()> {
    for group in groups {
        let parent = openat(group, "..", DIRECTORY, Mode::empty())?;
        for file in ["memory.max", "memory.limit_in_bytes"] {
            match write(parent.as_fd(), file, &bytes.to_string()) {
                Ok(()) => return Ok(()),
                // Another controller's hierarchy, or the group is gone.
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

impl Hierarchies {
    /// Removes the group at `path`, as a Spec's absolute `cgroupsPath` would name it, from every hierarchy
    /// where nothing is in it. One that is in use stays, and so does one that is not there.
    ///
    /// # Errors
    ///
    /// [`RemoveError`] for any other refusal.
    pub fn remove_if_empty(&self, path: &Path) -> Result<(), RemoveError> {
        let path = path.strip_prefix("/").unwrap_or(path);
        self.all().iter().try_for_each(|hierarchy| remove_if_empty(&hierarchy.mount_point.join(path), None))
    }

    fn all(&self) -> &[Hierarchy] {
        match self {
            Self::V1(hierarchies) => hierarchies,
            Self::V2(hierarchy) => std::slice::from_ref(hierarchy),
        }
    }
}
