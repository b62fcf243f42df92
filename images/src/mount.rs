//! Mounts an image's metadata with its layers' data, and a writable overlay on it.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Why something could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A call of the new mount interface failed.
    #[error("{call} for {at:?}{kernel}")]
    Call {
        /// The call with its arguments.
        call: String,
        /// Where it was to be mounted.
        at: PathBuf,
        /// The kernel's own sentence, with a leading ": ", or nothing.
        kernel: String,
        /// The error of the call.
        source: io::Error,
    },
}

/// A mounted image, read-only. It stays mounted when this value goes.
#[derive(Debug)]
pub struct ImageMount {
    root: OwnedFd,
    at: PathBuf,
}

impl ImageMount {
    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Its root directory (`O_PATH`).
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Mounts `metadata` with the layers' data files, lowest first, at the existing directory `at`.
///
/// # Errors
///
/// [`MountError`] with the call and the kernel's own words.
pub fn mount_image(metadata: &Path, devices: &[PathBuf], at: &Path) -> Result<ImageMount, MountError> {
    let _ = devices;
    Err(MountError::Call {
        call: format!("mount {metadata:?}"),
        at: at.into(),
        kernel: String::new(),
        source: io::ErrorKind::Unsupported.into(),
    })
}

/// Mounts an overlay with `lower` below and a new upper directory in `upper_parent` at the existing directory `at`.
///
/// `upper_parent` gets `upper` and `work`; it must be empty. Returns the merged root (`O_PATH`).
///
/// # Errors
///
/// [`MountError`] with the call and the kernel's own words.
pub fn mount_overlay(lower: &ImageMount, upper_parent: &Path, at: &Path) -> Result<OwnedFd, MountError> {
    let _ = upper_parent;
    Err(MountError::Call {
        call: format!("mount an overlay on {:?}", lower.at()),
        at: at.into(),
        kernel: String::new(),
        source: io::ErrorKind::Unsupported.into(),
    })
}
