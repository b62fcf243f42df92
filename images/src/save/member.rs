//! Members of the archive that is written: their headers, and bodies that are verified while they go by.
//!
//! The size stands in front of a body and its digest is known only behind it. So the last bytes are held back until all
//! agree: a body that is not what its name promises ends too early, which no reader of tar takes for a whole one.

use std::io::{self, Write};

use crate::digest::{Digest, Hasher};
use crate::manifest::Descriptor;

use super::SaveError;
use super::header::Header;

/// Bytes that a tar file is made of.
const BLOCK_BYTES: usize = 512;
/// Bytes that are held back at most, and written at once.
const HELD_BYTES: usize = 128 << 10;

/// A tar file on its way out. Without [`Archive::finish`] it has no end.
pub(super) struct Archive<'a> {
    out: &'a mut dyn Write,
}

impl<'a> Archive<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Archive<'a> {
        Archive { out }
    }

    /// Adds a document that is in memory.
    pub(super) fn document(&mut self, name: &str, content: &[u8]) -> Result<(), SaveError> {
        self.header(name, content.len() as u64).map_err(SaveError::Write)?;
        self.out.write_all(content).map_err(SaveError::Write)?;
        self.pad(content.len() as u64).map_err(SaveError::Write)
    }

    /// Begins a member that is to be a certain blob. It has to be ended by [`Archive::end`].
    pub(super) fn begin<'b>(&'b mut self, name: &str, blob: &'b Descriptor) -> Result<Body<'b>, SaveError> {
        self.header(name, blob.size).map_err(SaveError::Write)?;
        let hasher = Hasher::new(blob.digest.algorithm());
        Ok(Body {
            out: self.out,
            blob,
            hasher,
            held: Vec::with_capacity(HELD_BYTES),
            bytes: 0,
            refused: None,
        })
    }

    /// Fills up the last block of a body.
    pub(super) fn pad(&mut self, bytes: u64) -> io::Result<()> {
        let block = BLOCK_BYTES as u64;
        let missing = usize::try_from(bytes.next_multiple_of(block) - bytes).unwrap_or_default();
        self.out.write_all([0; BLOCK_BYTES].get(..missing).unwrap_or_default())
    }

    /// The end, which two blocks of zeros mark.
    pub(super) fn finish(self) -> Result<(), SaveError> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES]).and_then(|()| self.out.flush()).map_err(SaveError::Write)
    }

    /// Nothing of when and by whom: the same image gives the same archive.
    fn header(&mut self, name: &str, size: u64) -> io::Result<()> {
        let header = Header { size, mode: 0o644, ..Header::mark(name.as_bytes()) };
        self.out.write_all(&header.encode(&header.records()))
    }
}

/// The body of a member, which has to become what its descriptor says.
pub(super) struct Body<'a> {
    out: &'a mut dyn Write,
    blob: &'a Descriptor,
    hasher: Hasher,
    held: Vec<u8>,
    bytes: u64,
    /// Why the archive took no more: then whoever wrote into it is not at fault.
    refused: Option<io::Error>,
}

impl Body<'_> {
    /// Ends it: what was held back follows if it is the blob.
    pub(super) fn end(self) -> Result<(), SaveError> {
        let found = |found: Option<Digest>| SaveError::Content { blob: self.blob.digest.clone(), found };
        if self.bytes != self.blob.size {
            return Err(found(None));
        }
        self.hasher.verify(&self.blob.digest).map_err(|digest| found(Some(digest)))?;
        self.out.write_all(&self.held).map_err(SaveError::Write)
    }

    /// The error of somebody who wrote into it, by whose it is.
    pub(super) fn failed(self, error: io::Error) -> SaveError {
        match self.refused {
            Some(refused) => SaveError::Write(refused),
            None if self.bytes > self.blob.size => {
                SaveError::Content { blob: self.blob.digest.clone(), found: None }
            }
            None => SaveError::Read { blob: self.blob.digest.clone(), source: error },
        }
    }
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.blob.size {
            return Err(io::Error::other("more bytes came than were announced"));
        }
        self.hasher.update(bytes);
        if self.held.len() + bytes.len() > HELD_BYTES
            && let Err(error) = self.out.write_all(&self.held)
        {
            let told = io::Error::from(error.kind());
            self.refused = Some(error);
            return Err(told);
        }
        if self.held.len() + bytes.len() > HELD_BYTES {
            self.held.clear();
        }
        self.held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// What is held back stays so.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(content: &[u8], promised: &[u8]) -> (Result<(), SaveError>, Vec<u8>) {
        let mut out = Vec::new();
        let blob = Descriptor { digest: Digest::of(promised), size: promised.len() as u64 };
        let mut archive = Archive::new(&mut out);
        let mut body = archive.begin("x", &blob).unwrap();
        let ended = match body.write_all(content) {
            Ok(()) => body.end(),
            Err(error) => Err(body.failed(error)),
        };
        let ended = ended.and_then(|()| archive.pad(blob.size).map_err(SaveError::Write));
        (ended.and_then(|()| archive.finish()), out)
    }

    #[test]
    fn a_body_that_is_not_what_was_promised_ends_too_early_for_every_reader() {
        let promised = vec![b'p'; 3 * HELD_BYTES];
        let (mut longer, mut other) = (promised.clone(), promised.clone());
        longer.push(b'p');
        other[7] = b'o';
        let shorter = promised[1..].to_vec();
        for (name, content) in [("longer", longer), ("shorter", shorter), ("other", other)] {
            let (ended, out) = written(&content, &promised);
            assert!(matches!(ended, Err(SaveError::Content { .. })), "{name}: {ended:?}");
            assert!(out.len() < BLOCK_BYTES + promised.len(), "{name}");
            let mut archive = tar::Archive::new(out.as_slice());
            assert!(archive.entries().unwrap().any(|entry| entry.is_err()), "{name}");
        }
        let (ended, out) = written(&promised, &promised);
        assert!(ended.is_ok() && out.ends_with(&[0; 2 * BLOCK_BYTES]), "{ended:?}");
        assert_eq!(out.len() % BLOCK_BYTES, 0);
    }

    #[test]
    fn names_too_long_for_a_header_come_back_whole() {
        for name in ["short".to_owned(), format!("blobs/sha512/{}", "a".repeat(128))] {
            let mut out = Vec::new();
            let mut archive = Archive::new(&mut out);
            archive.document(&name, b"content").unwrap();
            archive.finish().unwrap();
            let mut archive = tar::Archive::new(out.as_slice());
            let entry = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(entry.path().unwrap().to_str().unwrap(), name);
        }
    }
}
