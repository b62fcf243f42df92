//! The image store: blobs, layers and images by content, shared by all processes of this host.

use std::path::{Path, PathBuf};

use crate::image::Image;
use crate::mount::{ImageMount, MountError};
use crate::source::Source;

mod pull;

pub use pull::{Cancel, PullError, PullErrorKind, PullEvent, PullOptions};

/// An open store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// Holds an image in the store while it is used, against `gc` and `remove` of any process.
#[derive(Debug)]
pub struct Lease {
    image: Image,
}

/// Why the store could not do something other than pull.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not built yet.
    #[error("use the image store in {root:?}: not there yet")]
    NotThere {
        /// The store's directory.
        root: PathBuf,
    },
    /// The image could not be mounted.
    #[error("mount image {name:?}")]
    Mount {
        /// The image's name.
        name: String,
        /// What failed.
        source: MountError,
    },
}

impl Store {
    /// Opens the store in `<data>/images`, which is made if absent.
    ///
    /// # Errors
    ///
    /// A newer version's store, or a directory that cannot be made.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        Ok(Store { root: root.to_owned() })
    }

    /// The image of that name, if it is there whole. Of a local source: always `None`, since the
    /// file may have changed; pulling it costs no more than reading its configuration.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn find(&self, source: &Source) -> Result<Option<Image>, StoreError> {
        let _unused = source;
        Err(self.not_there())
    }

    /// Brings an image into the store under its name; layers that are there are not fetched again.
    ///
    /// Dropping the future abandons the pull; [`PullOptions::cancel`] also waits for the clean-up.
    ///
    /// # Errors
    ///
    /// [`PullError`]; the store is then as before.
    pub async fn pull(
        &self,
        source: &Source,
        options: &PullOptions,
        events: &(dyn Fn(PullEvent) + Send + Sync),
    ) -> Result<Image, PullError> {
        let _unused = (source, options, events);
        Err(PullError::Store { source: self.not_there() })
    }

    /// Brings every image of an archive into the store under the names inside the archive.
    ///
    /// # Errors
    ///
    /// As [`Store::pull`].
    pub async fn load(
        &self,
        source: &Source,
        options: &PullOptions,
        events: &(dyn Fn(PullEvent) + Send + Sync),
    ) -> Result<Vec<Image>, PullError> {
        let _unused = (source, options, events);
        Err(PullError::Store { source: self.not_there() })
    }

    /// All images, by name.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        Err(self.not_there())
    }

    /// Forgets a name; `false` if there was none. [`Store::gc`] frees what no name needs.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn remove(&self, name: &Source) -> Result<bool, StoreError> {
        let _unused = name;
        Err(self.not_there())
    }

    /// Keeps the image in the store until the lease is dropped or this process ends.
    ///
    /// # Errors
    ///
    /// I/O errors of the store; an image that was collected since it was found.
    pub fn lease(&self, image: &Image) -> Result<Lease, StoreError> {
        let _unused = image;
        Err(self.not_there())
    }

    /// Mounts a leased image, read-only, at an existing directory.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub fn mount(&self, lease: &Lease, at: &Path) -> Result<ImageMount, StoreError> {
        let _unused = (&lease.image, at);
        Err(self.not_there())
    }

    /// Reads a file of an image, e.g. `etc/passwd`, resolving links inside the image.
    ///
    /// # Errors
    ///
    /// I/O errors of the store, and a file longer than the limit for account files.
    pub fn read_file(&self, image: &Image, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let _unused = (image, path);
        Err(self.not_there())
    }

    fn not_there(&self) -> StoreError {
        StoreError::NotThere { root: self.root.clone() }
    }
}
