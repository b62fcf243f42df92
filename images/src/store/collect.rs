//! Garbage: what no name and no lease needs, and under pressure the least recently used names.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::archive::SCRATCH_PREFIX;
use crate::digest::Digest;
use crate::disk;

use super::claim::Claim;
use super::layout::{self, FRESH, GONE};
use super::{Store, StoreError, lease, lock};

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcPolicy {
    /// Only what nothing refers to.
    Unreferenced,
    /// Also the least recently used names, until the file system has so many bytes free.
    FreeBytes(u64),
    /// Every name whose image is not leased.
    All,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Names, least recently used first.
    pub names: Vec<String>,
    /// Images that had no name left.
    pub images: usize,
    /// Layers that no image had any more.
    pub layers: usize,
    /// Blobs that no name had any more.
    pub blobs: usize,
}

/// A partial blob that nobody has resumed for so long is dropped.
const PARTIAL_KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

impl Store {
    /// Removes garbage. Images under a lease stay, whoever holds it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] while any process pulls or looks something up; I/O errors.
    pub fn gc(&self, policy: GcPolicy) -> Result<Collected, StoreError> {
        let layout = self.layout();
        let Some(_alone) = lock::try_exclusive(&layout.lock())? else {
            return Err(StoreError::Busy { root: layout.root().to_owned() });
        };
        let leased: HashSet<Digest> = lease::leased(layout)?.into_iter().collect();
        let mut collected = self.remove_unreferenced(&leased)?;
        let mut names = self.read_names()?;
        names.sort_by_key(|(_, used)| *used);
        for (record, _) in names {
            let enough = match policy {
                GcPolicy::Unreferenced => true,
                GcPolicy::FreeBytes(bytes) => {
                    disk::free_bytes(layout.root()).is_none_or(|free| free >= bytes)
                }
                GcPolicy::All => false,
            };
            if enough {
                break;
            }
            if leased.contains(&record.image) {
                continue;
            }
            layout::remove_file(&layout.name(&record.name))?;
            collected.names.push(record.name);
            collected.add(&self.remove_unreferenced(&leased)?);
        }
        Ok(collected)
    }

    /// What a process that was killed has left: leases, half-built objects whose claim is free, and
    /// partial blobs that are old. Run at every start.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let layout = self.layout();
        lease::remove_dead(layout)?;
        for path in layout::entries(&layout.works())?.into_iter().chain(self.partials()?) {
            if path.extension().is_some_and(|extension| extension == GONE) {
                layout::remove_discarded(&path)?;
                continue;
            }
            let Some(stem) = path.file_stem().and_then(OsStr::to_str) else { continue };
            if stem.starts_with(SCRATCH_PREFIX) {
                layout::remove_file(&path)?;
                continue;
            }
            let digest = Digest::from_hex(stem);
            let Ok(digest) = digest else { continue };
            let Some(claim) = Claim::try_take(layout, &digest)? else { continue };
            if claim.partial_bytes()? == 0 || is_older(claim.path(), PARTIAL_KEPT) {
                claim.release()?;
            } else {
                claim.leave()?;
            }
        }
        Ok(())
    }

    fn partials(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut blobs = layout::entries(&self.layout().blobs())?;
        blobs.retain(|path| is_partial(path));
        Ok(blobs)
    }

    /// Takes back layers that a failed pull has made, if nobody else uses the store just now; else
    /// they stay until the next `gc`.
    pub(super) fn take_back(&self, made: &[MadeLayer]) -> Result<(), StoreError> {
        let layout = self.layout();
        if made.is_empty() {
            return Ok(());
        }
        let Some(_alone) = lock::try_exclusive(&layout.lock())? else { return Ok(()) };
        let needed = self.needed(&lease::leased(layout)?.into_iter().collect())?;
        for layer in made {
            let directory = layout.layer(&layer.diff_id);
            if !needed.layers.contains(&directory) {
                layout::discard(layout, &directory)?;
            }
            if layer.fetched && !needed.blobs.contains(&layer.blob) {
                layout::remove_file(&layout.blob(&layer.blob))?;
            }
        }
        Ok(())
    }

    /// The caller holds the store exclusively: nobody is making anything.
    fn remove_unreferenced(&self, leased: &HashSet<Digest>) -> Result<Collected, StoreError> {
        let layout = self.layout();
        let mut collected = Collected::default();
        let needed = self.needed(leased)?;
        for path in layout::entries(&layout.images())? {
            if digest_of(&path).is_none_or(|id| !needed.images.contains(&id)) {
                layout::discard(layout, &path)?;
                collected.images += 1;
            }
        }
        for path in layout::entries(&layout.layers())? {
            if !needed.layers.contains(&path) {
                layout::discard(layout, &path)?;
                collected.layers += 1;
            }
        }
        for path in layout::entries(&layout.blobs())? {
            if !is_partial(&path) && digest_of(&path).is_none_or(|digest| !needed.blobs.contains(&digest)) {
                layout::remove_file(&path)?;
                collected.blobs += 1;
            }
        }
        for path in layout::entries(&layout.names())? {
            if path.extension().is_some_and(|extension| extension == FRESH) {
                layout::remove_file(&path)?;
            }
        }
        Ok(collected)
    }

    /// What names and leases lead to.
    fn needed(&self, leased: &HashSet<Digest>) -> Result<Needed, StoreError> {
        let mut needed = Needed { images: leased.clone(), ..Needed::default() };
        for (record, _) in self.read_names()? {
            needed.blobs.extend(record.blobs.into_iter().map(|blob| blob.digest));
            needed.blobs.extend([record.manifest, record.image.clone()]);
            needed.images.insert(record.image);
        }
        for id in &needed.images {
            let layers = self.image_record(id)?.into_iter().flat_map(|image| image.layers);
            needed.layers.extend(layers.map(|layer| self.layout().layer(&layer)));
        }
        Ok(needed)
    }
}

/// A layer that a pull has committed.
#[derive(Debug)]
pub(super) struct MadeLayer {
    pub diff_id: Digest,
    pub blob: Digest,
    /// Whether the blob came with it.
    pub fetched: bool,
}

#[derive(Default)]
struct Needed {
    images: HashSet<Digest>,
    /// Directories.
    layers: HashSet<PathBuf>,
    blobs: HashSet<Digest>,
}

impl Collected {
    fn add(&mut self, more: &Collected) {
        self.images += more.images;
        self.layers += more.layers;
        self.blobs += more.blobs;
    }
}

fn is_partial(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "partial")
}

fn digest_of(path: &Path) -> Option<Digest> {
    path.file_name().and_then(OsStr::to_str).and_then(|hex| Digest::from_hex(hex).ok())
}

fn is_older(path: &Path, age: std::time::Duration) -> bool {
    let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
    modified.and_then(|time| time.elapsed().ok()).is_some_and(|elapsed| elapsed > age)
}
