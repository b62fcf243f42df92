//! A file-system context: `fsopen`, parameters, `fsmount`, with the kernel's own words in every error.
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

use super::MountError;

/// The longest string that `fsconfig(2)` takes, its zero byte included.
pub const LONGEST_STRING: usize = 256;

/// The kernel keeps eight messages of a context.
const MESSAGES: usize = 8;
const MESSAGE_BYTES: usize = 512;

/// A file system that is being set up.
pub struct Context<'a> {
    fd: OwnedFd,
    at: &'a Path,
}

impl<'a> Context<'a> {
    pub fn open(file_system: &'static str, at: &'a Path) -> Result<Context<'a>, MountError> {
        let fd = mount::fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| {
            let (at, source) = (at.to_path_buf(), error.into());
            match error {
                Errno::NODEV => MountError::NoFileSystem { file_system, at, source },
                _ => MountError::Prepare { at, call: format!("fsopen({file_system})"), source },
            }
        })?;
        Ok(Context { fd, at })
    }

    pub fn set(&self, key: &str, value: impl AsRef<Path>) -> Result<(), MountError> {
        let value = value.as_ref();
        let result = mount::fsconfig_set_string(&self.fd, key, value);
        result.map_err(|error| self.refused(format_args!("option {key}={}", value.display()), error))
    }

    pub fn set_flag(&self, key: &str) -> Result<(), MountError> {
        let result = mount::fsconfig_set_flag(&self.fd, key);
        result.map_err(|error| self.refused(format_args!("option {key}"), error))
    }

    pub fn set_fd(&self, key: &str, value: BorrowedFd<'_>) -> Result<(), MountError> {
        let result = mount::fsconfig_set_fd(&self.fd, key, value);
        result.map_err(|error| self.refused(format_args!("option {key} by descriptor"), error))
    }

    /// Makes the file system and a mount of it, attached at the context's place. The descriptor is its root.
    pub fn attach(&self, attributes: MountAttrFlags) -> Result<OwnedFd, MountError> {
        mount::fsconfig_create(&self.fd).map_err(|error| self.refused("create the file system", error))?;
        let mount = mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|error| self.refused("fsmount", error))?;
        mount::move_mount(mount.as_fd(), "", CWD, self.at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|error| self.refused("move_mount", error))?;
        Ok(mount)
    }

    fn refused(&self, call: impl Display, error: Errno) -> MountError {
        let kernel = self.messages();
        MountError::Refused { call: call.to_string(), at: self.at.into(), kernel, source: error.into() }
    }

    /// What the kernel has to say, in parentheses with a space before, or nothing.
    fn messages(&self) -> String {
        let mut messages = Vec::new();
        for _ in 0..MESSAGES {
            let mut message = [0; MESSAGE_BYTES];
            let Ok(length) = rustix::io::read(&self.fd, &mut message) else { break }; // ENODATA: no more.
            let (message, _) = message.split_at(length.min(MESSAGE_BYTES));
            // "e overlay: …": a letter for error, warning or information, then a space.
            let text = message.get(2..).unwrap_or_default().trim_ascii();
            messages.push(String::from_utf8_lossy(text).into_owned());
        }
        if messages.is_empty() { String::new() } else { format!(" ({})", messages.join("; ")) }
    }
}

/// Whether a call was refused with this error number.
pub fn is_refused_with(error: &MountError, number: Errno) -> bool {
    matches!(error, MountError::Refused { source, .. } if source.raw_os_error() == Some(number.raw_os_error()))
}

/// The same file by its descriptor, for interfaces that take strings: short, and safe from renames.
pub fn path_of(fd: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// An error while the mount at a place is prepared.
pub fn prepare(at: &Path, call: impl Display, source: impl Into<io::Error>) -> MountError {
    MountError::Prepare { at: at.into(), call: call.to_string(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_the_kernels_own_sentence() {
        let context = Context::open("erofs", Path::new("/nowhere")).unwrap();
        let error = context.set("nonsense", "x").unwrap_err();
        assert_eq!(
            error.to_string(),
            "mount at \"/nowhere\": option nonsense=x (erofs: Unknown parameter 'nonsense')"
        );
    }
}
