//! Manifests and indexes: what an image consists of, and which image of several is for this host.
//!
//! A document's type is what the transport says **and** what the document says; they must agree,
//! and a document that could be read as both kinds is refused. So nobody who verified one reading
//! can be served the other.

use oci_spec::image as oci;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};
use crate::image::Configuration;
use crate::json::{JsonProblem, parse_json, shortened};
use crate::limits::Limits;

mod platform;

pub use platform::Platform;

pub(crate) use platform::Choice;

/// What we ask a registry for, most wanted first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SCHEMA_1: &[&str] = &[
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
const CONFIG_TYPES: &[&str] =
    &["application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json"];
/// What Docker has called a configuration beside its own type: its pushes of before 2016, and
/// registries that stored it as a file of no or any kind.
const DOCKER_CONFIG_TYPES: &[&str] = &["application/octet-stream", "application/json", "text/html", ""];
/// A tar stream, as it is or compressed by gzip or zstd; which of them, its first bytes say.
const LAYER_TYPES: &[&str] = &[
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
];

/// A blob that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// An image for one platform: its configuration and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration blob.
    pub config: Descriptor,
    /// The layers' blobs, compressed or not.
    pub layers: Vec<Descriptor>,
    /// Those of them that need not be in the registry.
    pub foreign: Vec<Digest>,
}

/// An image as its source offers it: verified down to its configuration, layers not yet fetched.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// What the name led to: the manifest, or the index that it was chosen from.
    pub resolved: Digest,
    /// The manifest's digest.
    pub digest: Digest,
    /// Its bytes.
    pub manifest: Vec<u8>,
    /// The configuration's blob; its digest is the image's id.
    pub config_blob: Descriptor,
    /// Its bytes.
    pub config: Vec<u8>,
    /// What it says; as many diff ids as there are layers.
    pub configuration: Configuration,
    /// The layers' blobs, lowest first.
    pub layers: Vec<Descriptor>,
}

/// Images for several platforms, or several images of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// In the order of the document, which decides.
    pub entries: Vec<IndexEntry>,
}

