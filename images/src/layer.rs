//! A layer: one tar stream, read once, kept as a data file and an index.
//!
//! ```text
//!  tar stream ──► reader   headers, PAX and GNU extensions, sparse maps: one `Member` at a time
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
use std::sync::atomic::AtomicBool;

use crate::limits::Limits;

mod builder;
mod data;
mod error;
mod header;
mod members;
mod names;
mod pax;
mod reader;
mod sparse;
mod stored;

pub use error::{ArchiveProblem, EntryName, EntryProblem, IndexLayerError};
pub(crate) use reader::{MemberKind, TarReader};
pub use stored::ReadIndexError;

/// Bytes of a block, the unit in which files lie in a layer's data file.
pub const BLOCK_BYTES: u64 = 4096;

/// What a layer changes in the tree below it, without the contents of its files.
///
/// Nodes are the things, names are where they are found: a hard link is a second name of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerIndex {
    /// The first node is the layer's root directory.
    pub(crate) nodes: Vec<Node>,
    /// Parents before their children; children of one directory in byte order.
    pub(crate) names: Vec<Name>,
    pub(crate) data_blocks: u32,
    pub(crate) unpacked_bytes: u64,
    pub(crate) dropped_xattrs: u64,
}

impl LayerIndex {
    /// Length of the data file in blocks of [`BLOCK_BYTES`]; at least one.
    pub fn data_blocks(&self) -> u32 {
        self.data_blocks
    }

    /// Bytes of all regular files, holes included: what counts against [`Limits::unpacked_bytes`].
    pub fn unpacked_bytes(&self) -> u64 {
        self.unpacked_bytes
    }

    /// How many names the layer has: what counts against [`Limits::entries`].
    pub fn entries(&self) -> u64 {
        self.names.len() as u64
    }

    /// How many extended attributes were left out because no image may set them (`trusted.*` and so on).
    pub fn dropped_xattrs(&self) -> u64 {
        self.dropped_xattrs
    }
}

/// One thing of a layer. `metadata` is `None` for a directory that only the paths of others imply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub metadata: Option<Metadata>,
    pub content: Content,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Directory { below: Below },
    File(FileData),
    Symlink(Box<[u8]>),
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
}

/// What a directory of this layer does to the same directory of the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Below {
    /// Their entries stay visible.
    Kept,
    /// Their entries are gone (opaque mark).
    Hidden,
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// At most 12 bits.
    pub major: u32,
    /// At most 20 bits.
    pub minor: u32,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileData {
    /// Length in bytes, holes included.
    pub size: u64,
    /// Blocks of the layer's data file.
    pub blocks: FileBlocks,
}

/// The blocks of a file in its layer's data file.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// Index of the directory's node.
    pub parent: u32,
    pub name: Box<[u8]>,
    pub target: Target,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Index of a node of this layer.
    Node(u32),
    /// A hard link to what a lower layer has at this path.
    Lower(Box<[u8]>),
    /// The lower layers' entry of this name is gone.
    Whiteout,
}

/// Owner, mode, time and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanoseconds: u32,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// With its namespace: `security.capability`.
    pub name: Box<[u8]>,
    /// As the kernel takes it.
    pub value: Box<[u8]>,
}

/// Reads a layer to its end: contents go to `data`, the rest into the index.
///
/// `tar` is the inflated stream; it is read until it says that it ends, also behind the archive's
/// own end, so that whoever hashes it sees every byte. `data` must be empty and not opened
/// for appending: it is written at offsets, from its start on. `cancelled` is looked at for every entry and every mebibyte.
///
/// # Errors
///
/// Everything that an image may not contain ends here with the entry's name and the reason; the
/// data file is then of no use. [`IndexLayerError::Read`] carries the stream's own error.
pub fn index_layer(
    tar: &mut dyn Read,
    data: &File,
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<LayerIndex, IndexLayerError> {
    let mut reader = reader::TarReader::new(tar, limits, cancelled);
    let mut data = data::DataWriter::new(data);
    let mut builder = builder::Builder::new(limits);
    while let Some(member) = reader.next_member()? {
        members::add(member, &mut reader, &mut data, &mut builder)?;
    }
    reader.drain()?;
    let data_blocks = data.finish()?;
    Ok(builder.finish(data_blocks))
}
