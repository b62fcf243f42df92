//! gzip (RFC 1952) for what is large and made at once: by several threads, fast rather than small.
//!
//! ```text
//!   written ─► pieces ─┬─► compressor ─┬─► one stream, in order
//!                      └─► compressor ─┘
//! ```
//!
//! It is one stream all the same, whose pieces know nothing of one another and begin at whole bytes: there are readers that
//! stop after the first of several. What does not get smaller, as most of an image's layers that came compressed, is
//! stored as it is: trying takes ten times as long as copying.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::gzip;

/// Bytes of a piece.
const PIECE_BYTES: usize = 512 << 10;
/// So many of them tell whether the others are worth compressing.
const SAMPLE_BYTES: usize = 32 << 10;
/// Threads at most, each with a piece in hand.
const THREADS: usize = 4;
/// Bytes of a stored block of deflate at most (RFC 1951, 3.2.4).
const STORED_BYTES: usize = 65_535;
/// The last block of a stream, with nothing in it.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Compresses what is written to it into a file. Without [`Pieces::finish`] that has no end.
pub(super) struct Pieces<'a> {
    out: &'a File,
    written: u64,
    piece: Vec<u8>,
    jobs: Sender<Job>,
    /// In the order of the pieces.
    waiting: VecDeque<Receiver<Done>>,
    /// Pieces that may be waited for, so that all threads have something to do.
    ahead: usize,
    crc: Crc,
}

struct Job {
    piece: Vec<u8>,
    done: SyncSender<Done>,
}

struct Done {
    compressed: Vec<u8>,
    crc: Crc,
    /// To be filled again.
    piece: Vec<u8>,
}

impl<'a> Pieces<'a> {
    /// Starts the threads, which end with this value.
    pub(super) fn start(mut out: &'a File) -> io::Result<Pieces<'a>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("gzip".to_owned()).spawn(move || compress(&queue))?;
        }
        out.write_all(&gzip::HEADER)?;
        let (written, piece) = (gzip::HEADER.len() as u64, Vec::with_capacity(PIECE_BYTES));
        let (waiting, ahead) = (VecDeque::new(), threads + 1);
        Ok(Pieces { out, written, piece, jobs, waiting, ahead, crc: Crc::new() })
    }

    /// Bytes that are in the file.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Writes the rest.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.hand_over()?;
        while !self.waiting.is_empty() {
            self.collect()?;
        }
        self.out.write_all(&LAST_BLOCK)?;
        self.out.write_all(&gzip::trailer(&self.crc))
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if self.waiting.len() >= self.ahead {
            self.piece = self.collect()?;
        }
        let (done, waiting) = sync_channel(1);
        self.waiting.push_back(waiting);
        self.jobs.send(Job { piece, done }).map_err(|_| gone())
    }

    /// Writes the piece that is next; gives its room back.
    fn collect(&mut self) -> io::Result<Vec<u8>> {
        let Some(next) = self.waiting.pop_front() else { return Ok(Vec::new()) };
        let Done { compressed, crc, mut piece } = next.recv().map_err(|_| gone())?;
        self.out.write_all(&compressed)?;
        self.written += compressed.len() as u64;
        self.crc.combine(&crc);
        piece.clear();
        Ok(piece)
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= PIECE_BYTES {
            self.hand_over()?;
        }
        let room = PIECE_BYTES - self.piece.len();
        let now = bytes.get(..room).unwrap_or(bytes);
        self.piece.extend_from_slice(now);
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread that compresses has ended")
}

/// One thread.
fn compress(queue: &Mutex<Receiver<Job>>) {
    let mut deflate = Compress::new(Compression::fast(), false);
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { piece, done }) = next else { return };
        let mut crc = Crc::new();
        crc.update(&piece);
        // Whoever waits hears of an error by the channel's end.
        let Ok(compressed) = compressed(&mut deflate, &piece) else { return };
        if done.send(Done { compressed, crc, piece }).is_err() {
            return;
        }
    }
}

/// A piece as blocks of deflate up to a whole byte.
fn compressed(deflate: &mut Compress, piece: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(PIECE_BYTES);
    let (sample, rest) = piece.split_at(piece.len().min(SAMPLE_BYTES));
    deflate.reset();
    put(deflate, sample, &mut out)?;
    let is_smaller = out.len() < sample.len() - sample.len() / 16;
    if is_smaller || rest.is_empty() {
        put(deflate, rest, &mut out)?;
        return Ok(out);
    }
    out.clear();
    for block in piece.chunks(STORED_BYTES) {
        let length = u16::try_from(block.len()).map_err(io::Error::other)?;
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    Ok(out)
}

fn put(deflate: &mut Compress, mut bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let before = deflate.total_in();
        deflate.compress_vec(bytes, out, FlushCompress::Sync)?;
        let taken = usize::try_from(deflate.total_in() - before).unwrap_or(usize::MAX);
        bytes = bytes.get(taken..).unwrap_or_default();
        // Room that is left over means that there was nothing more to write.
        if bytes.is_empty() && out.len() < out.capacity() {
            return Ok(());
        }
        out.reserve(SAMPLE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use flate2::read::GzDecoder;

    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..bytes).map(|_| next()).collect()
    }

    fn zipped(bytes: &[u8], at_once: usize) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        let mut pieces = Pieces::start(&file).unwrap();
        for part in bytes.chunks(at_once) {
            pieces.write_all(part).unwrap();
        }
        pieces.finish().unwrap();
        file.rewind().unwrap();
        let mut zipped = Vec::new();
        file.read_to_end(&mut zipped).unwrap();
        zipped
    }

    #[test]
    fn it_is_one_stream_whatever_is_written_however() {
        let text = b"all work and no play makes a dull image\n".repeat(100_000);
        let mixed = [&noise(700_000)[..], &text, &noise(3)].concat();
        for (name, bytes) in
            [("nothing", Vec::new()), ("short", b"abc".to_vec()), ("text", text), ("mixed", mixed)]
        {
            for at_once in [1_000, 1 << 20] {
                let zipped = zipped(&bytes, at_once);
                let (mut decoder, mut again) = (GzDecoder::new(&zipped[..]), Vec::new());
                decoder.read_to_end(&mut again).unwrap();
                assert!(again == bytes && decoder.into_inner().is_empty(), "{name} by {at_once}");
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_hardly_gets_larger_and_the_rest_gets_smaller() {
        let noise = noise(3 << 20);
        assert!(zipped(&noise, 1 << 20).len() < noise.len() + noise.len() / 1000);
        assert!(zipped(&vec![0; 3 << 20], 1 << 20).len() < 100_000);
    }

    #[test]
    fn gzip_takes_it() {
        let bytes = [b"abc".repeat(400_000), noise(600_000)].concat();
        let mut gzip = std::process::Command::new("gzip");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), zipped(&bytes, 4096)).unwrap();
        let output = gzip.args(["-dc"]).stdin(File::open(file.path()).unwrap()).output().unwrap();
        assert!(output.status.success() && output.stdout == bytes);
    }
}
