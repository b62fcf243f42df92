//! A directory's contents: blocks of entries in byte order, names behind the entries of their block.
use super::format::{self, DIRENT_BYTES, file_type};
use crate::layer::{BLOCK_BYTES, Kind};
use crate::tree::{InodeId, Tree};

/// One entry before inodes have their place.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub id: InodeId,
}

/// All entries in byte order, with `.` and `..` where they belong.
fn entries(tree: &Tree, itself: InodeId, parent: InodeId) -> impl Iterator<Item = Entry<'_>> {
    let dots = [Entry { name: b".", id: itself }, Entry { name: b"..", id: parent }];
    let mut dots = dots.into_iter().peekable();
    let mut named = tree.entries(itself).map(|(name, id)| Entry { name, id }).peekable();
    std::iter::from_fn(move || match (dots.peek(), named.peek()) {
        (Some(dot), Some(entry)) if entry.name < dot.name => named.next(),
        (Some(_), _) => dots.next(),
        (None, _) => named.next(),
    })
}

/// The entries of each block, as many as fit; one block is in memory at a time.
pub fn blocks(tree: &Tree, itself: InodeId, parent: InodeId) -> impl Iterator<Item = Vec<Entry<'_>>> {
    let mut entries = entries(tree, itself, parent).peekable();
    std::iter::from_fn(move || {
        let (mut block, mut used) = (Vec::new(), 0);
        // One name always fits: it has 255 bytes at most.
        while let Some(entry) = entries.next_if(|entry| used + entry_bytes(entry) <= BLOCK_BYTES) {
            used += entry_bytes(&entry);
            block.push(entry);
        }
        (!block.is_empty()).then_some(block)
    })
}

/// Bytes of a directory: whole blocks and what the last one uses.
pub fn size(tree: &Tree, itself: InodeId, parent: InodeId) -> u64 {
    blocks(tree, itself, parent).fold(0, |size: u64, block| {
        size.next_multiple_of(BLOCK_BYTES) + block.iter().map(entry_bytes).sum::<u64>()
    })
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
pub fn file_type_of(kind: Kind) -> u8 {
    match kind {
        Kind::Directory => file_type::DIRECTORY,
        Kind::File => file_type::REGULAR,
        Kind::Symlink => file_type::SYMLINK,
        Kind::CharDevice => file_type::CHAR_DEVICE,
        Kind::BlockDevice => file_type::BLOCK_DEVICE,
        Kind::Fifo => file_type::FIFO,
    }
}
