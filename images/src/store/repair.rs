//! Makes an image whole again whose parts did not reach the disk before a power cut.

use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::digest::Digest;
use crate::image::{Configuration, Image, parse_configuration};
use crate::limits::Limits;
use crate::manifest::Descriptor;

use super::catalog::NameRecord;
use super::claim::Claim;
use super::ingest::{Control, Expected};
use super::layers::{BlobInput, BuildError};
use super::{Store, StoreError, layout};

impl Store {
    /// Makes doubtful layers, and the image, again from blobs that verify; `None` if one does not:
    /// the image then has to be pulled again.
    pub(super) fn repair(&self, record: &NameRecord) -> Result<Option<Image>, StoreError> {
        let limits = Limits::default();
        let Some(configuration) = self.verified_configuration(record, &limits)? else { return Ok(None) };
        for (diff_id, blob) in configuration.diff_ids.iter().zip(&record.blobs) {
            if !self.has_layer(diff_id)? && !self.rebuild_layer(diff_id, blob, &limits)? {
                return Ok(None);
            }
        }
        self.build_image(&record.image, &configuration, &limits)?;
        self.image_of(record)
    }

    fn verified_configuration(
        &self,
        record: &NameRecord,
        limits: &Limits,
    ) -> Result<Option<Configuration>, StoreError> {
        let Some(json) = layout::read_small(&self.layout().blob(&record.image))? else { return Ok(None) };
        if record.image.verify(&json).is_err() {
            return Ok(None);
        }
        Ok(parse_configuration(&record.image, &json, record.blobs.len(), limits).ok())
    }

    fn rebuild_layer(
        &self,
        diff_id: &Digest,
        blob: &Descriptor,
        limits: &Limits,
    ) -> Result<bool, StoreError> {
        let path = self.layout().blob(&blob.digest);
        if !path.exists() {
            return Ok(false);
        }
        let claim = Claim::take(self.layout(), &blob.digest)?;
        let (cancelled, progress) = (AtomicBool::new(false), AtomicU64::new(0));
        let store = self.layout().root();
        let control = Control { limits, store, cancelled: &cancelled, progress: &progress };
        match self.build_layer(claim, &Expected { blob, diff_id }, BlobInput::Stored, &control) {
            Ok(()) => Ok(true),
            Err(BuildError::Store(error)) => Err(error),
            // Damaged, or refused by limits that are tighter now: a pull says why.
            Err(BuildError::Ingest(_)) => Ok(false),
        }
    }
}
