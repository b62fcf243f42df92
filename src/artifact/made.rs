//! Artifacts that come into being while they are stored: nothing holds them before, and nothing twice.
//!
//! ```text
//!   whoever makes it ─► sink ─┬─► compressed, into a file without a name, and sent from there: a queue
//!                             └─► beside its place in the operator's directory, as it is: `run --artifacts`
//! ```
//!
//! How long it will be nobody knows before it is there, which is why it cannot be sent at once: a storage wants to hear
//! that first.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::copy::{Copied, CopyError, Patience, check_room, hexadecimal};
use super::delivery::{off_the_loop, until_over};
use super::pieces::Pieces;
use super::place::Place;
use super::spooled::Spooled;
use super::{ContentEncoding, Description, Destination, PublishError, Publisher, Store, Stored, store};
use crate::limits::DISK_RESERVE_BYTES;
use crate::queue::artifact_name::ArtifactName;

/// Between two looks at the disk.
const LOOK_BYTES: u64 = 1 << 20;

/// Why it cannot be made.
pub type MakeError = Box<dyn Error + Send + Sync>;

/// Writes an artifact's bytes. It may block.
pub type Make = Box<dyn FnOnce(&mut dyn Write) -> Result<(), MakeError> + Send>;

/// An artifact that is to be made.
pub(super) struct Making {
    make: Make,
    patience: Patience,
    /// Bytes that it may have where it is stored.
    most: u64,
    /// Bytes that stay free on the data directory's disk.
    keep_free: u64,
}

impl Publisher {
    /// Publishes what `make` writes, which is the worker's own. Gives how many bytes that were.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn publish_made(&self, what: Description, make: Make) -> Result<u64, PublishError> {
        let what = self.as_stored(what);
        let patience = Patience::with_artifact(&self.interrupts);
        let making = Making {
            make,
            patience: patience.clone(),
            most: self.config.artifact_bytes(),
            keep_free: self.config.low_mark_bytes(),
        };
        let _of_run = store::permit(&self.storing, &patience).await?;
        let _of_worker = self.store.turn_of_tasks(&patience).await?;
        let stored = match &self.store {
            Store::Directory(destination) => {
                self.create_or_ignore(&what.name, what.expires, self.content(&what)).await?;
                let (destination, name) = (Arc::clone(destination), what.name.clone());
                off_the_loop(move || destination.make(&name, making)).await?
            }
            Store::Queue(uploader) => {
                let (directory, encoding) = (self.spooler.directory().to_owned(), what.content_encoding);
                let sending = async {
                    let spooled = off_the_loop(move || making.spool(&directory, encoding)).await?;
                    self.send(uploader, (&what, None), &spooled, &patience).await
                };
                match until_over(&patience, sending).await {
                    Ok(stored) => stored,
                    Err(error) if self.is_resolved_by_queue(&error) => return Ok(0),
                    Err(error) => return Err(error),
                }
            }
        };
        let size = stored.size;
        self.note_stored(what, stored);
        Ok(size)
    }
}

impl Destination {
    /// Stores what is made under a name. Blocks.
    ///
    /// # Errors
    ///
    /// [`CopyError`]
    pub(super) fn make(&self, name: &ArtifactName, making: Making) -> Result<Stored, CopyError> {
        let Destination::Directory(top) = self else {
            let Copied { size, .. } = making.into(Out::Nowhere)?;
            return Ok(Stored { size, sha256: None, stored_as: None });
        };
        let place = Place::of(top, name)?;
        let draft = place.draft()?;
        // What is free there is the operator's business, as long as it is not the last.
        let making = Making { keep_free: DISK_RESERVE_BYTES, ..making };
        let Copied { size, sha256 } = making.into(Out::File(draft.file()))?;
        draft.keep()?;
        Ok(Stored { size, sha256: Some(sha256), stored_as: place.other_name(name) })
    }
}

impl Making {
    /// Makes it, for being sent.
    fn spool(self, directory: &Path, encoding: ContentEncoding) -> Result<Spooled, CopyError> {
        let file = tempfile::tempfile_in(directory)?;
        let content = match encoding {
            ContentEncoding::Identity => self.into(Out::File(&file))?,
            ContentEncoding::Gzip => self.into(Out::Gzip(Pieces::start(&file)?, &file))?,
        };
        Spooled::of_file(file, content, encoding)
    }

    fn into(self, out: Out<'_>) -> Result<Copied, CopyError> {
        let Making { make, patience, most, keep_free } = self;
        let bounds = Bounds { patience, most, keep_free };
        let mut sink = Sink { out, bounds, hash: Sha256::new(), size: 0, looked_at: 0, failed: None };
        let made = make(&mut sink);
        // Whoever makes it knows no more of that than that it was not taken.
        match (sink.failed.take(), made) {
            (Some(failed), _) => Err(failed),
            (None, Err(error)) => Err(CopyError::Make(error)),
            (None, Ok(())) => sink.finish(),
        }
    }
}

enum Out<'a> {
    Nowhere,
    File(&'a File),
    Gzip(Pieces<'a>, &'a File),
}

struct Bounds {
    patience: Patience,
    most: u64,
    keep_free: u64,
}

/// Takes what is made, as long as it may go on.
struct Sink<'a> {
    out: Out<'a>,
    bounds: Bounds,
    hash: Sha256,
    size: u64,
    /// Where it was when the disk was looked at.
    looked_at: u64,
    failed: Option<CopyError>,
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), CopyError> {
        if self.bounds.patience.is_over() {
            return Err(CopyError::Interrupted);
        }
        self.size += bytes.len() as u64;
        if self.size - self.looked_at >= LOOK_BYTES {
            self.looked_at = self.size;
            self.look()?;
        }
        self.hash.update(bytes);
        match &mut self.out {
            Out::Nowhere => Ok(()),
            Out::File(file) => Ok(file.write_all(bytes)?),
            Out::Gzip(pieces, _) => Ok(pieces.write_all(bytes)?),
        }
    }

    fn look(&self) -> io::Result<()> {
        let (stored, file) = match &self.out {
            Out::Nowhere => (self.size, None),
            Out::File(file) => (self.size, Some(file)),
            Out::Gzip(pieces, file) => (pieces.written(), Some(file)),
        };
        if stored > self.bounds.most {
            let why = format!("it has more than {} bytes (artifacts.maxBytes)", self.bounds.most);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        file.map_or(Ok(()), |file| check_room(file.as_fd(), self.bounds.keep_free))
    }

    fn finish(self) -> Result<Copied, CopyError> {
        match self.out {
            Out::Nowhere | Out::File(_) => {}
            Out::Gzip(pieces, _) => pieces.finish()?,
        }
        Ok(Copied { size: self.size, sha256: hexadecimal(self.hash) })
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.take(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("it is not taken"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
