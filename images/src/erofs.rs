//! Writes a tree as one EROFS metadata image whose files lie in the layers' data files.
use std::fs::File;
use std::io;

use crate::tree::Tree;

/// Why the metadata image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteImageError {
    /// The file system's error.
    #[error("write the image's metadata")]
    Write(#[from] io::Error),
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErofsImage {
    /// Length of the metadata image in blocks of 4 KiB.
    pub blocks: u32,
    /// Inodes in it.
    pub inodes: u64,
}

/// Writes the image to `out`, which must be empty. Extra device `n` (from 1) is the data file of layer `n`, lowest first.
///
/// # Errors
///
/// Those of `out`.
pub fn write_image(tree: &Tree, out: &mut File) -> Result<ErofsImage, WriteImageError> {
    let _ = (tree, out);
    Err(WriteImageError::Write(io::ErrorKind::Unsupported.into()))
}
