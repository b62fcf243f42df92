//! A layer that can be written from what the store has.

use std::collections::HashSet;
use std::io::{self, Read};
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
    /// next one who needs it, and a layer made again. That takes as long as reading it; `cancel` is looked at for each piece.
    ///
    /// # Errors
    ///
    /// I/O errors of the store; [`StoreError::Unwanted`] if it was cancelled.
    pub fn drop_damaged(&self, error: &SaveError, cancel: &Cancel) -> Result<(), StoreError> {
        let (SaveError::Content { blob, .. } | SaveError::Read { blob, .. }) = error else { return Ok(()) };
        self.is_whole(blob, cancel)?;
        self.distrust_split(blob, cancel)
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
        if let Some(files) = self.layer_split(&wanted.diff_id)? {
            match SavedLayer::split(files, &wanted.diff_id) {
                Ok(layer) => return Ok(Some((layer, None))),
                Err(source) if is_of_host(&source) => {
                    return Err(SaveError::Read { blob: wanted.diff_id.clone(), source });
                }
                // A damaged one, or of another version, is as good as none.
                Err(_) => {}
            }
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
            Err(SaveError::Read { blob, source }) if is_of_host(&source) => {
                Err(SaveError::Read { blob, source })
            }
            Err(_of_content) => {
                self.is_whole(&blob.digest, cancel)?;
                Ok(None)
            }
        }
    }

    /// Whether a stored blob is what its name says; one that is not, or that the disk does not give any more, is removed.
    fn is_whole(&self, digest: &Digest, cancel: &Cancel) -> Result<bool, StoreError> {
        let path = self.layout().blob(digest);
        let mut file = match layout::open_regular(&path) {
            Err(error) if !is_of_host(&error) => return Ok(false),
            opened => opened.map_err(StoreError::file("open", &path))?,
        };
        let verified = digest.verify_stream(&mut Heard(&mut file, cancel));
        match verified {
            _ if cancel.is_cancelled() => return Err(StoreError::Unwanted { path }),
            Ok(Ok(())) => return Ok(true),
            Err(error) if is_of_host(&error) => return Err(StoreError::file("read", &path)(error)),
            Ok(Err(_)) | Err(_) => {}
        }
        let _one_at_a_time = self.lock_blobs(&|| !cancel.is_cancelled())?;
        // Meanwhile somebody may have put a whole one in its place.
        if lock::is_still_at(&file, &path).map_err(StoreError::file("look at", &path))? {
            layout::remove_file(&path)?;
        }
        Ok(false)
    }

    /// Takes a layer for doubtful whose files do not give its tar stream any more: what is mounted of it is damaged too.
    fn distrust_split(&self, diff_id: &Digest, cancel: &Cancel) -> Result<(), StoreError> {
        let Some(files) = self.layer_split(diff_id)? else { return Ok(()) };
        let [split, _] = &files;
        let file = layout::open_file(split)?;
        let stream = split_reader(&files);
        match stream.and_then(|stream| diff_id.verify_stream(&mut Heard(stream, cancel))) {
            _ if cancel.is_cancelled() => return Err(StoreError::Unwanted { path: split.clone() }),
            Ok(Ok(())) => return Ok(()),
            // Another version's: of the layer it says nothing.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
            Err(error) if is_of_host(&error) => return Err(StoreError::file("read", split)(error)),
            Ok(Err(_)) | Err(_) => {}
        }
        let _one_at_a_time = self.lock_layers(&|| !cancel.is_cancelled())?;
        // Meanwhile somebody may have made it again.
        if lock::is_still_at(&file, split).map_err(StoreError::file("look at", split))? {
            Boot::distrust(&self.layout().layer(diff_id))?;
        }
        Ok(())
    }
}

/// What is read until it is cancelled.
struct Heard<'a, R>(R, &'a Cancel);

impl<R: Read> Read for Heard<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.is_cancelled() { Err(io::Error::other("cancelled")) } else { self.0.read(buffer) }
    }
}

/// What the kernel says of a file that it cannot give as it was: the medium, or what the file system has of it, is damaged,
/// or it is gone.
const OF_THE_FILE: [i32; 4] = [libc::EIO, libc::EBADMSG, libc::EUCLEAN, libc::ENOENT];

/// Whether an error is this host's, as of a full disk or too many open files: of what was read it says nothing.
fn is_of_host(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(number) => !OF_THE_FILE.contains(&number),
        None => matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::OutOfMemory
        ),
    }
}

/// Whether a file is there that may be a blob of that size.
pub(super) fn is_of_size(path: &Path, size: u64) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.len() == size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_lacks_says_nothing_of_a_file() {
        for number in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOSPC, libc::EACCES] {
            assert!(is_of_host(&io::Error::from_raw_os_error(number)), "{number}");
        }
        for number in [libc::EIO, libc::EBADMSG, libc::EUCLEAN] {
            assert!(!is_of_host(&io::Error::from_raw_os_error(number)), "{number}");
        }
        for kind in [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof, io::ErrorKind::Other] {
            assert!(!is_of_host(&kind.into()), "{kind:?}");
        }
    }
}
