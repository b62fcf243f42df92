//! An artifact's bytes as they are sent: compressed once, and read anew for each attempt.
//!
//! ```text
//!   short             ─► memory, compressed or not
//!   long, compressed  ─► a file without a name, on the data directory's disk (of a log while it is written: growing_log)
//!   long, as it is    ─► the task's own file: nobody writes to it any more, and no disk has to hold it twice
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ContentEncoding;
use super::body::Body;
use super::copy::{Copied, Copy, CopyError, Patience};
use super::gzip::Compressors;

/// Files up to this length are held in memory while they are sent.
const SHORT_BYTES: u64 = 64 << 10;

/// Pieces that are read before they can be sent; each is as long as a step of [`Copy`].
const PIECES_AHEAD: usize = 1;

/// What is sent.
#[derive(Clone, Debug)]
pub(super) struct Spooled {
    bytes: Held,
    length: u64,
    encoding: ContentEncoding,
}

#[derive(Clone, Debug)]
enum Held {
    /// With what they were before compression.
    Memory(Bytes, Copied),
    /// The same.
    Ready(Arc<File>, Copied),
    /// Read for the first time when it is sent.
    AsItIs(Arc<File>),
}

/// One reading of what is sent.
pub(super) struct Reading(JoinHandle<Result<Copied, CopyError>>);

impl Reading {
    /// What has been read. An error if that was not all.
    pub(super) async fn end(self) -> Result<Copied, CopyError> {
        self.0.await.map_err(io::Error::other)?
    }
}

/// What reads files for one run. Clones share what they have.
#[derive(Clone, Debug)]
pub(super) struct Spooler {
    /// Where long files are compressed.
    directory: PathBuf,
    compressors: Compressors,
}

impl Spooler {
    pub(super) fn in_directory(directory: PathBuf) -> Spooler {
        Spooler { directory, compressors: Compressors::default() }
    }

    /// Where long files are compressed.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads and compresses a file, as long as it is now. Blocks.
    ///
    /// # Errors
    ///
    /// [`CopyError`]
    pub(super) fn spool(
        &self,
        source: File,
        encoding: ContentEncoding,
        patience: &Patience,
    ) -> Result<Spooled, CopyError> {
        let size = source.metadata().map_err(CopyError::Read)?.len();
        if size <= SHORT_BYTES {
            let mut bytes = Vec::new();
            let copy = Copy { source: &source, size, patience, place: None };
            let content = match encoding {
                ContentEncoding::Identity => copy.to(|_, piece| bytes.write_all(piece))?,
                ContentEncoding::Gzip => self.compressors.gzip(&copy, &mut bytes)?,
            };
            let length = bytes.len() as u64;
            return Ok(Spooled { bytes: Held::Memory(bytes.into(), content), length, encoding });
        }
        match encoding {
            ContentEncoding::Identity => {
                Ok(Spooled { bytes: Held::AsItIs(Arc::new(source)), length: size, encoding })
            }
            ContentEncoding::Gzip => {
                let file = tempfile::tempfile_in(&self.directory)?;
                let copy = Copy { source: &source, size, patience, place: Some(file.as_fd()) };
                let content = self.compressors.gzip(&copy, &file)?;
                Spooled::of_file(file, content, encoding)
            }
        }
    }
}

impl Spooled {
    /// What a file has just as it is sent, and what that was before.
    ///
    /// # Errors
    ///
    /// When nobody can say how long that is.
    pub(super) fn of_file(
        file: File,
        content: Copied,
        encoding: ContentEncoding,
    ) -> Result<Spooled, CopyError> {
        let length = file.metadata()?.len();
        let bytes = Held::Ready(Arc::new(file), content);
        Ok(Spooled { bytes, length, encoding })
    }

    /// How many bytes are sent.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How they are stored.
    pub(super) fn encoding(&self) -> ContentEncoding {
        self.encoding
    }

    /// Length and hash before compression, where that is known before the bytes are sent.
    pub(super) fn content(&self) -> Option<&Copied> {
        match &self.bytes {
            Held::Memory(_, content) | Held::Ready(_, content) => Some(content),
            Held::AsItIs(_) => None,
        }
    }

    /// The body of one attempt; with it, unless it is in memory, what reads it.
    pub(super) fn body(&self, patience: &Patience) -> (Body, Option<Reading>) {
        let file = match &self.bytes {
            Held::Memory(bytes, _) => return (Body::whole(bytes.clone()), None),
            Held::Ready(file, _) | Held::AsItIs(file) => Arc::clone(file),
        };
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let (length, patience) = (self.length, patience.clone());
        let reading = tokio::task::spawn_blocking(move || read(&file, length, &patience, &sender));
        (Body::read(pieces, self.length), Some(Reading(reading)))
    }
}

/// Reads a file for somebody who sends it, and stops when they do.
fn read(
    file: &File,
    size: u64,
    patience: &Patience,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<Copied, CopyError> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let copy = Copy { source: file, size, patience, place: None };
    let copied = copy.to(|_, piece| pieces.blocking_send(Ok(Bytes::copy_from_slice(piece))).map_err(gone))?;
    if copied.size == size {
        return Ok(copied);
    }
    let text = format!("it had {size} bytes and has only {} any more", copied.size);
    Err(CopyError::Read(io::Error::new(io::ErrorKind::UnexpectedEof, text)))
}
