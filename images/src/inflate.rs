//! Inflates a layer's blob, whichever of gzip, zstd or nothing compressed it.
//!
//! The first bytes decide, not the media type: registries and archives get that wrong, and both
//! digests are verified anyway.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// zstd's skippable frames: `0x184D2A50` to `…5F`, little-endian.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];

/// A blob's content, inflated while it is read.
pub(crate) enum Inflate<R: BufRead> {
    /// A plain tar stream.
    Plain(R),
    /// One or more gzip members.
    Gzip(Box<MultiGzDecoder<R>>),
    /// One or more zstd frames.
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Inflate<R> {
    /// Looks at the first bytes. A zstd frame may ask for `window_bytes` of memory at most.
    pub(crate) fn new(mut input: R, window_bytes: u64) -> io::Result<Inflate<R>> {
        let start = input.fill_buf()?;
        if start.starts_with(GZIP) {
            return Ok(Inflate::Gzip(Box::new(MultiGzDecoder::new(input))));
        }
        if start.starts_with(ZSTD) || start.get(1..).is_some_and(|rest| rest.starts_with(ZSTD_SKIPPABLE)) {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(window_bytes.max(1).ilog2())?;
            return Ok(Inflate::Zstd(Box::new(decoder)));
        }
        Ok(Inflate::Plain(input))
    }
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Inflate::Plain(input) => input.read(buffer),
            Inflate::Gzip(decoder) => decoder.read(buffer),
            Inflate::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What zstd's default level takes for a stream of unknown length.
    const WINDOW: u64 = 1 << 21;

    fn inflated(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Inflate::new(blob, WINDOW)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_compression_gives_the_same_content() {
        let content = vec![7; 300_000];
        let zstd = zstd::encode_all(&content[..], 3).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &zstd].concat();
        let members = [gzip(&content[..100]), gzip(&content[100..])].concat();
        let frames =
            [zstd::encode_all(&content[..9], 1).unwrap(), zstd::encode_all(&content[9..], 1).unwrap()]
                .concat();
        for blob in [content.clone(), gzip(&content), members, zstd, skippable, frames] {
            assert!(inflated(&blob).unwrap() == content);
        }
        assert_eq!(inflated(b"").unwrap(), b"");
    }

    #[test]
    fn damaged_and_oversized_streams_are_errors() {
        let content = vec![7; 300_000];
        let gzip = gzip(&content);
        assert!(inflated(&gzip[..gzip.len() - 5]).is_err());
        assert!(inflated(&[&gzip[..], b"trailing"].concat()).is_err());
        let zstd = zstd::encode_all(&content[..], 3).unwrap();
        assert!(inflated(&zstd[..zstd.len() - 5]).is_err());
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(23).unwrap();
        encoder.write_all(&content).unwrap();
        assert!(inflated(&encoder.finish().unwrap()).is_err(), "a window of 8 MiB where 2 MiB are allowed");
    }
}
