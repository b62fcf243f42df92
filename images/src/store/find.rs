//! Finds an image by its name, and makes it whole again where its parts did not survive: a power
//! cut, a damaged disk, a program of another version.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::digest::Digest;
use crate::image::{Configuration, Image, parse_configuration};
use crate::layer::Budget;
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::source::Source;

use super::catalog::{Asked, NameRecord, store_name};
use super::claim::{Claim, Work};
use super::durable::Boot;
use super::ingest::{Control, Expected};
use super::layers::{BlobInput, BuildError};
use super::lease::{Hold, Lease};
use super::stream::StreamName;
use super::waiting::{in_thread, unless_cancelled};
use super::{PullError, PullOptions, Store, StoreError, layout};

impl Store {
    /// The image of that name, leased, if it is there whole or can be made so from what is there. Of a
    /// local source: always `None`, since the file may have changed; pulling it again reads no layer
    /// that is there.
    ///
    /// After a power cut this may take as long as unpacking the image again. Cancelling ends the wait,
    /// and soon the work.
    ///
    /// # Errors
    ///
    /// I/O errors of the store; [`PullError::Cancelled`].
    pub async fn find(&self, source: &Source, options: &PullOptions) -> Result<Option<Lease>, PullError> {
        let Source::Registry(reference) = source else { return Ok(None) };
        self.find_in_thread(Some(reference.clone()), store_name(source), options).await
    }

    /// The same for an image that came as a stream.
    ///
    /// # Errors
    ///
    /// As [`Store::find`].
    pub async fn find_stream(
        &self,
        name: &StreamName,
        options: &PullOptions,
    ) -> Result<Option<Lease>, PullError> {
        self.find_in_thread(None, name.to_string(), options).await
    }

    /// Whether an image that is there by that name may be for us only: its registry had been told who we are when it came.
    /// Of one whose coming was not noted: no.
    ///
    /// # Errors
    ///
    /// I/O errors of the store; [`PullError::Cancelled`].
    pub async fn is_private(&self, reference: &Reference, options: &PullOptions) -> Result<bool, PullError> {
        let name = store_name(&Source::Registry(reference.clone()));
        let (store, reference, cancel) = (self.clone(), reference.clone(), options.cancel.clone());
        let called = name.clone();
        let look = move || {
            let _using = store.layout().lock_shared(&|| !cancel.is_cancelled())?;
            let record = store.named(Some(&reference), &name)?;
            Ok(record.is_some_and(|record| record.asked == Some(Asked::AsOurselves)))
        };
        unless_cancelled(&options.cancel, &called, in_thread(look, drop)).await?.map_err(PullError::from)
    }

    /// The same by a name of [`Store::names`], whatever it is the name of.
    ///
    /// # Errors
    ///
    /// As [`Store::find`].
    pub async fn find_named(&self, name: &str, options: &PullOptions) -> Result<Option<Lease>, PullError> {
        self.find_in_thread(None, name.to_owned(), options).await
    }

    async fn find_in_thread(
        &self,
        reference: Option<Reference>,
        name: String,
        options: &PullOptions,
    ) -> Result<Option<Lease>, PullError> {
        let (store, wanted, options) = (self.clone(), name.clone(), options.clone());
        let cancel = options.cancel.clone();
        // Anything that is found too late for the caller is let go.
        let found = in_thread(move || store.find_now(reference.as_ref(), &wanted, &options), drop);
        Ok(unless_cancelled(&cancel, &name, found).await??)
    }

    fn find_now(
        &self,
        reference: Option<&Reference>,
        name: &str,
        options: &PullOptions,
    ) -> Result<Option<Lease>, StoreError> {
        let using = self.layout().lock_shared(&|| !options.cancel.is_cancelled())?;
        let Some(record) = self.named(reference, name)? else { return Ok(None) };
        let configuration = match self.image_record(&record.image)? {
            Some(_) => None,
            None => self.verified_configuration(&record, options)?,
        };
        let mut objects = self.objects_of(&record)?;
        let layers = configuration.iter().flat_map(|configuration| &configuration.diff_ids);
        objects.extend(layers.map(|layer| self.layout().layer(layer)));
        let hold = Hold::take(self.layout(), &objects)?;
        self.touch_name(&record.name)?;
        drop(using);
        let image = match self.image_of(&record)? {
            Some(image) => image,
            None => match self.repair(&record, options)? {
                Some(image) => image,
                None => return Ok(None),
            },
        };
        if !Boot::is_durable(&self.layout().image(&image.id)) {
            self.settle_in_background();
        }
        Ok(Some(Lease::new(image, Arc::new(hold))))
    }

