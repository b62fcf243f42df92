//! Mounts: new file systems and copies of what is there, attached by descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{Root, RootError, Shape, links_to, shape_of};
use crate::plan::mount_options::{Depth, Propagation, attr};
use crate::plan::{Mount, MountKind};
use crate::sys::mount::{MountAttr, Reach, mount_setattr};

/// A mount could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Its mount point cannot be used.
    #[error("mount on {}", target.display())]
    Target {
        /// The mount point in the container.
        target: PathBuf,
        /// Why.
        source: RootError,
    },
    /// The file system refused an option or itself.
    #[error("mount {name}: {call} {what:?}{}", sentence(said))]
    FileSystem {
        /// Its type.
        name: String,
        /// What was tried.
        call: &'static str,
        /// The option, or empty.
        what: String,
        /// What the kernel put into the context's log.
        said: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The source of a bind cannot be cloned.
    #[error("clone the mount at {}", path.display())]
    Source {
        /// On the host.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused to attach it or to change it.
    #[error("{call} on {}", target.display())]
    Attach {
        /// What was tried.
        call: &'static str,
        /// The mount point in the container.
        target: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A link or bind of the image's leads into procfs or sysfs.
    #[error("mount on {}: that is inside procfs or sysfs, whose files are not to be faked", target.display())]
    InsideKernel {
        /// The mount point in the container.
        target: PathBuf,
    },
}

fn sentence(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}

/// Makes a new file system that is not attached anywhere.
///
/// # Errors
///
/// The kernel's answer, with what it says in the context's log.
pub fn new_file_system(
    name: &str,
    source: Option<&str>,
    data: &[(String, Option<String>)],
    attributes: u64,
) -> Result<OwnedFd, MountError> {
    let failed = |call, what: &str, said: String, errno: Errno| MountError::FileSystem {
        name: name.to_owned(),
        call,
        what: what.to_owned(),
        said,
        source: errno.into(),
    };
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| failed("fsopen", "", String::new(), errno))?;
    if let Some(source) = source.filter(|source| !source.is_empty()) {
        fsconfig_set_string(&context, "source", source)
            .map_err(|errno| failed("set source", source, log(&context), errno))?;
    }
    for (key, value) in data {
        let set = match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        };
        set.map_err(|errno| failed("set option", key, log(&context), errno))?;
    }
    fsconfig_create(&context).map_err(|errno| failed("create", "", log(&context), errno))?;
    // `MOUNT_ATTR_*` are 32 bits wide so far.
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(u32::MAX));
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| failed("fsmount", "", log(&context), errno))
}

/// The first line of the context's log, which starts with a letter for its level.
fn log(context: &OwnedFd) -> String {
    let mut line = [0; 256];
    let length = rustix::io::read(context, &mut line).unwrap_or(0);
    let line = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
    line.trim_start_matches("e ").trim_end().to_owned()
}

/// Makes a copy, attached nowhere, of what is mounted at `path` of the host. The copy is private: no mount
/// event goes in or out.
///
/// # Errors
///
/// The kernel's answer.
pub fn clone_path(path: &Path, depth: Depth) -> Result<OwnedFd, MountError> {
    clone(CWD, path, depth).map_err(|source| MountError::Source { path: path.to_owned(), source })
}

/// The same of the directory that `directory` holds, which must be attached in this mount namespace.
///
/// # Errors
///
/// The kernel's answer.
pub fn clone_descriptor(directory: BorrowedFd<'_>, depth: Depth) -> io::Result<OwnedFd> {
    clone(directory, Path::new(""), depth)
}

fn clone(at: BorrowedFd<'_>, path: &Path, depth: Depth) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    let reach = match depth {
        Depth::One => Reach::One,
        Depth::Recursive => {
            flags |= OpenTreeFlags::AT_RECURSIVE;
            Reach::Tree
        }
    };
    let tree = open_tree(at, path, flags)?;
    let private = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), reach, &private)?;
    Ok(tree)
}

/// Attaches `tree` at the place and with the attributes that `mount` names.
///
/// # Errors
///
/// The mount point cannot be used, or the kernel refused an attribute.
pub fn attach(root: &Root, mount: &Mount, tree: &OwnedFd) -> Result<(), MountError> {
    let target = &mount.target;
    let failed = |call| move |source| MountError::Attach { call, target: target.clone(), source };
    let of_target = |source| MountError::Target { target: target.clone(), source };
    let own = MountAttr { set: mount.attributes.set, clear: mount.attributes.clear, ..MountAttr::default() };
    change(tree.as_fd(), Reach::One, own).map_err(failed("set the attributes of the mount"))?;
    let below = MountAttr { set: mount.recursive.set, clear: mount.recursive.clear, ..MountAttr::default() };
    change(tree.as_fd(), Reach::Tree, below).map_err(failed("set the attributes of the mounts"))?;
    let shape = match mount.kind {
        MountKind::Bind => shape_of(tree.as_fd()).map_err(|errno| failed("stat the source")(errno.into()))?,
        MountKind::Cgroup | MountKind::FileSystem { .. } => Shape::Directory,
    };
    let at = root.find_or_make(target, shape, links_to(target)).map_err(of_target)?;
    if mount.kind == MountKind::Bind && is_kernel_file_system(&at, target) {
        return Err(MountError::InsideKernel { target: target.clone() });
    }
    attach_at(tree.as_fd(), at.as_fd()).map_err(|errno| failed("attach the mount")(errno.into()))?;
    match mount.propagation {
        Some((propagation, reach)) => {
            propagate(tree.as_fd(), propagation, reach).map_err(failed("set the propagation of the mount"))
        }
        None => Ok(()),
    }
}

/// Attaches a detached mount over `target`.
///
/// # Errors
///
/// The kernel's answer.
pub fn attach_at(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", target, c"", flags)
}

/// Sets where the mount events of `mount` go.
///
/// # Errors
///
/// The kernel's answer.
pub fn propagate(mount: BorrowedFd<'_>, propagation: Propagation, depth: Depth) -> io::Result<()> {
    let propagation = match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    };
    let reach = match depth {
        Depth::One => Reach::One,
        Depth::Recursive => Reach::Tree,
    };
    mount_setattr(mount, reach, &MountAttr { propagation, ..MountAttr::default() })
}

/// Makes the attributes of `mount` exactly `set`.
///
/// # Errors
///
/// The kernel's answer.
pub fn set_exactly(mount: BorrowedFd<'_>, set: u64) -> io::Result<()> {
    const ALL: u64 =
        attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::ATIME | attr::NODIRATIME;
    mount_setattr(mount, Reach::One, &MountAttr { set, clear: ALL, ..MountAttr::default() })
}

fn change(mount: BorrowedFd<'_>, reach: Reach, attr: MountAttr) -> io::Result<()> {
    if attr == MountAttr::default() { Ok(()) } else { mount_setattr(mount, reach, &attr) }
}

/// Whether `found` lies in a procfs or sysfs, other than as the whole of `/proc` or `/sys`.
fn is_kernel_file_system(found: &OwnedFd, target: &Path) -> bool {
    // PROC_SUPER_MAGIC and SYSFS_MAGIC of linux/magic.h.
    let kernel = fstatfs(found).is_ok_and(|file_system| matches!(file_system.f_type, 0x9fa0 | 0x6265_6572));
    kernel && target != Path::new("/proc") && target != Path::new("/sys")
}
