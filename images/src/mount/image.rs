//! The read-only part: EROFS over files, or over loop devices.
//!
//! Why not the mount option `directio`: it spares the second copy that the page cache keeps of what
//! is read, and reads large files faster from a cold disk, but every small file then is a disk access
//! of its own, and what a pull has just written must first reach the disk. Reading an image of 31,814
//! files, 379 MB (Linux 6.18, 2 cores, two rounds): just pulled 8.0 and 11.1 s instead of 0.9 and
//! 1.1 s; its data in the page cache 5.6 and 4.2 instead of 0.9 and 1.6 s; cold 8.6 and 4.6 instead of
//! 3.0 and 2.2 s. The second copy is clean cache, which the kernel drops when memory is wanted.
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::context::{Context, LONGEST_STRING, is_refused_with, path_of, prepare};
use super::loop_device::LoopDevice;
use super::{ImageMount, MountError};

/// Mounts `metadata` with the layers' data files, lowest first, at the existing directory `at`.
///
/// # Errors
///
/// [`MountError`] with the call and the kernel's own words.
pub fn mount_image(metadata: &Path, devices: &[PathBuf], at: &Path) -> Result<ImageMount, MountError> {
    match mount_files(metadata, devices, at) {
        // Before 6.12, and on tmpfs or overlayfs whatever the version.
        Err(error) if is_refused_with(&error, Errno::NOTBLK) => mount_loops(metadata, devices, at),
        result => result,
    }
}

fn mount_files(metadata: &Path, devices: &[PathBuf], at: &Path) -> Result<ImageMount, MountError> {
    let context = Context::open("erofs", at)?;
    let mut opened = Vec::new();
    set_file(&context, "source", metadata, at, &mut opened)?;
    for device in devices {
        set_file(&context, "device", device, at, &mut opened)?;
    }
    attach(&context, at)
}

/// Gives a file by its name, so that the mount table is readable, or by a descriptor if that is too long.
fn set_file(
    context: &Context<'_>,
    key: &str,
    file: &Path,
    at: &Path,
    opened: &mut Vec<File>,
) -> Result<(), MountError> {
    if file.as_os_str().as_bytes().len() < LONGEST_STRING {
        return context.set(key, file);
    }
    let file =
        File::open(file).map_err(|error| prepare(at, format_args!("open {}", file.display()), error))?;
    context.set(key, path_of(file.as_fd()))?;
    opened.push(file); // Until the file system is made.
    Ok(())
}

/// The mount holds the devices; ours are closed at the end, and the kernel clears them with the mount.
fn mount_loops(metadata: &Path, devices: &[PathBuf], at: &Path) -> Result<ImageMount, MountError> {
    let metadata = LoopDevice::attach(metadata)?;
    let devices = devices.iter().map(|file| LoopDevice::attach(file)).collect::<Result<Vec<_>, _>>()?;
    let context = Context::open("erofs", at)?;
    context.set("source", metadata.path())?;
    for device in &devices {
        context.set("device", device.path())?;
    }
    attach(&context, at)
}

fn attach(context: &Context<'_>, at: &Path) -> Result<ImageMount, MountError> {
    context.set_flag("ro")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = context.attach(attributes)?;
    Ok(ImageMount { root, at: at.into() })
}
