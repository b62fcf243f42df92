//! Channels of chunks, read as streams.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::Receiver;

use hyper::body::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::registry::Received;

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

/// The network's chunks as a stream for a thread. It ends well only with [`Received::End`].
pub(in crate::store) struct NetworkReader {
    chunks: mpsc::Receiver<Received>,
    current: Bytes,
    ended: bool,
}

impl NetworkReader {
    pub(in crate::store) fn new(chunks: mpsc::Receiver<Received>) -> NetworkReader {
        NetworkReader { chunks, current: Bytes::new(), ended: false }
    }
}

impl Read for NetworkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Received::Bytes(bytes)) => self.current = bytes,
                Some(Received::End) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let read = self.current.as_ref().read(buffer)?;
        self.current.advance(read);
        Ok(read)
    }
}
