//! OCI image layouts: `oci-layout`, `index.json` and `blobs/ALGORITHM/HEX`, in a directory or a tar
//! file. Source: image-layout.md of the OCI image specification.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;
use crate::image::parse_configuration;
use crate::json::{parse_json, shortened};
use crate::limits::Limits;
use crate::manifest::{self, Descriptor, Document, Index, IndexEntry, Manifest, Offer, Platform};
use crate::reference::Reference;

use super::{ArchiveError, Archived, Documents, Places, chosen, read_verified, resolved};

pub(crate) const LAYOUT: &str = "oci-layout";
pub(crate) const INDEX: &str = "index.json";
/// The tag, by the specification; a whole reference, by some tools.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole reference, by containerd and Docker.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

const PLACES: Places = Places { document: blob_path, blob: blob_path };

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

/// The image of that tag, or the only one.
pub(super) fn image(
    layout: &dyn Documents,
    tag: Option<&str>,
    platform: &Platform,
    limits: &Limits,
) -> Result<Archived, ArchiveError> {
    let (digest, index) = index(layout, limits)?;
    let is_wanted = |entry: &&IndexEntry| tag.is_none_or(|tag| label(entry) == Some(tag));
    let path = layout.path().to_owned();
    match (tag, grouped(index.entries.iter().filter(is_wanted)).as_slice()) {
        (_, [image]) => archived(layout, &digest, image, (platform, limits)),
        (Some(tag), []) => {
            Err(ArchiveError::NoSuchImage { path, wanted: tag.to_owned(), found: labels(&index.entries) })
        }
        (_, images) => Err(ArchiveError::Several { path, found: labels(images.iter().flatten().copied()) }),
    }
}

/// All of them.
pub(super) fn images(
    layout: &dyn Documents,
    platform: &Platform,
    limits: &Limits,
) -> Result<Vec<Archived>, ArchiveError> {
    let (digest, index) = index(layout, limits)?;
    grouped(&index.entries).iter().map(|image| archived(layout, &digest, image, (platform, limits))).collect()
}

/// The entries by image: those of one name that each say their platform are one image.
fn grouped<'a>(entries: impl IntoIterator<Item = &'a IndexEntry>) -> Vec<Vec<&'a IndexEntry>> {
    let name = |entry: &'a IndexEntry| (entry.annotation(IMAGE_NAME), label(entry));
    let mut images: Vec<Vec<&IndexEntry>> = Vec::new();
    for entry in entries {
        let is_same = |image: &&mut Vec<&'a IndexEntry>| {
            image.iter().all(|known| known.says_platform() && name(known) == name(entry))
        };
        match images.iter_mut().find(is_same).filter(|_| entry.says_platform()) {
            Some(image) => image.push(entry),
            None => images.push(vec![entry]),
        }
    }
    images
}

fn label(entry: &IndexEntry) -> Option<&str> {
    entry.annotation(REF_NAME)
}

fn labels<'a>(entries: impl IntoIterator<Item = &'a IndexEntry>) -> String {
    let label = |entry| label(entry).unwrap_or("an image without a tag");
    let labels: Vec<&str> = entries.into_iter().map(label).collect();
    if labels.is_empty() { "no image".to_owned() } else { shortened(&labels.join(", ")) }
}

fn index(layout: &dyn Documents, limits: &Limits) -> Result<(Digest, Index), ArchiveError> {
    let path = || layout.path().to_owned();
    let not_a_layout =
        |reason: String| ArchiveError::Format { path: path(), format: "an OCI layout", reason };
    let file = layout.read(LAYOUT, limits.manifest_bytes).map_err(|error| match error {
        ArchiveError::Missing { .. } => not_a_layout(format!("it holds no {LAYOUT}")),
        other => other,
    })?;
    let file: LayoutFile = parse_json(&file).map_err(|problem| ArchiveError::Parse {
        path: path(),
        member: LAYOUT.to_owned(),
        problem,
    })?;
    if !file.image_layout_version.starts_with("1.") {
        return Err(not_a_layout(format!(
            "its version is \"{}\", and 1.x is known",
            shortened(&file.image_layout_version)
        )));
    }
    let body = layout.read(INDEX, limits.manifest_bytes)?;
    let digest = Digest::of(&body);
    match manifest::parse(&digest, &body, None, limits) {
        Ok(Document::Index(index)) => Ok((digest, index)),
        Ok(Document::Manifest(_)) => Err(not_a_layout(format!("{INDEX} is not an index"))),
        Err(source) => Err(ArchiveError::Manifest { path: path(), source }),
    }
}

/// One image of the layout, by its entries in the index.
fn archived(
    layout: &dyn Documents,
    index: &Digest,
    entries: &[&IndexEntry],
    (platform, limits): (&Platform, &Limits),
) -> Result<Archived, ArchiveError> {
    let found = match entries {
        [entry] => {
            let refused = |source| ArchiveError::Manifest { path: layout.path().to_owned(), source };
            let blob = entry.descriptor(index).map_err(refused)?;
            let body = read_verified(layout, &blob_path(&blob.digest), &blob, limits.manifest_bytes)?;
            resolved(layout, (blob.digest, body), PLACES, (platform, limits))?
        }
        entries => {
            let entries = entries.iter().copied().cloned().collect();
            chosen(layout, (index.clone(), Index { entries }), PLACES, (platform, limits))?
        }
    };
    Ok(Archived { names: entries.first().map(|entry| names(entry)).unwrap_or_default(), ..found })
}

/// The image of a manifest that has been read; `places` says which part holds a blob.
pub(super) fn offered(
    container: &dyn Documents,
    (digest, body): (Digest, Vec<u8>),
    manifest: Manifest,
    places: Places,
    limits: &Limits,
) -> Result<Archived, ArchiveError> {
    let Manifest { config: config_blob, layers, foreign } = manifest;
    let place = places.blob;
    let config = read_verified(container, &place(&config_blob.digest), &config_blob, limits.config_bytes)?;
    let configuration = parse_configuration(&config_blob.digest, &config, layers.len(), limits)
        .map_err(|source| ArchiveError::Config { path: container.path().to_owned(), source })?;
    let places: BTreeMap<_, _> =
        layers.iter().map(|layer: &Descriptor| (layer.digest.clone(), place(&layer.digest))).collect();
    let offer = Offer {
        resolved: digest.clone(),
        digest,
        manifest: body,
        config_blob,
        config,
        configuration,
        layers,
    };
    Ok(Archived { offer, names: Vec::new(), places, foreign })
}

/// Where a layout has a blob.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A tag alone is no name: nothing says of what.
fn names(entry: &IndexEntry) -> Vec<Reference> {
    let whole =
        entry.annotation(IMAGE_NAME).or_else(|| label(entry).filter(|name| name.contains(['/', ':'])));
    whole.and_then(|name| Reference::parse(name).ok()).into_iter().collect()
}
