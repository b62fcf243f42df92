//! Extended attributes: behind their inode, or shared by all that have the same.
use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::format::XATTR_HEADER_BYTES;
use crate::layer::Xattr;
use crate::tree::InodeId;

/// An attribute above this goes to the shared area: the space behind an inode is limited.
const LONGEST_INLINE: u64 = 1024;

/// The namespaces that have a number in the format. `system.posix_acl_*` are whole names.
const PREFIXES: [(&[u8], u8); 4] =
    [(b"user.", 1), (b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3), (b"security.", 6)];

/// The attributes that inodes share: where each is, by its digest, and who has it.
#[derive(Debug, Default)]
pub struct Shared {
    /// In units of four bytes.
    places: HashMap<[u8; 32], u32>,
    owners: Vec<(InodeId, u8)>,
    length: u64,
}

/// Bytes that attributes need behind their inode.
pub fn bytes_behind(xattrs: &[Xattr]) -> u64 {
    if xattrs.is_empty() {
        return 0;
    }
    let behind = |xattr| if is_shared(xattr) { 4 } else { entry_bytes(xattr) };
    XATTR_HEADER_BYTES + xattrs.iter().map(behind).sum::<u64>()
}

impl Shared {
    /// Gives those of an inode's attributes that are shared a place, if they have none yet; false if
    /// there is no place left.
    #[must_use]
    pub fn add(&mut self, id: InodeId, xattrs: &[Xattr]) -> bool {
        for (number, xattr) in xattrs.iter().enumerate().filter(|(_, xattr)| is_shared(xattr)) {
            let (Ok(place), Ok(number)) = (u32::try_from(self.length / 4), u8::try_from(number)) else {
                return false;
            };
            self.places.entry(digest(xattr)).or_insert_with(|| {
                self.owners.push((id, number));
                self.length += entry_bytes(xattr);
                place
            });
        }
        true
    }

    /// Bytes of the shared area.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What the shared area consists of: an inode each and which of its attributes.
    pub fn owners(&self) -> &[(InodeId, u8)] {
        &self.owners
    }

    /// What stands behind an inode: a header, numbers of shared attributes, and the others.
    pub fn behind_inode(&self, xattrs: &[Xattr]) -> Vec<u8> {
        if xattrs.is_empty() {
            return Vec::new();
        }
        let (mut shared, mut inline) = (Vec::new(), Vec::new());
        for xattr in xattrs {
            match Some(xattr)
                .filter(|xattr| is_shared(xattr))
                .and_then(|xattr| self.places.get(&digest(xattr)))
            {
                Some(place) => shared.push(*place),
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

fn is_shared(xattr: &Xattr) -> bool {
    entry_bytes(xattr) > LONGEST_INLINE
}

fn digest(xattr: &Xattr) -> [u8; 32] {
    let length = xattr.name.len().to_le_bytes();
    Sha256::new().chain_update(length).chain_update(&xattr.name).chain_update(&xattr.value).finalize().into()
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
pub fn entry(xattr: &Xattr) -> Vec<u8> {
    let (index, rest) = split_name(&xattr.name);
    let [low, high] = u16::try_from(xattr.value.len()).unwrap_or(u16::MAX).to_le_bytes();
    let mut bytes = vec![u8::try_from(rest.len()).unwrap_or(u8::MAX), index, low, high];
    bytes.extend_from_slice(rest);
    bytes.extend_from_slice(&xattr.value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
