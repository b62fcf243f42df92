//! The image store: blobs, layers and images by content, shared by all processes of this host.
//!
//! ```text
//!  name ──► image (configuration digest) ──► layers (diff ids) ──► data + index
//!    │        └► tree.erofs: all layers' metadata, merged
//!    └► manifest, blobs as they came
//! ```
//!
//! * Everything is content addressed and appears by rename when it is complete and verified
//!   (`layout`), so a reader needs no lock to trust what it sees.
//! * Each blob is fetched and each layer made by one process at a time (`claim`); the others wait
//!   and find it done.
//! * Whoever makes or looks up something holds the store's lock shared; garbage is collected under
//!   the exclusive lock, and spares what is leased.
//! * Nothing is fsync'ed on the way (`durable`).
//!
//! Why not one database: every file here can be checked against its own name, and a crash can at
//! worst lose what was not yet named.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::{Digest, DigestError};
use crate::erofs::WriteImageError;
use crate::image::Image;
use crate::layer::ReadIndexError;
use crate::limits::Limits;
use crate::mount::{ImageMount, MountError, mount_image};
use crate::source::Source;
use crate::tree::{MergeError, ReadFileError, Tree};

mod accounts;
mod catalog;
mod claim;
mod collect;
mod durable;
mod fetch;
mod ingest;
mod layers;
mod layout;
mod lease;
mod lock;
mod pull;
mod repair;
mod transfer;

pub use collect::{Collected, GcPolicy};
pub use ingest::IngestError;
pub use lease::Lease;
pub use pull::{Cancel, PullError, PullErrorKind, PullEvent, PullOptions};

use catalog::store_name;
use durable::Boot;
use layout::Layout;

/// An open store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    boot: Boot,
}

/// Why the store itself failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused something.
    #[error("{action} {path:?} in the image store")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A newer program's store.
    #[error(
        "open the image store {root:?}: it has version {found:?} and this program knows {known}; use the newer \
         program, or another data directory"
    )]
    Version {
        /// The store.
        root: PathBuf,
        /// What its stamp says.
        found: String,
        /// What this program makes.
        known: u32,
    },
    /// Garbage cannot be collected now.
    #[error("collect garbage in {root:?}: another process is using the image store; try again")]
    Busy {
        /// The store.
        root: PathBuf,
    },
    /// The image was collected after it was found.
    #[error("use image {name:?}: it has been removed meanwhile; pull it again")]
    Gone {
        /// Its name.
        name: String,
    },
    /// No thread to work on.
    #[error("start a thread for the image store")]
    Thread {
        /// Why not.
        source: io::Error,
    },
    /// A layer's index cannot be read.
    #[error("read {path:?} in the image store")]
    Index {
        /// The index.
        path: PathBuf,
        /// Why not.
        source: ReadIndexError,
    },
    /// The layers do not fit together.
    #[error(transparent)]
    Merge {
        /// Why.
        source: MergeError,
    },
    /// The metadata image cannot be written.
    #[error("make the file system of image {id}")]
    Tree {
        /// The image.
        id: Digest,
        /// Why not.
        source: WriteImageError,
    },
    /// A lease file names no image.
    #[error("read lease {path:?}")]
    Lease {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DigestError,
    },
    /// The image cannot be mounted.
    #[error("mount image {name:?}")]
    Mount {
        /// Its name.
        name: String,
        /// What failed.
        source: MountError,
    },
    /// A file of the image cannot be read.
    #[error(transparent)]
    ReadFile {
        /// Why not.
        source: ReadFileError,
    },
}

impl StoreError {
    /// What it means for a pull.
    fn pull_kind(&self) -> PullErrorKind {
        match self {
            StoreError::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                PullErrorKind::DiskFull
            }
            StoreError::Tree { source: WriteImageError::Write(source), .. }
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                PullErrorKind::DiskFull
            }
            StoreError::Merge { .. } => PullErrorKind::Refused,
            _ => PullErrorKind::Host,
        }
    }
}

