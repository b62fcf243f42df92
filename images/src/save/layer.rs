//! A layer of an image that is saved: where its bytes come from, and what they will be.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::{Algorithm, Digest, Hasher};
use crate::disk::Watch;
use crate::inflate::{Compression, Inflate, InflateError, Room, WINDOWS, compression};
use crate::layer::SplitReader;
use crate::limits::Limits;
use crate::manifest::Descriptor;
use crate::scratch;

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
    /// What is between the contents of the layer's files, and these.
    Split([PathBuf; 2]),
    /// What a file holds that is compressed.
    Inflated { path: PathBuf, scratch: PathBuf, limits: Box<Limits> },
    /// Whoever makes it.
    Made(Box<WriteLayer>),
}

impl fmt::Debug for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::File(path) => write!(out, "File({path:?})"),
            Content::Split(paths) => write!(out, "Split({paths:?})"),
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

    /// The tar stream of a layer by what the store keeps of it beside its files' contents.
    pub(crate) fn split(files: [PathBuf; 2], diff_id: &Digest) -> io::Result<SavedLayer> {
        let size = split_reader(&files)?.tar_bytes();
        Ok(SavedLayer {
            blob: Descriptor { digest: diff_id.clone(), size },
            diff_id: diff_id.clone(),
            compression: Compression::None,
            content: Content::Split(files),
        })
    }

    /// The tar stream of a blob in a file. It is read, to know how long it is and that it is the layer's.
    pub(crate) fn plain(
        path: &Path,
        blob: &Descriptor,
        diff_id: &Digest,
        ((scratch, limits), cancelled): ((&Path, &Limits), &AtomicBool),
    ) -> Result<SavedLayer, SaveError> {
        let failed = |source| SaveError::Read { blob: blob.digest.clone(), source };
        let as_it_came = SavedLayer::as_it_came(path, blob, diff_id).map_err(failed)?;
        if as_it_came.compression == Compression::None && blob.digest == *diff_id {
            return Ok(as_it_came);
        }
        let mut meter = Meter::new(diff_id.algorithm());
        let (inflater, most) = (Inflater { path, scratch, limits, cancelled }, limits.unpacked_bytes);
        inflater.copy(most, &mut meter).map_err(failed)?;
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
            Content::File(path) => copy(&mut File::open(path)?, out, cancelled).map(drop),
            Content::Split(files) => copy(&mut split_reader(files)?, out, cancelled).map(drop),
            Content::Inflated { path, scratch, limits } => {
                Inflater { path, scratch, limits, cancelled }.write_to(self.blob.size, out)
            }
            Content::Made(write) => write(out),
        }
    }
}

/// Opens a layer's two files.
pub(crate) fn split_reader([split, data]: &[PathBuf; 2]) -> io::Result<SplitReader> {
    SplitReader::new(File::open(split)?, File::open(data)?)
}

/// Inflates a file.
struct Inflater<'a> {
    path: &'a Path,
    /// Where other files go for as long as they are needed.
    scratch: &'a Path,
    limits: &'a Limits,
    cancelled: &'a AtomicBool,
}

