//! Inflates a blob or an archive, whichever of gzip, zstd, xz, bzip2, lz4 or nothing compressed it.
//!
//! The first bytes decide, not the media type: registries and archives get that wrong, and both
//! digests are verified anyway. What a stream makes a decoder remember is bounded, and of decoders
//! that remember more than 8 MiB there are a few at a time in a process (`window`).

use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use lzma_rust2::XzReader;

use crate::disk::DiskFull;

mod window;

pub(crate) use window::{LargeWindow, Room, WINDOWS};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// zstd's skippable frames: `0x184D2A50` to `…5F`, little-endian.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: &[u8] = b"BZh";
const LZ4: &[u8] = &[0x04, 0x22, 0x4d, 0x18];

/// More than zstd's levels and most of xz's presets take. Of decoders with such windows there may be any number.
pub(crate) const SMALL_WINDOW_BYTES: u64 = 8 << 20;
/// Bytes that are read at once of what was put aside.
const ASIDE_BYTES: usize = 128 << 10;

/// What compressed a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Nothing.
    None,
    Gzip,
    Zstd,
    /// One of those that no media type of a layer is for.
    Other,
}

/// What compressed a stream that starts like this.
pub(crate) fn compression(start: &[u8]) -> Compression {
    let is_skippable = start.get(1..).is_some_and(|rest| rest.starts_with(ZSTD_SKIPPABLE));
    if start.starts_with(GZIP) {
        Compression::Gzip
    } else if is_skippable || start.starts_with(ZSTD) {
        Compression::Zstd
    } else if [XZ, BZIP2, LZ4].iter().any(|magic| start.starts_with(magic)) {
        Compression::Other
    } else {
        Compression::None
    }
}

/// Whether a stream that starts like this is compressed.
pub(crate) fn is_compressed(start: &[u8]) -> bool {
    compression(start) != Compression::None
}

/// A blob's content, inflated while it is read.
pub(crate) enum Inflate<'a, R> {
    /// A plain tar stream.
    Plain(R),
    /// One or more members, frames or streams of one kind.
    Compressed {
        decoder: Box<dyn Read + 'a>,
        /// Held while the decoder may take a large window.
        window: Option<LargeWindow<'a>>,
    },
}

/// Why a stream is not inflated.
#[derive(Debug)]
pub(crate) enum InflateError {
    /// It cannot be read, or not by its decoder.
    Stream(io::Error),
    /// It could not be put aside while there was no window for it.
    Aside(io::Error),
    /// There was no room to do so.
    DiskFull(DiskFull),
    Cancelled,
}

impl<'a, R: BufRead + 'a> Inflate<'a, R> {
    /// Looks at the first bytes. A decoder with a large window waits until there is one; what comes meanwhile is put aside,
    /// so that whoever sends it is not kept waiting, nor others by whoever sends slowly.
    pub(crate) fn new(mut input: R, room: &Room<'a>) -> Result<Inflate<'a, R>, InflateError> {
        let start = input.fill_buf().map_err(InflateError::Stream)?;
        if !is_compressed(start) {
            return Ok(Inflate::Plain(input));
        }
        let is_large = match start {
            start if start.starts_with(XZ) => true, // Each block says for itself.
            start if start.starts_with(ZSTD) => {
                zstd_window(start).is_none_or(|bytes| bytes > SMALL_WINDOW_BYTES)
            }
            start => start.get(1..).is_some_and(|rest| rest.starts_with(ZSTD_SKIPPABLE)),
        };
        if !is_large || room.window_bytes <= SMALL_WINDOW_BYTES {
            let decoder = decoder(input, room.window_bytes.min(SMALL_WINDOW_BYTES));
            return Ok(Inflate::Compressed { decoder: decoder.map_err(InflateError::Stream)?, window: None });
        }
        let (window, aside) = window::wait(&mut input, room)?;
        let decoder = match aside {
            None => decoder(input, room.window_bytes),
            Some(aside) => {
                decoder(BufReader::with_capacity(ASIDE_BYTES, aside).chain(input), room.window_bytes)
            }
        };
        Ok(Inflate::Compressed { decoder: decoder.map_err(InflateError::Stream)?, window: Some(window) })
    }
}

impl<R> Inflate<'_, R> {
    /// Whether it has one of the large windows, of which there are a few.
    pub(crate) fn has_large_window(&self) -> bool {
        matches!(self, Inflate::Compressed { window: Some(_), .. })
    }
}

