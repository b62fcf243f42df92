//! Images in files: what `docker save` writes, OCI layouts as directory or tar, skopeo's `dir:`.
//!
//! A tar file's members are indexed by name and read in place; nothing is extracted, and no name
//! that an archive holds is ever given to the file system. A directory's files are opened beneath
//! it. So an archive can name `/etc/passwd` as a layer, and will be told that it holds no such
//! member.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::digest::Digest;
use crate::image::ConfigError;
use crate::json::JsonProblem;
use crate::limits::Limits;
use crate::manifest::{self, Choice, Descriptor, Document, Index, ManifestError, Offer, Platform};
use crate::reference::Reference;
use crate::source::Source;

mod container;
mod dir;
mod docker;
mod members;
mod oci;
mod streamed;

pub(crate) use container::Container;
pub(crate) use docker::MANIFEST as DOCKER_MANIFEST;
pub(crate) use members::{Role, named};
pub(crate) use oci::{IMAGE_NAME, INDEX, LAYOUT, REF_NAME, blob_path};
pub(crate) use streamed::{Place, Streamed, TakenLayer};

/// An archive or directory of images, opened.
#[derive(Debug)]
pub(crate) struct Archive {
    container: Container,
    format: Format,
}

#[derive(Debug, PartialEq, Eq)]
enum Format {
    /// Which image: its reference in the archive.
    Docker(Option<String>),
    /// Which image: its tag.
    Oci(Option<String>),
    Dir,
}

/// One image of an archive, verified down to its configuration.
#[derive(Debug)]
pub(crate) struct Archived {
    pub offer: Offer,
    /// The names that the archive gives it.
    pub names: Vec<Reference>,
    /// The member that holds each of the layers' blobs.
    places: BTreeMap<Digest, String>,
    /// Layers that need not be in the archive.
    foreign: Vec<Digest>,
}

/// Where an archive's documents are read from by their names.
pub(crate) trait Documents {
    /// What the archive is called in messages.
    fn path(&self) -> &Path;

    /// Reads a part of at most `limit` bytes.
    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ArchiveError>;
}

