//! Device nodes and links in the container's `/dev`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, makedev, mknodat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::mount::{MountError, attach_at, clone_path};
use super::{Links, Root, RootError, Shape};
use crate::plan::mount_options::Depth;
use crate::plan::{Device, Node};

/// A node or link could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It cannot be made, or the directory that it goes into.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Something else has the name, such as a regular file of the image's.
    #[error("use {}: it is not the device that it should be, remove it from the image", path.display())]
    Taken {
        /// In the container.
        path: PathBuf,
    },
    /// In a user namespace, where nodes cannot be made, and the host has another of that name.
    #[error("bind the host's {}: it is not the device that is asked for; correct its number", path.display())]
    HostsOther {
        /// On the host.
        path: PathBuf,
    },
    /// In a user namespace: the host's node cannot be bound instead.
    #[error(transparent)]
    Bind(#[from] MountError),
}

/// How nodes come into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// mknod(2).
    Make,
    /// A bind of the host's node: in a user namespace mknod(2) of a device is not allowed.
    Bind,
}

/// `/dev` of a container, held so that each node costs one call.
#[derive(Debug)]
pub struct DeviceDirectory(OwnedFd);

impl DeviceDirectory {
    /// Opens `/dev`, or makes it.
    ///
    /// # Errors
    ///
    /// It is a link, or the kernel refused.
    pub fn open(root: &Root) -> Result<DeviceDirectory, DeviceError> {
        let directory = root.find_or_make(Path::new("/dev"), Shape::Directory, Links::Refused)?;
        Ok(DeviceDirectory(directory))
    }

    /// Makes one node. The process's umask must be 0.
    ///
    /// # Errors
    ///
    /// The name is taken by something else, or the kernel refused.
    pub fn make(&self, root: &Root, device: &Device, method: Method) -> Result<(), DeviceError> {
        let path = Path::new("/dev").join(&device.name);
        let failed = |call| RootError::at(call, &path);
        if method == Method::Bind && device.node != Node::Fifo {
            return bind(root, &path, device.node);
        }
        let (parent, name) = self.parent(root, &device.name)?;
        let parent = parent.as_ref().unwrap_or(&self.0);
        let (kind, number) = kind_and_number(device.node);
        match mknodat(parent, name, kind, Mode::from_raw_mode(device.mode), number) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("stat"))?;
                if FileType::from_raw_mode(found.st_mode) != kind || found.st_rdev != number {
                    return Err(DeviceError::Taken { path: path.clone() });
                }
                // Made anew rather than changed: chmod(2) would follow a link that was put there meanwhile.
                if found.st_mode & 0o7777 != device.mode {
                    unlinkat(parent, name, AtFlags::empty()).map_err(failed("unlink"))?;
                    mknodat(parent, name, kind, Mode::from_raw_mode(device.mode), number)
                        .map_err(failed("mknod"))?;
                }
            }
            Err(errno) => return Err(failed("mknod")(errno).into()),
        }
        if (device.uid, device.gid) == (0, 0) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        Ok(chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("chown"))?)
    }

    /// Makes one link.
    ///
    /// # Errors
    ///
    /// The name is taken by something else than the same link, or the kernel refused.
    pub fn link(&self, name: &str, target: &str) -> Result<(), DeviceError> {
        let path = Path::new("/dev").join(name);
        match symlinkat(target, &self.0, name) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let found = rustix::fs::readlinkat(&self.0, name, Vec::new());
                let same = found.is_ok_and(|found| found.to_bytes() == target.as_bytes());
                if same { Ok(()) } else { Err(DeviceError::Taken { path }) }
            }
            Err(errno) => Err(RootError::at("symlink", &path)(errno).into()),
        }
    }

    /// The directory that `name` goes into, if it is not `/dev` itself, and its last component.
    fn parent<'a>(&self, root: &Root, name: &'a Path) -> Result<(Option<OwnedFd>, &'a Path), RootError> {
        let last = name.file_name().map_or(name, Path::new);
        match name.parent().filter(|above| !above.as_os_str().is_empty()) {
            None => Ok((None, last)),
            Some(above) => {
                let above = Path::new("/dev").join(above);
                Ok((Some(root.find_or_make(&above, Shape::Directory, Links::Refused)?), last))
            }
        }
    }
}

/// The host's mode and owner come with the node; that it is the one meant is looked at.
fn bind(root: &Root, path: &Path, node: Node) -> Result<(), DeviceError> {
    let tree = clone_path(path, Depth::One)?;
    let found = fstat(&tree).map_err(RootError::at("stat the host's device for", path))?;
    let (kind, number) = kind_and_number(node);
    if FileType::from_raw_mode(found.st_mode) != kind || found.st_rdev != number {
        return Err(DeviceError::HostsOther { path: path.to_owned() });
    }
    let at = root.find_or_make(path, Shape::File, Links::Refused)?;
    Ok(attach_at(tree.as_fd(), at.as_fd()).map_err(RootError::at("attach a bind on", path))?)
}

fn kind_and_number(node: Node) -> (FileType, u64) {
    match node {
        Node::Character { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
        Node::Block { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
        Node::Fifo => (FileType::Fifo, 0),
    }
}

/// Opens a character device of the container and checks on the descriptor that it is the one meant.
///
/// # Errors
///
/// It is missing, behind a link, or another device.
pub fn open_checked(
    root: &Root,
    path: &Path,
    flags: OFlags,
    (major, minor): (u32, u32),
) -> Result<OwnedFd, DeviceError> {
    let opened = root.open(path, flags, Links::Refused).map_err(RootError::at("open", path))?;
    let found = fstat(&opened).map_err(RootError::at("stat", path))?;
    let is_it = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && found.st_rdev == makedev(major, minor);
    if is_it { Ok(opened) } else { Err(DeviceError::Taken { path: path.to_owned() }) }
}
