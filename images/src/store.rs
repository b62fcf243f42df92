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
//! * Each blob is fetched from its registry and its layer made by one process at a time (`claim`); the others wait
//!   and find it done.
//! * Whoever uses or makes something holds a lease on it, which garbage collection spares (`lease`,
//!   `collect`). The store's lock is held for moments only.
//! * Nothing is fsync'ed on the way (`durable`).
//!
//! Why not one database: every file here can be checked against its own name, and a crash can at
//! worst lose what was not yet named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::image::{Configuration, Image};
use crate::limits::Limits;
use crate::mount::{ImageMount, MountError, mount_image};
use crate::source::Source;

mod catalog;
mod claim;
mod collect;
mod durable;
mod error;
mod find;
mod ingest;
mod layers;
mod layout;
mod lease;
mod lock;
mod options;
mod pull;
mod saving;
mod spool;
mod stream;
mod transfer;
mod usage;
mod waiting;

pub use collect::{Collected, GcPolicy};
pub use error::{PullError, PullErrorKind, StoreError};
pub use ingest::IngestError;
pub use lease::Lease;
pub use lock::Holder;
pub use options::{Cancel, PullEvent, PullOptions};
pub use spool::Spooled;
pub use stream::{Encoding, Stream, StreamClaim, StreamName, StreamSender};
pub use usage::{ImageUsage, StoreUsage};

pub(crate) use lease::Hold;

use catalog::store_name;
use claim::{Claim, Work};
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
    limits: Limits,
    discarded: Option<u32>,
}

impl Store {
    /// Opens the store in `<data>/images`, which is made if absent, and clears away what a process
    /// that was killed has left. What an older version has made is removed first:
    /// [`Store::discarded_version`] says so.
    ///
    /// # Errors
    ///
    /// A newer version's store, one that an older program is using, or a directory that cannot be made.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        Store::open_within(root, &Limits::default(), |_| None)
    }

    /// The same with other limits for what is read of images, and somebody who knows by whom a lock is held.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_within(root: &Path, limits: &Limits, holder: Holder) -> Result<Store, StoreError> {
        let (layout, discarded) = Layout::open(root, holder)?;
        let inner = Inner { layout, boot: Boot::current()?, limits: limits.clone(), discarded };
        let store = Store { inner: Arc::new(inner) };
        store.recover()?;
        Ok(store)
    }

    /// The version of the store that was discarded when this one was opened.
    pub fn discarded_version(&self) -> Option<u32> {
        self.inner.discarded
    }

    /// All images that are whole, by name.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let _using = self.layout().lock_shared(&|| true)?;
        let names = self.read_names()?;
        let images = names.iter().map(|(record, _)| self.image_of(record));
        images.filter_map(Result::transpose).collect()
    }

    /// All names, each with its image's id, whole or not.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn names(&self) -> Result<Vec<(String, Digest)>, StoreError> {
        let _using = self.layout().lock_shared(&|| true)?;
        Ok(self.read_names()?.into_iter().map(|(record, _)| (record.name, record.image)).collect())
    }

    /// By which name an image of that source is in the store.
    pub fn name_of(source: &Source) -> String {
        store_name(source)
    }

    /// Forgets a name; `false` if there was none. [`Store::gc`] frees what no name needs.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn remove(&self, name: &Source) -> Result<bool, StoreError> {
        self.remove_named(&store_name(name))
    }

    /// The same by a name of [`Store::names`].
    ///
    /// # Errors
    ///
    /// As [`Store::remove`].
    pub fn remove_named(&self, name: &str) -> Result<bool, StoreError> {
        let _using = self.layout().lock_shared(&|| true)?;
        let path = self.layout().name(name);
        let was_there = path.exists();
        layout::remove_file(&path)?;
        Ok(was_there)
    }

    /// Mounts a leased image, read-only, at an existing directory. One whose files turn out to be damaged is made again
    /// first. Whoever makes it already is waited for, as long as a pull may take and while it is `wanted`.
    ///
    /// # Errors
    ///
    /// The kernel's refusal; [`StoreError::Gone`] where a layer's content is lost: the next `find` or `pull` makes it;
    /// [`StoreError::Unwanted`].
    pub fn mount(
        &self,
        lease: &Lease,
        at: &Path,
        wanted: &dyn Fn() -> bool,
    ) -> Result<ImageMount, StoreError> {
        let image = lease.image();
        let tree = self.image_tree(&image.id);
        let devices: Vec<PathBuf> = image.layers.iter().map(|layer| self.layer_data(layer)).collect();
        // A FIFO in the place of a file would hold up even the kernel.
        let are_files = || devices.iter().chain([&tree]).all(|path| path.is_file());
        let mounted = are_files().then(|| mount_image(&tree, &devices, at));
        let mounted = match mounted {
            Some(Err(error)) if !is_of_files(&error) => Err(error),
            Some(Ok(mounted)) => Ok(mounted),
            _ => {
                self.rebuild_image(image, wanted)?;
                self.settle_in_background();
                if !are_files() {
                    return Err(StoreError::Gone { name: image.name.clone() });
                }
                mount_image(&tree, &devices, at)
            }
        };
        mounted.map_err(|source| StoreError::Mount { name: image.name.clone(), source })
    }

    fn rebuild_image(&self, image: &Image, wanted: &dyn Fn() -> bool) -> Result<(), StoreError> {
        let configuration = Configuration { config: image.config.clone(), diff_ids: image.layers.clone() };
        Boot::distrust(&self.layout().image(&image.id))?;
        for layer in image.layers.iter().filter(|layer| !self.layer_data(layer).is_file()) {
            Boot::distrust(&self.layout().layer(layer))?;
        }
        let waiting = self.layout().at_most(self.inner.limits.pull, wanted);
        let claim = Claim::take(self.layout(), &Work::image(&image.id), waiting)?;
        let built = self.build_image(claim, &image.id, &configuration, &self.inner.limits);
        // A layer that is damaged itself comes first: the next `find` or `pull` makes it.
        built.or_else(|error| self.distrust_index(error))
    }

    fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    fn boot(&self) -> &Boot {
        &self.inner.boot
    }
}

/// Whether the kernel complains of what the files hold, and not of the mount.
fn is_of_files(error: &MountError) -> bool {
    let (MountError::Refused { source, .. } | MountError::Prepare { source, .. }) = error else {
        return false;
    };
    const DAMAGED: [Errno; 5] = [Errno::INVAL, Errno::UCLEAN, Errno::BADMSG, Errno::IO, Errno::NOENT];
    DAMAGED.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
}
