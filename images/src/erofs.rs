//! Writes a tree as one EROFS metadata image whose files lie in the layers' data files.
//!
//! ```text
//! block 0        1024: superblock, then one slot of 128 bytes per extra device (= layer)
//! inodes         from the next block on: 64 bytes, attributes, then a directory's or link's last
//!                bytes, or where a file's chunks are: (device, block) each
//! shared         extended attributes that are long or that many inodes have
//! directories    their full blocks, and links that do not fit beside their inode
//! ```
//!
//! A file is one chunk of its layer's data file, whatever its size; only sparse files have more. The
//! same tree gives the same bytes: no time, nothing random, everything in byte order.
//!
//! Source: the kernel's `Documentation/filesystems/erofs.rst` and on-disk format as of Linux 6.1;
//! chunks and extra devices need 5.16.
use std::fs::File;
use std::io::{self, BufWriter, Write};

use crate::layer::{EntryName, LayerIndex, ReadIndexError};
use crate::tree::{NodeReader, Tree};

mod directory;
mod format;
mod plan;
mod write;
mod xattrs;

pub use format::Uuid;

/// Written in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

/// Why the metadata image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteImageError {
    /// The file system's error.
    #[error("write the image's metadata")]
    Write(#[from] io::Error),
    /// What is in it could not be read.
    #[error("write the image's metadata: read an index")]
    Index(#[from] ReadIndexError),
    /// More than the format can hold: limits on images are far below.
    #[error(
        "write the image's metadata: its {what} exceed what EROFS can hold; the image has to be made smaller"
    )]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
    },
    /// An inode's attributes do not fit in its head.
    #[error("write the image's metadata: the extended attributes of {entry} exceed what EROFS can hold")]
    Xattrs {
        /// One name of it.
        entry: EntryName,
    },
}

/// An image before its first byte is written.
pub struct Plan<'a> {
    layout: plan::Layout<'a>,
    nodes: NodeReader<'a>,
}

impl<'a> Plan<'a> {
    /// Decides where everything of a tree goes; `layers` are those that it was merged of.
    ///
    /// # Errors
    ///
    /// Trees beyond the format's numbers, and indexes that cannot be read.
    pub fn new(tree: &'a Tree, layers: &'a [LayerIndex]) -> Result<Plan<'a>, WriteImageError> {
        let mut nodes = NodeReader::new(layers);
        Ok(Plan { layout: plan::Layout::new(tree, &mut nodes)?, nodes })
    }

    /// Length of the image in bytes: whole blocks of 4 KiB.
    pub fn bytes(&self) -> u64 {
        self.layout.end
    }

    /// Inodes in it.
    pub fn inodes(&self) -> u64 {
        self.layout.inodes.len() as u64
    }

    /// Writes the image to `out`, from its start; it must be empty. Extra device `n` (from 1) is the
    /// data file of layer `n`, lowest first. An overlay tells file systems apart by `uuid`; zeros
    /// stand for none.
    ///
    /// # Errors
    ///
    /// Those of `out` and of the indexes.
    pub fn write(mut self, uuid: Uuid, out: &mut File) -> Result<(), WriteImageError> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        write::write(&self.layout, &mut self.nodes, uuid, &mut out)?;
        out.flush()?;
        Ok(())
    }
}