impl Store {
    /// Opens the store in `<data>/images`, which is made if absent, and clears away what a process
    /// that was killed has left.
    ///
    /// # Errors
    ///
    /// A newer version's store, or a directory that cannot be made.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let inner = Inner { layout: Layout::open(root)?, boot: Boot::current()? };
        let store = Store { inner: Arc::new(inner) };
        store.recover()?;
        Ok(store)
    }

    /// The image of that name, if it is there whole. Of a local source: always `None`, since the
    /// file may have changed; pulling it again reads no layer that is there.
    ///
    /// After a power cut this may take as long as unpacking the image again.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn find(&self, source: &Source) -> Result<Option<Image>, StoreError> {
        let Source::Registry(reference) = source else { return Ok(None) };
        let _using = lock::shared(&self.layout().lock())?;
        let named = match (self.read_name(&store_name(source))?, reference.digest()) {
            (None, Some(digest)) => self.read_names()?.into_iter().map(|(record, _)| record).find(|record| {
                [&record.manifest, &record.resolved].contains(&digest) && record.is_of(reference)
            }),
            (named, _) => named,
        };
        let Some(record) = named else { return Ok(None) };
        match self.image_of(&record)? {
            Some(image) => Ok(Some(image)),
            None => self.repair(&record),
        }
    }

    /// All images that are whole, by name.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let _using = lock::shared(&self.layout().lock())?;
        let names = self.read_names()?;
        let images = names.iter().map(|(record, _)| self.image_of(record));
        images.filter_map(Result::transpose).collect()
    }

    /// Forgets a name; `false` if there was none. [`Store::gc`] frees what no name needs.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn remove(&self, name: &Source) -> Result<bool, StoreError> {
        let _using = lock::shared(&self.layout().lock())?;
        let path = self.layout().name(&store_name(name));
        let was_there = path.exists();
        layout::remove_file(&path)?;
        Ok(was_there)
    }

    /// Keeps the image in the store until the lease is dropped or this process ends, and notes
    /// that its name is used.
    ///
    /// # Errors
    ///
    /// [`StoreError::Gone`] if it was collected since it was found; I/O errors of the store.
    pub fn lease(&self, image: &Image) -> Result<Lease, StoreError> {
        let _using = lock::shared(&self.layout().lock())?;
        if self.sound_image(&image.id)?.is_none() {
            return Err(StoreError::Gone { name: image.name.clone() });
        }
        self.touch_name(&image.name)?;
        Lease::take(self.layout(), image)
    }

    /// Mounts a leased image, read-only, at an existing directory.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn mount(&self, lease: &Lease, at: &Path) -> Result<ImageMount, StoreError> {
        let image = lease.image();
        let devices: Vec<PathBuf> = image.layers.iter().map(|layer| self.layer_data(layer)).collect();
        mount_image(&self.image_tree(&image.id), &devices, at)
            .map_err(|source| StoreError::Mount { name: image.name.clone(), source })
    }

    /// Reads a regular file of an image, e.g. `/etc/passwd`, resolving links inside the image;
    /// `None` if there is none.
    ///
    /// # Errors
    ///
    /// I/O errors of the store, and a file longer than the limit for account files.
    pub fn read_file(&self, image: &Image, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let limits = Limits::default();
        if let Some(record) = self.image_record(&image.id)?
            && let Some(content) = self.read_account(&image.id, &record, path)?
        {
            return Ok(content);
        }
        let (tree, _) = self.merge_layers(&image.layers, &limits)?;
        self.read_from_tree(&tree, &image.layers, path, &limits)
    }

    fn read_from_tree(
        &self,
        tree: &Tree,
        layers: &[Digest],
        path: &str,
        limits: &Limits,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let data = layers.iter().map(|layer| layout::open_file(&self.layer_data(layer)));
        let data = data.collect::<Result<Vec<File>, _>>()?;
        tree.read_file(path.as_bytes(), &data, limits.account_file_bytes)
            .map_err(|source| StoreError::ReadFile { source })
    }

    fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    fn boot(&self) -> &Boot {
        &self.inner.boot
    }
}
