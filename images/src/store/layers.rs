//! Layers: made once from a blob, found by diff id.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use hyper::body::Bytes;

use crate::digest::Digest;
use crate::layer::{LayerIndex, ReadIndexError};
use crate::manifest::Descriptor;

use super::claim::Claim;
use super::durable::Soundness;
use super::ingest::{self, Chunks, Control, Expected, Failure, Found, IngestError, LayerFiles, Streams};
use super::lock::Lock;
use super::{Store, StoreError, layout, lock};

const DATA: &str = "data";
const INDEX: &str = "index";
const SPLIT: &str = "split";

/// Where a layer's blob comes from.
pub(crate) enum BlobInput<'a> {
    /// A file of the store. Its name may lead to another one by now, or to none.
    Stored(File),
    /// From outside: the bytes behind those that the claim's partial file holds.
    Stream(Box<dyn Read + Send + 'a>),
}

/// Why a layer could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a member of an archive could not be made a layer.
#[derive(Debug)]
pub(crate) enum MemberError {
    /// The archive, or the layer.
    Failed(Failure),
    Store(StoreError),
}

impl From<Failure> for MemberError {
    fn from(failure: Failure) -> MemberError {
        MemberError::Failed(failure)
    }
}

impl From<StoreError> for MemberError {
    fn from(error: StoreError) -> MemberError {
        MemberError::Store(error)
    }
}

impl Store {
    /// Whether a layer is there and can be trusted.
    pub(super) fn has_layer(&self, diff_id: &Digest) -> Result<bool, StoreError> {
        let layer = self.layout().layer(diff_id);
        Ok(self.boot().soundness(&layer)? == Soundness::Sound)
    }

    /// The same for what is to be built on: a layer whose index is damaged becomes doubtful.
    pub(super) fn intact_layer(&self, diff_id: &Digest) -> Result<Option<LayerIndex>, StoreError> {
        if !self.has_layer(diff_id)? {
            return Ok(None);
        }
        match self.layer_index(diff_id) {
            Ok(index) => Ok(Some(index)),
            Err(error) => self.distrust_index(error).map(|()| None),
        }
    }

    /// Where a layer's file contents lie.
    pub(super) fn layer_data(&self, diff_id: &Digest) -> PathBuf {
        self.layout().layer(diff_id).join(DATA)
    }

    /// The files that a layer's tar stream is written from again: what is between the contents, and these. Whoever made
    /// the layer may have been too old to keep the first.
    pub(super) fn layer_split(&self, diff_id: &Digest) -> Result<Option<[PathBuf; 2]>, StoreError> {
        let layer = self.layout().layer(diff_id);
        let files = [SPLIT, DATA].map(|name| layer.join(name));
        let is_there = self.has_layer(diff_id)? && files.iter().all(|file| file.is_file());
        Ok(is_there.then_some(files))
    }

    /// Opens a layer's index and verifies it.
    pub(super) fn layer_index(&self, diff_id: &Digest) -> Result<LayerIndex, StoreError> {
        let path = self.layout().layer(diff_id).join(INDEX);
        let read = layout::open_regular(&path).map_err(ReadIndexError::Read);
        let read = read.and_then(LayerIndex::open);
        read.map_err(|source| StoreError::Index { path, source })
    }

