//! A layer's way into the store: one pass over the stream, one thread for each stage.
//!
//! ```text
//!  network, file ──► blob ──────────► inflate ─────┬──► hash ──► diff id
//!                    sha256, size,    gzip, zstd   │
//!                    kept on disk     or neither   └──► index_layer ──► data, index, split
//! ```
//!
//! The stages are joined by short channels, so memory is bounded and the whole runs at the speed of
//! its slowest part, which is inflating. Hashing the output has a thread of its own because it would
//! take a quarter of the inflating thread's time.
//!
//! Nothing here decides what is visible: the caller commits after every stage has agreed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use hyper::body::Bytes;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer::{Budget, IndexLayerError, Parts, index_layer};
use crate::manifest::Descriptor;

use crate::disk::DiskFull;
use crate::inflate::{Inflate, InflateError, Room, WINDOWS};

mod channel;
mod unknown;

pub(super) use channel::{ChunkReader, NetworkReader};
pub(super) use unknown::{Chunks, Failure, Found, ingest_unknown};

/// Bytes of one chunk between stages, and how many may wait: 1 MiB on each of three channels.
pub(super) const CHUNK_BYTES: usize = 128 << 10;
pub(super) const CHUNKS_WAITING: usize = 8;

/// What a layer has to be.
pub(crate) struct Expected<'a> {
    /// The blob's digest and size, by the manifest.
    pub blob: &'a Descriptor,
    /// The digest of the inflated stream, by the configuration.
    pub diff_id: &'a Digest,
}

/// Where a layer comes from and where its parts go.
pub(crate) struct Streams<'a> {
    /// The blob's bytes, all of them.
    pub input: Box<dyn Read + Send + 'a>,
    /// Where the blob is kept, positioned behind what it holds already; `None` if it is there.
    pub keep: Option<&'a File>,
    /// How many of the first bytes of `input` are in `keep` already.
    pub kept_bytes: u64,
    pub parts: &'a LayerFiles,
}

/// A layer's files, open and empty.
pub(crate) struct LayerFiles {
    pub data: File,
    pub index: File,
    /// What is between the contents.
    pub split: File,
}

impl LayerFiles {
    /// For the indexer, which watches a directory's free space.
    fn within<'a>(&'a self, store: &'a Path) -> Parts<'a> {
        let LayerFiles { data, index, split } = self;
        Parts { data, index, split: Some(split), disk: Some(store) }
    }
}

/// What watches and bounds the work.
pub(crate) struct Control<'a> {
    /// The limits, and what other layers of the image have taken of them.
    pub budget: &'a Budget,
    /// The store's directory, whose free space is watched.
    pub store: &'a Path,
    /// Where files without a name go.
    pub scratch: &'a Path,
    /// Ends all stages soon.
    pub cancelled: &'a AtomicBool,
    /// Counts the blob's bytes as they come.
    pub progress: &'a AtomicU64,
}