/// One image, or one further index, of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The manifest's blob, once it is known that its digest is one; see [`IndexEntry::descriptor`].
    descriptor: oci::Descriptor,
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Why a manifest or index is refused. Its text is never repeated, only places and types.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A type that is no image manifest, e.g. an HTML page.
    #[error(
        "read manifest {digest}: it comes as {media_type:?}, which is no image manifest; check the registry's address"
    )]
    MediaType {
        /// The document's digest.
        digest: Digest,
        /// What the header says.
        media_type: String,
    },
    /// The transport and the document disagree about the type.
    #[error(
        "read manifest {digest}: the header says {header:?} and the document {body:?}; the registry must serve one type"
    )]
    TypesDiffer {
        /// The document's digest.
        digest: Digest,
        /// What the header says.
        header: String,
        /// What the document says.
        body: String,
    },
    /// It can be read as a manifest and as an index.
    #[error("read manifest {digest}: it has both \"layers\" and \"manifests\"; rebuild the image")]
    Ambiguous {
        /// The document's digest.
        digest: Digest,
    },
    /// Docker's format of before 2016.
    #[error(
        "read manifest {digest}: it has the obsolete schema 1; push the image again with Docker 1.10 or later, or skopeo"
    )]
    Schema1 {
        /// The document's digest.
        digest: Digest,
    },
    /// Not JSON, or not of this shape.
    #[error("read manifest {digest} {problem}")]
    Parse {
        /// The document's digest.
        digest: Digest,
        /// What is wrong with it, and where.
        problem: JsonProblem,
    },
    /// A digest in it is none.
    #[error("read manifest {digest} at {place}")]
    Digest {
        /// The document's digest.
        digest: Digest,
        /// Where in the document.
        place: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// Something other than a container image, e.g. a Helm chart, or an encrypted layer.
    #[error("read manifest {digest}: {place} is of type {media_type:?}, which a container cannot use")]
    Content {
        /// The document's digest.
        digest: Digest,
        /// `config` or `layers[N]`.
        place: String,
        /// Its type.
        media_type: String,
    },
    /// Too many or too large parts.
    #[error("read manifest {digest}: {place} is {value}, more than the limit of {limit}")]
    Limit {
        /// The document's digest.
        digest: Digest,
        /// What exceeds.
        place: String,
        /// By how much.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// No image for this host.
    #[error("choose an image for {wanted} in index {digest}: it has only {found}")]
    Platform {
        /// The index's digest.
        digest: Digest,
        /// This host.
        wanted: Platform,
        /// What the index has, shortened.
        found: String,
    },
    /// Indexes in indexes in indexes.
    #[error("read index {digest}: indexes nest deeper than {limit}")]
    Nesting {
        /// The innermost index's digest.
        digest: Digest,
        /// The limit.
        limit: u32,
    },
}

/// Parses a document whose digest is `digest`. `header` is the transport's type, where it has one.
///
/// # Errors
///
/// [`ManifestError`]: anything but one unambiguous manifest or index within the limits.
pub fn parse(
    digest: &Digest,
    body: &[u8],
    header: Option<&str>,
    limits: &Limits,
) -> Result<Document, ManifestError> {
    let header = header.map(|value| value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase());
    if let Some(header) = &header {
        check_header(digest, header)?;
    }
    let outline: Outline = parse_body(digest, body)?;
    if outline.schema_version == Some(1) || outline.fs_layers.is_some() {
        return Err(ManifestError::Schema1 { digest: digest.clone() });
    }
    if let (Some(header), Some(body)) = (&header, &outline.media_type)
        && header != body
    {
        let (header, body) = (shortened(header), shortened(body));
        return Err(ManifestError::TypesDiffer { digest: digest.clone(), header, body });
    }
    if outline.manifests.is_some() && (outline.layers.is_some() || outline.config.is_some()) {
        return Err(ManifestError::Ambiguous { digest: digest.clone() });
    }
    match header.as_deref().or(outline.media_type.as_deref()) {
        Some(DOCKER_INDEX | OCI_INDEX) => Ok(Document::Index(parse_index(digest, body)?)),
        Some(DOCKER_MANIFEST) => {
            let config_types = [CONFIG_TYPES, DOCKER_CONFIG_TYPES].concat();
            parse_manifest(digest, body, &config_types, limits).map(Document::Manifest)
        }
        Some(OCI_MANIFEST) => parse_manifest(digest, body, CONFIG_TYPES, limits).map(Document::Manifest),
        Some(other) => Err(ManifestError::MediaType { digest: digest.clone(), media_type: shortened(other) }),
        None if outline.manifests.is_some() => Ok(Document::Index(parse_index(digest, body)?)),
        None => parse_manifest(digest, body, CONFIG_TYPES, limits).map(Document::Manifest),
    }
}

impl IndexEntry {
    fn platform(&self) -> Option<&oci::Platform> {
        self.descriptor.platform().as_ref()
    }

    /// Whether the index says what it is for.
    pub(crate) fn says_platform(&self) -> bool {
        self.platform().is_some()
    }

    /// The blob of the manifest. `index` is the digest of the document that names it.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Digest`].
    pub fn descriptor(&self, index: &Digest) -> Result<Descriptor, ManifestError> {
        descriptor(index, "manifests", &self.descriptor)
    }

    /// An annotation of the entry, e.g. `org.opencontainers.image.ref.name`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.descriptor.annotations().as_ref().and_then(|all| all.get(key)).map(String::as_str)
    }
}

/// The parts that decide how a document is read, whatever they hold.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

fn check_header(digest: &Digest, header: &str) -> Result<(), ManifestError> {
    match header {
        DOCKER_MANIFEST | DOCKER_INDEX | OCI_MANIFEST | OCI_INDEX => Ok(()),
        header if SCHEMA_1.contains(&header) => Err(ManifestError::Schema1 { digest: digest.clone() }),
        other => Err(ManifestError::MediaType { digest: digest.clone(), media_type: shortened(other) }),
    }
}

fn parse_body<'a, T: Deserialize<'a>>(digest: &Digest, body: &'a [u8]) -> Result<T, ManifestError> {
    parse_json(body).map_err(|problem| ManifestError::Parse { digest: digest.clone(), problem })
}

