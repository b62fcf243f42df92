//! Why a layer is refused, or could not be read or written.
use std::fmt;
use std::io;

use crate::disk::DiskFull;

/// Why a layer could not be indexed.
#[derive(Debug, thiserror::Error)]
pub enum IndexLayerError {
    /// An entry is something that no layer may contain.
    #[error("index the layer's entry {entry}: {problem}; the image has to be built again without it")]
    Entry {
        /// The entry's own name, before links were followed.
        entry: EntryName,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The stream is not a tar archive that can be read to its end.
    #[error(
        "read the layer's archive at byte {offset}: {problem}; the image has to be fetched or built again"
    )]
    Archive {
        /// Byte of the inflated stream.
        offset: u64,
        /// What is wrong there.
        problem: ArchiveProblem,
    },
    /// The image asks for more than the limits allow.
    #[error(
        "index the layer's entry {entry}: the image's {what} exceed the limit of {limit}; make it smaller"
    )]
    TooLarge {
        /// The entry that crossed the limit.
        entry: EntryName,
        /// What was counted.
        what: &'static str,
        /// How many may be.
        limit: u64,
    },
    /// The stream gave an error of its own: connection, digest, decompression.
    #[error("read the layer's archive at byte {offset}")]
    Read {
        /// Byte of the inflated stream.
        offset: u64,
        /// The stream's error.
        source: io::Error,
    },
    /// A file of the layer could not be written.
    #[error("write the layer's {file} at byte {offset}")]
    Write {
        /// `data`, `index` or `split`.
        file: &'static str,
        /// Byte of the file.
        offset: u64,
        /// The file system's error.
        source: io::Error,
    },
    /// The data file would be longer than 16 TiB, which is all that EROFS can address.
    #[error(
        "write the layer's data file: it would be longer than 16 TiB; the image has to be split into more layers"
    )]
    DataTooLong,
    /// The reserve of free space is reached.
    #[error(transparent)]
    DiskFull(DiskFull),
    /// The caller's flag was raised.
    #[error("index the layer: cancelled")]
    Cancelled,
}

impl IndexLayerError {
    /// An error about one entry.
    pub(crate) fn entry(name: &[u8], problem: EntryProblem) -> IndexLayerError {
        IndexLayerError::Entry { entry: EntryName::new(name), problem }
    }
}

/// What may be wrong with one entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// `..` as a component of a name or of a hard link's target.
    #[error("its path has a component \"..\", which leads out of the layer")]
    LeavesLayer,
    /// No name at all.
    #[error("it has no name")]
    EmptyName,
    /// A zero byte inside a name or target.
    #[error("its name or target contains a zero byte")]
    ZeroByte,
    /// A path, component or target is longer than any file system takes.
    #[error("its {what} has {length} bytes, more than {limit}")]
    TooLong {
        /// Path, component, or link target.
        what: &'static str,
        /// Bytes it has.
        length: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// A parent is neither a directory nor a link to one.
    #[error("a parent in its path is not a directory")]
    ParentNotDirectory,
    /// Links among the parents that lead in a circle.
    #[error("more than {limit} symbolic links in its path")]
    LinkLoop {
        /// How many are followed.
        limit: u32,
    },
    /// The root of the layer as something other than a directory.
    #[error("it replaces the root directory by something else")]
    RootNotDirectory,
    /// A hard link to a directory.
    #[error("it is a hard link to a directory")]
    LinkToDirectory,
    /// A hard link to one of aufs's files that is not in the layer.
    #[error("it is a hard link to a file that aufs kept, which is not before it in the layer")]
    NothingAside,
    /// A link without a target.
    #[error("it is a link to nothing")]
    EmptyTarget,
    /// A whiteout that names no entry of its directory.
    #[error("it is a whiteout of nothing, \".\" or \"..\"")]
    BadWhiteout,
    /// An entry below a name that marks a whiteout.
    #[error("it lies below a whiteout")]
    BelowWhiteout,
    /// Character device 0:0, overlayfs's own mark.
    #[error("it is the character device 0:0, which would hide other files")]
    WhiteoutDevice,
    /// Numbers that the kernel cannot hold.
    #[error("its device number is out of range")]
    DeviceNumber,
    /// Sparse, multi-volume, label and other types that are no files.
    #[error("its type {kind:?} is not known")]
    UnknownType {
        /// The type byte, escaped.
        kind: String,
    },
    /// User or group above 2^32-2.
    #[error("its owner or group is out of range")]
    Owner,
    /// More attributes than allowed, or a longer value.
    #[error("its extended attributes exceed the limits")]
    Xattrs,
    /// A map of a sparse file with overlapping, unordered or endless pieces.
    #[error("its map of holes is not in order")]
    SparseMap,
}

/// What may be wrong with the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveProblem {
    /// The checksum of a header does not fit.
    #[error("not a tar header (wrong checksum)")]
    Checksum,
    /// A number that is not octal, or negative where it cannot be.
    #[error("the {field} in a header is not a number that fits")]
    Number {
        /// Name of the header's field.
        field: &'static str,
    },
    /// The stream ends inside a header or an entry.
    #[error("it ends in the middle of {within}")]
    Truncated {
        /// A header, or the name of the entry.
        within: String,
    },
    /// A PAX block that cannot be taken apart.
    #[error("a PAX header is malformed")]
    Pax,
    /// A PAX block, long name or sparse map that is larger than any real one.
    #[error("an extension header has {length} bytes, more than {limit}")]
    ExtensionTooLong {
        /// Bytes it declares.
        length: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// Extension headers with no entry behind them, or two of one kind for one entry.
    #[error("an extension header belongs to no entry")]
    DanglingExtension,
    /// Data behind one zero block.
    #[error("a single zero block is followed by something else")]
    SingleZeroBlock,
    /// More bytes than any limit on files allows.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// Bytes it may have.
        limit: u64,
    },
    /// With what is kept of it beside its files' contents, the image asks for more than the limits allow.
    #[error("with what stands between its files, the image's {what} exceed the limit of {limit}")]
    ImageTooLarge {
        /// What was counted.
        what: &'static str,
        /// How many may be.
        limit: u64,
    },
}

/// A name for messages: control characters and bytes outside ASCII are escaped, the middle of a long one is left out.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryName(Box<[u8]>);

/// As much of either end of a long name is shown.
const SHOWN_BYTES: usize = 120;

impl EntryName {
    /// Keeps what is needed for the message.
    pub fn new(name: &[u8]) -> EntryName {
        if name.len() <= 2 * SHOWN_BYTES {
            return EntryName(name.into());
        }
        let (head, _) = name.split_at(SHOWN_BYTES);
        let (_, tail) = name.split_at(name.len() - SHOWN_BYTES);
        EntryName([head, b"...", tail].concat().into())
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}
