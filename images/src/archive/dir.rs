//! skopeo's `dir:`: one image in a flat directory, `manifest.json` and its blobs by their hex digits.

use crate::digest::Digest;
use crate::limits::Limits;
use crate::manifest::{self, Document, ManifestError, Platform};

use super::{ArchiveError, Archived, Container, oci, read_verified};

const MANIFEST: &str = "manifest.json";

pub(super) fn image(
    directory: &Container,
    platform: &Platform,
    limits: &Limits,
) -> Result<Archived, ArchiveError> {
    let refused = |source| ArchiveError::Manifest { path: directory.path().to_owned(), source };
    let mut body = directory.read(MANIFEST, limits.manifest_bytes)?;
    let mut digest = Digest::of(&body);
    for _ in 0..=limits.index_nesting {
        match manifest::parse(&digest, &body, None, limits).map_err(refused)? {
            Document::Manifest(manifest) => {
                return oci::offered(directory, digest, body, manifest, (blob_name, limits));
            }
            Document::Index(index) => {
                let chosen = index.select(&digest, platform).map_err(refused)?;
                let member = format!("{}.{MANIFEST}", chosen.digest.hex());
                body = read_verified(directory, &member, &chosen, limits.manifest_bytes)?;
                digest = chosen.digest;
            }
        }
    }
    Err(refused(ManifestError::Nesting { digest, limit: limits.index_nesting }))
}

fn blob_name(digest: &Digest) -> String {
    digest.hex().to_owned()
}
