//! A layer in the middle of a stream, whose digests nobody knows before its end.
//!
//! ```text
//!  archive ──► member ──┬──────────────────────────┬──► hash ──► diff id
//!                       └──► hash ──► inflate ─────┴──► index_layer ──► data, index
//!                    of what is compressed: its blob
//! ```

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use hyper::body::Bytes;

use super::{
    CHUNKS_WAITING, ChunkReader, Control, IngestError, LayerFiles, Outputs, Stopped, hash_stream,
    inflate_blob, join,
};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::inflate::is_compressed;
use crate::layer::{IndexLayerError, index_layer};
use crate::manifest::Descriptor;

/// What a layer turned out to be.
#[derive(Debug)]
pub(in crate::store) struct Found {
    /// The digest of its tar stream.
    pub diff_id: Digest,
    /// Digest and size of its bytes as they came.
    pub blob: Descriptor,
}

/// Why there is no layer.
#[derive(Debug)]
pub(in crate::store) enum Failure {
    /// The archive that it is a member of cannot be read.
    Archive(IndexLayerError),
    /// The layer itself.
    Layer(IngestError),
}

/// A member's bytes, chunk by chunk; nothing after its end.
pub(in crate::store) type Chunks<'a> = &'a mut dyn FnMut() -> Result<Option<Bytes>, IndexLayerError>;

/// What has gone in, to the member's end.
struct Fed {
    /// Of what is compressed.
    blob: Option<Digest>,
    bytes: u64,
}

/// Why not all has gone in.
enum Broken {
    Archive(IndexLayerError),
    /// Nobody takes it any more; whoever took it knows why.
    Downstream,
}

/// Takes a layer in whose first bytes are `first`. A compressed one may have a window of `window_bytes`.
///
/// # Errors
///
/// The archive's error first: whatever else went wrong then may come of it.
pub(in crate::store) fn ingest_unknown(
    first: Bytes,
    rest: Chunks<'_>,
    files: &LayerFiles,
    window_bytes: u64,
    control: &Control<'_>,
) -> Result<Found, Failure> {
    let parts = files.within(control.store);
    let (hash_out, hash_in) = sync_channel(CHUNKS_WAITING);
    let (index_out, index_in) = sync_channel(CHUNKS_WAITING);
    let outputs = Outputs { hash: hash_out, index: index_out };
    let (fed, inflated, diff_id, indexed) = thread::scope(|scope| {
        let hashed = scope.spawn(move || hash_stream(hash_in, Algorithm::Sha256));
        let indexed = scope.spawn(move || {
            index_layer(&mut ChunkReader::new(index_in), &parts, control.budget, control.cancelled)
        });
        let (fed, inflated) = if is_compressed(&first) {
            let (blob_out, blob_in) = sync_channel(CHUNKS_WAITING);
            let inflated = scope.spawn(move || inflate_blob(blob_in, &outputs, window_bytes, control));
            (feed_compressed(first, rest, blob_out), join(inflated))
        } else {
            (feed_plain(first, rest, outputs), Ok(()))
        };
        (fed, inflated, join(hashed), join(indexed))
    });
    if let Err(Broken::Archive(error)) = fed {
        return Err(Failure::Archive(error));
    }
    if let Err(Stopped::Failed(error)) = inflated {
        return Err(Failure::Layer(error));
    }
    indexed.map_err(|error| Failure::Layer(error.into()))?;
    // A stage that stops taking has said why; if not, no end is taken for a good one.
    let stopped = |_broken| Failure::Layer(IngestError::Input(io::ErrorKind::BrokenPipe.into()));
    let Fed { blob, bytes } = fed.map_err(stopped)?;
    let digest = blob.unwrap_or_else(|| diff_id.clone());
    Ok(Found { diff_id, blob: Descriptor { digest, size: bytes } })
}

/// What is not compressed needs no further stage, and has its diff id for a digest.
fn feed_plain(first: Bytes, rest: Chunks<'_>, outputs: Outputs) -> Result<Fed, Broken> {
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(chunk) = next {
        bytes += chunk.len() as u64;
        outputs.send(chunk).map_err(|_stopped| Broken::Downstream)?;
        next = rest().map_err(Broken::Archive)?;
    }
    Ok(Fed { blob: None, bytes })
}

fn feed_compressed(first: Bytes, rest: Chunks<'_>, out: SyncSender<Bytes>) -> Result<Fed, Broken> {
    let mut bytes = 0;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut next = Some(first);
    while let Some(chunk) = next {
        bytes += chunk.len() as u64;
        hasher.update(&chunk);
        out.send(chunk).map_err(|_closed| Broken::Downstream)?;
        next = rest().map_err(Broken::Archive)?;
    }
    Ok(Fed { blob: Some(hasher.finish()), bytes })
}
