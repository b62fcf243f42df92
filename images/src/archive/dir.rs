//! skopeo's `dir:`: one image in a flat directory, `manifest.json` and its blobs by their hex digits.

use crate::digest::Digest;
use crate::limits::Limits;
use crate::manifest::Platform;

use super::{ArchiveError, Archived, Documents, Places, resolved};

const MANIFEST: &str = "manifest.json";
const PLACES: Places = Places {
    document: |digest| format!("{}.{MANIFEST}", digest.hex()),
    blob: |digest| digest.hex().to_owned(),
};

pub(super) fn image(
    directory: &dyn Documents,
    platform: &Platform,
    limits: &Limits,
) -> Result<Archived, ArchiveError> {
    let body = directory.read(MANIFEST, limits.manifest_bytes)?;
    resolved(directory, (Digest::of(&body), body), PLACES, (platform, limits))
}