/// Why a layer was not taken in. The caller adds which layer.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The stream broke off; where it comes from knows why.
    #[error("read the layer's bytes")]
    Input(#[source] io::Error),
    /// Fewer bytes than the manifest says.
    #[error("verify the layer: it ends after {found} of {size} bytes; fetch or push it again")]
    TooShort {
        /// Bytes there were.
        found: u64,
        /// Bytes by the manifest.
        size: u64,
    },
    /// More bytes than the manifest says.
    #[error("verify the layer: it has more than the {size} bytes that its manifest says; push it again")]
    TooLong {
        /// Bytes by the manifest.
        size: u64,
    },
    /// Other content than the manifest says.
    #[error("verify the layer: its content has digest {found}; fetch or push it again")]
    Digest {
        /// What was computed.
        found: Digest,
    },
    /// Other content than the configuration says.
    #[error(
        "verify the layer: inflated, it has digest {found} and the configuration says {expected}; rebuild the image"
    )]
    DiffId {
        /// What was computed.
        found: Digest,
        /// What the configuration says.
        expected: Digest,
    },
    /// Not what its first bytes promise, damaged, or with a window beyond the limit.
    #[error("inflate the layer; rebuild the image")]
    Inflate(#[source] io::Error),
    /// A bomb.
    #[error("inflate the layer: it grows beyond the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The tar stream holds what an image may not.
    #[error(transparent)]
    Index(IndexLayerError),
    /// The blob could not be kept.
    #[error("keep the layer's blob")]
    Keep(#[source] io::Error),
    /// The reserve of free space is reached.
    #[error(transparent)]
    DiskFull(DiskFull),
    /// Cancelled.
    #[error("take the layer in: cancelled")]
    Cancelled,
}

impl IngestError {
    /// Whether the bytes are others than the manifest names: somebody else may have the right ones.
    pub(crate) fn is_of_blob(&self) -> bool {
        matches!(
            self,
            IngestError::TooShort { .. } | IngestError::TooLong { .. } | IngestError::Digest { .. }
        )
    }

    /// Whether the bytes themselves are at fault: then they may be others than the manifest names.
    pub(crate) fn is_of_content(&self) -> bool {
        match self {
            IngestError::TooShort { .. }
            | IngestError::TooLong { .. }
            | IngestError::Digest { .. }
            | IngestError::DiffId { .. }
            | IngestError::Inflate(_)
            | IngestError::TooLarge { .. } => true,
            IngestError::Index(error) => !matches!(
                error,
                IndexLayerError::Write { .. } | IndexLayerError::DiskFull(_) | IndexLayerError::Cancelled
            ),
            IngestError::Input(_)
            | IngestError::Keep(_)
            | IngestError::DiskFull(_)
            | IngestError::Cancelled => false,
        }
    }
}

impl From<IndexLayerError> for IngestError {
    fn from(error: IndexLayerError) -> IngestError {
        match error {
            IndexLayerError::DiskFull(full) => IngestError::DiskFull(full),
            error => IngestError::Index(error),
        }
    }
}

impl From<InflateError> for IngestError {
    fn from(error: InflateError) -> IngestError {
        match error {
            InflateError::Stream(source) => IngestError::Inflate(source),
            InflateError::Aside(source) => IngestError::Keep(source),
            InflateError::DiskFull(full) => IngestError::DiskFull(full),
            InflateError::Cancelled => IngestError::Cancelled,
        }
    }
}

/// How a stage ended that did not fail itself.
enum Stopped {
    /// For a reason of its own.
    Failed(IngestError),
    /// The next stage has stopped taking: its reason counts.
    Downstream,
}

impl From<IngestError> for Stopped {
    fn from(error: IngestError) -> Stopped {
        Stopped::Failed(error)
    }
}

/// Streams a layer through all stages into its data and index; the caller commits them.
///
/// # Errors
///
/// The first stage's error that has one of its own, in the order of the stream. A blob that a later
/// stage refuses is read to its end first: a damaged one explains why it does not inflate.
pub(crate) fn ingest(
    expected: &Expected<'_>,
    streams: Streams<'_>,
    control: &Control<'_>,
) -> Result<(), IngestError> {
    let Streams { input, keep, kept_bytes, parts } = streams;
    let parts = parts.within(control.store);
    let (blob_out, inflate_in) = sync_channel(CHUNKS_WAITING);
    let (hash_out, hash_in) = sync_channel(CHUNKS_WAITING);
    let (index_out, index_in) = sync_channel(CHUNKS_WAITING);
    let hasher = Hasher::new(expected.blob.digest.algorithm());
    let mut blob = Blob { input, keep, kept_bytes, expected: expected.blob, hasher, found: 0, control };
    let (passed, inflated, found, index) = thread::scope(|scope| {
        let blob = &mut blob;
        let passed = scope.spawn(move || blob.pass_to(blob_out));
        let inflated = scope.spawn(move || {
            let outputs = Outputs { hash: hash_out, index: index_out };
            inflate_blob(inflate_in, &outputs, control.budget.limits().window_bytes, control)
        });
        let found = scope.spawn(move || hash_stream(hash_in, expected.diff_id.algorithm()));
        let index = index_layer(&mut ChunkReader::new(index_in), &parts, control.budget, control.cancelled);
        // From here on a stage that still sends to the indexer is told that nobody takes.
        (join(passed), join(inflated), join(found), index)
    });
    if control.cancelled.load(Ordering::Acquire) {
        return Err(IngestError::Cancelled);
    }
    if let Err(Stopped::Failed(error)) = passed {
        return Err(error);
    }
    let indexed = match (inflated, index) {
        (Err(Stopped::Failed(error)), _) => Err(error),
        (_, index) => index.map_err(IngestError::from).and_then(|()| {
            let expected = expected.diff_id.clone();
            if found == expected { Ok(()) } else { Err(IngestError::DiffId { found, expected }) }
        }),
    };
    // Whether the image is at fault or the blob was damaged on its way, only the whole blob tells.
    if indexed.as_ref().err().is_none_or(IngestError::is_of_content) {
        blob.verify()?;
    }
    indexed
}

/// The blob on its way in: counted, hashed, kept.
struct Blob<'a> {
    input: Box<dyn Read + Send + 'a>,
    keep: Option<&'a File>,
    kept_bytes: u64,
    expected: &'a Descriptor,
    hasher: Hasher,
    found: u64,
    control: &'a Control<'a>,
}

