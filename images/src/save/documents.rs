//! What an archive says of the blobs in it: as an OCI layout, and as `docker save` does.
//!
//! Names stand in both. `org.opencontainers.image.ref.name` has the whole name: a tag alone says nothing of what, and
//! podman would make an image `latest:latest` of it.

use oci_spec::image as oci;
use serde_json::{Map, Value, json};

use crate::archive::{DOCKER_MANIFEST, IMAGE_NAME, INDEX, LAYOUT, REF_NAME, blob_path};
use crate::digest::Digest;
use crate::inflate::Compression;
use crate::manifest::Descriptor;
use crate::reference::Reference;

use super::layer::SavedLayer;
use super::member::Archive;
use super::{SaveError, SavedImage};

/// Docker's file of names from before there was a manifest. Loaders of their own still look into it.
const REPOSITORIES: &str = "repositories";
const OCI_MANIFEST: oci::MediaType = oci::MediaType::ImageManifest;

/// An image's manifest, as it stands in the archive.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub media_type: String,
    pub content: Vec<u8>,
}

impl Manifest {
    /// One that is made up: always the same for the same image.
    pub(crate) fn of(config: &[u8], layers: &[SavedLayer]) -> Manifest {
        let config = Descriptor { digest: Digest::of(config), size: config.len() as u64 };
        let described = |layer: &SavedLayer| descriptor(media_type(layer.compression).as_ref(), &layer.blob);
        let content = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST.as_ref(),
            "config": descriptor(oci::MediaType::ImageConfig.as_ref(), &config),
            "layers": layers.iter().map(described).collect::<Vec<_>>(),
        });
        Manifest { media_type: OCI_MANIFEST.to_string(), content: content.to_string().into_bytes() }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.content)
    }
}

fn media_type(compression: Compression) -> oci::MediaType {
    match compression {
        // There is none for others: those are written as tar streams.
        Compression::None | Compression::Other => oci::MediaType::ImageLayer,
        Compression::Gzip => oci::MediaType::ImageLayerGzip,
        Compression::Zstd => oci::MediaType::ImageLayerZstd,
    }
}

fn descriptor(media_type: &str, blob: &Descriptor) -> Map<String, Value> {
    let fields =
        [("mediaType", json!(media_type)), ("digest", json!(blob.digest)), ("size", json!(blob.size))];
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

/// Adds all of them. The one that makes an archive an image to most readers is the last.
pub(super) fn write(images: &[SavedImage], archive: &mut Archive<'_>) -> Result<(), SaveError> {
    archive.document(LAYOUT, json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes())?;
    archive.document(INDEX, index(images).to_string().as_bytes())?;
    archive.document(REPOSITORIES, repositories(images).to_string().as_bytes())?;
    archive.document(DOCKER_MANIFEST, manifest(images).to_string().as_bytes())
}

fn index(images: &[SavedImage]) -> Value {
    let mut entries = Vec::new();
    for image in images {
        let SavedImage { manifest, names, .. } = image;
        let blob = Descriptor { digest: manifest.digest(), size: manifest.content.len() as u64 };
        let plain = descriptor(&manifest.media_type, &blob);
        let named = names.iter().map(|name| {
            let annotations = json!({ IMAGE_NAME: name.to_string(), REF_NAME: name.to_string() });
            let mut entry = plain.clone();
            entry.extend([("annotations".to_owned(), annotations)]);
            Value::Object(entry)
        });
        entries.extend(named);
        if names.is_empty() {
            entries.push(Value::Object(plain));
        }
    }
    json!({ "schemaVersion": 2, "mediaType": oci::MediaType::ImageIndex.as_ref(), "manifests": entries })
}

/// `docker save`'s list of images.
fn manifest(images: &[SavedImage]) -> Value {
    let entry = |image: &SavedImage| {
        let tags: Vec<_> = tagged(image).map(Reference::familiar).collect();
        let layers: Vec<_> = image.layers.iter().map(|layer| blob_path(&layer.blob.digest)).collect();
        json!({ "Config": blob_path(&image.id()), "RepoTags": tags, "Layers": layers })
    };
    Value::Array(images.iter().map(entry).collect())
}

/// Names and tags, each with the topmost layer.
fn repositories(images: &[SavedImage]) -> Value {
    let mut repositories: Map<String, Value> = Map::new();
    for image in images {
        let Some(top) = image.layers.last() else { continue };
        for name in tagged(image) {
            let (familiar, tag) = (name.familiar(), name.tag().unwrap_or_default());
            let repository = familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar);
            let tags = repositories.entry(repository).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(tags) = tags {
                tags.insert(tag.to_owned(), json!(top.blob.digest.hex()));
            }
        }
    }
    Value::Object(repositories)
}

/// Docker knows images by tags alone.
fn tagged(image: &SavedImage) -> impl Iterator<Item = &Reference> {
    image.names.iter().filter(|name| name.digest().is_none())
}
