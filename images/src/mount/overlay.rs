//! The writable part: an overlay whose upper directory is new.
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{self, CWD, Gid, Mode, OFlags, Timestamps, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::context::{Context, is_refused_with, path_of, prepare};
use super::{ImageMount, MountError};

/// Names and one value of a root directory's attributes; the kernel's limit on either.
const XATTR_BYTES: usize = 65_536;

/// What an image or a task writes may not steer the overlay or outlive its layers; and a file is
/// one file by all its names, for as long as the mount lives.
///
/// * `xino=on`: the whole tree has one device number, and a file keeps its inode number when it is
///   copied up. Without, files of the image have a device number of their own (`du -x` counts none of
///   them), and after `ln a b` the two could look like different files: `cp a b` then empties both.
///   The numbers of the image's files have the highest bit set, which only programs without
///   large-file support cannot read.
/// * `index=on`: the image's own hard links stay linked when one of them is written.
const OPTIONS: [(&str, &str); 4] =
    [("metacopy", "off"), ("redirect_dir", "off"), ("index", "on"), ("xino", "on")];

/// In the directory that the caller gives.
const UPPER: &str = "upper";

/// The three directories of an overlay.
struct Parts<'a> {
    lower: BorrowedFd<'a>,
    upper: OwnedFd,
    work: OwnedFd,
}

/// Mounts an overlay with `lower` below and a new upper directory in `upper_parent` at the existing directory `at`.
///
/// `upper_parent` gets `upper` and `work` and must have neither. Returns the merged root (`O_PATH`).
/// The overlay is volatile: after a crash of the host its upper directory is of no use.
///
/// # Errors
///
/// [`MountError`] with the call and the kernel's own words.
pub fn mount_overlay(lower: &ImageMount, upper_parent: &Path, at: &Path) -> Result<OwnedFd, MountError> {
    let upper = make_directory(upper_parent, UPPER, at)?;
    let work = make_directory(upper_parent, "work", at)?;
    // The overlay's root takes these from the upper directory: without, a task that is not root
    // could not even enter.
    copy_root(lower.root(), &upper).map_err(|(call, error)| prepare(at, call, error))?;
    let parts = Parts { lower: lower.root(), upper, work };
    match by_descriptor(&parts, at) {
        // Invalid since the new interface came to overlayfs in 6.5, not supported before.
        Err(error) if [Errno::INVAL, Errno::NOTSUP].iter().any(|number| is_refused_with(&error, *number)) => {
            by_name(&parts, at)
        }
        result => result,
    }
}

/// Opens the upper directory of an overlay that was mounted with this `upper_parent`: what
/// [`write_layer`](crate::save::upper::write_layer) reads.
///
/// # Errors
///
/// The kernel's.
pub fn open_upper(upper_parent: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(CWD, upper_parent.join(UPPER), flags, Mode::empty())?)
}

/// Linux 6.13 and newer.
fn by_descriptor(parts: &Parts<'_>, at: &Path) -> Result<OwnedFd, MountError> {
    let context = Context::open("overlay", at)?;
    context.set_fd("lowerdir+", parts.lower)?;
    context.set_fd("upperdir", parts.upper.as_fd())?;
    context.set_fd("workdir", parts.work.as_fd())?;
    attach(&context)
}

/// Names of descriptors need no escapes and are short: the old interface takes one page of options.
fn by_name(parts: &Parts<'_>, at: &Path) -> Result<OwnedFd, MountError> {
    let context = Context::open("overlay", at)?;
    context.set("lowerdir", path_of(parts.lower))?;
    context.set("upperdir", path_of(parts.upper.as_fd()))?;
    context.set("workdir", path_of(parts.work.as_fd()))?;
    attach(&context)
}

fn attach(context: &Context<'_>) -> Result<OwnedFd, MountError> {
    for (key, value) in OPTIONS {
        context.set(key, value)?;
    }
    context.set_flag("volatile")?;
    context.attach(MountAttrFlags::empty())
}

fn make_directory(parent: &Path, name: &str, at: &Path) -> Result<OwnedFd, MountError> {
    let path = parent.join(name);
    let call = |call: &str| format!("{call} {}", path.display());
    fs::mkdirat(CWD, &path, Mode::RWXU).map_err(|error| prepare(at, call("mkdir"), error))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(CWD, &path, flags, Mode::empty()).map_err(|error| prepare(at, call("open"), error))
}

/// Copies owner, mode, attributes and time of a directory.
fn copy_root(from: BorrowedFd<'_>, to: &OwnedFd) -> Result<(), (&'static str, Errno)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from =
        fs::openat(from, ".", flags, Mode::empty()).map_err(|error| ("open the image's root", error))?;
    let stat = fs::fstat(&from).map_err(|error| ("stat the image's root", error))?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::fchown(to, Some(uid), Some(gid)).map_err(|error| ("fchown the upper directory", error))?;
    // After chown, which takes set-id bits away.
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    fs::fchmod(to, mode).map_err(|error| ("fchmod the upper directory", error))?;
    copy_xattrs(&from, to)?;
    let modified = rustix::fs::Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    };
    let times = Timestamps { last_access: modified, last_modification: modified };
    fs::futimens(to, &times).map_err(|error| ("futimens the upper directory", error))
}

fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> Result<(), (&'static str, Errno)> {
    // Most roots have none: a buffer that nothing fills is not touched.
    let mut names = Vec::with_capacity(XATTR_BYTES);
    match fs::flistxattr(from, spare_capacity(&mut names)) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        result => result.map_err(|error| ("list the attributes of the image's root", error))?,
    };
    let mut value = Vec::with_capacity(XATTR_BYTES);
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        value.clear();
        fs::fgetxattr(from, name, spare_capacity(&mut value))
            .map_err(|error| ("read an attribute of the image's root", error))?;
        fs::fsetxattr(to, name, &value, fs::XattrFlags::empty())
            .map_err(|error| ("set an attribute of the upper directory", error))?;
    }
    Ok(())
}