    /// Opens a blob, if it is there.
    pub(super) fn stored_blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let path = self.layout().blob(digest);
        match layout::open_regular(&path) {
            Ok(blob) => Ok(Some(blob)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::file("open", &path)(error)),
        }
    }

    /// Makes a layer under the claim on its blob, verifies both digests, and commits layer and
    /// blob. On error the claim is given up and nothing of the layer remains but what has been
    /// fetched, nor a stored blob that turns out to be damaged.
    pub(super) fn build_layer(
        &self,
        claim: Claim,
        expected: &Expected<'_>,
        mut input: BlobInput<'_>,
        control: &Control<'_>,
    ) -> Result<(), BuildError> {
        match self.build_in_work(&claim, expected, &mut input, control) {
            Ok(BlobKept::InPartial) => {
                let blob = self.layout().blob(&expected.blob.digest);
                let wanted = || !control.cancelled.load(Ordering::Acquire);
                match self.lock_blobs(&wanted) {
                    Ok(_one_at_a_time) => Ok(claim.commit(&blob)?),
                    Err(error) => {
                        claim.leave()?;
                        Err(error.into())
                    }
                }
            }
            Ok(BlobKept::Already) => Ok(claim.release()?),
            Err(error) => {
                let error = match input {
                    BlobInput::Stored(blob) => self.blamed_on_blob((&blob, expected.blob), error, control),
                    BlobInput::Stream(_) => Ok(error),
                };
                claim.leave()?;
                Err(error?)
            }
        }
    }

    /// Removes a stored blob that is not what its own digest says, whatever a manifest claims its size
    /// to be: [`IngestError::Digest`] then is the error. It is the very file that was read: by its name there may be a
    /// whole one by now, which somebody with a claim on another registry's has put there.
    fn blamed_on_blob(
        &self,
        (mut file, blob): (&File, &Descriptor),
        error: BuildError,
        control: &Control<'_>,
    ) -> Result<BuildError, StoreError> {
        if !matches!(&error, BuildError::Ingest(error) if error.is_of_content()) {
            return Ok(error);
        }
        let path = self.layout().blob(&blob.digest);
        let verified = file.rewind().and_then(|()| blob.digest.verify_stream(&mut file));
        match verified {
            Ok(Ok(())) => Ok(error),
            Ok(Err(found)) => {
                let _one_at_a_time = self.lock_blobs(&|| !control.cancelled.load(Ordering::Acquire))?;
                if lock::is_still_at(file, &path).map_err(StoreError::file("look at", &path))? {
                    layout::remove_file(&path)?;
                }
                Ok(BuildError::Ingest(IngestError::Digest { found }))
            }
            Err(error) => Err(StoreError::file("read", &path)(error)),
        }
    }

    /// Who commits a blob, or takes a damaged one away, does so alone: others may have claims on the same digest.
    pub(super) fn lock_blobs(&self, wanted: &dyn Fn() -> bool) -> Result<Lock, StoreError> {
        lock::exclusive_directory(&self.layout().blobs(), self.layout().moments(wanted))
    }

    /// The same with a layer, by its diff id.
    pub(super) fn lock_layers(&self, wanted: &dyn Fn() -> bool) -> Result<Lock, StoreError> {
        lock::exclusive_directory(&self.layout().layers(), self.layout().moments(wanted))
    }

    fn build_in_work(
        &self,
        claim: &Claim,
        expected: &Expected<'_>,
        input: &mut BlobInput<'_>,
        control: &Control<'_>,
    ) -> Result<BlobKept, BuildError> {
        let work = claim.fresh_work()?;
        let parts = create_files(work)?;
        let (streams, kept) = match input {
            BlobInput::Stored(blob) => {
                let input = Box::new(&*blob);
                let streams = Streams { input, keep: None, kept_bytes: 0, parts: &parts };
                (streams, BlobKept::Already)
            }
            BlobInput::Stream(rest) => (resumed(claim, rest, &parts)?, BlobKept::InPartial),
        };
        ingest::ingest(expected, streams, control)?;
        self.boot().mark(work)?;
        self.commit_layer(work, expected.diff_id, &|| !control.cancelled.load(Ordering::Acquire))?;
        Ok(kept)
    }

    /// Takes in a layer that is a member of an archive: its parts go into `directory`, which is made. Nothing is committed.
    pub(super) fn index_member(
        &self,
        directory: &Path,
        (first, rest): (Bytes, Chunks<'_>),
        window_bytes: u64,
        control: &Control<'_>,
    ) -> Result<Found, MemberError> {
        layout::make_directory(directory)?;
        let files = create_files(directory)?;
        let found = ingest::ingest_unknown(first, rest, &files, window_bytes, control)?;
        self.boot().mark(directory)?;
        Ok(found)
    }

    /// Another blob may give the same layer: then whoever commits first is as good as the second. The
    /// lock keeps one from taking the other's away again, who looked when there was none. It is waited for while the
    /// layer is `wanted`.
    pub(super) fn commit_layer(
        &self,
        made: &Path,
        diff_id: &Digest,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        let layer = self.layout().layer(diff_id);
        let one_at_a_time = self.lock_layers(wanted)?;
        if self.has_layer(diff_id)? {
            return Ok(());
        }
        let doubtful = layout::set_aside(self.layout(), &layer)?;
        layout::commit(made, &layer)?;
        drop(one_at_a_time);
        doubtful.map_or(Ok(()), |doubtful| layout::remove_set_aside(&doubtful))
    }
}

fn create_files(directory: &Path) -> Result<LayerFiles, StoreError> {
    let create = |name| layout::create_file(&directory.join(name));
    Ok(LayerFiles { data: create(DATA)?, index: create(INDEX)?, split: create(SPLIT)? })
}

/// Whether the blob is in the store already or becomes so with the claim's commit.
enum BlobKept {
    Already,
    InPartial,
}

/// What the partial file holds, then the rest, which is appended to it.
fn resumed<'a>(
    claim: &'a Claim,
    rest: &'a mut (dyn Read + Send),
    parts: &'a LayerFiles,
) -> Result<Streams<'a>, StoreError> {
    let kept_bytes = claim.partial_bytes()?;
    let beginning = layout::open_file(claim.path())?.take(kept_bytes);
    let mut keep = claim.file();
    keep.seek(SeekFrom::Start(kept_bytes)).map_err(StoreError::file("seek in", claim.path()))?;
    Ok(Streams { input: Box::new(beginning.chain(rest)), keep: Some(claim.file()), kept_bytes, parts })
}
