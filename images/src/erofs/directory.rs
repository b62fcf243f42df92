//! A directory's contents: blocks of entries in byte order, names behind the entries of their block.
use super::format::{self, DIRENT_BYTES, file_type};
use crate::layer::BLOCK_BYTES;
use crate::tree::{Entries, InodeId, InodeKind};

/// One entry before inodes have their place.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub id: InodeId,
}

/// All entries in byte order, with `.` and `..` where they belong.
pub fn entries<'a>(names: &'a Entries, itself: InodeId, parent: InodeId) -> Vec<Entry<'a>> {
    let dots = [Entry { name: b".", id: itself }, Entry { name: b"..", id: parent }];
    let named = names.iter().map(|(name, id)| Entry { name, id: *id });
    let mut all: Vec<_> = dots.into_iter().chain(named).collect();
    all.sort_by_key(|entry| entry.name);
    all
}

/// The entries of each block, as many as fit.
pub fn blocks<'b, 'a>(entries: &'b [Entry<'a>]) -> Vec<&'b [Entry<'a>]> {
    let mut blocks = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let count = rest.iter().take_while(|entry| {
            used += entry_bytes(entry);
            used <= BLOCK_BYTES
        });
        // One name always fits: it has 255 bytes at most.
        let (block, after) = rest.split_at(count.count().max(1));
        blocks.push(block);
        rest = after;
    }
    blocks
}

/// Bytes of a directory: whole blocks and what the last one uses.
pub fn size(entries: &[Entry<'_>]) -> u64 {
    let blocks = blocks(entries);
    let last = blocks.last().map_or(0, |block| block.iter().map(entry_bytes).sum());
    (blocks.len() as u64).saturating_sub(1) * BLOCK_BYTES + last
}

fn entry_bytes(entry: &Entry<'_>) -> u64 {
    (DIRENT_BYTES + entry.name.len()) as u64
}

/// One block without padding. `nid` and `kind` tell where an inode is and what.
pub fn block_bytes(
    block: &[Entry<'_>],
    nid: impl Fn(InodeId) -> u64,
    kind: impl Fn(InodeId) -> u8,
) -> Vec<u8> {
    let mut name_at = DIRENT_BYTES * block.len();
    let mut bytes = Vec::new();
    for entry in block {
        let at = u16::try_from(name_at).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&format::dirent(nid(entry.id), at, kind(entry.id)));
        name_at += entry.name.len();
    }
    for entry in block {
        bytes.extend_from_slice(entry.name);
    }
    bytes
}

/// The type that an entry tells of its inode.
pub fn file_type_of(kind: &InodeKind) -> u8 {
    match kind {
        InodeKind::Directory(_) => file_type::DIRECTORY,
        InodeKind::File { .. } => file_type::REGULAR,
        InodeKind::Symlink(_) => file_type::SYMLINK,
        InodeKind::CharDevice(_) => file_type::CHAR_DEVICE,
        InodeKind::BlockDevice(_) => file_type::BLOCK_DEVICE,
        InodeKind::Fifo => file_type::FIFO,
    }
}
