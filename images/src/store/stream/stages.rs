//! The stages of an archive on its way into the store, each on a thread of its own.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::bufread::MultiGzDecoder;
use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::{Encoding, Taking, directory};
use crate::archive::{ArchiveError, Place, Role, Streamed, TakenLayer, named};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::inflate::{Inflate, InflateError, Room, SMALL_WINDOW_BYTES, WINDOWS, is_compressed};
use crate::json::shortened;
use crate::layer::{Budget, IndexLayerError, TarReader, may_be_tar};
use crate::registry::Received;
use crate::store::ingest::{CHUNK_BYTES, ChunkReader, Control, Failure, NetworkReader, join, read_chunk};
use crate::store::layers::MemberError;
use crate::store::transfer::CHUNKS_WAITING;
use crate::store::{PullError, StoreError};

/// How a stage ended that did not fail itself.
enum Stopped {
    /// For a reason of its own.
    Failed(PullError),
    /// The next one has stopped taking: its reason counts.
    Downstream,
}

/// Where members go that look like layers, and what they take together.
struct Layers<'a> {
    work: &'a Path,
    budget: Budget,
    /// Whether the archive itself is.
    is_compressed: &'a AtomicBool,
    taken: usize,
}

impl Taking {
    /// Reads the whole stream; what may be layers lies in `work` then. With the digest of the archive.
    pub(super) fn stream_into(
        &self,
        work: &Path,
        (chunks, encoding): (mpsc::Receiver<Received>, Encoding),
    ) -> Result<(Streamed<'_>, Digest), PullError> {
        let (archive_out, archive_in) = sync_channel(CHUNKS_WAITING);
        let (plain_out, plain_in) = sync_channel(CHUNKS_WAITING);
        let is_compressed = AtomicBool::new(false);
        let (arrived, inflated, unpacked) = thread::scope(|scope| {
            let arrived = scope.spawn(move || self.hash(chunks, encoding, &archive_out));
            let is_compressed = &is_compressed;
            let inflated = scope.spawn(move || self.inflate(archive_in, &plain_out, is_compressed));
            let unpacked = self.unpack(work, plain_in, is_compressed);
            if unpacked.is_err() {
                // The first stage may wait for more, from a sender who says nothing any more.
                self.refused.cancel();
            }
            (join(arrived), join(inflated), unpacked)
        });
        // What comes to an end early looks like an end to those behind it.
        let archive = match arrived {
            Ok(digest) => Some(digest),
            Err(Stopped::Failed(error)) => return Err(error),
            Err(Stopped::Downstream) => None,
        };
        if let Err(Stopped::Failed(error)) = inflated {
            return Err(error);
        }
        let streamed = unpacked?;
        archive.map(|archive| (streamed, archive)).ok_or_else(|| self.broken())
    }

