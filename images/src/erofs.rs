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

use crate::layer::{BLOCK_BYTES, EntryName};
use crate::tree::Tree;

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

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErofsImage {
    /// Length of the metadata image in blocks of 4 KiB.
    pub blocks: u32,
    /// Inodes in it.
    pub inodes: u64,
}

/// Writes the image to `out`, from its start; it must be empty. Extra device `n` (from 1) is the data
/// file of layer `n`, lowest first. An overlay tells file systems apart by `uuid`; zeros stand for none.
///
/// # Errors
///
/// Those of `out`, and trees beyond the format's numbers.
pub fn write_image(tree: &Tree, uuid: Uuid, out: &mut File) -> Result<ErofsImage, WriteImageError> {
    let plan = plan::Plan::new(tree)?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    write::write(&plan, uuid, &mut out)?;
    out.flush()?;
    let blocks = u32::try_from(plan.end / BLOCK_BYTES);
    let blocks = blocks.map_err(|_| WriteImageError::TooLarge { what: "metadata bytes" })?;
    Ok(ErofsImage { blocks, inodes: plan.inodes.len() as u64 })
}
