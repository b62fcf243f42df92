//! A channel of chunks, read as a stream.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::Receiver;

use hyper::body::{Buf, Bytes};

/// Reads the chunks of a channel until its sender is gone.
///
/// A sender that failed looks like the end of the stream here; who joins the stages asks it first.
pub(in crate::store) struct ChunkReader {
    chunks: Receiver<Bytes>,
    current: Bytes,
}

impl ChunkReader {
    pub(in crate::store) fn new(chunks: Receiver<Bytes>) -> ChunkReader {
        ChunkReader { chunks, current: Bytes::new() }
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.chunks.recv() {
                Ok(chunk) => self.current = chunk,
                Err(_ended) => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, bytes: usize) {
        self.current.advance(bytes);
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let bytes = available.read(buffer)?;
        self.consume(bytes);
        Ok(bytes)
    }
}
