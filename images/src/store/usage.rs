//! How much room the store takes, for people: by image, so that all parts together are the whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Store, StoreError};
use crate::digest::Digest;

/// Bytes of one of the blocks that a file system counts (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Which images need an object, by its path.
type Needs = HashMap<PathBuf, BTreeSet<Digest>>;

/// The room that a store takes on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUsage {
    /// The largest first.
    pub images: Vec<ImageUsage>,
    /// Bytes of what several images need: layers and blobs.
    pub shared_bytes: u64,
    /// Bytes of what no image needs: what is being pulled, notes, garbage.
    pub other_bytes: u64,
}

/// An image, by whatever names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// Its configuration's digest.
    pub id: Digest,
    /// In order.
    pub names: Vec<String>,
    /// When one of them was used last.
    pub last_used: SystemTime,
    /// Whether it is leased now.
    pub is_used: bool,
    /// Bytes of what it alone needs, which would be free without it.
    pub own_bytes: u64,
    /// Bytes of what it shares with others.
    pub shared_bytes: u64,
}

impl Store {
    /// Who takes which room. Looks at each file once as long as that is `wanted`; what appears or vanishes meanwhile may be
    /// counted or not.
    ///
    /// # Errors
    ///
    /// I/O errors of the store; [`StoreError::Unwanted`].
    pub fn usage(&self, wanted: &dyn Fn() -> bool) -> Result<StoreUsage, StoreError> {
        let used: BTreeSet<String> = self.used()?.into_iter().collect();
        let (mut images, needed) = self.images_and_needs(&used, wanted)?;
        let (mut shared_bytes, mut other_bytes) = (0, 0);
        for path in self.layout().everything()? {
            if !wanted() {
                return Err(StoreError::Unwanted { path });
            }
            let bytes = size(&path).map_err(StoreError::file("measure", &path))?;
            let needing = needed.get(&path).map(BTreeSet::iter).into_iter().flatten();
            let count = needing.clone().count();
            for id in needing {
                let Some(image) = images.get_mut(id) else { continue };
                *(if count == 1 { &mut image.own_bytes } else { &mut image.shared_bytes }) += bytes;
            }
            match count {
                0 => other_bytes += bytes,
                1 => {}
                _ => shared_bytes += bytes,
            }
        }
        let mut images: Vec<ImageUsage> = images.into_values().collect();
        images.sort_by(|one, other| (other.own_bytes, &one.id).cmp(&(one.own_bytes, &other.id)));
        Ok(StoreUsage { images, shared_bytes, other_bytes })
    }

    /// The images, and by whom each object is needed.
    fn images_and_needs(
        &self,
        used: &BTreeSet<String>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(BTreeMap<Digest, ImageUsage>, Needs), StoreError> {
        let _using = self.layout().lock_shared(wanted)?;
        let mut images: BTreeMap<Digest, ImageUsage> = BTreeMap::new();
        let mut needed = Needs::new();
        for (record, last_used) in self.read_names()? {
            for object in self.objects_of(&record)? {
                needed.entry(object).or_default().insert(record.image.clone());
            }
            let image = images.entry(record.image.clone()).or_insert_with(|| ImageUsage {
                id: record.image.clone(),
                names: Vec::new(),
                last_used,
                is_used: false,
                own_bytes: 0,
                shared_bytes: 0,
            });
            image.last_used = image.last_used.max(last_used);
            image.is_used |= used.contains(&record.name);
            image.names.push(record.name);
        }
        Ok((images, needed))
    }
}

/// What a file or one of our own directories takes on the disk; nothing if it is gone.
fn size(path: &Path) -> io::Result<u64> {
    let gone_is_nothing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(0),
        _ => Err(error),
    };
    let status = match fs::symlink_metadata(path) {
        Ok(status) => status,
        Err(error) => return gone_is_nothing(error),
    };
    let mut bytes = status.blocks() * BLOCK_BYTES;
    if status.is_dir() {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return gone_is_nothing(error).map(|nothing| bytes + nothing),
        };
        for entry in entries {
            bytes += size(&entry?.path())?;
        }
    }
    Ok(bytes)
}
