//! A log that is compressed while it is written: when the task has ended, only the last of it is left to do.
//!
//! Short logs are not looked at before they have ended, and nothing wakes up for them. A log that grows faster than it can
//! be compressed well is compressed fast instead: the end of its task is not to wait for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use flate2::{Compress, Compression, Crc, FlushCompress};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::ContentEncoding;
use super::copy::{Copied, CopyError, Patience, check_room, hexadecimal};
use super::gzip;
use super::spooled::Spooled;
use crate::task_log::reader::{LogReader, MILESTONE_BYTES};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// Compressed bytes that are written at once.
const WRITE_BYTES: usize = 64 << 10;

/// Compressing that goes on beside the run and ends with it.
#[derive(Debug)]
pub(super) struct GrowingLog {
    log: LogReader,
    following: JoinHandle<Result<Option<Spooled>, CopyError>>,
}

/// Where compressed bytes lie while the task runs, and for how long they may.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    /// A directory.
    pub(super) directory: PathBuf,
    /// Bytes that stay free on its disk: more than what ends tasks. At its end the log is compressed anew, if there is room
    /// then.
    pub(super) keep_free: u64,
    /// How long.
    pub(super) patience: Patience,
}

/// What there is after a piece of work.
enum Step {
    More(Gzip),
    Done(Spooled),
}

impl GrowingLog {
    /// Starts it.
    pub(super) fn compress(log: LogReader, scratch: Scratch) -> GrowingLog {
        GrowingLog { following: tokio::spawn(follow(log.clone(), scratch)), log }
    }

    /// Waits until the log, which has ended, is compressed. Nothing if it is too short to have begun, or goes on.
    ///
    /// # Errors
    ///
    /// [`CopyError`]
    pub(super) async fn compressed(&mut self) -> Result<Option<Spooled>, CopyError> {
        if !self.log.progress().ended {
            return Ok(None);
        }
        (&mut self.following).await.map_err(|panic| CopyError::Write(io::Error::other(panic)))?
    }
}

impl Drop for GrowingLog {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn follow(mut log: LogReader, scratch: Scratch) -> Result<Option<Spooled>, CopyError> {
    let mut compressed = None;
    loop {
        let offset = compressed.as_ref().map_or(0, |gzip: &Gzip| gzip.length);
        let progress = log.milestone(offset).await;
        if progress.bytes < MILESTONE_BYTES {
            return Ok(None);
        }
        let (log, scratch) = (log.clone(), scratch.clone());
        let step = move || {
            let mut gzip = compressed.map_or_else(|| Gzip::create(&scratch.directory), Ok)?;
            gzip.take(&log, progress.bytes, &scratch)?;
            Ok::<_, CopyError>(if progress.ended { Step::Done(gzip.finish()?) } else { Step::More(gzip) })
        };
        // Where it may block, and without a thread that waits for the task.
        match tokio::task::spawn_blocking(step).await.map_err(io::Error::other)?? {
            Step::More(gzip) => compressed = Some(gzip),
            Step::Done(log) => return Ok(Some(log)),
        }
    }
}

/// gzip's bytes of what there was of a log so far (RFC 1952): one stream, of pieces that know nothing of one another, so that
/// each has a level of its own.
struct Gzip {
    /// How much of the log it is.
    length: u64,
    crc: Crc,
    hash: Sha256,
    file: File,
}

impl Gzip {
    fn create(scratch: &Path) -> Result<Gzip, CopyError> {
        let mut file = tempfile::tempfile_in(scratch)?;
        file.write_all(&gzip::HEADER)?;
        Ok(Gzip { length: 0, crc: Crc::new(), hash: Sha256::new(), file })
    }

    /// Takes the log up to `end`.
    fn take(&mut self, log: &LogReader, end: u64, scratch: &Scratch) -> Result<(), CopyError> {
        let mut ready = Vec::with_capacity(WRITE_BYTES);
        while self.length < end {
            if scratch.patience.is_over() {
                return Err(CopyError::Interrupted);
            }
            check_room(self.file.as_fd(), scratch.keep_free)?;
            let left = end - self.length;
            // More than what comes while one piece is compressed: it comes faster than that.
            let (length, level) = if left > 2 * MILESTONE_BYTES {
                (MILESTONE_BYTES, Compression::fast())
            } else {
                (left, Compression::default())
            };
            self.take_piece(log, length, level, &mut ready)?;
        }
        Ok(())
    }

