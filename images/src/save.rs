//! Archives of images, written as a stream: what `docker load`, podman and skopeo read.
//!
//! ```text
//!  blobs/sha256/HEX …     layers, configurations, manifests: each once, verified while it goes by
//!  oci-layout             ┐ an OCI layout, whose index names the images
//!  index.json             ┘
//!  repositories           ┐ what `docker save` writes, about the same blobs
//!  manifest.json          ┘
//! ```
//!
//! One file is both an OCI archive and a docker-archive. The two formats differ in what stands for a layer: its tar stream,
//! as `docker save` has it, or its blob byte for byte as it came, with the manifest as it came.
//!
//! What is in memory does not grow with the image. Nothing is written elsewhere on the way but a layer whose decoder needs a
//! large window: it is put aside inflated, in a file without a name, so that the pace of whoever reads the archive keeps
//! no such window from others. The documents come last: an archive that ends early, for whatever reason, is an image to no
//! reader.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::archive::blob_path;
use crate::digest::Digest;
use crate::image::ConfigError;
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::registry::RegistryError;
use crate::store::{Hold, StoreError};

mod configuration;
mod documents;
mod header;
mod layer;
mod member;
pub mod upper;

pub use configuration::History;
pub use layer::WriteLayer;

pub(crate) use documents::Manifest;
pub(crate) use layer::{SavedLayer, split_reader};

use member::Archive;

/// What stands for a layer in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Its tar stream, whose digest is its diff id.
    Plain,
    /// Its blob, byte for byte, as it came; its tar stream if that is nowhere to be had any more, and if it is in a compression
    /// that no media type is for.
    AsTheyCame,
    /// Its blob as it came where every reader takes it, which is a tar stream or gzip's; else its tar stream.
    Common,
}

/// An image that is ready to be written. What it needs stays in the store as long as it lives.
#[derive(Debug)]
pub struct SavedImage {
    pub(crate) names: Vec<Reference>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Manifest,
    /// Lowest first.
    pub(crate) layers: Vec<SavedLayer>,
    /// Whatever keeps the layers' files.
    pub(crate) _holds: Vec<Arc<Hold>>,
}

/// Why an image could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is no place for the archive, or nobody reads it.
    #[error("write the archive")]
    Write(#[source] io::Error),
    /// A blob cannot be read.
    #[error("read blob {blob} for the archive")]
    Read {
        /// The blob.
        blob: Digest,
        /// Why.
        source: io::Error,
    },
    /// The new layer cannot be made.
    #[error("make the image's new layer")]
    Layer(#[source] io::Error),
    /// Something has other bytes than it had, or is said to have.
    #[error(
        "write {blob} into the archive: {}; the archive is cut there, save the image again",
        other_content(.found.as_ref())
    )]
    Content {
        /// What it was to be.
        blob: Digest,
        /// Its digest, if the size is right.
        found: Option<Digest>,
    },
    /// A document that the store keeps of the image is damaged.
    #[error(
        "save image {name:?}: what the store holds of {digest} is damaged; remove the image and pull it again"
    )]
    Document {
        /// The image.
        name: String,
        /// Its manifest or configuration.
        digest: Digest,
    },
    /// A configuration that does not take another layer.
    #[error("add a layer to image {id}: its configuration has no list of layers")]
    Configuration {
        /// The image.
        id: Digest,
    },
    /// The configuration cannot be read any more.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is neither a layer's blob any more nor what its tar stream could be written from, and its image is not known to
    /// be a registry's.
    #[error(
        "save image {name:?}: layer {layer} is not in the store as it came, and no registry is known that it came from; remove \
         the image, and pull it or load it again"
    )]
    NotKept {
        /// The image.
        name: String,
        /// The layer's blob.
        layer: Digest,
    },
    /// A layer's blob is not there any more, and the registry does not give it.
    #[error("save image {name:?}: layer {layer} is not in the store as it came, and cannot be fetched")]
    Lost {
        /// The image.
        name: String,
        /// The layer's blob.
        layer: Digest,
        /// Why not.
        source: Box<RegistryError>,
    },
    /// What the registry gives for a layer is another one.
    #[error("save image {name:?}: what the registry gives for layer {layer} has other content")]
    Other {
        /// The image.
        name: String,
        /// The layer's blob.
        layer: Digest,
    },
    /// Fetching what is missing took too long.
    #[error("save image {name:?}: the layers that were to be fetched have not all come after {limit:?}")]
    TimeLimit {
        /// The image.
        name: String,
        /// The limit.
        limit: Duration,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller cancelled it.
    #[error("save the image: cancelled")]
    Cancelled,
}

fn other_content(found: Option<&Digest>) -> String {
    match found {
        Some(found) => format!("its content has digest {found}"),
        None => "its content has another size".to_owned(),
    }
}

impl SavedImage {
    /// The digest of its configuration.
    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// The same image by other names.
    #[must_use]
    pub fn called(mut self, names: Vec<Reference>) -> SavedImage {
        self.names = names;
        self
    }

    /// The image with one layer more, which `write` makes, and with what `change` does to the part of its configuration
    /// that concerns containers. The layer is made twice: now, so that it is known how large it is, and when it is written.
    ///
    /// # Errors
    ///
    /// Those of `write`; a configuration without layers.
    pub fn with_layer(
        mut self,
        write: Box<WriteLayer>,
        history: &History,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<SavedImage, SaveError> {
        let layer = SavedLayer::made(write).map_err(SaveError::Layer)?;
        let present = self.layers.len();
        self.config = configuration::with_layer(&self.config, present, &layer.diff_id, (history, change))?;
        self.layers.push(layer);
        self.manifest = Manifest::of(&self.config, &self.layers);
        Ok(self)
    }
}

/// Writes an archive of images. Whatever fails, and also where `cancelled` has become true, it ends without its documents,
/// and in the middle of a blob that is not what it should be.
///
/// # Errors
///
/// [`SaveError`]
pub fn write_archive(
    images: &[SavedImage],
    out: &mut dyn Write,
    cancelled: &AtomicBool,
) -> Result<(), SaveError> {
    let mut archive = Archive::new(out);
    let mut written = HashSet::new();
    for image in images {
        for layer in &image.layers {
            if written.insert(layer.blob.digest.clone()) {
                write_layer(&mut archive, layer, cancelled)?;
            }
        }
        for (digest, document) in
            [(image.id(), &image.config), (image.manifest.digest(), &image.manifest.content)]
        {
            if written.insert(digest.clone()) {
                archive.document(&blob_path(&digest), document)?;
            }
        }
    }
    documents::write(images, &mut archive)?;
    archive.finish()
}

fn write_layer(
    archive: &mut Archive<'_>,
    layer: &SavedLayer,
    cancelled: &AtomicBool,
) -> Result<(), SaveError> {
    let Descriptor { digest, size } = &layer.blob;
    let mut body = archive.begin(&blob_path(digest), &layer.blob)?;
    match layer.write_to(&mut body, cancelled) {
        _ if cancelled.load(Ordering::Acquire) => return Err(SaveError::Cancelled),
        Ok(()) => body.end()?,
        Err(error) => return Err(body.failed(error)),
    }
    archive.pad(*size).map_err(SaveError::Write)
}
