//! An archive whose bytes have gone by once: documents were kept in memory, what may be layers was taken in on the way.
//!
//! Which member is what is said by `manifest.json` or `index.json`, which most tools write last. So everything that looks
//! like a layer is taken for one until then, and what looks like a document is kept.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::json::shortened;
use crate::limits::Limits;
use crate::manifest::{Descriptor, Platform};

use super::members::Members;
use super::{ArchiveError, Archived, Documents, docker, oci};

/// How many documents of the largest kind are kept.
const LARGE_DOCUMENTS: u64 = 4;

/// What a streamed archive holds, by name.
#[derive(Debug)]
pub(crate) struct Streamed<'a> {
    path: PathBuf,
    limits: &'a Limits,
    members: Members<Place>,
    document_bytes: u64,
}

/// What became of a member.
#[derive(Debug)]
pub(crate) enum Place {
    /// It is kept.
    Document(Vec<u8>),
    /// It was taken in.
    Layer(TakenLayer),
    /// It went by: neither a document nor a layer, or a document of so many bytes that it cannot be one of an image.
    Gone(u64),
}

/// A member that was taken in as a layer.
#[derive(Clone, Debug)]
pub(crate) struct TakenLayer {
    /// Counts from 0 in the order of the archive.
    pub number: usize,
    /// The digest of its tar stream.
    pub diff_id: Digest,
    /// Digest and size as it stands in the archive.
    pub blob: Descriptor,
}

impl<'a> Streamed<'a> {
    /// Of an archive that messages call so.
    pub(crate) fn new(path: &Path, limits: &'a Limits) -> Streamed<'a> {
        Streamed { path: path.to_owned(), limits, members: Members::default(), document_bytes: 0 }
    }

    /// Whether a document of that size is to be kept.
    pub(crate) fn has_room_for(&self, size: u64) -> bool {
        let largest = self.limits.config_bytes.max(self.limits.manifest_bytes);
        size <= largest && self.document_bytes.saturating_add(size) <= LARGE_DOCUMENTS.saturating_mul(largest)
    }

    /// Adds a member by its clean name.
    pub(crate) fn add(&mut self, name: String, place: Place) -> Result<(), ArchiveError> {
        if let Place::Document(content) = &place {
            self.document_bytes += content.len() as u64;
        }
        self.members.add(&self.path, name, place, self.limits)
    }

    /// Adds another name for the member of a clean name.
    pub(crate) fn link(&mut self, name: String, target: String) -> Result<(), ArchiveError> {
        self.members.link(&self.path, name, target, self.limits)
    }

    /// The one image that it holds, and what was taken in as its layers, lowest first.
    pub(crate) fn image(&self, platform: &Platform) -> Result<(Archived, Vec<TakenLayer>), ArchiveError> {
        let archived = if self.holds(docker::MANIFEST)? {
            docker::only_image(self, self.limits, &|member, _| Ok(self.layer(member)?.blob.clone()))?
        } else if self.holds(oci::LAYOUT)? {
            oci::image(self, None, platform, self.limits)?
        } else {
            let reason = format!(
                "Unknown docker archive format; it holds neither {} nor {}; make it with `docker save` of 1.10 or later, \
                 or skopeo",
                docker::MANIFEST,
                oci::LAYOUT
            );
            let path = self.path.clone();
            return Err(ArchiveError::Format { path, format: "an archive of an image", reason });
        };
        let offer = &archived.offer;
        let pairs = offer.layers.iter().zip(&offer.configuration.diff_ids);
        let layers = pairs.map(|(blob, diff_id)| self.verified(&archived, blob, diff_id));
        let layers = layers.collect::<Result<_, _>>()?;
        Ok((archived, layers))
    }

    /// What was taken in as the layer of that blob and that diff id.
    fn verified(
        &self,
        archived: &Archived,
        blob: &Descriptor,
        diff_id: &Digest,
    ) -> Result<TakenLayer, ArchiveError> {
        let member = archived.member(&blob.digest);
        let layer = self.layer(&member).map_err(|error| archived.blamed_on_foreign(blob, error))?;
        let (path, member) = (self.path.clone(), shortened(&member));
        if layer.blob != *blob {
            return Err(ArchiveError::Digest { path, member, found: layer.blob.digest.clone() });
        }
        if layer.diff_id != *diff_id {
            let (found, expected) = (layer.diff_id.clone(), diff_id.clone());
            return Err(ArchiveError::DiffId { path, member, found, expected });
        }
        Ok(layer.clone())
    }

    fn layer(&self, member: &str) -> Result<&TakenLayer, ArchiveError> {
        match self.get(member)? {
            Some(Place::Layer(layer)) => Ok(layer),
            Some(Place::Document(_) | Place::Gone(_)) => {
                Err(self.not_of_kind(member, "tar file, as a layer is"))
            }
            None => Err(self.missing(member)),
        }
    }

    fn holds(&self, member: &str) -> Result<bool, ArchiveError> {
        self.get(member).map(|place| place.is_some())
    }

    fn get(&self, member: &str) -> Result<Option<&Place>, ArchiveError> {
        let found = self.members.get(member);
        found.map_err(|_ambiguous| ArchiveError::Twice { path: self.path.clone(), member: shortened(member) })
    }

    fn not_of_kind(&self, member: &str, wanted: &'static str) -> ArchiveError {
        ArchiveError::NotOfKind { path: self.path.clone(), member: shortened(member), wanted }
    }

    fn missing(&self, member: &str) -> ArchiveError {
        ArchiveError::Missing { path: self.path.clone(), member: shortened(member) }
    }
}

impl Documents for Streamed<'_> {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let too_large = |size| {
            let (path, member) = (self.path.clone(), shortened(name));
            ArchiveError::TooLarge { path, member, size, limit }
        };
        match self.get(name)? {
            Some(Place::Document(content)) if content.len() as u64 <= limit => Ok(content.clone()),
            Some(Place::Document(content)) => Err(too_large(content.len() as u64)),
            Some(Place::Gone(size)) if *size > limit => Err(too_large(*size)),
            Some(Place::Gone(_) | Place::Layer(_)) => {
                Err(self.not_of_kind(name, "JSON document, or one of too many"))
            }
            None => Err(self.missing(name)),
        }
    }
}
