//! Mounts: new file systems and copies of what is there, attached by descriptor.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, fstat, fstatfs, readlink};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::copy_up::copy_up;
use super::{KERNELS_OWN, Links, Root, RootError, links_to, shape_of};
use crate::mount_attr as attr;
use crate::plan::mount_options::{Depth, Propagation};
use crate::plan::{Mount, MountKind, is_served_by_lxcfs};
use crate::sys::mount::{MountAttr, mount_setattr};

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
    /// It would stand in for a part of procfs or sysfs.
    #[error("mount on {}: that is inside procfs or sysfs, whose files are not to be faked", target.display())]
    InsideKernel {
        /// The mount point in the container.
        target: PathBuf,
    },
    /// A link of the image's leads to where mounts are made by their own names.
    #[error("mount on {}: a link of the image leads that to {directory}; mount on the directory that is meant", target.display())]
    Detour {
        /// The mount point in the container.
        target: PathBuf,
        /// Where it would be, or above that.
        directory: &'static str,
    },
    /// Something else than a whole procfs would be what the container takes for it.
    #[error("mount on {}: what is to be mounted there is no procfs", target.display())]
    NotProc {
        /// The mount point in the container.
        target: PathBuf,
    },
}

impl MountError {
    /// The source's mount events cannot be let through or kept out.
    pub(crate) fn events(path: &Path) -> impl FnOnce(io::Error) -> MountError + use<> {
        let target = path.to_owned();
        move |source| MountError::Attach { call: "set the propagation of the copy", target, source }
    }
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

/// The options of a new tmpfs on a directory whose mode nothing else gives: the directory's, as in runc.
pub fn with_mode_of_mount_point(
    root: &Root,
    target: &Path,
    name: &str,
    data: &[(String, Option<String>)],
) -> Vec<(String, Option<String>)> {
    let mut data = data.to_vec();
    if name == "tmpfs" && !data.iter().any(|(key, _)| key == "mode") {
        // A mount point that is missing is made with the usual mode; whatever else is wrong with it comes out then.
        let found = root.find(target, links_to(target)).and_then(|found| fstat(&found));
        data.extend(found.map(|found| ("mode".to_owned(), Some(format!("{:o}", found.st_mode & 0o7777)))));
    }
    data
}

/// Copies what is at `target` into the new file system that will cover it; nothing is if it is missing.
///
/// # Errors
///
/// What is there cannot be read, or has no room.
pub fn copy_mount_point(root: &Root, target: &Path, tree: &OwnedFd) -> Result<(), MountError> {
    let failed = |source| MountError::Attach {
        call: "copy what is there to the tmpfs",
        target: target.to_owned(),
        source,
    };
    match root.find(target, links_to(target)) {
        Ok(found) => copy_up(found.as_fd(), tree.as_fd()).map_err(failed),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Makes a copy, attached nowhere, of what is mounted at `path`.
///
/// # Errors
///
/// The kernel's answer.
pub fn clone_path(path: &Path, depth: Depth) -> Result<OwnedFd, MountError> {
    clone(CWD, path, depth)
        .map_err(|errno| MountError::Source { path: path.to_owned(), source: errno.into() })
}

/// The same at `path` of the container.
///
/// # Errors
///
/// The kernel's answer.
pub fn clone_inside(root: &Root, path: &Path, depth: Depth) -> Result<OwnedFd, MountError> {
    let found = root.find(&Path::new("/").join(path), Links::Inside);
    found
        .and_then(|found| clone(found.as_fd(), Path::new(""), depth))
        .map_err(|errno| MountError::Source { path: path.to_owned(), source: errno.into() })
}

/// Makes a copy of what is mounted at `path` seen from `at`, or at `at` itself if that is empty. It takes part in
/// the mount events of what it is a copy of.
///
/// # Errors
///
/// The kernel's answer.
pub fn clone(at: BorrowedFd<'_>, path: &Path, depth: Depth) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if depth == Depth::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(at, path, flags)
}

/// The same, cut off from all mount events.
///
/// # Errors
///
/// The kernel's answer.
pub fn clone_private(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let tree = clone(directory, Path::new(""), Depth::One)?;
    propagate(tree.as_fd(), Propagation::Private, Depth::One)?;
    Ok(tree)
}

/// Lets the copy of a bind's source take part in these mount events of the host: of the others it is cut off.
///
/// # Errors
///
/// The kernel's answer.
pub fn hold_events(tree: BorrowedFd<'_>, events: Propagation, depth: Depth) -> io::Result<()> {
    match events {
        Propagation::Shared => Ok(()),
        Propagation::Private | Propagation::Slave | Propagation::Unbindable => propagate(tree, events, depth),
    }
}

/// The same for the copy of a root: what the container mounts in it never goes to the host.
///
/// # Errors
///
/// The kernel's answer.
pub fn set_root_events(root: BorrowedFd<'_>, wanted: Option<(Propagation, Depth)>) -> io::Result<()> {
    match wanted {
        Some((Propagation::Slave, _)) => propagate(root, Propagation::Slave, Depth::Recursive),
        Some((Propagation::Private | Propagation::Shared | Propagation::Unbindable, _)) | None => {
            propagate(root, Propagation::Private, Depth::Recursive)
        }
    }
}

/// Attaches `tree` at the place and with the attributes that `mount` names.
///
/// # Errors
///
/// The mount point cannot be used, or the kernel refused an attribute.
pub fn attach(root: &Root, mount: &Mount, tree: &OwnedFd) -> Result<(), MountError> {
    let target = &mount.target;
    let failed = |call| move |source| MountError::Attach { call, target: target.clone(), source };
    let own = MountAttr { set: mount.attributes.set, clear: mount.attributes.clear, ..MountAttr::default() };
    change(tree.as_fd(), Depth::One, own).map_err(failed("set the attributes of the mount"))?;
    let below = MountAttr { set: mount.recursive.set, clear: mount.recursive.clear, ..MountAttr::default() };
    change(tree.as_fd(), Depth::Recursive, below).map_err(failed("set the attributes of the mounts"))?;
    let shape = shape_of(tree.as_fd()).map_err(|errno| failed("stat what is to be mounted")(errno.into()))?;
    let at = root
        .find_or_make(target, shape, links_to(target))
        .map_err(|source| MountError::Target { target: target.clone(), source })?;
    refuse_detour(target, &at)?;
    refuse_fakes(mount, tree, &at)?;
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
    mount_setattr(mount, depth, &MountAttr { propagation, ..MountAttr::default() })
}

/// Makes the attributes of `mount` exactly `set`.
///
/// # Errors
///
/// The kernel's answer.
pub fn set_exactly(mount: BorrowedFd<'_>, set: u64) -> io::Result<()> {
    const ALL: u64 = attr::RDONLY
        | attr::NOSUID
        | attr::NODEV
        | attr::NOEXEC
        | attr::ATIME
        | attr::NODIRATIME
        | attr::NOSYMFOLLOW;
    mount_setattr(mount, Depth::One, &MountAttr { set, clear: ALL, ..MountAttr::default() })
}

fn change(mount: BorrowedFd<'_>, reach: Depth, attr: MountAttr) -> io::Result<()> {
    if attr == MountAttr::default() { Ok(()) } else { mount_setattr(mount, reach, &attr) }
}

/// An image's link may lead a mount anywhere but onto the root, where nothing would be seen of it, or into the kernel's
/// directories: on /proc it would stand for a procfs that the Spec does not mount, and below /dev it would get the
/// nodes that are made there, in the directory of the host that it shows.
fn refuse_detour(target: &Path, at: &OwnedFd) -> Result<(), MountError> {
    if links_to(target) == Links::Refused {
        return Ok(());
    }
    // Until the root is pivoted into it lies on this process's own, and the host's procfs tells where in it.
    let found = readlink(format!("/proc/self/fd/{}", at.as_raw_fd()), Vec::new()).map_err(|errno| {
        MountError::Attach {
            call: "tell where a link leads",
            target: target.to_owned(),
            source: errno.into(),
        }
    })?;
    let found = Path::new(OsStr::from_bytes(found.as_bytes()));
    let is_root = (found == Path::new("/")).then_some("/");
    match is_root.or_else(|| KERNELS_OWN.into_iter().find(|directory| found.starts_with(directory))) {
        Some(directory) => Err(MountError::Detour { target: target.to_owned(), directory }),
        None => Ok(()),
    }
}

/// Looks at where a mount really goes, by whatever name it was asked for: /proc gets a whole procfs and nothing
/// else (CVE-2019-16884, CVE-2019-19921), and what is in it is covered by nothing but lxcfs's files; a bind covers
/// no part of sysfs.
fn refuse_fakes(mount: &Mount, tree: &OwnedFd, at: &OwnedFd) -> Result<(), MountError> {
    let target = &mount.target;
    let is_bind = matches!(mount.kind, MountKind::Bind { .. });
    if target == Path::new("/proc") {
        let is_root = fstat(tree).is_ok_and(|found| found.st_ino == PROC_ROOT_INODE);
        let is_proc = is_root && is_on(tree, PROC_SUPER_MAGIC);
        return if is_proc { Ok(()) } else { Err(MountError::NotProc { target: target.clone() }) };
    }
    let is_fake = if is_on(at, PROC_SUPER_MAGIC) {
        let is_regular =
            fstat(tree).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile);
        !(is_bind && is_regular && is_served_by_lxcfs(target))
    } else {
        is_on(at, SYSFS_MAGIC) && target != Path::new("/sys") && (is_bind || !target.starts_with("/sys"))
    };
    if is_fake { Err(MountError::InsideKernel { target: target.clone() }) } else { Ok(()) }
}

/// linux/magic.h.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// `PROC_ROOT_INO` of linux/proc_ns.h.
const PROC_ROOT_INODE: u64 = 1;

fn is_on(found: &OwnedFd, magic: i64) -> bool {
    fstatfs(found).is_ok_and(|file_system| file_system.f_type == magic)
}
