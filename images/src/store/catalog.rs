//! Images by configuration digest, and the names that lead to them.
//!
//! Everything about an image that its configuration decides is kept once, under the
//! configuration's digest. What depends on how it was obtained (name, manifest, compressed blobs)
//! is kept with each name. A name file's modification time is when it was last used.

use std::fs::{File, FileTimes};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::disk;
use crate::erofs::{Plan, Uuid};
use crate::image::{Configuration, Image, ImageConfig};
use crate::layer::LayerIndex;
use crate::limits::Limits;
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::source::Source;
use crate::tree::merge;

use super::claim::Claim;
use super::durable::Soundness;
use super::{Store, StoreError, layout};

const RECORD: &str = "image.json";
const TREE: &str = "tree.erofs";

/// `images/HEX/image.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub config: ImageConfig,
    pub layers: Vec<Digest>,
    pub size_bytes: u64,
}

/// `names/HASH.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NameRecord {
    pub name: String,
    pub image: Digest,
    pub manifest: Digest,
    /// What the name led to: the manifest, the index that it was chosen from, or the archive that came as a stream.
    pub resolved: Digest,
    /// The layers' blobs, lowest first: what `save` passes through, and what repairs a layer.
    pub blobs: Vec<Descriptor>,
    /// As whom the registry was asked. Older programs did not note it, and of archives there is nothing to note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
}

/// As whom somebody has asked for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Asked {
    /// As nobody: it is for everybody.
    Anonymously,
    /// As ourselves, by credentials or a certificate: it may be for us only.
    AsOurselves,
}

impl NameRecord {
    /// Whether the name is of the same repository.
    pub(super) fn is_of(&self, reference: &Reference) -> bool {
        let name = Reference::parse(&self.name);
        name.is_ok_and(|name| {
            (name.registry(), name.repository()) == (reference.registry(), reference.repository())
        })
    }
}

/// The key of a source in the store. A digest decides alone, whatever tag stands beside it.
pub(super) fn store_name(source: &Source) -> String {
    match source {
        Source::Registry(reference) => match reference.digest() {
            Some(digest) => format!("{}/{}@{digest}", reference.registry(), reference.repository()),
            None => reference.to_string(),
        },
        local => local.to_string(),
    }
}

impl Store {
    /// What is noted under a name; nothing if the note is damaged.
    pub(super) fn read_name(&self, name: &str) -> Result<Option<NameRecord>, StoreError> {
        let record = read_record::<NameRecord>(&self.layout().name(name))?;
        Ok(record.filter(|record| record.name == name))
    }

    /// All intact notes with the time of their last use.
    pub(super) fn read_names(&self) -> Result<Vec<(NameRecord, SystemTime)>, StoreError> {
        let mut names = Vec::new();
        for path in layout::entries(&self.layout().names())? {
            if path.extension().is_none_or(|extension| extension != layout::NAME) {
                continue;
            }
            let Some(record) = read_record(&path)? else { continue };
            let used = path.metadata().and_then(|metadata| metadata.modified());
            names.push((record, used.unwrap_or(SystemTime::UNIX_EPOCH)));
        }
        names.sort_by(|(left, _), (right, _): &(NameRecord, _)| left.name.cmp(&right.name));
        Ok(names)
    }

    pub(super) fn write_name(&self, record: &NameRecord) -> Result<(), StoreError> {
        let path = self.layout().name(&record.name);
        layout::replace(&path, &to_json(record, &path)?)
    }

