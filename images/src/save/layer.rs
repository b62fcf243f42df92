//! A layer of an image that is saved: where its bytes come from, and what they will be.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::{Algorithm, Digest, Hasher};
use crate::inflate::{Compression, Inflate, InflateError, Room, WINDOWS, compression};
use crate::limits::Limits;
use crate::manifest::Descriptor;

use super::SaveError;

/// Bytes read at once.
const CHUNK_BYTES: usize = 128 << 10;

/// Writes a layer's tar stream, always the same: once so that its size and digest are known, and once into the archive.
pub type WriteLayer = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

/// One layer as it will stand in the archive.
#[derive(Debug)]
pub(crate) struct SavedLayer {
    /// What is written.
    pub blob: Descriptor,
    /// The digest of its tar stream.
    pub diff_id: Digest,
    pub compression: Compression,
    content: Content,
}

/// Where it comes from.
enum Content {
    /// A file, byte for byte.
    File(PathBuf),
    /// What a file holds that is compressed.
    Inflated { path: PathBuf, scratch: PathBuf, limits: Box<Limits> },
    /// Whoever makes it.
    Made(Box<WriteLayer>),
}

impl fmt::Debug for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::File(path) => write!(out, "File({path:?})"),
            Content::Inflated { path, .. } => write!(out, "Inflated({path:?})"),
            Content::Made(_) => out.write_str("Made"),
        }
    }
}

impl SavedLayer {
    /// A blob as it lies in a file.
    pub(crate) fn as_it_came(path: &Path, blob: &Descriptor, diff_id: &Digest) -> io::Result<SavedLayer> {
        let mut start = [0; 6];
        let read = File::open(path)?.read(&mut start)?;
        Ok(SavedLayer {
            blob: blob.clone(),
            diff_id: diff_id.clone(),
            compression: compression(start.get(..read).unwrap_or_default()),
            content: Content::File(path.to_owned()),
        })
    }

    /// The tar stream of a blob in a file. One that is compressed is read, to know how long it is.
    pub(crate) fn plain(
        path: &Path,
        blob: &Descriptor,
        diff_id: &Digest,
        ((scratch, limits), cancelled): ((&Path, &Limits), &AtomicBool),
    ) -> Result<SavedLayer, SaveError> {
        let failed = |source| SaveError::Read { blob: blob.digest.clone(), source };
        let as_it_came = SavedLayer::as_it_came(path, blob, diff_id).map_err(failed)?;
        if as_it_came.compression == Compression::None {
            return Ok(as_it_came);
        }
        let mut meter = Meter::new(diff_id.algorithm());
        copy_inflated(path, (scratch, limits), cancelled, &mut meter).map_err(failed)?;
        let Meter { hasher, bytes } = meter;
        let other = |found| SaveError::Content { blob: diff_id.clone(), found: Some(found) };
        hasher.verify(diff_id).map_err(other)?;
        Ok(SavedLayer {
            blob: Descriptor { digest: diff_id.clone(), size: bytes },
            diff_id: diff_id.clone(),
            compression: Compression::None,
            content: Content::Inflated {
                path: path.to_owned(),
                scratch: scratch.to_owned(),
                limits: Box::new(limits.clone()),
            },
        })
    }

    /// One that is made here.
    pub(crate) fn made(write: Box<WriteLayer>) -> io::Result<SavedLayer> {
        let mut meter = Meter::new(Algorithm::Sha256);
        write(&mut meter)?;
        let digest = meter.hasher.finish();
        Ok(SavedLayer {
            blob: Descriptor { digest: digest.clone(), size: meter.bytes },
            diff_id: digest,
            compression: Compression::None,
            content: Content::Made(write),
        })
    }

    /// Writes it, whatever it has become meanwhile: who takes it verifies it.
    pub(super) fn write_to(&self, out: &mut dyn Write, cancelled: &AtomicBool) -> io::Result<()> {
        match &self.content {
            Content::File(path) => copy(&mut File::open(path)?, out, cancelled),
            Content::Inflated { path, scratch, limits } => {
                copy_inflated(path, (scratch, limits), cancelled, out)
            }
            Content::Made(write) => write(out),
        }
    }
}

fn copy_inflated(
    path: &Path,
    (scratch, limits): (&Path, &Limits),
    cancelled: &AtomicBool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let file = BufReader::with_capacity(CHUNK_BYTES, File::open(path)?);
    let (of_image, window_bytes) = (&AtomicBool::new(false), limits.window_bytes);
    let room = Room { window_bytes, of_image, scratch, limits, cancelled, windows: &WINDOWS };
    let inflate = Inflate::new(file, &room).map_err(|error| match error {
        InflateError::Stream(error) | InflateError::Aside(error) => error,
        InflateError::DiskFull(full) => io::Error::other(full),
        InflateError::Cancelled => io::Error::other("cancelled"),
    });
    copy(&mut inflate?, out, cancelled)
}

fn copy(from: &mut dyn Read, out: &mut dyn Write, cancelled: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        if cancelled.load(Ordering::Acquire) {
            return Err(io::Error::other("cancelled"));
        }
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => out.write_all(buffer.get(..read).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Counts and hashes what is written.
struct Meter {
    hasher: Hasher,
    bytes: u64,
}

impl Meter {
    fn new(algorithm: Algorithm) -> Meter {
        Meter { hasher: Hasher::new(algorithm), bytes: 0 }
    }
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