/// Why an archive gives no image.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No such file, or it cannot be read.
    #[error("open image archive {path:?}")]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("read {path:?} as {format}: {reason}")]
    Format {
        /// The file or directory.
        path: PathBuf,
        /// What it was taken for.
        format: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// A document in it is not of the expected shape.
    #[error("read {member:?} of image archive {path:?} {problem}")]
    Parse {
        /// The file or directory.
        path: PathBuf,
        /// The document.
        member: String,
        /// What is wrong with it, and where.
        problem: JsonProblem,
    },
    /// It names a part that it does not hold.
    #[error("find {member:?} in image archive {path:?}: no such file in it; make the archive again")]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// The part.
        member: String,
    },
    /// Two documents of one name, of which readers would take different ones.
    #[error("read image archive {path:?}: it holds {member:?} twice; make the archive again")]
    Twice {
        /// The file.
        path: PathBuf,
        /// The name.
        member: String,
    },
    /// A part cannot be read.
    #[error("read {member:?} of image archive {path:?}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The part.
        member: String,
        /// Why.
        source: io::Error,
    },
    /// A part is larger than anything of its kind.
    #[error("read {member:?} of image archive {path:?}: it has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The file or directory.
        path: PathBuf,
        /// The part.
        member: String,
        /// Its bytes.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A part is not what its digest says.
    #[error("verify {member:?} of image archive {path:?}: its digest is {found}; make the archive again")]
    Digest {
        /// The file or directory.
        path: PathBuf,
        /// The part.
        member: String,
        /// What was computed.
        found: Digest,
    },
    /// The name behind the path is not in it.
    #[error("find image {wanted:?} in {path:?}: it holds {found}")]
    NoSuchImage {
        /// The file or directory.
        path: PathBuf,
        /// The name or tag asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// Several images and no name that chooses one.
    #[error(
        "choose an image of {path:?}: it holds {found}; write one of them behind the path, after a colon"
    )]
    Several {
        /// The file or directory.
        path: PathBuf,
        /// What there is.
        found: String,
    },
    /// Several images where there has to be one.
    #[error("use {path:?}: Image tarballs must only contain one image, and it holds {found}")]
    NotOne {
        /// The archive.
        path: PathBuf,
        /// What there is.
        found: String,
    },
    /// A layer is elsewhere, by what the image says of it.
    #[error(
        "find layer {digest} in image archive {path:?}: it is a foreign layer, which the archive only names; save the \
         image with all of its layers"
    )]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// The layer's blob.
        digest: Digest,
    },
    /// A part is named as something that it is not.
    #[error("use {member:?} of image archive {path:?}: it is no {wanted}; make the archive again")]
    NotOfKind {
        /// The archive.
        path: PathBuf,
        /// The part.
        member: String,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// A layer is not what the image's configuration says.
    #[error(
        "verify {member:?} of image archive {path:?}: inflated, it has digest {found} and the configuration says \
         {expected}; rebuild the image"
    )]
    DiffId {
        /// The archive.
        path: PathBuf,
        /// The part.
        member: String,
        /// What was computed.
        found: Digest,
        /// What the configuration says.
        expected: Digest,
    },
    /// Not enough space to inflate the archive.
    #[error(transparent)]
    DiskFull(#[from] crate::disk::DiskFull),
    /// A manifest is refused.
    #[error("use image archive {path:?}")]
    Manifest {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// A configuration is refused.
    #[error("use image archive {path:?}")]
    Config {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: ConfigError,
    },
}

impl Archive {
    /// Opens a local source. A compressed tar file is inflated into an unnamed file in `scratch`.
    pub(crate) fn open(
        source: &Source,
        scratch: &Path,
        limits: &Limits,
        cancelled: &AtomicBool,
    ) -> Result<Archive, ArchiveError> {
        let (container, format) = match source {
            Source::DockerArchive { path, reference } => {
                (Container::tar(path, scratch, limits, cancelled)?, Format::Docker(reference.clone()))
            }
            Source::OciArchive { path, tag } => {
                (Container::tar(path, scratch, limits, cancelled)?, Format::Oci(tag.clone()))
            }
            Source::Oci { dir, tag } => (Container::directory(dir)?, Format::Oci(tag.clone())),
            Source::Dir { path } => (Container::directory(path)?, Format::Dir),
            Source::Registry(reference) => {
                let (path, reason) = (PathBuf::from(reference.to_string()), "it is in a registry".to_owned());
                return Err(ArchiveError::Format { path, format: "an archive", reason });
            }
        };
        Ok(Archive { container, format })
    }

    /// The image that the source names, or the only one.
    pub(crate) fn image(&self, platform: &Platform, limits: &Limits) -> Result<Archived, ArchiveError> {
        match &self.format {
            Format::Docker(reference) => docker::image(&self.container, reference.as_deref(), limits),
            Format::Oci(tag) => oci::image(&self.container, tag.as_deref(), platform, limits),
            Format::Dir => dir::image(&self.container, platform, limits),
        }
    }

    /// All images, or only the one that the source names.
    pub(crate) fn images(&self, platform: &Platform, limits: &Limits) -> Result<Vec<Archived>, ArchiveError> {
        match &self.format {
            Format::Docker(None) => docker::images(&self.container, limits),
            Format::Oci(None) => oci::images(&self.container, platform, limits),
            _ => self.image(platform, limits).map(|image| vec![image]),
        }
    }

    /// A layer's blob. Its size is checked here, its digest by who reads it.
    pub(crate) fn blob(
        &self,
        image: &Archived,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, ArchiveError> {
        let member = image.member(&blob.digest);
        let found = self.container.open(&member).map_err(|error| image.blamed_on_foreign(blob, error))?;
        Ok(Box::new(found.content))
    }
}

impl Archived {
    /// The member that holds a layer's blob.
    fn member(&self, blob: &Digest) -> String {
        self.places.get(blob).cloned().unwrap_or_else(|| blob.to_string())
    }

    /// Why a layer's blob is not there, if it need not be.
    fn blamed_on_foreign(&self, blob: &Descriptor, error: ArchiveError) -> ArchiveError {
        match error {
            ArchiveError::Missing { path, .. } if self.foreign.contains(&blob.digest) => {
                ArchiveError::Foreign { path, digest: blob.digest.clone() }
            }
            error => error,
        }
    }
}

impl ArchiveError {
    /// A compressed archive that is damaged, or asks for too much memory.
    pub(crate) fn of_inflating(path: &Path, error: &io::Error) -> ArchiveError {
        ArchiveError::Format {
            path: path.to_owned(),
            format: "a compressed tar file",
            reason: format!("it does not inflate ({error}); make the archive again"),
        }
    }
}

/// Which part of a layout holds the document, or the blob, of a digest.
#[derive(Clone, Copy)]
struct Places {
    document: fn(&Digest) -> String,
    blob: fn(&Digest) -> String,
}

/// The image that a document leads to, which is in memory.
fn resolved(
    container: &dyn Documents,
    (digest, body): (Digest, Vec<u8>),
    places: Places,
    (platform, limits): (&Platform, &Limits),
) -> Result<Archived, ArchiveError> {
    match manifest::parse(&digest, &body, None, limits) {
        Ok(Document::Manifest(manifest)) => oci::offered(container, (digest, body), manifest, places, limits),
        Ok(Document::Index(index)) => chosen(container, (digest, index), places, (platform, limits)),
        Err(source) => Err(ArchiveError::Manifest { path: container.path().to_owned(), source }),
    }
}

/// The image of an index for this host, chosen as of a registry's index: the entries are tried that may fit, best
/// first, and one that does not say what it is for is asked.
fn chosen(
    container: &dyn Documents,
    (digest, index): (Digest, Index),
    places: Places,
    (platform, limits): (&Platform, &Limits),
) -> Result<Archived, ArchiveError> {
    let refused = |source| ArchiveError::Manifest { path: container.path().to_owned(), source };
    let mut choice = Choice::new(digest, index, platform, limits);
    loop {
        let candidate = choice.next().map_err(refused)?;
        let digest = candidate.blob.digest.clone();
        let body =
            read_verified(container, &(places.document)(&digest), &candidate.blob, limits.manifest_bytes)?;
        match manifest::parse(&digest, &body, None, limits).map_err(refused)? {
            Document::Index(index) => choice.enter(&candidate, digest, index).map_err(refused)?,
            Document::Manifest(manifest) => {
                let archived = oci::offered(container, (digest, body), manifest, places, limits)?;
                if candidate.says_platform || platform.admits(&archived.offer.configuration.config) {
                    return Ok(archived);
                }
            }
        }
    }
}

/// Reads a small part and verifies it against its descriptor.
fn read_verified(
    container: &dyn Documents,
    member: &str,
    expected: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>, ArchiveError> {
    let content = container.read(member, limit)?;
    match expected.digest.verify(&content) {
        Ok(()) => Ok(content),
        Err(found) => {
            Err(ArchiveError::Digest { path: container.path().to_owned(), member: member.to_owned(), found })
        }
    }
}
