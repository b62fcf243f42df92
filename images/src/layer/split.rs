//! What of a layer's tar stream is not contents of its files. With the data file, the stream is written again from it
//! byte for byte, so that an image can be saved of which no blob was kept.
//!
//! ```text
//! head      24 bytes: magic, version, length of the tar stream
//! zstd of records, each of them
//!   numbers 24 bytes: how many bytes follow, how many of the data file follow these, and where they are
//!   bytes   as they came: headers, extension records, maps of sparse files, padding, what is behind the end
//! ```
//!
//! Contents that lie side by side in the stream and in the data file are one run. Where a run is stands as the distance
//! from the first block behind the run before, which is nothing nearly always, and so takes no room. What the data file
//! leaves out as holes is read of it as zeros.
//!
//! Why not from the index: one entry can be spelled in many ways, and a layer's diff id is of one of them. No digest
//! stands here, as the diff id is one of the whole.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::BLOCK_BYTES;
use super::budget::{Budget, Share};
use super::error::{ArchiveProblem, IndexLayerError};
use crate::disk::{DiskFull, Watch};

const MAGIC: &[u8; 12] = b"dw-tar-split";
/// Goes up whenever the format changes.
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 24;
const NUMBERS_BYTES: usize = 24;
/// The fastest that still sees that one header is like the one before.
const ZSTD_LEVEL: i32 = 1;
/// What decoders of that level need at most, as a power of two.
const WINDOW_LOG: u32 = 20;
/// Bytes that wait for their record's end.
const VERBATIM_BYTES: usize = 64 << 10;

/// Takes note of a stream while it is read.
pub struct SplitWriter<'a> {
    records: zstd::stream::write::Encoder<'static, Output<'a>>,
    verbatim: Vec<u8>,
    run: Run,
    /// Where the run before ended.
    before: u64,
    tar_bytes: u64,
    budget: &'a Budget,
    /// What the records have taken of it, until all is written.
    share: Share,
}

impl Drop for SplitWriter<'_> {
    fn drop(&mut self) {
        self.budget.give_back(self.share);
    }
}

/// Bytes of the data file.
#[derive(Clone, Copy, Default)]
struct Run {
    start: u64,
    length: u64,
}

/// The file behind its head.
struct Output<'a> {
    file: &'a File,
    at: u64,
    disk: Option<Watch<'a>>,
    /// Why it takes no more: an I/O error cannot say it.
    full: Option<DiskFull>,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.at + bytes.len() as u64;
        if let Some(Err(full)) = self.disk.as_mut().map(|disk| disk.reached(end)) {
            self.full = Some(full);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> SplitWriter<'a> {
    /// Into an empty file.
    pub fn new(
        file: &'a File,
        disk: Option<Watch<'a>>,
        budget: &'a Budget,
    ) -> Result<SplitWriter<'a>, IndexLayerError> {
        let output = Output { file, at: HEAD_BYTES as u64, disk, full: None };
        let records = zstd::stream::write::Encoder::new(output, ZSTD_LEVEL);
        let records =
            records.map_err(|source| IndexLayerError::Write { file: "split", offset: 0, source })?;
        let verbatim = Vec::with_capacity(VERBATIM_BYTES);
        let (run, share) = (Run::default(), Share::default());
        Ok(SplitWriter { records, verbatim, run, before: 0, tar_bytes: 0, budget, share })
    }

    /// The stream went on with these bytes, which are kept here.
    pub fn verbatim(&mut self, mut bytes: &[u8]) -> Result<(), IndexLayerError> {
        self.tar_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.run.length > 0 || self.verbatim.len() == VERBATIM_BYTES {
                self.end_record()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(VERBATIM_BYTES - self.verbatim.len()));
            self.verbatim.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// The stream went on with bytes that are in the data file from `start` on.
    pub fn stored(&mut self, start: u64, length: u64) -> Result<(), IndexLayerError> {
        self.tar_bytes += length;
        if self.run.length > 0 && self.run.start + self.run.length != start {
            self.end_record()?;
        }
        if self.run.length == 0 {
            self.run.start = start;
        }
        self.run.length += length;
        Ok(())
    }

    /// The stream has ended.
    pub fn finish(mut self) -> Result<(), IndexLayerError> {
        self.end_record()?;
        let ended = self.records.do_finish();
        let Output { file, at, full, .. } = self.records.get_mut();
        ended.map_err(|source| failed(*at, full.take(), source))?;
        let head = [&MAGIC[..], &VERSION.to_le_bytes(), &self.tar_bytes.to_le_bytes()].concat();
        file.write_all_at(&head, 0).map_err(|source| failed(0, None, source))?;
        self.share = Share::default();
        Ok(())
    }

    /// Counts what is kept as it came like contents: of noise nothing is left out, and it costs as much disk.
    fn admit(&mut self) -> Result<(), IndexLayerError> {
        let more = Share { unpacked_bytes: self.verbatim.len() as u64, ..Share::default() };
        self.share = self.share.and(more);
        self.budget.take(more).map_err(|(what, limit)| IndexLayerError::Archive {
            offset: self.tar_bytes,
            problem: ArchiveProblem::ImageTooLarge { what, limit },
        })
    }

    fn end_record(&mut self) -> Result<(), IndexLayerError> {
        if self.verbatim.is_empty() && self.run.length == 0 {
            return Ok(());
        }
        self.admit()?;
        let Run { start, length } = self.run;
        let distance = if length == 0 { 0 } else { start.wrapping_sub(next_block(self.before)) };
        let numbers = [self.verbatim.len() as u64, length, distance].map(u64::to_le_bytes);
        let written = self.records.write_all(numbers.as_flattened());
        let written = written.and_then(|()| self.records.write_all(&self.verbatim));
        let Output { at, full, .. } = self.records.get_mut();
        written.map_err(|source| failed(*at, full.take(), source))?;
        if length > 0 {
            self.before = start + length;
        }
        self.verbatim.clear();
        self.run = Run::default();
        Ok(())
    }
}

