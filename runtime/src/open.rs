//! Opening what others have named, without waiting for them: what stands at a path may be a FIFO that nobody holds at the
//! other end, and open(2) and read(2) would wait for ever, deaf to what the monitor reads from descriptors only.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

/// What all are opened with. A regular file does not heed the second.
const AT_ONCE: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens a file in `directory`, with `flags` beside those that keep it from waiting.
///
/// # Errors
///
/// The kernel's answer, or that it is no regular file.
pub(crate) fn regular(directory: impl AsFd, name: impl AsRef<Path>, flags: OFlags) -> io::Result<File> {
    let file = openat(directory, name.as_ref(), flags | AT_ONCE, Mode::empty())?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(io::Error::other("it is a FIFO, a socket or a device, where a file should be")),
    }
}

/// Opens what is to be written, with `flags` beside `O_WRONLY`, and makes it with `mode` if there is nothing. It need not
/// be a file; writing does not wait either, but fails.
///
/// # Errors
///
/// The kernel's answer.
pub(crate) fn to_write(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    match openat(CWD, path, flags | OFlags::WRONLY | OFlags::CREATE | AT_ONCE, mode) {
        Ok(file) => Ok(file.into()),
        Err(Errno::NXIO) => {
            Err(io::Error::other("it is a FIFO that nobody reads, a socket, or a device that is not there"))
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_fifo_is_waited_for_by_neither_side() {
        let scratch = tempfile::tempdir().unwrap();
        let fifo = scratch.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let refused = to_write(&fifo, OFlags::APPEND, Mode::RUSR).unwrap_err().to_string();
        assert!(refused.contains("nobody reads"), "{refused}");
        for flags in [OFlags::RDONLY, OFlags::RDWR] {
            let refused = regular(CWD, &fifo, flags).unwrap_err().to_string();
            assert!(refused.contains("a FIFO"), "{refused}");
        }
        // One that somebody reads is written until it is full.
        let _reader = openat(CWD, &fifo, OFlags::RDONLY | AT_ONCE, Mode::empty()).unwrap();
        let mut written = to_write(&fifo, OFlags::APPEND, Mode::RUSR).unwrap();
        let full = written.write_all(&vec![0; 4 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