    /// What is noted under a name, or of any name that led to its digest.
    fn named(&self, reference: Option<&Reference>, name: &str) -> Result<Option<NameRecord>, StoreError> {
        let by_digest = reference.and_then(|reference| Some((reference, reference.digest()?)));
        Ok(match (self.read_name(name)?, by_digest) {
            (None, Some((reference, digest))) => {
                self.read_names()?.into_iter().map(|(record, _)| record).find(|record| {
                    [&record.manifest, &record.resolved].contains(&digest) && record.is_of(reference)
                })
            }
            (named, _) => named,
        })
    }

    /// Everything of the store that an image under this name needs.
    pub(super) fn objects_of(&self, record: &NameRecord) -> Result<Vec<PathBuf>, StoreError> {
        let layout = self.layout();
        let layers = self.image_record(&record.image)?.map(|image| image.layers).unwrap_or_default();
        let mut objects = vec![layout.image(&record.image), layout.blob(&record.image)];
        objects.push(layout.blob(&record.manifest));
        objects.extend(layers.iter().map(|layer| layout.layer(layer)));
        objects.extend(record.blobs.iter().map(|blob| layout.blob(&blob.digest)));
        Ok(objects)
    }

    /// Makes doubtful layers, and the image, again from blobs that verify; `None` if one does not:
    /// the image then has to be pulled again.
    fn repair(&self, record: &NameRecord, options: &PullOptions) -> Result<Option<Image>, StoreError> {
        let Some(configuration) = self.verified_configuration(record, options)? else { return Ok(None) };
        for _ in 0..=configuration.diff_ids.len() {
            let budget = Budget::new(&options.limits);
            for (diff_id, blob) in configuration.diff_ids.iter().zip(&record.blobs) {
                if !self.has_layer(diff_id)? && !self.rebuild_layer(diff_id, blob, (options, &budget))? {
                    return Ok(None);
                }
            }
            let claim = self.claim(&Work::image(&record.image), options)?;
            match self.build_image(claim, &record.image, &configuration, &options.limits) {
                Ok(()) => return self.image_of(record),
                Err(error) => self.distrust_index(error)?,
            }
        }
        Ok(None)
    }

    /// Takes a layer for doubtful whose index cannot be read; any other error is given back.
    pub(super) fn distrust_index(&self, error: StoreError) -> Result<(), StoreError> {
        match &error {
            StoreError::Index { path, .. } => Boot::distrust(path.parent().unwrap_or(Path::new(""))),
            _ => Err(error),
        }
    }

    fn verified_configuration(
        &self,
        record: &NameRecord,
        options: &PullOptions,
    ) -> Result<Option<Configuration>, StoreError> {
        let Some(json) = layout::read_small(&self.layout().blob(&record.image))? else { return Ok(None) };
        if record.image.verify(&json).is_err() {
            return Ok(None);
        }
        Ok(parse_configuration(&record.image, &json, record.blobs.len(), &options.limits).ok())
    }

    /// Waits for whoever has the claim, as long as a pull may take.
    fn claim(&self, of: &Work, options: &PullOptions) -> Result<Claim, StoreError> {
        let wanted = || !options.cancel.is_cancelled();
        Claim::take(self.layout(), of, self.layout().at_most(options.limits.pull, &wanted))
    }

    fn rebuild_layer(
        &self,
        diff_id: &Digest,
        blob: &Descriptor,
        (options, budget): (&PullOptions, &Budget),
    ) -> Result<bool, StoreError> {
        let claim = self.claim(&Work::local_blob(&blob.digest), options)?;
        let stored = if self.has_layer(diff_id)? { None } else { self.stored_blob(&blob.digest)? };
        let Some(stored) = stored else {
            claim.leave()?;
            return self.has_layer(diff_id);
        };
        let control = Control {
            budget,
            store: self.layout().root(),
            scratch: &self.layout().works(),
            cancelled: options.cancel.flag(),
            progress: &AtomicU64::new(0),
        };
        match self.build_layer(claim, &Expected { blob, diff_id }, BlobInput::Stored(stored), &control) {
            Ok(()) => Ok(true),
            Err(BuildError::Store(error)) => Err(error),
            // Damaged, or refused by limits that are tighter now: a pull says why.
            Err(BuildError::Ingest(_)) => Ok(false),
        }
    }

    /// Brings what was committed to disk and marks it, without anyone waiting. If it fails or the
    /// process ends first, the marks stay as they are, and whoever uses the image next tries again.
    pub(super) fn settle_in_background(&self) {
        let store = self.clone();
        let settle = move || drop(store.boot().settle(store.layout()));
        drop(std::thread::Builder::new().name("store-settle".to_owned()).spawn(settle));
    }
}
