//! Paths of the container that are hidden or made read-only.
//!
//! A missing path is skipped, and only a missing one; a link is an error. What is covered is the very
//! object that was looked at: its descriptor is the mount point. Directories get one shared, empty,
//! read-only tmpfs; everything else gets the container's `/dev/null`, checked to be that device
//! (CVE-2021-30465, CVE-2025-31133).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::device::{DeviceError, open_checked};
use super::mount::{MountError, attach_at, clone, new_file_system};
use super::{Links, Root, RootError, Shape, shape_of};
use crate::mount_attr as attr;
use crate::plan::mount_options::Depth;
use crate::sys::mount::{MountAttr, mount_setattr};

/// A path could not be protected.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    /// It cannot be looked at or covered.
    #[error(transparent)]
    Path(#[from] RootError),
    /// The container's `/dev/null` is not the null device.
    #[error("mask a file with the container's /dev/null")]
    Null(#[from] DeviceError),
    /// There is no empty directory to cover it with.
    #[error("make the empty directory that masks others")]
    Empty(#[from] MountError),
}

/// What masks are made of; made when first needed.
#[derive(Debug, Default)]
pub struct Masks {
    /// An attached empty tmpfs, to be cloned.
    empty: Option<OwnedFd>,
    null: Option<OwnedFd>,
}

impl Masks {
    /// Hides `path`.
    ///
    /// # Errors
    ///
    /// It is a link, or the kernel refused.
    pub fn mask(&mut self, root: &Root, path: &Path) -> Result<(), MaskError> {
        let Some(target) = find(root, path)? else { return Ok(()) };
        match shape_of(target.as_fd()).map_err(RootError::at("stat", path))? {
            Shape::Directory => self.mask_directory(path, target.as_fd()),
            Shape::File => self.mask_file(root, path, target.as_fd()),
        }
    }

    fn mask_directory(&mut self, path: &Path, target: BorrowedFd<'_>) -> Result<(), MaskError> {
        if let Some(empty) = &self.empty {
            let copy = clone(empty.as_fd(), Path::new(""), Depth::One)
                .map_err(RootError::at("clone the mask of", path))?;
            return Ok(attach_at(copy.as_fd(), target).map_err(RootError::at("mask", path))?);
        }
        let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        let data =
            [("nr_blocks", "1"), ("mode", "0555")].map(|(key, value)| (key.into(), Some(value.into())));
        let empty = new_file_system("tmpfs", None, &data, attributes)?;
        attach_at(empty.as_fd(), target).map_err(RootError::at("mask", path))?;
        self.empty = Some(empty); // Attached, so that it can be cloned: before Linux 6.15 only then.
        Ok(())
    }

    fn mask_file(&mut self, root: &Root, path: &Path, target: BorrowedFd<'_>) -> Result<(), MaskError> {
        let null = match &mut self.null {
            Some(null) => null,
            missing => missing.insert(open_checked(root, Path::new("/dev/null"), OFlags::PATH, (1, 3))?),
        };
        let copy = clone(null.as_fd(), Path::new(""), Depth::One)
            .map_err(RootError::at("clone /dev/null for", path))?;
        Ok(attach_at(copy.as_fd(), target).map_err(RootError::at("mask", path))?)
    }
}

/// Makes `path` and the mounts below it read-only.
///
/// # Errors
///
/// It is a link, or the kernel refused.
pub fn make_read_only(root: &Root, path: &Path) -> Result<(), MaskError> {
    let Some(target) = find(root, path)? else { return Ok(()) };
    let copy =
        clone(target.as_fd(), Path::new(""), Depth::Recursive).map_err(RootError::at("clone", path))?;
    let read_only = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    mount_setattr(copy.as_fd(), Depth::Recursive, &read_only).map_err(|source| RootError::Kernel {
        call: "make read-only",
        path: path.to_owned(),
        source,
    })?;
    Ok(attach_at(copy.as_fd(), target.as_fd())
        .map_err(RootError::at("cover with its read-only self", path))?)
}

fn find(root: &Root, path: &Path) -> Result<Option<OwnedFd>, RootError> {
    match root.find(path, Links::Refused) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(RootError::at("find", path)(errno)),
    }
}
