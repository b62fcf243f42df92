//! Extended attributes: those that go into an image, and what overlayfs says by its own.
//!
//! Source: Linux, `fs/overlayfs/overlayfs.h`; `Documentation/filesystems/overlayfs.rst`.
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{getxattr, listxattr};
use rustix::io::Errno;

use super::{SaveUpperError, Tree, unread};
use crate::layer::{EntryName, EntryProblem, Xattr, may_be_set};
use crate::limits::Limits;
use crate::mount::path_of;

/// The kernel's limit on all names, and on a value.
const KERNEL_BYTES: usize = 1 << 16;

const OVERLAYS: &[u8] = b"trusted.overlay.";
const CAPABILITY: &[u8] = b"security.capability";

/// What an entry's attributes say.
#[derive(Default)]
pub struct Attributes {
    /// In the order of their names.
    pub kept: Vec<Xattr>,
    /// Nothing of the directory below shows through.
    pub is_opaque: bool,
    /// The lower entry of this name is gone.
    pub is_whiteout: bool,
    /// One or more cannot be written.
    pub lacks_some: bool,
}

/// Reads those of what is open as `O_PATH`: a directory, a regular file, a FIFO or a device.
pub fn read(
    node: &OwnedFd,
    path: &[u8],
    (tree, limits): (Tree, &Limits),
) -> Result<Attributes, SaveUpperError> {
    // Through the descriptor: nothing is opened, and no name is resolved again.
    let at = path_of(node.as_fd());
    let mut names = Vec::with_capacity(KERNEL_BYTES);
    match listxattr(&at, spare_capacity(&mut names)) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Attributes::default()),
        Ok(_) => {}
        Err(error) => return Err(unread(path, "list the attributes", error)),
    }
    let value = |name: &CStr| {
        let mut value = Vec::with_capacity(KERNEL_BYTES);
        let read = getxattr(&at, name, spare_capacity(&mut value));
        read.map_err(|error| unread(path, "read an attribute", error))?;
        Ok(value)
    };
    let mut attributes = Attributes::default();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        match name.to_bytes() {
            _ if tree == Tree::Plain && name.to_bytes().starts_with(OVERLAYS) => {}
            b"trusted.overlay.opaque" => match value(name)?.as_slice() {
                b"y" => attributes.is_opaque = true,
                b"x" => {} // Whiteouts in it are attributes.
                _ => return Err(unknown(path, name)),
            },
            b"trusted.overlay.whiteout" => attributes.is_whiteout = true,
            other => match other.strip_prefix(OVERLAYS) {
                // Where it was copied from, its links, that a directory has such files; flags of `chattr`.
                Some(b"origin" | b"impure" | b"nlink" | b"protattr" | b"uuid") => {}
                // What a process of the container wanted to set, with the prefix that keeps it from this.
                Some(rest) if rest.starts_with(b"overlay.") => {}
                Some(_) => return Err(unknown(path, name)),
                None if !may_be_set(other) => {}
                None if other.contains(&b'=') => attributes.lacks_some = true,
                None if attributes.kept.len() >= limits.xattrs_per_entry => return Err(too_many(path)),
                None => attributes.kept.push(xattr(other, value(name)?)),
            },
        }
    }
    let is_too_long = |xattr: &Xattr| xattr.value.len() > limits.xattr_value_bytes;
    if attributes.kept.iter().any(is_too_long) {
        return Err(too_many(path));
    }
    attributes.kept.sort();
    Ok(attributes)
}

fn too_many(path: &[u8]) -> SaveUpperError {
    SaveUpperError::Entry { entry: EntryName::new(path), problem: EntryProblem::Xattrs }
}

fn unknown(path: &[u8], name: &CStr) -> SaveUpperError {
    let attribute = name.to_bytes().escape_ascii().to_string();
    SaveUpperError::Overlay { entry: EntryName::new(path), attribute }
}

fn xattr(name: &[u8], value: Vec<u8>) -> Xattr {
    let value = if name == CAPABILITY { without_namespace(value) } else { value };
    Xattr { name: name.into(), value: value.into() }
}

/// Version 3 of capabilities adds whose root they are of, which is a number of this host's. As Docker
/// does, the image gets version 2.
///
/// Source: `linux/capability.h`, `struct vfs_ns_cap_data`: version in the highest byte of a
/// little-endian word, four words of capabilities, the user.
fn without_namespace(mut value: Vec<u8>) -> Vec<u8> {
    let length = value.len();
    if let ([_, _, _, version @ 3, ..], 24) = (value.as_mut_slice(), length) {
        *version = 2;
        value.truncate(20);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_third_version_of_capabilities_is_rewritten() {
        let words = |version: u8, length: usize| {
            let mut value = vec![7; length];
            value[..4].copy_from_slice(&[1, 0, 0, version]);
            value
        };
        assert_eq!(without_namespace(words(3, 24)), words(2, 20));
        for other in [words(2, 20), words(3, 20), words(1, 24)] {
            assert_eq!(without_namespace(other.clone()), other);
        }
    }
}