impl Inflater<'_> {
    /// Writes what it holds to a place that takes it at once.
    fn copy(&self, most: u64, out: &mut dyn Write) -> io::Result<()> {
        self.with_stream(|stream| self.copy_of(stream, most, out))
    }

    /// The same to whoever may take any time. A large window is not held for so long: there are a few, for everybody.
    fn write_to(&self, most: u64, out: &mut dyn Write) -> io::Result<()> {
        let aside = self.with_stream(|stream| {
            if !stream.has_large_window() {
                return self.copy_of(stream, most, out).map(|()| None);
            }
            let mut aside = Aside {
                file: scratch::unnamed(self.scratch)?,
                bytes: 0,
                disk: Watch::new(self.scratch, self.limits),
            };
            self.copy_of(stream, most, &mut aside).map(|()| Some(aside.file))
        })?;
        let Some(mut aside) = aside else { return Ok(()) };
        aside.rewind()?;
        copy(&mut aside, out, self.cancelled).map(drop)
    }

    fn with_stream<T>(
        &self,
        work: impl FnOnce(&mut Inflate<'_, BufReader<File>>) -> io::Result<T>,
    ) -> io::Result<T> {
        let Inflater { path, scratch, limits, cancelled } = *self;
        let file = BufReader::with_capacity(CHUNK_BYTES, File::open(path)?);
        let (of_image, window_bytes) = (&AtomicBool::new(false), limits.window_bytes);
        let room = Room { window_bytes, of_image, scratch, limits, cancelled, windows: &WINDOWS };
        let inflate = Inflate::new(file, &room).map_err(|error| match error {
            InflateError::Stream(error) | InflateError::Aside(error) => error,
            InflateError::DiskFull(full) => io::Error::new(io::ErrorKind::StorageFull, full),
            InflateError::Cancelled => io::Error::other("cancelled"),
        });
        work(&mut inflate?)
    }

    fn copy_of(&self, stream: &mut dyn Read, most: u64, out: &mut dyn Write) -> io::Result<()> {
        let bytes = copy(&mut stream.take(most.saturating_add(1)), out, self.cancelled)?;
        if bytes > most {
            let sentence = format!("inflated, it has more than {most} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, sentence));
        }
        Ok(())
    }
}

/// A file that grows as long as there is room.
struct Aside<'a> {
    file: File,
    bytes: u64,
    disk: Watch<'a>,
}

impl Write for Aside<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        let full = |full| io::Error::new(io::ErrorKind::StorageFull, full);
        self.disk.reached(self.bytes).map_err(full)?;
        self.file.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many bytes there were.
fn copy(from: &mut dyn Read, out: &mut dyn Write, cancelled: &AtomicBool) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        if cancelled.load(Ordering::Acquire) {
            return Err(io::Error::other("cancelled"));
        }
        match from.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(read) => {
                out.write_all(buffer.get(..read).unwrap_or_default())?;
                bytes += read as u64;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob whose decoder needs a large window, and its content.
    fn with_large_window(directory: &Path) -> (PathBuf, Vec<u8>) {
        let content = vec![7; 300_000];
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&content).unwrap();
        let path = directory.join("blob");
        std::fs::write(&path, encoder.finish().unwrap()).unwrap();
        (path, content)
    }

    /// Looks for the windows that streams on their way may have while it is written into.
    struct Slow<'a>(&'a Path, &'a Path, Vec<u8>);

    impl Write for Slow<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (limits, gives_up) = (Limits::default(), AtomicBool::new(true));
            let images = [const { AtomicBool::new(false) }; 2];
            let take = |of_image| {
                let (window_bytes, cancelled) = (limits.window_bytes, &gives_up);
                let (scratch, limits, windows) = (self.0, &limits, &WINDOWS);
                let room = Room { window_bytes, of_image, scratch, limits, cancelled, windows };
                Inflate::new(BufReader::new(File::open(self.1).unwrap()), &room)
            };
            let both: Vec<_> = images.iter().map(take).collect();
            let is_large =
                |taken: &Result<Inflate<'_, _>, _>| taken.as_ref().is_ok_and(Inflate::has_large_window);
            assert!(both.iter().all(is_large), "one is held while somebody takes their time");
            self.2.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_large_window_is_held_at_the_pace_of_whoever_takes_the_layer() {
        let directory = tempfile::tempdir().unwrap();
        let (path, content) = with_large_window(directory.path());
        let (scratch, cancelled) = (directory.path(), AtomicBool::new(false));
        let limits = Limits { free_disk_bytes: 0, free_disk_percent: 0, ..Limits::default() };
        let inflater = Inflater { path: &path, scratch, limits: &limits, cancelled: &cancelled };
        let mut slow = Slow(scratch, &path, Vec::new());
        inflater.write_to(content.len() as u64, &mut slow).unwrap();
        assert!(slow.2 == content);
        let too_much = inflater.write_to(content.len() as u64 - 1, &mut io::sink()).unwrap_err();
        assert!(too_much.to_string().contains("more than 299999 bytes"), "{too_much}");
        let reserve = Limits { free_disk_bytes: u64::MAX, ..limits.clone() };
        let full = Inflater { limits: &reserve, ..inflater }.write_to(u64::MAX, &mut io::sink()).unwrap_err();
        assert!(full.to_string().contains("free some space"), "{full}");
    }
}