impl Blob<'_> {
    /// First stage. The next one may stop taking; [`Blob::verify`] reads the rest.
    fn pass_to(&mut self, next: SyncSender<Bytes>) -> Result<(), Stopped> {
        while let Some(chunk) = self.chunk()? {
            next.send(chunk).map_err(|_closed| Stopped::Downstream)?;
        }
        Ok(())
    }

    fn chunk(&mut self) -> Result<Option<Bytes>, IngestError> {
        if self.control.cancelled.load(Ordering::Acquire) {
            return Err(IngestError::Cancelled);
        }
        let chunk = read_chunk(&mut self.input).map_err(IngestError::Input)?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let before = self.found;
        self.found += chunk.len() as u64;
        if self.found > self.expected.size {
            return Err(IngestError::TooLong { size: self.expected.size });
        }
        self.hasher.update(&chunk);
        if let Some(mut file) = self.keep {
            let old = usize::try_from(self.kept_bytes.saturating_sub(before)).unwrap_or(usize::MAX);
            file.write_all(chunk.get(old..).unwrap_or_default()).map_err(IngestError::Keep)?;
        }
        self.control.progress.store(self.found, Ordering::Relaxed);
        Ok(Some(chunk))
    }

    /// Reads to the end, and checks what the manifest says.
    fn verify(mut self) -> Result<(), IngestError> {
        while self.chunk()?.is_some() {}
        let (found, size) = (self.found, self.expected.size);
        if found < size {
            return Err(IngestError::TooShort { found, size });
        }
        self.hasher.verify(&self.expected.digest).map_err(|found| IngestError::Digest { found })
    }
}

struct Outputs {
    hash: SyncSender<Bytes>,
    index: SyncSender<Bytes>,
}

/// Second stage: inflates what is compressed and passes it to both others.
fn inflate_blob(
    input: Receiver<Bytes>,
    outputs: &Outputs,
    window_bytes: u64,
    control: &Control<'_>,
) -> Result<(), Stopped> {
    let limits = control.budget.limits();
    let room = Room {
        window_bytes,
        of_image: control.budget.has_large_window(),
        scratch: control.scratch,
        limits,
        cancelled: control.cancelled,
        windows: &WINDOWS,
    };
    let mut stream = Inflate::new(ChunkReader::new(input), &room).map_err(IngestError::from)?;
    let mut inflated: u64 = 0;
    loop {
        let chunk = read_chunk(&mut stream).map_err(IngestError::Inflate)?;
        if chunk.is_empty() {
            return Ok(());
        }
        inflated += chunk.len() as u64;
        if inflated > limits.unpacked_bytes {
            return Err(IngestError::TooLarge { limit: limits.unpacked_bytes }.into());
        }
        outputs.send(chunk)?;
    }
}

impl Outputs {
    fn send(&self, chunk: Bytes) -> Result<(), Stopped> {
        self.hash.send(chunk.clone()).map_err(|_closed| Stopped::Downstream)?;
        self.index.send(chunk).map_err(|_closed| Stopped::Downstream)
    }
}

/// Third stage, beside the indexer: the diff id of all that comes.
fn hash_stream(input: Receiver<Bytes>, algorithm: Algorithm) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    for chunk in input {
        hasher.update(&chunk);
    }
    hasher.finish()
}

/// Reads until the chunk is full or the stream ends; an empty chunk is the end.
pub(super) fn read_chunk(input: &mut dyn Read) -> io::Result<Bytes> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    input.take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    Ok(Bytes::from(chunk))
}

/// A stage that panics takes this thread along: its bug must not pass for a result.
pub(super) fn join<T>(stage: ScopedJoinHandle<'_, T>) -> T {
    stage.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