    /// Notes that a name is used now. A name that is gone stays so.
    pub(super) fn touch_name(&self, name: &str) -> Result<(), StoreError> {
        let path = self.layout().name(name);
        let now = FileTimes::new().set_modified(SystemTime::now());
        match File::options().write(true).open(&path).and_then(|file| file.set_times(now)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::file("touch", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The image under a name's note, if it is whole.
    pub(super) fn image_of(&self, record: &NameRecord) -> Result<Option<Image>, StoreError> {
        let Some(kept) = self.sound_image(&record.image)? else { return Ok(None) };
        Ok(Some(Image {
            name: record.name.clone(),
            id: record.image.clone(),
            digest: record.manifest.clone(),
            resolved: record.resolved.clone(),
            config: kept.config,
            layers: kept.layers,
            size_bytes: kept.size_bytes,
        }))
    }

    /// What is known of an image that is there with all its layers, all of them sound.
    pub(super) fn sound_image(&self, id: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        let directory = self.layout().image(id);
        if self.boot().soundness(&directory)? != Soundness::Sound {
            return Ok(None);
        }
        let Some(record) = self.image_record(id)? else { return Ok(None) };
        for layer in &record.layers {
            if !self.has_layer(layer)? {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// What is noted of an image, sound or not.
    pub(super) fn image_record(&self, id: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        read_record(&self.layout().image(id).join(RECORD))
    }

    /// An image's metadata image, to be mounted with its layers' data.
    pub(super) fn image_tree(&self, id: &Digest) -> PathBuf {
        self.layout().image(id).join(TREE)
    }

    /// Makes the image of a configuration whose layers are all there, unless it is there too. The
    /// claim is the one on the configuration.
    pub(super) fn build_image(
        &self,
        claim: Claim,
        id: &Digest,
        configuration: &Configuration,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        if self.sound_image(id)?.is_some() {
            return claim.release();
        }
        let built = self.build_image_in_work(&claim, id, configuration, limits);
        claim.release()?;
        built
    }

    fn build_image_in_work(
        &self,
        claim: &Claim,
        id: &Digest,
        configuration: &Configuration,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let work = claim.fresh_work()?;
        let size_bytes = self.write_tree(id, &configuration.diff_ids, &work.join(TREE), limits)?;
        let record = ImageRecord {
            config: configuration.config.clone(),
            layers: configuration.diff_ids.clone(),
            size_bytes,
        };
        let path = work.join(RECORD);
        let written = layout::create_file(&path)?.write_all(&to_json(&record, &path)?);
        written.map_err(StoreError::file("write", &path))?;
        self.boot().mark(work)?;
        let image = self.layout().image(id);
        let old = layout::set_aside(self.layout(), &image)?;
        layout::commit(work, &image)?;
        old.map_or(Ok(()), |old| layout::remove_set_aside(&old))
    }
}

impl Store {
    /// Writes the file system of layers that are there, and tells how many bytes their files have.
    fn write_tree(
        &self,
        id: &Digest,
        layers: &[Digest],
        path: &Path,
        limits: &Limits,
    ) -> Result<u64, StoreError> {
        let layers = layers.iter().map(|layer| self.layer_index(layer)).collect::<Result<Vec<_>, _>>()?;
        let tree = merge(&layers, limits).map_err(|source| StoreError::Merge { source })?;
        let failed = |source| StoreError::Tree { id: id.clone(), source };
        let plan = Plan::new(&tree, &layers).map_err(failed)?;
        disk::check(self.layout().root(), plan.bytes(), limits)?;
        plan.write(uuid_of(id), &mut layout::create_file(path)?).map_err(failed)?;
        Ok(layers.iter().map(LayerIndex::unpacked_bytes).sum())
    }
}

/// Every image's file system has an identifier of its own: the first half of its digest.
fn uuid_of(id: &Digest) -> Uuid {
    let mut digits = id.hex().bytes().map(|digit| (digit as char).to_digit(16).unwrap_or_default());
    std::array::from_fn(|_| {
        let (high, low) = (digits.next().unwrap_or_default(), digits.next().unwrap_or_default());
        u8::try_from(high << 4 | low).unwrap_or_default()
    })
}

/// Our own JSON. A crash can leave an empty or damaged file: that is as good as none.
fn read_record<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let json = layout::read_small(path)?;
    Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
}

/// The record for a file at `path`.
fn to_json(record: &impl Serialize, path: &Path) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec_pretty(record);
    json.map_err(|error| StoreError::file("write", path)(error.into()))
}