    fn take_piece(
        &mut self,
        log: &LogReader,
        length: u64,
        level: Compression,
        ready: &mut Vec<u8>,
    ) -> Result<(), CopyError> {
        let mut deflate = raw_deflate(level);
        while deflate.total_in() < length {
            let left = usize::try_from(length - deflate.total_in()).unwrap_or(READ_BYTES);
            let bytes = log.read(self.length, left.min(READ_BYTES)).map_err(CopyError::Read)?;
            if bytes.is_empty() {
                return Err(CopyError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            self.length += bytes.len() as u64;
            self.crc.update(&bytes);
            self.hash.update(&bytes);
            self.put(&mut deflate, &bytes, FlushCompress::None, ready)?;
        }
        // The next piece begins at a whole byte.
        Ok(self.put(&mut deflate, &[], FlushCompress::Sync, ready)?)
    }

    /// Writes what becomes of `bytes`; without `flush`, some of it may stay behind in `deflate`.
    fn put(
        &mut self,
        deflate: &mut Compress,
        mut bytes: &[u8],
        flush: FlushCompress,
        ready: &mut Vec<u8>,
    ) -> io::Result<()> {
        loop {
            let before = deflate.total_in();
            deflate.compress_vec(bytes, ready, flush)?;
            let taken = usize::try_from(deflate.total_in() - before).unwrap_or(usize::MAX);
            bytes = bytes.get(taken..).unwrap_or_default();
            let is_full = ready.len() == ready.capacity();
            self.file.write_all(ready)?;
            ready.clear();
            // Room that is left over means that there was nothing more to write.
            if bytes.is_empty() && !is_full {
                return Ok(());
            }
        }
    }

    fn finish(mut self) -> Result<Spooled, CopyError> {
        let mut ready = Vec::with_capacity(WRITE_BYTES);
        self.put(&mut raw_deflate(Compression::default()), &[], FlushCompress::Finish, &mut ready)?;
        self.file.write_all(&gzip::trailer(&self.crc))?;
        let content = Copied { size: self.length, sha256: hexadecimal(self.hash) };
        Spooled::of_file(self.file, content, ContentEncoding::Gzip)
    }
}

/// Without a header, which is the whole stream's.
fn raw_deflate(level: Compression) -> Compress {
    Compress::new(level, false)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use flate2::read::GzDecoder;

    use super::super::copy::Copy;
    use super::*;
    use crate::interrupt::{Interrupt, Interrupter, Interrupts, Notice, channel};
    use crate::task_log::spool::Spool;

    const LIMIT: Duration = Duration::from_secs(60);

    struct Fixture {
        scratch: tempfile::TempDir,
        spool: Spool,
        interrupter: Interrupter,
        interrupts: Interrupts,
    }

    fn fixture() -> Fixture {
        let (scratch, spool) = Spool::temporary(1 << 30);
        let (interrupter, interrupts) = channel();
        Fixture { scratch, spool, interrupter, interrupts }
    }

    impl Fixture {
        fn patience(&self) -> Patience {
            Patience::with_log(&self.interrupts)
        }

        fn scratch(&self) -> Scratch {
            Scratch { directory: self.scratch.path().to_owned(), keep_free: 0, patience: self.patience() }
        }

        fn compress(&self) -> GrowingLog {
            GrowingLog::compress(self.spool.reader(), self.scratch())
        }

        /// Prints so many bytes, no two lines of which are the same.
        fn print(&self, bytes: usize) {
            let first = std::fs::metadata(self.spool.path()).unwrap().len();
            let lines = (first..).map(|number| format!("{number:x} {}\r\n", number * number));
            let text: Vec<u8> = lines.flat_map(String::into_bytes).take(bytes).collect();
            self.spool.output(&text);
        }

        /// The log as it is told at its end.
        fn whole(&self) -> (Vec<u8>, Copied) {
            let file = File::open(self.spool.path()).unwrap();
            let (size, patience) = (file.metadata().unwrap().len(), self.patience());
            let copy = Copy { source: &file, size, patience: &patience, place: None };
            let mut bytes = Vec::new();
            let copied = copy.to(|_, piece| bytes.write_all(piece)).unwrap();
            (bytes, copied)
        }
    }

    async fn read(log: &Spooled) -> Vec<u8> {
        let (_interrupter, interrupts) = channel();
        let (body, _reading) = log.body(&Patience::with_log(&interrupts));
        let sent = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        assert_eq!(sent.len() as u64, log.length());
        // One stream: there are readers that stop after the first.
        let mut decoder = GzDecoder::new(&sent[..]);
        let mut bytes = Vec::new();
        decoder.read_to_end(&mut bytes).unwrap();
        assert!(decoder.into_inner().is_empty());
        bytes
    }

    #[tokio::test]
    async fn a_log_is_the_same_however_it_came() {
        for pieces in [&[5 << 20][..], &[2 << 20, 10, 3 << 20, 1 << 20, 100_000], &[1 << 20; 4]] {
            let log = fixture();
            let mut growing = log.compress();
            for piece in pieces {
                log.print(*piece);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(log.spool.end().is_none());
            let compressed =
                tokio::time::timeout(LIMIT, growing.compressed()).await.unwrap().unwrap().unwrap();
            let (bytes, content) = log.whole();
            assert_eq!(compressed.content(), Some(&content));
            assert!(read(&compressed).await == bytes, "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn what_comes_too_fast_is_compressed_fast_and_what_comes_slowly_is_compressed_well() {
        const MIB: u64 = MILESTONE_BYTES;
        let log = fixture();
        log.print(6 << 20);
        let mut lengths = Vec::new();
        for ends in [&[6 * MIB][..], &[MIB, 2 * MIB, 3 * MIB, 4 * MIB, 5 * MIB, 6 * MIB]] {
            let mut gzip = Gzip::create(log.scratch.path()).unwrap();
            for end in ends {
                gzip.take(&log.spool.reader(), *end, &log.scratch()).unwrap();
            }
            let compressed = gzip.finish().unwrap();
            assert!(read(&compressed).await == log.whole().0);
            lengths.push(compressed.length());
        }
        assert!(lengths[0] > lengths[1] + lengths[1] / 20, "{lengths:?}");
    }

    #[tokio::test]
    async fn a_disk_that_is_nearly_full_is_left_to_the_tasks() {
        let log = fixture();
        let mut growing =
            GrowingLog::compress(log.spool.reader(), Scratch { keep_free: u64::MAX, ..log.scratch() });
        log.print(2 << 20);
        assert!(log.spool.end().is_none());
        let given_up = tokio::time::timeout(LIMIT, growing.compressed()).await.unwrap();
        assert!(
            matches!(&given_up, Err(CopyError::Write(error)) if error.kind() == io::ErrorKind::StorageFull),
            "{given_up:?}"
        );
    }

    #[tokio::test]
    async fn a_short_log_is_left_for_its_end() {
        let log = fixture();
        let mut growing = log.compress();
        log.print((1 << 20) - 1);
        assert!(growing.compressed().await.unwrap().is_none(), "it goes on");
        assert!(log.spool.end().is_none());
        assert!(growing.compressed().await.unwrap().is_none(), "it has ended");
    }

    #[tokio::test]
    async fn a_log_that_was_cut_off_is_an_error() {
        let log = fixture();
        let mut growing = log.compress();
        log.print(2 << 20);
        File::options().write(true).open(log.spool.path()).unwrap().set_len(1000).unwrap();
        assert!(log.spool.end().is_none());
        let cut_off = growing.compressed().await;
        assert!(
            matches!(&cut_off, Err(CopyError::Read(error)) if error.kind() == io::ErrorKind::UnexpectedEof),
            "{cut_off:?}"
        );
    }

    #[tokio::test]
    async fn who_is_impatient_does_not_wait() {
        let log = fixture();
        log.interrupter.interrupt(Interrupt::Shutdown, Notice::Signal);
        log.interrupter.interrupt(Interrupt::Shutdown, Notice::Signal);
        assert!(log.patience().is_over());
        let mut growing = log.compress();
        log.print(2 << 20);
        assert!(log.spool.end().is_none());
        assert!(matches!(growing.compressed().await, Err(CopyError::Interrupted)));
    }
}
