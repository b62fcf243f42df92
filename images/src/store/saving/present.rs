//! A layer that can be written from what the store has.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::inflate::Compression;
use crate::limits::Limits;
use crate::manifest::Descriptor;
use crate::save::{Layers, SaveError, SavedLayer, split_reader};
use crate::store::durable::Boot;
use crate::store::lease::Hold;
use crate::store::options::Cancel;
use crate::store::{Store, StoreError, layout, lock};

use super::{Found, Wanted};

/// What bounds the search, and ends it.
type Bounds<'a> = (&'a Limits, &'a Cancel);

impl Store {
    /// Looks at something that turned out to be damaged while it was saved, and drops it if it is: a blob is fetched by the
    /// next one who needs it, and a layer made again.
    ///
    /// # Errors
    ///
    /// I/O errors of the store.
    pub fn drop_damaged(&self, error: &SaveError) -> Result<(), StoreError> {
        let (SaveError::Content { blob, .. } | SaveError::Read { blob, .. }) = error else { return Ok(()) };
        self.is_whole(blob, &Cancel::default())?;
        self.distrust_split(blob)
    }

    /// The first that is there of what a layer may be written from; nothing if it has to be fetched.
    pub(super) fn present(
        &self,
        wanted: &Wanted,
        layers: Layers,
        bounds: Bounds<'_>,
    ) -> Result<Option<Found>, SaveError> {
        let own = self.layout().blob(&wanted.blob.digest);
        let own = is_of_size(&own, wanted.blob.size).then_some(own);
        if let Some(path) = &own {
            let as_it_came = SavedLayer::as_it_came(path, &wanted.blob, &wanted.diff_id);
            let as_it_came =
                as_it_came.map_err(|source| SaveError::Read { blob: wanted.blob.digest.clone(), source })?;
            let is_for = match layers {
                Layers::Plain => as_it_came.compression == Compression::None,
                Layers::AsTheyCame => as_it_came.compression != Compression::Other,
                Layers::Common => {
                    matches!(as_it_came.compression, Compression::None | Compression::Gzip)
                }
            };
            if is_for {
                return Ok(Some((as_it_came, None)));
            }
        } else if layers == Layers::AsTheyCame {
            return Ok(None);
        }
        // One that cannot be opened, or of another version, is as good as none.
        if let Some(files) = self.layer_split(&wanted.diff_id)?
            && let Ok(layer) = SavedLayer::split(files, &wanted.diff_id)
        {
            return Ok(Some((layer, None)));
        }
        if let Some(path) = &own
            && let Some(layer) = self.inflated((path, &wanted.blob), &wanted.diff_id, bounds)?
        {
            return Ok(Some((layer, None)));
        }
        match layers {
            Layers::AsTheyCame => Ok(None),
            Layers::Plain | Layers::Common => self.of_another(&wanted.diff_id, bounds),
        }
    }

    /// Another image's blob of the same layer. What its record says may be wrong: then it is passed over.
    fn of_another(&self, diff_id: &Digest, bounds: Bounds<'_>) -> Result<Option<Found>, SaveError> {
        let (blobs, hold) = {
            let _using = self.layout().lock_shared(&|| !bounds.1.is_cancelled())?;
            let blobs = self.blobs_of(diff_id)?;
            let paths: Vec<PathBuf> = blobs.iter().map(|blob| self.layout().blob(&blob.digest)).collect();
            (blobs, Arc::new(Hold::take(self.layout(), &paths)?))
        };
        for blob in &blobs {
            let path = self.layout().blob(&blob.digest);
            if let Some(layer) = self.inflated((&path, blob), diff_id, bounds)? {
                return Ok(Some((layer, Some(hold))));
            }
        }
        Ok(None)
    }

    /// The blobs that are there and said to be of a layer, each once.
    fn blobs_of(&self, diff_id: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        let (mut seen, mut blobs) = (HashSet::new(), Vec::new());
        for (record, _) in self.read_names()? {
            let Some(image) = self.image_record(&record.image)? else { continue };
            let of_layer = image.layers.iter().zip(record.blobs).filter(|(layer, _)| *layer == diff_id);
            for (_, blob) in of_layer {
                let is_there = is_of_size(&self.layout().blob(&blob.digest), blob.size);
                if is_there && seen.insert(blob.digest.clone()) {
                    blobs.push(blob);
                }
            }
        }
        Ok(blobs)
    }

    /// The tar stream of a blob; nothing if that is not the layer's. One that is damaged is removed.
    fn inflated(
        &self,
        (path, blob): (&Path, &Descriptor),
        diff_id: &Digest,
        (limits, cancel): Bounds<'_>,
    ) -> Result<Option<SavedLayer>, SaveError> {
        let scratch = self.layout().works();
        match SavedLayer::plain(path, blob, diff_id, ((&scratch, limits), cancel.flag())) {
            Ok(layer) => Ok(Some(layer)),
            Err(_) if cancel.is_cancelled() => Err(SaveError::Cancelled),
            Err(_other) => {
                self.is_whole(&blob.digest, cancel)?;
                Ok(None)
            }
        }
    }

    /// Whether a stored blob is what its name says; one that is not is removed.
    fn is_whole(&self, digest: &Digest, cancel: &Cancel) -> Result<bool, StoreError> {
        let path = self.layout().blob(digest);
        let mut file = match layout::open_regular(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(StoreError::file("open", &path))?,
        };
        let verified = digest.verify_stream(&mut file).map_err(StoreError::file("read", &path))?;
        if verified.is_ok() {
            return Ok(true);
        }
        let _one_at_a_time = self.lock_blobs(&|| !cancel.is_cancelled())?;
        // Meanwhile somebody may have put a whole one in its place.
        if lock::is_still_at(&file, &path).map_err(StoreError::file("look at", &path))? {
            layout::remove_file(&path)?;
        }
        Ok(false)
    }

    /// Takes a layer for doubtful whose files do not give its tar stream any more: what is mounted of it is damaged too.
    fn distrust_split(&self, diff_id: &Digest) -> Result<(), StoreError> {
        let Some(files) = self.layer_split(diff_id)? else { return Ok(()) };
        let [split, _] = &files;
        let file = layout::open_file(split)?;
        let is_layer = split_reader(&files).and_then(|mut stream| diff_id.verify_stream(&mut stream));
        if matches!(is_layer, Ok(Ok(()))) {
            return Ok(());
        }
        let _one_at_a_time = self.lock_layers(&|| true)?;
        // Meanwhile somebody may have made it again.
        if lock::is_still_at(&file, split).map_err(StoreError::file("look at", split))? {
            Boot::distrust(&self.layout().layer(diff_id))?;
        }
        Ok(())
    }
}

/// Whether a file is there that may be a blob of that size.
pub(super) fn is_of_size(path: &Path, size: u64) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.len() == size)
}
