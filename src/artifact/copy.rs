//! Reading a task's file to its end, whatever it claims to be: its holes are no work for the disk, a
//! full disk ends it, and so does an interrupt.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::MakeError;
use crate::host::Space;
use crate::interrupt::Interrupts;
use crate::limits::DISK_RESERVE_BYTES;
use crate::text::chain;

/// Bytes copied between two looks at the disk and at what interrupts.
const COPY_BYTES: usize = 256 * 1024;

/// Longer copies are long.
const LONG_BYTES: u64 = 1 << 20;

/// How long storing goes on.
#[derive(Clone, Debug)]
pub struct Patience {
    interrupts: Interrupts,
    bears: Bears,
}

#[derive(Clone, Copy, Debug)]
enum Bears {
    /// So many interrupts.
    Interrupts(usize),
    /// So much urgency.
    Urgency(usize),
}

impl Patience {
    /// With a file of the task's: what has interrupted the task so far does not count, what comes now does.
    pub fn with_artifact(interrupts: &Interrupts) -> Patience {
        Patience { interrupts: interrupts.clone(), bears: Bears::Interrupts(interrupts.count()) }
    }

    /// With the log, which an interrupted task leaves as well: until somebody is impatient, whenever that was. The first
    /// interrupt does not count.
    pub fn with_log(interrupts: &Interrupts) -> Patience {
        Patience { interrupts: interrupts.clone(), bears: Bears::Urgency(1) }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        match self.bears {
            Bears::Interrupts(count) => self.interrupts.count() > count,
            Bears::Urgency(urgency) => self.interrupts.urgency() > urgency,
        }
    }

    /// Waits until it is. Never returns when nobody is left who could interrupt.
    pub async fn over(&self) {
        let mut interrupts = self.interrupts.clone();
        match self.bears {
            Bears::Interrupts(count) => interrupts.more_than(count).await,
            Bears::Urgency(urgency) => interrupts.more_urgent_than(urgency).await,
        }
    }
}

/// What a piece of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes that the disk holds.
    Data,
    /// Zeros that it does not hold.
    Hole,
}

/// A copy that is to be made.
pub(super) struct Copy<'a> {
    /// From where.
    pub(super) source: &'a File,
    /// How many bytes.
    pub(super) size: u64,
    /// How long.
    pub(super) patience: &'a Patience,
    /// Something on the disk that it goes to, if it goes to one.
    pub(super) place: Option<BorrowedFd<'a>>,
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copied {
    /// Bytes, holes included.
    pub(super) size: u64,
    /// Their hash, in hexadecimal.
    pub(super) sha256: String,
}

/// Why a copy is not whole; fits "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Its source cannot be read.
    #[error("read it: {0}")]
    Read(#[source] io::Error),
    /// It cannot be written where it is to go.
    #[error("store it: {0}")]
    Write(#[from] io::Error),
    /// Whoever makes it cannot.
    #[error("{}", chain(.0.as_ref()))]
    Make(MakeError),
    /// The task was interrupted meanwhile.
    #[error("store it: the task was interrupted")]
    Interrupted,
}

impl Copy<'_> {
    /// Hands the whole file to `put`, piece by piece.
    pub(super) fn to(
        &self,
        mut put: impl FnMut(Piece, &[u8]) -> io::Result<()>,
    ) -> Result<Copied, CopyError> {
        // Most artifacts are little, and have no holes.
        let longest = usize::try_from(self.size).map_or(COPY_BYTES, |size| size.min(COPY_BYTES));
        let (mut zeros, mut buffer) = (Vec::new(), vec![0; longest]);
        let mut hash = Sha256::new();
        let (mut at, mut data) = (0, self.next_data(0).map_err(CopyError::Read)?);
        while at < self.size {
            if self.patience.is_over() {
                return Err(CopyError::Interrupted);
            }
            let piece = if at < data.start {
                zeros.resize(longest, 0);
                let bytes = part(&zeros, data.start - at);
                hash.update(bytes);
                put(Piece::Hole, bytes)?;
                bytes.len()
            } else {
                self.check_room()?;
                let room = part_mut(&mut buffer, data.end - at);
                let read = self.source.read_at(room, at).map_err(CopyError::Read)?;
                let bytes = part(room, read as u64);
                hash.update(bytes);
                put(Piece::Data, bytes)?;
                read
            };
            if piece == 0 {
                // It has become shorter.
                break;
            }
            at += piece as u64;
            if at >= data.end {
                data = self.next_data(at).map_err(CopyError::Read)?;
            }
        }
        Ok(Copied { size: at, sha256: hexadecimal(hash) })
    }

    /// Where the next data are; at the end of the file if only a hole follows.
    fn next_data(&self, at: u64) -> io::Result<Range<u64>> {
        let start = match rustix::fs::seek(self.source, SeekFrom::Data(at)) {
            Ok(start) => start.min(self.size),
            // The rest is a hole, as far as the file goes: it may have become shorter.
            Err(Errno::NXIO) => {
                let end = self.source.metadata()?.len().min(self.size);
                return Ok(end..end);
            }
            // A file system that knows no holes.
            Err(Errno::INVAL) => return Ok(at..self.size),
            Err(errno) => return Err(errno.into()),
        };
        match rustix::fs::seek(self.source, SeekFrom::Hole(start)) {
            Ok(end) => Ok(start..end.min(self.size)),
            // It has become shorter.
            Err(Errno::NXIO) => Ok(start..self.size),
            Err(errno) => Err(errno.into()),
        }
    }

    fn check_room(&self) -> io::Result<()> {
        let place = self.place.filter(|_| self.size >= LONG_BYTES);
        place.map_or(Ok(()), |place| check_room(place, DISK_RESERVE_BYTES))
    }
}

