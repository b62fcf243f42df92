//! gzip (RFC 1952) as the original wrote it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

use super::copy::{Copied, Copy, CopyError};

/// What zlib writes by default: deflate, no flags, no time, Unix.
pub(super) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

/// What follows the compressed bytes. ISIZE is the length modulo 2^32, which [`Crc`] counts so.
pub(super) fn trailer(crc: &Crc) -> [u8; 8] {
    let mut trailer = [0; 8];
    let (sum, length) = trailer.split_at_mut(4);
    sum.copy_from_slice(&crc.sum().to_le_bytes());
    length.copy_from_slice(&crc.amount().to_le_bytes());
    trailer
}

/// Compressors of one run, each of which compresses one file after the other. A compressor takes 380 KB, aligned to cache lines;
/// glibc before 2.38 seldom gives such room out again, so that ten thousand little files with one each took 150 MB.
#[derive(Clone, Debug, Default)]
pub(super) struct Compressors(Arc<Mutex<Vec<DeflateEncoder<Vec<u8>>>>>);

impl Compressors {
    /// Compresses a file.
    ///
    /// # Errors
    ///
    /// [`CopyError`]
    pub(super) fn gzip(&self, copy: &Copy<'_>, mut out: impl Write) -> Result<Copied, CopyError> {
        let mut compressor = self.take();
        let mut crc = Crc::new();
        out.write_all(&HEADER)?;
        let copied = copy.to(|_, bytes| {
            crc.update(bytes);
            compressor.write_all(bytes)?;
            pass_on(compressor.get_mut(), &mut out)
        })?;
        let mut rest = compressor.reset(Vec::new())?;
        pass_on(&mut rest, &mut out)?;
        out.write_all(&trailer(&crc))?;
        // After an error there may be bytes of another file in it.
        self.give_back(compressor);
        Ok(copied)
    }

    fn take(&self) -> DeflateEncoder<Vec<u8>> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| DeflateEncoder::new(Vec::new(), Compression::default()))
    }

    fn give_back(&self, compressor: DeflateEncoder<Vec<u8>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(compressor);
    }
}

fn pass_on(ready: &mut Vec<u8>, out: &mut impl Write) -> io::Result<()> {
    out.write_all(ready)?;
    ready.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::super::copy::Patience;
    use super::*;
    use crate::interrupt::{Interrupt, Notice, channel};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_compressor_knows_nothing_of_the_file_before() {
        let (interrupter, interrupts) = channel();
        let patience = Patience::with_artifact(&interrupts);
        let compressors = Compressors::default();
        let noise: Vec<u8> =
            (0_u32..300_000).flat_map(|it| it.wrapping_mul(2_654_435_769).to_le_bytes()).collect();
        for bytes in [b"abc".as_slice(), &[], &noise, b"abc", &noise] {
            let source = file(bytes);
            let copy = Copy { source: &source, size: bytes.len() as u64, patience: &patience, place: None };
            let (mut once, mut again) = (Vec::new(), Vec::new());
            Compressors::default().gzip(&copy, &mut once).unwrap();
            let copied = compressors.gzip(&copy, &mut again).unwrap();
            assert_eq!(copied.size, bytes.len() as u64);
            assert!(once == again, "{} bytes", bytes.len());
            let (mut decoder, mut decoded) = (GzDecoder::new(&again[..]), Vec::new());
            decoder.read_to_end(&mut decoded).unwrap();
            assert!(decoded == bytes && decoder.into_inner().is_empty());
        }
        assert_eq!(compressors.0.lock().unwrap().len(), 1, "there was one at a time");

        interrupter.interrupt(Interrupt::Cancelled, Notice::Signal);
        let source = file(&noise);
        let copy = Copy { source: &source, size: noise.len() as u64, patience: &patience, place: None };
        assert!(compressors.gzip(&copy, io::sink()).is_err());
        assert!(compressors.0.lock().unwrap().is_empty(), "one that was interrupted is not used again");
    }
}
