//! OCI image layouts: `oci-layout`, `index.json` and `blobs/ALGORITHM/HEX`, in a directory or a tar
//! file. Source: image-layout.md of the OCI image specification.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;
use crate::image::parse_configuration;
use crate::json::{parse_json, shortened};
use crate::limits::Limits;
use crate::manifest::{
    self, Descriptor, Document, Index, IndexEntry, Manifest, ManifestError, Offer, Platform,
};
use crate::reference::Reference;

use super::{ArchiveError, Archived, Container, read_verified};

const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
/// The tag, by the specification; a whole reference, by some tools.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole reference, by containerd and Docker.
const IMAGE_NAME: &str = "io.containerd.image.name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

/// The image of that tag, or the only one.
pub(super) fn image(
    layout: &Container,
    tag: Option<&str>,
    platform: &Platform,
    limits: &Limits,
) -> Result<Archived, ArchiveError> {
    let (digest, index) = index(layout, limits)?;
    let found = || {
        let names: Vec<_> =
            index.entries.iter().map(|entry| label(entry).unwrap_or("an image without a tag")).collect();
        if names.is_empty() { "no image".to_owned() } else { shortened(&names.join(", ")) }
    };
    let path = layout.path().to_owned();
    let entry = match (tag, index.entries.as_slice()) {
        (Some(tag), entries) => entries
            .iter()
            .find(|entry| label(entry) == Some(tag))
            .ok_or_else(|| ArchiveError::NoSuchImage { path, wanted: tag.to_owned(), found: found() })?,
        (None, [entry]) => entry,
        (None, _) => return Err(ArchiveError::Several { path, found: found() }),
    };
    archived(layout, &digest, entry, (platform, limits))
}

/// All of them.
pub(super) fn images(
    layout: &Container,
    platform: &Platform,
    limits: &Limits,
) -> Result<Vec<Archived>, ArchiveError> {
    let (digest, index) = index(layout, limits)?;
    index.entries.iter().map(|entry| archived(layout, &digest, entry, (platform, limits))).collect()
}

fn label(entry: &IndexEntry) -> Option<&str> {
    entry.annotation(REF_NAME)
}

fn index(layout: &Container, limits: &Limits) -> Result<(Digest, Index), ArchiveError> {
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

fn archived(
    layout: &Container,
    index: &Digest,
    entry: &IndexEntry,
    (platform, limits): (&Platform, &Limits),
) -> Result<Archived, ArchiveError> {
    let refused = |source| ArchiveError::Manifest { path: layout.path().to_owned(), source };
    let mut descriptor = entry.descriptor(index).map_err(refused)?;
    for _ in 0..=limits.index_nesting {
        let member = blob_path(&descriptor.digest);
        let body = read_verified(layout, &member, &descriptor, limits.manifest_bytes)?;
        match manifest::parse(&descriptor.digest, &body, None, limits).map_err(refused)? {
            Document::Manifest(manifest) => {
                let names = names(entry);
                return offered(layout, descriptor.digest, body, manifest, (blob_path, limits))
                    .map(|archived| Archived { names, ..archived });
            }
            Document::Index(nested) => {
                descriptor = nested.select(&descriptor.digest, platform).map_err(refused)?;
            }
        }
    }
    Err(refused(ManifestError::Nesting { digest: descriptor.digest, limit: limits.index_nesting }))
}

/// The image of a manifest that has been read; `place` says which part holds a blob.
pub(super) fn offered(
    container: &Container,
    digest: Digest,
    body: Vec<u8>,
    manifest: Manifest,
    (place, limits): (fn(&Digest) -> String, &Limits),
) -> Result<Archived, ArchiveError> {
    let Manifest { config: config_blob, layers, .. } = manifest;
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
    Ok(Archived { offer, names: Vec::new(), places })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A tag alone is no name: nothing says of what.
fn names(entry: &IndexEntry) -> Vec<Reference> {
    let whole =
        entry.annotation(IMAGE_NAME).or_else(|| label(entry).filter(|name| name.contains(['/', ':'])));
    whole.and_then(|name| Reference::parse(name).ok()).into_iter().collect()
}