/// An error when fewer bytes are free on the disk that something lies on than are to be kept.
pub(super) fn check_room(place: BorrowedFd<'_>, keep: u64) -> io::Result<()> {
    let free = Space::around(place)?.free;
    if free >= keep {
        return Ok(());
    }
    let why = format!("the disk is full: {free} bytes are free, {keep} are kept");
    Err(io::Error::new(io::ErrorKind::StorageFull, why))
}

/// As [`Copied`] has it.
pub(super) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first `most` bytes.
fn part(bytes: &[u8], most: u64) -> &[u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    bytes.get(..most).unwrap_or(bytes)
}

fn part_mut(bytes: &mut [u8], most: u64) -> &mut [u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_at_mut(most).0
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::interrupt::{Interrupt, Notice, channel};

    /// A file of so many bytes with `text` at `at`.
    fn sparse(size: u64, at: u64, text: &str) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(text.as_bytes(), at).unwrap();
        file
    }

    fn copy(source: &File, put: impl FnMut(Piece, &[u8]) -> io::Result<()>) -> Copied {
        let (_interrupter, interrupts) = channel();
        let patience = Patience::with_artifact(&interrupts);
        let size = source.metadata().unwrap().len();
        Copy { source, size, patience: &patience, place: Some(source.as_fd()) }.to(put).unwrap()
    }

    #[test]
    fn a_hole_is_copied_as_one_and_hashed_as_zeros() {
        for (size, at, text) in [
            (0, 0, ""),
            (10, 0, "abc"),
            (1 << 24, 0, "abc"),
            (1 << 24, 1 << 23, "abc"),
            (1 << 24, (1 << 24) - 3, "abc"),
        ] {
            let source = sparse(size, at, text);
            let (mut bytes, mut data) = (Vec::new(), 0);
            let copied = copy(&source, |piece, part| {
                bytes.extend_from_slice(part);
                data += if piece == Piece::Data { part.len() } else { 0 };
                Ok(())
            });
            let mut expected = vec![0; usize::try_from(size).unwrap()];
            source.read_exact_at(&mut expected, 0).unwrap();
            assert!(bytes == expected, "{size} {at}");
            assert_eq!(copied.size, size);
            assert_eq!(copied.sha256, copy(&source, |_, _| Ok(())).sha256);
            assert!(data <= 1 << 16, "{size} {at}: {data} bytes of data");
        }
    }

    #[test]
    fn a_file_that_becomes_shorter_ends_where_it_ends() {
        for (text, length) in [("abc", 100), ("", 100), ("", 0)] {
            let source = sparse(1 << 20, 0, text);
            let (_interrupter, interrupts) = channel();
            let patience = Patience::with_artifact(&interrupts);
            let copy = Copy { source: &source, size: 1 << 20, patience: &patience, place: None };
            source.set_len(length).unwrap();
            assert_eq!(copy.to(|_, _| Ok(())).unwrap().size, length);
        }
    }

    #[tokio::test]
    async fn an_artifact_is_stored_until_a_new_interrupt_and_the_log_until_the_second() {
        let (interrupter, interrupts) = channel();
        let artifact = Patience::with_artifact(&interrupts);
        let log = Patience::with_log(&interrupts);
        for (interrupt, artifact_is_over, log_is_over) in [
            (Interrupt::Cancelled, true, false),
            (Interrupt::Deadline, true, false),
            (Interrupt::CancelledHere, true, true),
        ] {
            interrupter.interrupt(interrupt, Notice::Signal);
            assert_eq!((artifact.is_over(), log.is_over()), (artifact_is_over, log_is_over));
        }
        artifact.over().await;
        log.over().await;
        assert!(!Patience::with_artifact(&interrupts).is_over());
        assert!(Patience::with_log(&interrupts).is_over());
    }
}