/// The type of a manifest that is read as one, and whether it calls its parts as that type does: what is made up for an
/// archive of Docker's calls them as Docker does.
pub(crate) fn kind(body: &[u8]) -> Option<(String, bool)> {
    let manifest: oci::ImageManifest = parse_json(body).ok()?;
    let media_type = manifest.media_type().as_ref().map_or(OCI_MANIFEST, |media_type| media_type.as_ref());
    let parts = manifest.layers().iter().chain([manifest.config()]);
    let own = if media_type == OCI_MANIFEST { "application/vnd.oci." } else { "application/vnd.docker." };
    let is_consistent = parts.map(oci::Descriptor::media_type).all(|part| part.as_ref().starts_with(own));
    Some((media_type.to_owned(), is_consistent))
}

fn parse_index(digest: &Digest, body: &[u8]) -> Result<Index, ManifestError> {
    let index: oci::ImageIndex = parse_body(digest, body)?;
    let entries = index.manifests().iter().map(|entry| IndexEntry { descriptor: entry.clone() }).collect();
    Ok(Index { entries })
}

fn parse_manifest(
    digest: &Digest,
    body: &[u8],
    config_types: &[&str],
    limits: &Limits,
) -> Result<Manifest, ManifestError> {
    let manifest: oci::ImageManifest = parse_body(digest, body)?;
    let bound = |place: &str, value: u64, limit: u64| {
        let place = place.to_owned();
        let error = || ManifestError::Limit { digest: digest.clone(), place, value, limit };
        (value <= limit).then_some(()).ok_or_else(error)
    };
    let known = |place: &str, types: &[&str], media_type: &oci::MediaType| {
        let (place, name) = (place.to_owned(), shortened(media_type.as_ref()));
        let error = || ManifestError::Content { digest: digest.clone(), place, media_type: name };
        types.contains(&media_type.as_ref()).then_some(()).ok_or_else(error)
    };
    known("config", config_types, manifest.config().media_type())?;
    let config = descriptor(digest, "config", manifest.config())?;
    bound("config.size", config.size, limits.config_bytes)?;
    bound("the number of layers", manifest.layers().len() as u64, limits.layers as u64)?;
    let mut layers = Vec::with_capacity(manifest.layers().len());
    let mut foreign = Vec::new();
    for (position, layer) in manifest.layers().iter().enumerate() {
        let place = format!("layers[{position}]");
        known(&place, LAYER_TYPES, layer.media_type())?;
        bound(&format!("{place}.size"), layer.size(), limits.layer_compressed_bytes)?;
        let blob = descriptor(digest, &place, layer)?;
        let media_type = layer.media_type().as_ref();
        if media_type.contains(".foreign.") || media_type.contains(".nondistributable.") {
            foreign.push(blob.digest.clone());
        }
        layers.push(blob);
    }
    Ok(Manifest { config, layers, foreign })
}

