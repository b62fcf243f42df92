//! The control group above the tasks' own ([`PARENT_GROUP`]): all of them share its limits, and it goes with the last.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use runtime::cgroup::Hierarchies;
use runtime::host::{HostFacts, HostFactsError};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::spec::PARENT_GROUP;

/// Bounds the memory of all tasks together: `groups` are those of one container. While that exists its parent does,
/// so the limit cannot land in a group that is being removed. Where the container has ended already, and its parent
/// with it, there is nothing left to bound.
///
/// # Errors
///
/// The kernel's refusal of the value.
pub fn limit_memory(groups: &[OwnedFd], bytes: u64) -> io::Result<()> {
    for group in groups {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat(group, "..", flags, Mode::empty())?;
        for file in ["memory.max", "memory.limit_in_bytes"] {
            let opened = openat(&parent, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            match opened.and_then(|file| rustix::io::write(file, bytes.to_string().as_bytes())) {
                Ok(_) => return Ok(()),
                // Another controller's hierarchy, or the group is gone.
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

/// Why the control group above the tasks' own is still there.
#[derive(Debug, thiserror::Error)]
pub enum ParentGroupError {
    /// Nobody knows where the hierarchies are.
    #[error(transparent)]
    Facts(#[from] HostFactsError),
    /// The kernel does not let it go.
    #[error("remove the control group {}", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Removes the group from each hierarchy in which this was the last task; another worker's keeps it.
///
/// # Errors
///
/// [`ParentGroupError`].
pub fn remove() -> Result<(), ParentGroupError> {
    let mounted = match HostFacts::gather()?.hierarchies {
        Some(Hierarchies::V1(hierarchies)) => hierarchies,
        Some(Hierarchies::V2(hierarchy)) => vec![hierarchy],
        None => Vec::new(),
    };
    let name = Path::new(PARENT_GROUP).strip_prefix("/").unwrap_or(Path::new(PARENT_GROUP));
    for path in mounted.iter().map(|hierarchy| hierarchy.mount_point.join(name)) {
        match rustix::fs::rmdir(&path) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(ParentGroupError::Remove { path, source: errno.into() }),
        }
    }
    Ok(())
}