    /// First stage: the digest of the archive.
    fn hash(
        &self,
        chunks: mpsc::Receiver<Received>,
        encoding: Encoding,
        out: &SyncSender<Bytes>,
    ) -> Result<Digest, Stopped> {
        let arriving = NetworkReader::new(chunks);
        let mut input: Box<dyn Read> = match encoding {
            Encoding::Identity => Box::new(arriving),
            Encoding::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, arriving))),
        };
        let (mut hasher, mut bytes) = (Hasher::new(Algorithm::Sha256), 0);
        let limit = self.options.limits.unpacked_bytes;
        loop {
            let chunk = read_chunk(&mut input).map_err(|error| self.stopped(&error))?;
            if chunk.is_empty() {
                return Ok(hasher.finish());
            }
            bytes += chunk.len() as u64;
            if bytes > limit {
                return Err(Stopped::Failed(self.too_large(bytes)));
            }
            hasher.update(&chunk);
            out.send(chunk).map_err(|_closed| Stopped::Downstream)?;
        }
    }

    /// Why nothing more arrives.
    fn stopped(&self, error: &io::Error) -> Stopped {
        if self.refused.is_cancelled() {
            return Stopped::Downstream;
        }
        Stopped::Failed(self.unreadable(error))
    }

    /// Second stage: the plain tar stream.
    fn inflate(
        &self,
        input: Receiver<Bytes>,
        out: &SyncSender<Bytes>,
        is_compressed: &AtomicBool,
    ) -> Result<(), Stopped> {
        let failed = |error| Stopped::Failed(ArchiveError::of_inflating(&self.path, &error).into());
        let (limits, scratch) = (&self.options.limits, self.store.layout().works());
        let room = Room {
            window_bytes: limits.window_bytes,
            // The only one: see `layer`.
            of_image: &AtomicBool::new(false),
            scratch: &scratch,
            limits,
            cancelled: self.cancel.flag(),
            windows: &WINDOWS,
        };
        let mut stream = Inflate::new(ChunkReader::new(input), &room).map_err(|error| match error {
            InflateError::Stream(error) => failed(error),
            InflateError::DiskFull(full) => Stopped::Failed(full.into()),
            InflateError::Aside(source) => {
                Stopped::Failed(StoreError::file("write in", &scratch)(source).into())
            }
            InflateError::Cancelled => Stopped::Failed(self.cancelled()),
        })?;
        is_compressed.store(matches!(stream, Inflate::Compressed { .. }), Ordering::Release);
        loop {
            let chunk = read_chunk(&mut stream).map_err(failed)?;
            if chunk.is_empty() {
                return Ok(());
            }
            out.send(chunk).map_err(|_closed| Stopped::Downstream)?;
        }
    }

    /// Third stage: each member goes where it belongs.
    fn unpack(
        &self,
        work: &Path,
        input: Receiver<Bytes>,
        is_compressed: &AtomicBool,
    ) -> Result<Streamed<'_>, PullError> {
        let limits = &self.options.limits;
        let mut layers = Layers { work, budget: Budget::new(limits), is_compressed, taken: 0 };
        let mut plain = ChunkReader::new(input);
        let mut reader = TarReader::new(&mut plain, limits, self.cancel.flag());
        let mut streamed = Streamed::new(&self.path, limits);
        while let Some(member) = reader.next_member().map_err(|error| self.unpackable(error))? {
            let Some((name, role)) = named(&self.path, member)? else { continue };
            let size = match role {
                Role::File(size) => size,
                Role::Link(target) => {
                    streamed.link(name, target)?;
                    continue;
                }
            };
            let mut member = Member { reader: &mut reader, left: size };
            let first = member.chunk().map_err(|error| self.unpackable(error))?.unwrap_or_default();
            let place = if is_layer(&first) {
                Place::Layer(self.layer(&name, (first, &mut member), &mut layers)?)
            } else if is_document(&first) && streamed.has_room_for(size) {
                let content = member.whole(first).map_err(|error| self.unpackable(error))?;
                Place::Document(content)
            } else {
                Place::Gone(size)
            };
            streamed.add(name, place)?;
        }
        reader.drain().map_err(|error| self.unpackable(error))?;
        Ok(streamed)
    }

    fn layer(
        &self,
        name: &str,
        (first, member): (Bytes, &mut Member<'_, '_>),
        layers: &mut Layers<'_>,
    ) -> Result<TakenLayer, PullError> {
        let limits = &self.options.limits;
        let number = layers.taken;
        if number == limits.layers {
            let (path, reason) = (self.path.clone(), format!("it holds more than {number} layers"));
            return Err(ArchiveError::Format { path, format: "an archive of an image", reason }.into());
        }
        layers.taken += 1;
        let control = Control {
            budget: &layers.budget,
            store: self.store.layout().root(),
            scratch: &self.store.layout().works(),
            cancelled: self.cancel.flag(),
            progress: &AtomicU64::new(0),
        };
        // An image has one large window at a time: where it may be the archive's own, it is not the layer's.
        let window_bytes = match layers.is_compressed.load(Ordering::Acquire) {
            true => limits.window_bytes.min(SMALL_WINDOW_BYTES),
            false => limits.window_bytes,
        };
        let chunks = (first, &mut || member.chunk());
        let directory = directory(layers.work, number);
        match self.store.index_member(&directory, (chunks.0, chunks.1), window_bytes, &control) {
            Ok(found) => Ok(TakenLayer { number, diff_id: found.diff_id, blob: found.blob }),
            Err(MemberError::Store(error)) => Err(error.into()),
            Err(MemberError::Failed(Failure::Archive(error))) => Err(self.unpackable(error)),
            Err(MemberError::Failed(Failure::Layer(source))) => Err(PullError::Member {
                archive: self.path.display().to_string(),
                member: shortened(name),
                source,
            }),
        }
    }

    /// The stream has broken off, or was not compressed as it was said to be.
    fn unreadable(&self, error: &io::Error) -> PullError {
        match error.kind() {
            io::ErrorKind::ConnectionAborted => self.broken(),
            _ => ArchiveError::of_inflating(&self.path, error).into(),
        }
    }

    fn too_large(&self, size: u64) -> PullError {
        let (path, limit) = (self.path.clone(), self.options.limits.unpacked_bytes);
        ArchiveError::TooLarge { path, member: ".".to_owned(), size, limit }.into()
    }

    fn unpackable(&self, error: IndexLayerError) -> PullError {
        ArchiveError::of_tar(&self.path, error).into()
    }
}

/// The body of the reader's current member.
struct Member<'a, 'b> {
    reader: &'a mut TarReader<'b>,
    left: u64,
}

impl Member<'_, '_> {
    /// The next chunk, full unless it is the last; nothing after it.
    fn chunk(&mut self) -> Result<Option<Bytes>, IndexLayerError> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        if wanted == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; wanted];
        let mut rest = chunk.as_mut_slice();
        while !rest.is_empty() {
            let count = self.reader.read_body(rest)?;
            (_, rest) = rest.split_at_mut(count);
        }
        self.left -= wanted as u64;
        Ok(Some(Bytes::from(chunk)))
    }

    /// What has come and all that follows.
    fn whole(&mut self, first: Bytes) -> Result<Vec<u8>, IndexLayerError> {
        let mut content = first.to_vec();
        while let Some(chunk) = self.chunk()? {
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }
}

fn is_layer(start: &[u8]) -> bool {
    is_compressed(start) || may_be_tar(start)
}

fn is_document(start: &[u8]) -> bool {
    matches!(start.trim_ascii_start().first(), Some(b'{' | b'['))
}