fn descriptor(document: &Digest, place: &str, from: &oci::Descriptor) -> Result<Descriptor, ManifestError> {
    let digest = Digest::parse(from.digest().as_ref()).map_err(|source| {
        let place = format!("{place}.digest");
        ManifestError::Digest { digest: document.clone(), place, source }
    })?;
    Ok(Descriptor { digest, size: from.size() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse_as(header: Option<&str>, body: &str) -> Result<Document, ManifestError> {
        parse(&Digest::of(body.as_bytes()), body.as_bytes(), header, &Limits::default())
    }

    fn manifest(config_type: &str, layer: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{config_type}","digest":"sha256:{HEX}","size":2}},"layers":[{layer}]}}"#
        )
    }

    fn layer(digest: &str, size: &str) -> String {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":{size}}}"#
        )
    }

    #[test]
    fn manifests_are_read_with_and_without_their_own_media_type() {
        let body = manifest(CONFIG_TYPES[1], &layer(&format!("sha256:{HEX}"), "7"));
        for header in
            [None, Some(OCI_MANIFEST), Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")]
        {
            let Document::Manifest(manifest) = parse_as(header, &body).unwrap() else { panic!("{header:?}") };
            assert_eq!((manifest.layers.len(), manifest.layers[0].size), (1, 7));
        }
    }

    #[test]
    fn s25_no_other_digest_gets_past_the_manifest() {
        let digests =
            ["sha256:../../x".to_owned(), format!("md5:{}", &HEX[..32]), format!("sha256:{}", &HEX[1..])];
        for digest in digests.into_iter().chain([format!("sha256:{}", HEX.to_uppercase())]) {
            let body = manifest(CONFIG_TYPES[0], &layer(&digest, "7"));
            let error = parse_as(Some(OCI_MANIFEST), &body).unwrap_err();
            assert!(
                matches!(error, ManifestError::Digest { .. } | ManifestError::Parse { .. }),
                "{digest}: {error}"
            );
        }
    }

    #[test]
    fn s26_ambiguous_and_foreign_documents_are_refused() {
        let both = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(matches!(parse_as(None, both), Err(ManifestError::Ambiguous { .. })));
        assert!(matches!(parse_as(Some(OCI_INDEX), both), Err(ManifestError::Ambiguous { .. })));
        let typed =
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert!(matches!(parse_as(Some(OCI_MANIFEST), typed), Err(ManifestError::TypesDiffer { .. })));
        for header in SCHEMA_1 {
            assert!(matches!(parse_as(Some(header), "{}"), Err(ManifestError::Schema1 { .. })));
        }
        let schema_1 = r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#;
        assert!(matches!(parse_as(None, schema_1), Err(ManifestError::Schema1 { .. })));
        assert!(matches!(parse_as(Some("text/html"), "<html>"), Err(ManifestError::MediaType { .. })));
        let page = parse_as(Some(OCI_MANIFEST), "<html>secret</html>").unwrap_err();
        assert!(!page.to_string().contains("secret") && !page.to_string().contains('\n'), "{page}");
        let chart = manifest("application/vnd.cncf.helm.config.v1+json", "");
        assert!(matches!(parse_as(None, &chart), Err(ManifestError::Content { .. })));
    }

    #[test]
    fn a_docker_manifest_may_call_its_configuration_what_old_pushes_did() {
        let body = |config_type: &str| manifest(config_type, &layer(&format!("sha256:{HEX}"), "7"));
        for config_type in DOCKER_CONFIG_TYPES {
            let read = parse_as(Some(DOCKER_MANIFEST), &body(config_type));
            assert!(matches!(read, Ok(Document::Manifest(_))), "{config_type:?}: {read:?}");
            let refused = parse_as(Some(OCI_MANIFEST), &body(config_type)).unwrap_err();
            assert!(matches!(refused, ManifestError::Content { .. }), "{config_type:?}: {refused}");
        }
    }

    #[test]
    fn sizes_and_counts_are_bounded() {
        let hex = format!("sha256:{HEX}");
        let limits = Limits::default();
        let too_large = (limits.layer_compressed_bytes + 1).to_string();
        let too_many = vec![layer(&hex, "1"); limits.layers + 1].join(",");
        for layers in [layer(&hex, &too_large), too_many] {
            let error = parse_as(None, &manifest(CONFIG_TYPES[0], &layers)).unwrap_err();
            assert!(matches!(error, ManifestError::Limit { .. }), "{error}");
        }
        for size in ["-1", "1.5", "18446744073709551616", "\"7\""] {
            let error = parse_as(None, &manifest(CONFIG_TYPES[0], &layer(&hex, size))).unwrap_err();
            assert!(matches!(error, ManifestError::Parse { .. }), "{size}: {error}");
        }
    }

    #[test]
    fn the_first_exact_platform_is_chosen() {
        let entry = |os: &str, architecture: &str, size: u64| {
            format!(
                r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{HEX}","size":{size},
                "platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#
            )
        };
        let entries = [
            entry("unknown", "unknown", 1),
            entry("linux", "arm64", 2),
            entry("linux", "amd64", 3),
            entry("linux", "amd64", 4),
        ];
        let body = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        let digest = Digest::of(body.as_bytes());
        let Document::Index(index) = parse_as(Some(OCI_INDEX), &body).unwrap() else { panic!() };
        let wanted =
            |architecture: &str| Platform { os: "linux".into(), architecture: architecture.into(), level: 1 };
        let (limits, ours, other) = (Limits::default(), wanted("amd64"), wanted("s390x"));
        let choice = |platform| Choice::new(digest.clone(), index.clone(), platform, &limits).next();
        assert_eq!(choice(&ours).unwrap().blob.size, 3);
        let error = choice(&other).unwrap_err();
        assert!(
            error.to_string().ends_with("linux/s390x in index")
                || error.to_string().contains("unknown/unknown, linux/arm64, linux/amd64"),
            "{error}"
        );
    }
}
