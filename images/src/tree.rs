//! The file system of an image: its layers, merged in memory.
//!
//! ```text
//! index 0 (lowest) ─┐   names: whiteouts, opaque marks, type changes
//! index 1 ──────────┼─► Tree ──► lookup, read_file (/etc/passwd before any mount)
//! index 2 ──────────┘     └────► erofs::write_image
//! ```
//!
//! Inodes live in one arena and are named by number; a hard link, also one to a file of a lower layer,
//! is a second name of a number. What no name leads to any more stays in the arena and is not written.
use std::collections::BTreeMap;

use crate::layer::{Device, FileData, Metadata};

mod merge;
mod read;

pub use merge::{MergeError, merge};
pub use read::{LookupError, ReadFileError};

/// Number of an inode in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeId(u32);

impl InodeId {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// The number, for tables that go beside the tree.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The merged tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    inodes: Vec<Inode>,
    layer_blocks: Vec<u32>,
}

/// A thing in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Owner, mode, time, attributes.
    pub metadata: Metadata,
    /// What it is.
    pub kind: InodeKind,
}

/// Names of a directory, in byte order.
pub type Entries = BTreeMap<Box<[u8]>, InodeId>;

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InodeKind {
    /// Without `.` and `..`.
    Directory(Entries),
    /// A regular file.
    File {
        /// Position of the layer that has its contents, lowest first.
        layer: usize,
        /// Where they are in its data file.
        data: FileData,
    },
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

impl Tree {
    /// An inode by its number, or `None` for a number of another tree.
    pub fn inode(&self, id: InodeId) -> Option<&Inode> {
        self.inodes.get(id.index())
    }

    /// How many numbers are in use.
    pub(crate) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Length of each layer's data file in blocks, lowest first.
    pub fn layer_blocks(&self) -> &[u32] {
        &self.layer_blocks
    }

    fn inode_mut(&mut self, id: InodeId) -> Option<&mut Inode> {
        self.inodes.get_mut(id.index())
    }

    fn entries(&self, id: InodeId) -> Option<&Entries> {
        match &self.inode(id)?.kind {
            InodeKind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    fn entries_mut(&mut self, id: InodeId) -> Option<&mut Entries> {
        match &mut self.inode_mut(id)?.kind {
            InodeKind::Directory(entries) => Some(entries),
            _ => None,
        }
    }
}
