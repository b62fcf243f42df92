//! Extended attributes: behind their inode, or shared by all that have the same.
use std::collections::BTreeMap;

use super::format::XATTR_HEADER_BYTES;
use crate::layer::Xattr;

/// An attribute above this goes to the shared area: the space behind an inode is limited.
const LONGEST_INLINE: u64 = 1024;

/// The namespaces that have a number in the format. `system.posix_acl_*` are whole names.
const PREFIXES: [(&[u8], u8); 4] =
    [(b"user.", 1), (b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3), (b"security.", 6)];

/// The attributes that inodes share, by what they are.
#[derive(Debug, Default)]
pub struct Shared<'a> {
    offsets: BTreeMap<&'a Xattr, u64>,
    length: u64,
}

impl<'a> Shared<'a> {
    /// Counts an inode's attributes in and tells how many bytes they need behind it.
    pub fn add(&mut self, xattrs: &'a [Xattr]) -> u64 {
        if xattrs.is_empty() {
            return 0;
        }
        let mut bytes = XATTR_HEADER_BYTES;
        for xattr in xattrs {
            let length = entry_bytes(xattr);
            if length <= LONGEST_INLINE {
                bytes += length;
                continue;
            }
            bytes += 4;
            let length_before = self.length;
            self.offsets.entry(xattr).or_insert_with(|| {
                self.length += length;
                length_before
            });
        }
        bytes
    }

    /// Bytes of the shared area.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The shared area.
    pub fn bytes(&self) -> Vec<u8> {
        let mut in_place: Vec<_> = self.offsets.iter().collect();
        in_place.sort_by_key(|(_, offset)| **offset);
        in_place.into_iter().flat_map(|(xattr, _)| entry(xattr)).collect()
    }

    /// What stands behind an inode: a header, numbers of shared attributes, and the others.
    pub fn behind_inode(&self, xattrs: &[Xattr]) -> Vec<u8> {
        if xattrs.is_empty() {
            return Vec::new();
        }
        let (mut shared, mut inline) = (Vec::new(), Vec::new());
        for xattr in xattrs {
            match self.offsets.get(xattr) {
                Some(offset) => shared.push(u32::try_from(offset / 4).unwrap_or(u32::MAX)),
                None => inline.extend(entry(xattr)),
            }
        }
        let count = u8::try_from(shared.len()).unwrap_or(u8::MAX);
        let mut bytes = vec![0, 0, 0, 0, count, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(shared.into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(inline);
        bytes
    }
}

fn split_name(name: &[u8]) -> (u8, &[u8]) {
    let found = PREFIXES.iter().find_map(|(prefix, index)| Some((*index, name.strip_prefix(*prefix)?)));
    found.unwrap_or((0, name))
}

fn entry_bytes(xattr: &Xattr) -> u64 {
    let (_, rest) = split_name(&xattr.name);
    (4 + rest.len() as u64 + xattr.value.len() as u64).next_multiple_of(4)
}

/// Lengths of name and value, the namespace, the name's rest, the value; in units of four bytes.
fn entry(xattr: &Xattr) -> Vec<u8> {
    let (index, rest) = split_name(&xattr.name);
    let [low, high] = u16::try_from(xattr.value.len()).unwrap_or(u16::MAX).to_le_bytes();
    let mut bytes = vec![u8::try_from(rest.len()).unwrap_or(u8::MAX), index, low, high];
    bytes.extend_from_slice(rest);
    bytes.extend_from_slice(&xattr.value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
