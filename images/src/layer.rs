//! A layer: one tar stream, read once, kept as a data file and an index, and with what it takes to write it again.
//!
//! ```text
//!  tar stream ──► reader   headers, PAX and GNU extensions, sparse maps: one `Member` at a time ──► split
//!                    │
//!         metadata   │   contents
//!            ┌───────┴────────┐
//!            ▼                ▼
//!         builder           data      every file at a 4 KiB block of the data file, holes left out
//!  names, links, whiteouts
//!            │
//!            ▼
//!        LayerIndex ──► stored        compact form on disk
//! ```
//!
//! Nothing of a layer is ever created on the host under a name that the layer chose: an entry has
//! no path to attack. Names are bytes; they mean something only in the tree that
//! [`tree::merge`](crate::tree::merge) makes of an image's layers.
//!
//! Why not `tar::Archive`: its raw iterator skips by the size of the ustar header, even where a PAX
//! record overrides it, and its cooked one reads extension headers whole, however large. So the loop
//! over 512-byte blocks is ours, and the crate lends its header layouts.
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::disk::Watch;

mod budget;
mod builder;
mod data;
mod error;
mod header;
mod members;
mod names;
mod pax;
mod reader;
mod sparse;
mod split;
mod stored;

pub use budget::Budget;
pub(crate) use budget::Share;
pub use error::{ArchiveProblem, EntryName, EntryProblem, IndexLayerError};
pub(crate) use members::may_be_set;
pub(crate) use names::{OPAQUE_MARK, WHITEOUT_PREFIX};
pub(crate) use reader::{Member, MemberKind, TarReader, may_be_tar};
pub use split::SplitReader;
pub(crate) use stored::Nodes;
pub use stored::{LayerIndex, ReadIndexError};

/// Bytes of a block, the unit in which files lie in a layer's data file.
pub const BLOCK_BYTES: u64 = 4096;

/// Components of a path that cost as much as following one link, whose target is on disk.
pub(crate) const FOLLOW_COST: u64 = 64;

/// One thing of a layer that an entry describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Owner, mode, time, attributes.
    pub metadata: Metadata,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Its entries are names of their own.
    Directory,
    /// A regular file.
    File(FileData),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// The same without what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

impl Content {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Content::Directory => Kind::Directory,
            Content::File(_) => Kind::File,
            Content::Symlink(_) => Kind::Symlink,
            Content::CharDevice(_) => Kind::CharDevice,
            Content::BlockDevice(_) => Kind::BlockDevice,
            Content::Fifo => Kind::Fifo,
        }
    }
}

/// What a directory of this layer does to the same directory of the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Below {
    /// Their entries stay visible.
    #[default]
    Kept,
    /// Their entries are gone (opaque mark).
    Hidden,
    /// The directory itself is gone, its metadata included: this is a new one.
    Replaced,
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// At most 12 bits.
    pub major: u32,
    /// At most 20 bits.
    pub minor: u32,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileData {
    /// Length in bytes, holes included.
    pub size: u64,
    /// Blocks of the layer's data file.
    pub blocks: FileBlocks,
}

/// The blocks of a file in its layer's data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileBlocks {
    /// One run from this block on, as long as the file is. Means nothing for an empty file.
    Run(u32),
    /// Pieces of `2^chunk_bits` bytes, in file order: the first block of each, or `None` for a hole.
    Chunks {
        /// At least 12: a chunk is a whole number of blocks.
        chunk_bits: u8,
        /// As many as the size needs.
        starts: Box<[Option<u32>]>,
    },
}

/// One name in a directory of the layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Name {
    /// Number of the directory: 0 is the root, and every [`Target::New`] has the next one.
    pub parent: u32,
    pub name: Box<[u8]>,
    pub target: Target,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Target {
    /// The first name of a node; without one, of a directory that only the paths of others imply.
    New { kind: Kind, node: Option<u64>, below: Below },
    /// A hard link to the thing of that number.
    Same(u32),
    /// A hard link to what a lower layer has at this path.
    Lower(Box<[u8]>),
    /// The lower layers' entry of this name is gone.
    Whiteout,
}

/// Owner, mode, time and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Permission, set-id and sticky bits, without the type.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time.
    pub modified: Timestamp,
    /// Full names and values, in the order of the names.
    pub xattrs: Box<[Xattr]>,
}

impl Metadata {
    /// What a directory gets that no layer describes: root's, mode 0755, the epoch.
    pub fn of_implied_directory() -> Metadata {
        Metadata { mode: 0o755, uid: 0, gid: 0, modified: Timestamp::default(), xattrs: Box::default() }
    }
}

/// A point in time; nanoseconds count forward, also before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanoseconds: u32,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Xattr {
    /// With its namespace: `security.capability`.
    pub name: Box<[u8]>,
    /// As the kernel takes it.
    pub value: Box<[u8]>,
}

/// Where the parts of a layer go. All files are empty, and not opened for appending: they are
/// written at offsets.
pub struct Parts<'a> {
    /// The contents of its files.
    pub data: &'a File,
    /// Its index, for [`LayerIndex::open`].
    pub index: &'a File,
    /// What of the stream is not contents, so that it can be written again; `None` if nobody will.
    pub split: Option<&'a File>,
    /// The directory whose free space is watched, if any.
    pub disk: Option<&'a Path>,
}

/// Reads a layer to its end: contents go to the data file, the rest into the index, and the bytes between the contents
/// into the third file.
///
/// `tar` is the inflated stream; it is read until it says that it ends, also behind the archive's
/// own end, so that whoever hashes it sees every byte. `cancelled` is looked at for every entry and
/// every mebibyte.
///
/// # Errors
///
/// Everything that an image may not contain ends here with the entry's name and the reason; the
/// files are then of no use. [`IndexLayerError::Read`] carries the stream's own error.
pub fn index_layer(
    tar: &mut dyn Read,
    parts: &Parts<'_>,
    budget: &Budget,
    cancelled: &AtomicBool,
) -> Result<(), IndexLayerError> {
    let disk = || parts.disk.map(|directory| Watch::new(directory, budget.limits()));
    let split = parts.split.map(|file| split::SplitWriter::new(file, disk(), budget)).transpose()?;
    let mut reader = reader::TarReader::new(tar, budget.limits(), cancelled).noted_by(split);
    let mut data = data::DataWriter::new(parts.data, disk());
    let mut builder = builder::Builder::new(budget, stored::IndexWriter::new(parts.index), disk());
    while let Some(member) = reader.next_member()? {
        members::add(member, &mut reader, &mut data, &mut builder)?;
    }
    reader.drain()?;
    let data_blocks = data.finish()?;
    builder.finish(data_blocks)
}
