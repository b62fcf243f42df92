//! Mounts an image's metadata with its layers' data, and a writable overlay on it.
//!
//! ```text
//! metadata ─┐ file-backed; loop devices where the file system cannot (ENOTBLK)
//! layer 1  ─┼─► EROFS ro,nosuid,nodev,noexec ──► overlay: lower
//! layer n  ─┘                    upper, work ──────────► merged root
//! ```
//!
//! Both are mounted where the caller says, which is the worker's private mount namespace: when its
//! last process goes, the kernel takes them down. The overlay is neither nosuid nor nodev, for `sudo`
//! in images works and the device control group fences the rest.
//!
//! | feature | since | without it |
//! |---|---|---|
//! | EROFS on files | 6.12 | loop devices |
//! | overlay layers by descriptor | 6.13 | as `/proc/self/fd/N` |
//! | EROFS device table and chunks | 5.16 | refused |
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

mod context;
mod image;
mod loop_device;
mod overlay;

pub(crate) use context::path_of;
pub use image::mount_image;
pub use overlay::{mount_overlay, open_upper};

/// Why something could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel does not know the file system.
    #[error(
        "mount at {at:?}: this kernel has no {file_system} (Linux 5.16 or newer with that module is needed)"
    )]
    NoFileSystem {
        /// `erofs` or `overlay`.
        file_system: &'static str,
        /// Where it was to be mounted.
        at: PathBuf,
        /// The error of `fsopen`.
        source: io::Error,
    },
    /// The kernel refused a call of the mount interface.
    #[error("mount at {at:?}: {call}{kernel}")]
    Refused {
        /// The call with its arguments.
        call: String,
        /// Where it was to be mounted.
        at: PathBuf,
        /// The kernel's own sentences in parentheses, or nothing.
        kernel: String,
        /// The error of the call.
        source: io::Error,
    },
    /// No loop device could be had. They are only needed where files cannot be mounted directly.
    #[error(
        "mount {file:?}: {call} (the file system of this file needs loop devices: is the module loop loaded?)"
    )]
    LoopDevice {
        /// The file to be put behind a loop device.
        file: PathBuf,
        /// What was tried.
        call: String,
        /// Its error.
        source: io::Error,
    },
    /// A file or directory of the mount could not be opened, made or described.
    #[error("prepare the mount at {at:?}: {call}")]
    Prepare {
        /// Where it was to be mounted.
        at: PathBuf,
        /// The call with its path.
        call: String,
        /// Its error.
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

    /// Reads a regular file, e.g. `etc/passwd`, following links inside the image; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::FileTooLarge`] for more than `max_bytes`; the kernel's otherwise.
    pub fn read_file(&self, path: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        // NONBLOCK: a FIFO of that name must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = match openat2(&self.root, path, flags, Mode::empty(), resolve) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        if metadata.len() > max_bytes {
            let error = format!("it has {} bytes, more than {max_bytes}", metadata.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        let mut content = Vec::new();
        file.take(max_bytes).read_to_end(&mut content)?;
        Ok(Some(content))
    }
}
