//! The data file: contents of one layer's files, each from a block boundary on.
//!
//! Writes are collected to mebibytes, so that thousands of small files cost a few calls. Holes are
//! neither written nor, where they fill a chunk, given a place.
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::error::IndexLayerError;
use super::reader::TarReader;
use super::sparse::SparseMap;
use super::{BLOCK_BYTES, FileBlocks};
use crate::disk::Watch;

const BUFFER_BYTES: usize = 1 << 20;

/// Sparse files are cut in chunks of at least 64 KiB and in at most 65,536 of them. What a chunk
/// holds besides data is a hole of the data file, so a large chunk costs no disk, and the index of
/// a layer of nothing but holes stays small: 8 bytes for 64 KiB.
const CHUNK_BITS: u32 = 16;
const CHUNKS_BITS: u32 = 16;
/// EROFS has five bits for the chunk's size in blocks.
const LARGEST_CHUNK_BITS: u32 = 43;

/// Appends to a data file.
pub struct DataWriter<'a> {
    file: &'a File,
    /// Where the buffer's first byte belongs.
    start: u64,
    buffer: Box<[u8]>,
    filled: usize,
    /// Bytes on disk: holes are not counted.
    written: u64,
    disk: Option<Watch<'a>>,
}

impl<'a> DataWriter<'a> {
    pub fn new(file: &'a File, disk: Option<Watch<'a>>) -> DataWriter<'a> {
        DataWriter { file, start: 0, buffer: vec![0; BUFFER_BYTES].into(), filled: 0, written: 0, disk }
    }

    /// Takes the current member's whole body.
    pub fn append_file(
        &mut self,
        reader: &mut TarReader<'_>,
        length: u64,
    ) -> Result<FileBlocks, IndexLayerError> {
        let first = block_at(self.position())?;
        block_at(self.position().saturating_add(length))?;
        self.append(reader, length)?;
        self.pad_to(self.position().next_multiple_of(BLOCK_BYTES))?;
        Ok(FileBlocks::Run(first))
    }

    /// Takes the current member's body as the pieces of a sparse file.
    pub fn append_sparse(
        &mut self,
        reader: &mut TarReader<'_>,
        map: &SparseMap,
    ) -> Result<FileBlocks, IndexLayerError> {
        let bits = chunk_bits(map.size);
        let chunk_bytes = 1_u64 << bits;
        let chunks = map.size.div_ceil(chunk_bytes);
        let mut starts: Vec<Option<u32>> = Vec::new();
        for piece in &map.pieces {
            let (mut offset, mut left) = (piece.offset, piece.length);
            while left > 0 {
                let chunk = offset >> bits;
                // Pieces are in order, so the chunk is the last one, or a new one after a hole.
                if chunk >= starts.len() as u64 {
                    starts.resize(usize::try_from(chunk).unwrap_or(usize::MAX), None);
                    let end = self.end_of_chunk(starts.iter().flatten().next_back(), chunk_bytes);
                    starts.push(Some(block_at(end)?));
                }
                let Some(start) = starts.last().copied().flatten() else { break };
                let within = offset % chunk_bytes;
                let count = left.min(chunk_bytes - within);
                self.pad_to(u64::from(start) * BLOCK_BYTES + within)?;
                self.append(reader, count)?;
                (offset, left) = (offset + count, left - count);
            }
        }
        let end = self.end_of_chunk(starts.iter().flatten().next_back(), chunk_bytes);
        block_at(end)?;
        self.pad_to(end)?;
        starts.resize(usize::try_from(chunks).unwrap_or(usize::MAX), None);
        Ok(FileBlocks::Chunks { chunk_bits: u8::try_from(bits).unwrap_or(u8::MAX), starts: starts.into() })
    }

    /// Writes what is left and gives the file its length. Returns that in blocks.
    pub fn finish(mut self) -> Result<u32, IndexLayerError> {
        let end = self.position().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES);
        self.flush()?;
        self.file.set_len(end).map_err(|source| IndexLayerError::Write {
            file: "data",
            offset: end,
            source,
        })?;
        block_at(end)
    }

    fn position(&self) -> u64 {
        self.start + self.filled as u64
    }

    /// Behind the chunk that starts at a block, or here if there is none yet.
    fn end_of_chunk(&self, start: Option<&u32>, chunk_bytes: u64) -> u64 {
        match start {
            Some(start) => u64::from(*start) * BLOCK_BYTES + chunk_bytes,
            None => self.position(),
        }
    }

    fn append(&mut self, reader: &mut TarReader<'_>, length: u64) -> Result<(), IndexLayerError> {
        let mut left = length;
        while left > 0 {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let at = self.position();
            let space = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let wanted = space.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (space, _) = space.split_at_mut(wanted);
            let count = reader.read_body_to(space, at)?;
            self.filled += count;
            left -= count as u64;
        }
        Ok(())
    }

    /// Moves on to `position`: with zeros inside the buffer, else with a hole.
    fn pad_to(&mut self, position: u64) -> Result<(), IndexLayerError> {
        let gap = usize::try_from(position.saturating_sub(self.position())).unwrap_or(usize::MAX);
        let space = self.buffer.get_mut(self.filled..).unwrap_or_default();
        if gap <= space.len() {
            let (space, _) = space.split_at_mut(gap);
            space.fill(0);
            self.filled += gap;
            return Ok(());
        }
        self.flush()?;
        self.start = position;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IndexLayerError> {
        let (filled, _) = self.buffer.split_at(self.filled);
        self.written += self.filled as u64;
        let written = self.written;
        self.disk.as_mut().map_or(Ok(()), |disk| disk.reached(written)).map_err(IndexLayerError::DiskFull)?;
        self.file.write_all_at(filled, self.start).map_err(|source| IndexLayerError::Write {
            file: "data",
            offset: self.start,
            source,
        })?;
        self.start += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

/// The number of the block that starts at a byte. EROFS addresses 2^32 blocks; the last number marks a hole.
fn block_at(position: u64) -> Result<u32, IndexLayerError> {
    match u32::try_from(position / BLOCK_BYTES) {
        Ok(block) if block < u32::MAX => Ok(block),
        _ => Err(IndexLayerError::DataTooLong),
    }
}

/// The smallest chunk that keeps a file of this size within the number of chunks.
fn chunk_bits(size: u64) -> u32 {
    let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
    bits.saturating_sub(CHUNKS_BITS).clamp(CHUNK_BITS, LARGEST_CHUNK_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_with_the_file() {
        let cases = [(0, 16), (1, 16), (1 << 32, 16), ((1 << 32) + 1, 17), (100 << 30, 21), (u64::MAX, 43)];
        for (size, bits) in cases {
            assert_eq!(chunk_bits(size), bits, "{size}");
        }
    }
}
