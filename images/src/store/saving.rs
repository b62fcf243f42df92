//! What an archive of an image is written from: its documents as they are kept, and for each layer the first that is there.
//!
//! ```text
//!                                   tar streams are written       blobs are written as they came
//!  its blob                         1 if nothing compressed it    1 unless no manifest can tell what compressed it
//!  its blob, from its registry      5, then as above              2 if it is not there
//!  data and split                   2                             3
//!  its blob, inflated               3                             4
//!  another image's blob, inflated   4                             5 if its own is nowhere
//! ```
//!
//! Where none is there, saving is refused. Whatever it is, it is verified: a layer is never made up of what it was unpacked
//! into, as its digest would be another one.

use std::sync::Arc;

use tokio::time::Instant;

use crate::digest::Digest;
use crate::image::{Image, parse_configuration};
use crate::manifest::{self, Descriptor, Document};
use crate::reference::Reference;
use crate::save::{Layers, Manifest, SaveError, SavedImage, SavedLayer};

use super::lease::{Hold, Lease};
use super::options::{PullEvent, PullOptions};
use super::pull::Events;
use super::waiting::in_thread;
use super::{Store, StoreError, layout};

mod fetching;
mod present;

/// A blob of a layer, and the layer.
#[derive(Clone)]
struct Wanted {
    blob: Descriptor,
    diff_id: Digest,
}

/// A layer that can be written, and what holds it besides the image's lease.
type Found = (SavedLayer, Option<Arc<Hold>>);

/// Where an image came from, and until when what is missing of it may come from there again.
struct Origin {
    /// What the image is called, for messages.
    name: String,
    /// What its registry calls it; nothing if it came from none. An archive calls its images what it likes: whose registry
    /// was not noted to have been asked, that has nothing to do with it.
    registry: Option<Reference>,
    /// For all layers together.
    deadline: Instant,
}

/// What is kept of an image's documents.
struct Kept {
    manifest: Manifest,
    /// Whether every reader of OCI layouts takes it.
    is_common: bool,
    config: Vec<u8>,
    layers: Vec<Wanted>,
}

impl Store {
    /// Prepares a leased image to be written into an archive under `names`. Layers that the store has nothing of any more
    /// that could be written are fetched, all of them within the time for a pull.
    ///
    /// # Errors
    ///
    /// [`SaveError`]
    pub async fn prepare_save(
        &self,
        lease: &Lease,
        (names, layers): (Vec<Reference>, Layers),
        options: &PullOptions,
        events: Events<'_>,
    ) -> Result<SavedImage, SaveError> {
        let origin = self.origin(lease.image(), options)?;
        let kept = self.kept_documents(lease, options)?;
        let blobs: Vec<_> = kept.layers.iter().map(|layer| layer.blob.clone()).collect();
        let mut saved = Vec::new();
        let mut holds = vec![lease.hold()];
        for wanted in kept.layers {
            let (layer, hold) = self.saved_layer(&origin, wanted, layers, (options, events)).await?;
            saved.push(layer);
            holds.extend(hold);
        }
        // One that names other blobs than are written is no manifest of this archive.
        let is_kept = kept.is_common && saved.iter().map(|layer| &layer.blob).eq(&blobs);
        let manifest = if is_kept { kept.manifest } else { Manifest::of(&kept.config, &saved) };
        Ok(SavedImage { names, config: kept.config, manifest, layers: saved, _holds: holds })
    }

    fn origin(&self, image: &Image, options: &PullOptions) -> Result<Origin, StoreError> {
        let name = image.name.clone();
        // By its name there may be another one by now.
        let came =
            self.read_name(&name)?.filter(|record| record.manifest == image.digest && record.asked.is_some());
        let registry = came.and_then(|record| Reference::parse(&record.name).ok());
        Ok(Origin { name, registry, deadline: Instant::now() + options.limits.pull })
    }

    fn kept_documents(&self, lease: &Lease, options: &PullOptions) -> Result<Kept, SaveError> {
        let image = lease.image();
        let read = |digest: &Digest| {
            let content = layout::read_small(&self.layout().blob(digest))?;
            let content = content.filter(|content| digest.verify(content).is_ok());
            let damaged = || SaveError::Document { name: image.name.clone(), digest: digest.clone() };
            content.ok_or_else(damaged)
        };
        let (content, config) = (read(&image.digest)?, read(&image.id)?);
        let damaged = || SaveError::Document { name: image.name.clone(), digest: image.digest.clone() };
        let Ok(Document::Manifest(parsed)) = manifest::parse(&image.digest, &content, None, &options.limits)
        else {
            return Err(damaged());
        };
        let configuration = parse_configuration(&image.id, &config, parsed.layers.len(), &options.limits)?;
        let (media_type, is_common) = manifest::kind(&content).ok_or_else(damaged)?;
        let layers = parsed.layers.into_iter().zip(configuration.diff_ids);
        let layers = layers.map(|(blob, diff_id)| Wanted { blob, diff_id }).collect();
        Ok(Kept { manifest: Manifest { media_type, content }, is_common, config, layers })
    }

    async fn saved_layer(
        &self,
        origin: &Origin,
        wanted: Wanted,
        layers: Layers,
        (options, events): (&PullOptions, Events<'_>),
    ) -> Result<Found, SaveError> {
        if let Some(found) = self.look_for(&wanted, layers, options).await? {
            return Ok(found);
        }
        match self.fetch_blob(origin, &wanted.blob, (options, events)).await {
            Ok(()) => {
                let lost = SaveError::Content { blob: wanted.blob.digest.clone(), found: None };
                self.look_for(&wanted, layers, options).await?.ok_or(lost)
            }
            // Nobody has it, and the tar stream is the layer as well.
            Err(error @ (SaveError::NotKept { .. } | SaveError::Lost { .. }))
                if layers == Layers::AsTheyCame =>
            {
                let found = self.look_for(&wanted, Layers::Plain, options).await?;
                if let (Some(_), SaveError::Lost { .. }) = (&found, &error) {
                    let layer = wanted.blob.digest.short();
                    events(PullEvent::Status(format!(
                        "WARNING: Layer {layer} could not be fetched as it came: its tar stream is saved"
                    )));
                }
                found.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Reading takes as long as it takes; nobody waits for it who was cancelled.
    async fn look_for(
        &self,
        wanted: &Wanted,
        layers: Layers,
        options: &PullOptions,
    ) -> Result<Option<Found>, SaveError> {
        let (store, wanted, limits) = (self.clone(), wanted.clone(), options.limits.clone());
        let cancel = options.cancel.clone();
        let look = move || Ok(store.present(&wanted, layers, (&limits, &cancel)));
        tokio::select! {
            found = in_thread(look, drop) => found?,
            () = options.cancel.cancelled() => Err(SaveError::Cancelled),
        }
    }
}
