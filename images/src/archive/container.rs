//! A set of named parts: the members of a tar file, or the files of a directory.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::disk;
use crate::inflate::{Inflate, InflateError, Room, WINDOWS};
use crate::json::shortened;
use crate::limits::Limits;
use crate::scratch;

use super::members::{Extent, Members};
use super::{ArchiveError, Documents};

/// Bytes inflated between two looks at the free disk space.
const STEP_BYTES: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Container {
    path: PathBuf,
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    Directory(OwnedFd),
    Tar { file: Arc<File>, members: Members<Extent> },
}

/// A part, ready to be read.
#[derive(Debug)]
pub(crate) struct Part {
    pub content: Section,
    pub size: u64,
}

/// A stretch of a file, read without moving the file's own position: parts are read in parallel.
#[derive(Debug)]
pub(crate) struct Section {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(buffer.get_mut(..left).unwrap_or_default(), self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Container {
    /// Opens a tar file, compressed or not.
    pub(crate) fn tar(
        path: &Path,
        scratch: &Path,
        limits: &Limits,
        cancelled: &AtomicBool,
    ) -> Result<Container, ArchiveError> {
        let failed = |source| ArchiveError::Open { path: path.to_owned(), source };
        // NONBLOCK: opening a FIFO must not hold us up before it is refused; a regular file ignores it.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = opened.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            let reason = "it is not a regular file".to_owned();
            return Err(ArchiveError::Format { path: path.to_owned(), format: "a tar file", reason });
        }
        let of_image = AtomicBool::new(false);
        let room = Room {
            window_bytes: limits.window_bytes,
            of_image: &of_image,
            scratch,
            limits,
            cancelled,
            windows: &WINDOWS,
        };
        let mut stream =
            Inflate::new(BufReader::with_capacity(1 << 17, file), &room).map_err(|error| match error {
                InflateError::DiskFull(full) => full.into(),
                InflateError::Stream(source) | InflateError::Aside(source) => failed(source),
                InflateError::Cancelled => failed(io::Error::other("cancelled")),
            })?;
        let file = match stream {
            Inflate::Plain(plain) => plain.into_inner(),
            ref mut compressed => inflate(path, compressed, scratch, limits)?,
        };
        let members = Members::index(path, &file, limits)?;
        Ok(Container { path: path.to_owned(), parts: Parts::Tar { file: Arc::new(file), members } })
    }

    /// Opens a directory.
    pub(crate) fn directory(path: &Path) -> Result<Container, ArchiveError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| ArchiveError::Open { path: path.to_owned(), source: errno.into() })?;
        Ok(Container { path: path.to_owned(), parts: Parts::Directory(directory) })
    }

    /// Opens a part by name.
    pub(crate) fn open(&self, name: &str) -> Result<Part, ArchiveError> {
        match &self.parts {
            Parts::Directory(directory) => self.open_beneath(directory, name),
            Parts::Tar { file, members } => {
                let twice =
                    |_ambiguous| ArchiveError::Twice { path: self.path.clone(), member: shortened(name) };
                let member = members.get(name).map_err(twice)?.ok_or_else(|| self.missing(name))?;
                let end = member.offset + member.size;
                let content = Section { file: Arc::clone(file), offset: member.offset, end };
                Ok(Part { content, size: member.size })
            }
        }
    }

    fn open_beneath(&self, directory: &OwnedFd, name: &str) -> Result<Part, ArchiveError> {
        // NONBLOCK: a FIFO of that name must not hold us up before it is refused.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = match openat2(directory, name, flags, Mode::empty(), resolve) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Err(self.missing(name)),
            Err(errno) => return Err(self.unreadable(name, errno.into())),
        };
        let metadata = file.metadata().map_err(|source| self.unreadable(name, source))?;
        if !metadata.is_file() {
            return Err(self.unreadable(name, io::Error::other("not a regular file")));
        }
        let size = metadata.len();
        Ok(Part { content: Section { file: Arc::new(file), offset: 0, end: size }, size })
    }

    fn missing(&self, name: &str) -> ArchiveError {
        ArchiveError::Missing { path: self.path.clone(), member: shortened(name) }
    }

    fn unreadable(&self, name: &str, source: io::Error) -> ArchiveError {
        ArchiveError::Read { path: self.path.clone(), member: shortened(name), source }
    }
}

impl Documents for Container {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let part = self.open(name)?;
        if part.size > limit {
            let (path, member) = (self.path.clone(), shortened(name));
            return Err(ArchiveError::TooLarge { path, member, size: part.size, limit });
        }
        let mut content = Vec::new();
        let read = part.content.take(limit).read_to_end(&mut content);
        read.map_err(|source| self.unreadable(name, source))?;
        Ok(content)
    }
}

/// Inflates a whole archive into a file without a name: its members are read in any order.
fn inflate(
    path: &Path,
    stream: &mut Inflate<'_, BufReader<File>>,
    scratch: &Path,
    limits: &Limits,
) -> Result<File, ArchiveError> {
    let failed = |source| ArchiveError::Open { path: path.to_owned(), source };
    let step_failed = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => failed(error),
        _ => ArchiveError::of_inflating(path, &error),
    };
    let mut file = scratch::unnamed(scratch).map_err(failed)?;
    let mut written = 0;
    loop {
        disk::check(scratch, STEP_BYTES, limits)?;
        let step = io::copy(&mut stream.by_ref().take(STEP_BYTES), &mut file).map_err(step_failed)?;
        written += step;
        if written > limits.unpacked_bytes {
            let (path, limit) = (path.to_owned(), limits.unpacked_bytes);
            return Err(ArchiveError::TooLarge { path, member: ".".to_owned(), size: written, limit });
        }
        if step == 0 {
            break;
        }
    }
    file.flush().and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}
