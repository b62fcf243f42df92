//! What `docker save` and `skopeo copy … docker-archive:` write: a tar file whose `manifest.json`
//! lists images with a configuration and layers, each a member.
//!
//! There is no manifest in the registry's sense; one is made up, always the same for the same
//! content, so that the image has a digest to be named by.

use std::collections::BTreeMap;
use std::io::Read;

use oci_spec::image as oci;
use serde::Deserialize;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::parse_configuration;
use crate::inflate::is_compressed;
use crate::json::{parse_json, shortened};
use crate::limits::Limits;
use crate::manifest::{Descriptor, Offer};
use crate::reference::Reference;

use super::{ArchiveError, Archived, Container, Documents};

pub(crate) const MANIFEST: &str = "manifest.json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The image of that name, or the only one.
pub(super) fn image(
    archive: &Container,
    wanted: Option<&str>,
    limits: &Limits,
) -> Result<Archived, ArchiveError> {
    let entries = entries(archive, limits)?;
    let found = || shortened(&entries.iter().map(|entry| entry.label()).collect::<Vec<_>>().join(", "));
    let path = archive.path().to_owned();
    let entry = match (wanted, entries.as_slice()) {
        (Some(wanted), entries) => entries
            .iter()
            .find(|entry| entry.is_called(wanted))
            .ok_or_else(|| ArchiveError::NoSuchImage { path, wanted: wanted.to_owned(), found: found() })?,
        (None, [entry]) => entry,
        (None, _) => return Err(ArchiveError::Several { path, found: found() }),
    };
    archived(archive, entry, limits, &|member, diff_id| describe(archive, member, diff_id))
}

/// All of them.
pub(super) fn images(archive: &Container, limits: &Limits) -> Result<Vec<Archived>, ArchiveError> {
    let describe: Describe<'_> = &|member, diff_id| describe(archive, member, diff_id);
    entries(archive, limits)?.iter().map(|entry| archived(archive, entry, limits, describe)).collect()
}

/// What a member is as a layer's blob, which is to have that diff id.
type Describe<'a> = &'a dyn Fn(&str, &Digest) -> Result<Descriptor, ArchiveError>;

/// The one image, by however many names.
pub(super) fn only_image(
    archive: &dyn Documents,
    limits: &Limits,
    describe: Describe<'_>,
) -> Result<Archived, ArchiveError> {
    let entries = entries(archive, limits)?;
    match entries.split_first() {
        Some((entry, rest)) if rest.iter().all(|other| other.is_image_of(entry)) => {
            archived(archive, entry, limits, describe)
        }
        _ => {
            let labels: Vec<_> = entries.iter().map(Entry::label).collect();
            Err(ArchiveError::NotOne {
                path: archive.path().to_owned(),
                found: shortened(&labels.join(", ")),
            })
        }
    }
}

impl Entry {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }

    fn label(&self) -> String {
        if self.tags().is_empty() { "an image without a name".to_owned() } else { self.tags().join(", ") }
    }

    /// Whether it is the same image by other names.
    fn is_image_of(&self, other: &Entry) -> bool {
        (&self.config, &self.layers) == (&other.config, &other.layers)
    }

    fn is_called(&self, wanted: &str) -> bool {
        let Ok(wanted) = Reference::parse(wanted) else { return false };
        self.tags().iter().any(|tag| Reference::parse(tag).is_ok_and(|tag| tag == wanted))
    }
}

fn entries(archive: &dyn Documents, limits: &Limits) -> Result<Vec<Entry>, ArchiveError> {
    let json = archive.read(MANIFEST, limits.manifest_bytes).map_err(|error| match error {
        ArchiveError::Missing { path, .. } => ArchiveError::Format {
            path,
            format: "docker-archive",
            reason: format!("it holds no {MANIFEST}; make it with `docker save` of 1.10 or later, or skopeo"),
        },
        other => other,
    })?;
    let entries: Vec<Entry> = parse_json(&json).map_err(|problem| ArchiveError::Parse {
        path: archive.path().to_owned(),
        member: MANIFEST.to_owned(),
        problem,
    })?;
    if entries.is_empty() {
        let (path, reason) = (archive.path().to_owned(), format!("{MANIFEST} lists no image"));
        return Err(ArchiveError::Format { path, format: "docker-archive", reason });
    }
    Ok(entries)
}

fn archived(
    archive: &dyn Documents,
    entry: &Entry,
    limits: &Limits,
    describe: Describe<'_>,
) -> Result<Archived, ArchiveError> {
    let config = archive.read(&entry.config, limits.config_bytes)?;
    let id = Digest::of(&config);
    let configuration = parse_configuration(&id, &config, entry.layers.len(), limits)
        .map_err(|source| ArchiveError::Config { path: archive.path().to_owned(), source })?;
    let mut layers = Vec::new();
    let mut places = BTreeMap::new();
    for (member, diff_id) in entry.layers.iter().zip(&configuration.diff_ids) {
        let blob = describe(member, diff_id)?;
        places.insert(blob.digest.clone(), member.clone());
        layers.push(blob);
    }
    let config_blob = Descriptor { digest: id, size: config.len() as u64 };
    let manifest = made_up_manifest(&config_blob, &layers);
    let digest = Digest::of(&manifest);
    let offer =
        Offer { resolved: digest.clone(), digest, manifest, config_blob, config, configuration, layers };
    // Names that Docker itself would refuse are as good as none.
    let names = entry.tags().iter().filter_map(|tag| Reference::parse(tag).ok()).collect();
    Ok(Archived { offer, names, places, foreign: Vec::new() })
}

/// A layer that is not compressed has its diff id for a digest. Docker's newer archives hold
/// compressed ones, which are hashed here, and verified again when they are taken in.
fn describe(archive: &Container, member: &str, diff_id: &Digest) -> Result<Descriptor, ArchiveError> {
    let failed =
        |source| ArchiveError::Read { path: archive.path().to_owned(), member: member.to_owned(), source };
    let mut part = archive.open(member)?;
    let mut start = [0; 6];
    let read = part.content.read(&mut start).map_err(failed)?;
    if !is_compressed(start.get(..read).unwrap_or_default()) {
        return Ok(Descriptor { digest: diff_id.clone(), size: part.size });
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(start.get(..read).unwrap_or_default());
    let mut buffer = vec![0; 1 << 17];
    loop {
        match part.content.read(&mut buffer).map_err(failed)? {
            0 => return Ok(Descriptor { digest: hasher.finish(), size: part.size }),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

fn made_up_manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
    let describe = |media_type: &str, blob: &Descriptor| serde_json::json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size });
    let layers: Vec<_> = layers.iter().map(|layer| describe(LAYER_TYPE, layer)).collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": oci::MediaType::ImageManifest.as_ref(),
        "config": describe(CONFIG_TYPE, config),
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}
