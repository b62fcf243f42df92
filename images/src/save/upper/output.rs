//! Where the stream goes: one buffer that is filled in place, hashed once it is full, and given away.
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use super::SaveUpperError;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::layer::EntryName;

/// A file is read right into it: large enough that calls do not count, small enough for the cache to
/// still have what the hash wants.
const BUFFER_BYTES: usize = 1 << 20;
const TAR_BLOCK: u64 = 512;

pub struct Output<'a> {
    sink: &'a mut dyn Write,
    cancelled: &'a AtomicBool,
    buffer: Box<[u8]>,
    filled: usize,
    /// Bytes that the sink has.
    given: u64,
    hasher: Hasher,
}

impl<'a> Output<'a> {
    pub fn new(sink: &'a mut dyn Write, cancelled: &'a AtomicBool) -> Output<'a> {
        let buffer = vec![0; BUFFER_BYTES].into();
        Output { sink, cancelled, buffer, filled: 0, given: 0, hasher: Hasher::new(Algorithm::Sha256) }
    }

    /// Bytes of the stream so far.
    pub fn bytes(&self) -> u64 {
        self.given + self.filled as u64
    }

    pub fn look_at_cancel(&self) -> Result<(), SaveUpperError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(SaveUpperError::Cancelled) } else { Ok(()) }
    }

    pub fn put(&mut self, mut bytes: &[u8]) -> Result<(), SaveUpperError> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len() as u64)?;
            let (now, later) = bytes.split_at(room.len());
            room.copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
        }
        Ok(())
    }

    pub fn zeros(&mut self, mut count: u64) -> Result<(), SaveUpperError> {
        while count > 0 {
            let room = self.room(count)?;
            room.fill(0);
            let now = room.len();
            self.filled += now;
            count -= now as u64;
        }
        Ok(())
    }

    /// Has `read` fill the buffer with as many bytes, not one more. It gives at least one, or an error.
    pub fn fill(
        &mut self,
        mut count: u64,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, SaveUpperError>,
    ) -> Result<(), SaveUpperError> {
        while count > 0 {
            let room = self.room(count)?;
            let now = read(room)?.min(room.len());
            self.filled += now;
            count -= now as u64;
        }
        Ok(())
    }

    /// Zeros up to the next block.
    pub fn pad(&mut self) -> Result<(), SaveUpperError> {
        self.zeros(self.bytes().next_multiple_of(TAR_BLOCK) - self.bytes())
    }

    /// Writes the end of the archive. The digest and the number of all bytes.
    pub fn finish(mut self) -> Result<(Digest, u64), SaveUpperError> {
        self.zeros(2 * TAR_BLOCK)?;
        self.give()?;
        self.sink.flush().map_err(|source| SaveUpperError::Sink { offset: self.given, source })?;
        Ok((self.hasher.finish(), self.given))
    }

    /// At least one byte of the buffer, and `at_most` as many.
    fn room(&mut self, at_most: u64) -> Result<&mut [u8], SaveUpperError> {
        if self.filled == self.buffer.len() {
            self.give()?;
        }
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let length = usize::try_from(at_most).unwrap_or(usize::MAX).min(room.len());
        Ok(room.get_mut(..length).unwrap_or_default())
    }

    fn give(&mut self) -> Result<(), SaveUpperError> {
        self.look_at_cancel()?;
        let bytes = self.buffer.get(..self.filled).unwrap_or_default();
        self.hasher.update(bytes);
        let written = self.sink.write_all(bytes);
        written.map_err(|source| SaveUpperError::Sink { offset: self.given, source })?;
        self.given += bytes.len() as u64;
        self.filled = 0;
        Ok(())
    }
}

/// More than what an image may have.
pub fn too_large(path: &[u8], what: &'static str, limit: u64) -> SaveUpperError {
    SaveUpperError::TooLarge { entry: EntryName::new(path), what, limit }
}