fn failed(offset: u64, full: Option<DiskFull>, source: io::Error) -> IndexLayerError {
    match full {
        Some(full) => IndexLayerError::DiskFull(full),
        None => IndexLayerError::Write { file: "split", offset, source },
    }
}

/// Where the contents of the file behind a run begin that is not sparse.
fn next_block(end: u64) -> u64 {
    end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or_default()
}

/// The tar stream of a layer. What is read may be another than the layer's, if a file is damaged: its diff id tells.
pub struct SplitReader {
    records: zstd::stream::read::Decoder<'static, BufReader<File>>,
    data: File,
    verbatim_left: u64,
    run: Run,
    before: u64,
    tar_bytes: u64,
    read: u64,
}

impl SplitReader {
    /// Of the two files of a layer, at its start.
    ///
    /// # Errors
    ///
    /// `InvalidData` for what is no such file, `Unsupported` for another version's; those of reading.
    pub fn new(mut split: File, data: File) -> io::Result<SplitReader> {
        let mut head = [0; HEAD_BYTES];
        split.seek(SeekFrom::Start(0))?;
        split.read_exact(&mut head)?;
        let versioned = head.strip_prefix(MAGIC).ok_or(io::ErrorKind::InvalidData)?;
        let length = versioned.strip_prefix(&VERSION.to_le_bytes()).ok_or(io::ErrorKind::Unsupported)?;
        let length = length.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        let mut records = zstd::stream::read::Decoder::new(split)?;
        records.window_log_max(WINDOW_LOG)?;
        Ok(SplitReader {
            records,
            data,
            verbatim_left: 0,
            run: Run::default(),
            before: 0,
            tar_bytes: u64::from_le_bytes(*length),
            read: 0,
        })
    }

    /// Length of the whole stream.
    pub fn tar_bytes(&self) -> u64 {
        self.tar_bytes
    }

    /// Reads the numbers of the next record; whether there is one.
    fn next_record(&mut self) -> io::Result<bool> {
        let mut numbers = [0; NUMBERS_BYTES];
        let (first, rest) = numbers.split_at_mut(1);
        if self.records.read(first)? == 0 {
            return Ok(false);
        }
        self.records.read_exact(rest)?;
        let mut numbers = numbers.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number));
        let mut number = || numbers.next().unwrap_or_default();
        let (verbatim, length, distance) = (number(), number(), number());
        let start = next_block(self.before).wrapping_add(distance);
        let end = start.checked_add(length).ok_or(io::ErrorKind::InvalidData)?;
        // One of nothing is never written; many of them would be a long wait for nothing.
        if verbatim == 0 && length == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.verbatim_left = verbatim;
        self.run = Run { start, length };
        if length > 0 {
            self.before = end;
        }
        Ok(true)
    }

    fn read_part(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let within = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = if self.verbatim_left > 0 {
            let length = within(self.verbatim_left);
            let count = self.records.read(buffer.get_mut(..length).unwrap_or_default())?;
            self.verbatim_left -= count as u64;
            count
        } else {
            let length = within(self.run.length);
            let count = self.data.read_at(buffer.get_mut(..length).unwrap_or_default(), self.run.start)?;
            self.run.start += count as u64;
            self.run.length -= count as u64;
            count
        };
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }
}

impl Read for SplitReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.verbatim_left == 0 && self.run.length == 0 && !self.next_record()? {
            let is_whole = self.read == self.tar_bytes;
            return if is_whole { Ok(0) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let count = self.read_part(buffer)?;
        self.read += count as u64;
        if self.read > self.tar_bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(count)
    }
}