fn decoder<'a, R: BufRead + 'a>(mut input: R, window_bytes: u64) -> io::Result<Box<dyn Read + 'a>> {
    let start = input.fill_buf()?;
    Ok(match start {
        start if start.starts_with(GZIP) => Box::new(MultiGzDecoder::new(input)),
        start if start.starts_with(BZIP2) => Box::new(MultiBzDecoder::new(input)),
        start if start.starts_with(LZ4) => {
            Box::new(Lz4 { decoder: FrameDecoder::new(Unending(input)), is_at_end: false })
        }
        start if start.starts_with(XZ) => {
            // The reader's own buffers are part of what it counts.
            let kib = u32::try_from(window_bytes / 1024 + 1024).unwrap_or(u32::MAX);
            Box::new(XzReader::new_mem_limit(input, true, kib))
        }
        _ => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(window_bytes.max(1).ilog2())?;
            Box::new(decoder)
        }
    })
}

impl<R: Read> Read for Inflate<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Inflate::Plain(input) => input.read(buffer),
            Inflate::Compressed { decoder, .. } => decoder.read(buffer),
        }
    }
}

/// What a zstd frame asks for, by its header; `None` if that is not all there.
///
/// Source: RFC 8878, section 3.1.1.1.
fn zstd_window(start: &[u8]) -> Option<u64> {
    let (descriptor, rest) = start.get(ZSTD.len()..)?.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // A single segment: the window is the content, whose size stands behind the dictionary's number.
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let length = [1, 2, 4, 8].get(usize::from(descriptor >> 6))?;
    let size = rest.get(*dictionary..dictionary + length)?;
    let number = size.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Some(if *length == 2 { number + 256 } else { number })
}

/// All frames of an lz4 stream; the decoder itself ends with each. To it, a stream that ends within a
/// frame would be a short one.
struct Lz4<R: Read> {
    decoder: FrameDecoder<Unending<R>>,
    is_at_end: bool,
}

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.is_at_end {
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.is_at_end = self.decoder.get_mut().0.fill_buf()?.is_empty();
        }
        Ok(0)
    }
}

/// A stream whose end is an error, and not the one that the decoder takes for an end.
struct Unending<R>(R);

impl<R: Read> Read for Unending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::Error::other("the stream ends within a frame")),
            count => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::limits::Limits;

    /// What zstd's default level takes for a stream of unknown length.
    const WINDOW: u64 = 1 << 21;

    fn inflated(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let no = AtomicBool::new(false);
        let (of_image, cancelled, scratch) = (&no, &no, Path::new("/nowhere"));
        let limits = &Limits::default();
        let room = Room { window_bytes: WINDOW, of_image, scratch, limits, cancelled, windows: &WINDOWS };
        let mut inflate =
            Inflate::new(blob, &room).map_err(|error| io::Error::other(format!("{error:?}")))?;
        inflate.read_to_end(&mut out)?;
        assert_eq!(inflate.read(&mut [0; 9])?, 0, "an end stays one");
        Ok(out)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// What the program makes of it.
    fn by(tool: &str, content: &[u8]) -> Vec<u8> {
        let mut child = std::process::Command::new(tool)
            .args(["-c", "-1"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || input.write_all(content).unwrap());
            child.wait_with_output().unwrap().stdout
        })
    }

    #[test]
    fn windows_are_known_before_a_decoder_takes_them() {
        for (level_window, bytes) in [(21, 1 << 21), (27, 1 << 27)] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(level_window).unwrap();
            encoder.write_all(&[7; 300_000]).unwrap();
            assert_eq!(zstd_window(&encoder.finish().unwrap()), Some(bytes));
        }
        assert_eq!(zstd_window(&zstd::bulk::compress(&[7; 300], 1).unwrap()), Some(300));
        assert_eq!(zstd_window(ZSTD), None);
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
        for tool in ["xz", "bzip2", "lz4"] {
            let one = by(tool, &content);
            let two = [by(tool, &content[..100]), by(tool, &content[100..])].concat();
            assert!(is_compressed(&one[..6]), "{tool}");
            assert!(inflated(&one).unwrap() == content, "{tool}");
            assert!(inflated(&two).unwrap() == content, "{tool}, two streams");
            for cut in [1, 5, 9, one.len() - 7] {
                assert!(inflated(&one[..one.len() - cut]).is_err(), "{tool}, cut by {cut}");
            }
            assert!(inflated(&[&one[..], b"trailing"].concat()).is_err(), "{tool}, with more behind");
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
