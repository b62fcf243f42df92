//! A file that is there when it is whole. Until then it has no name, so that nothing is left of it whatever ends the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;

use crate::random::random_hex;

/// Where an archive is written to.
pub(super) struct Output {
    file: File,
    kind: Kind,
}

enum Kind {
    /// A pipe, a device: what is written is gone.
    Stream,
    /// What will have that name, and has none.
    Unnamed(PathBuf),
    /// The same where the file system has no files without one.
    Partial(Partial, PathBuf),
}

/// A name of a file that is not whole. It goes with this value.
struct Partial(PathBuf);

impl Partial {
    fn beside(path: &Path) -> io::Result<Partial> {
        let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        name.push(format!(".{}.partial", random_hex(8)?));
        Ok(Partial(path.with_file_name(name)))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It has the other name by now, if all went well.
        fs::remove_file(&self.0).unwrap_or_default();
    }
}

impl Output {
    /// Standard output.
    pub(super) fn standard() -> io::Result<Output> {
        use std::os::fd::AsFd;
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Output { file, kind: Kind::Stream })
    }

    /// A file; a link leads to the one that is meant.
    pub(super) fn file(path: &Path) -> io::Result<Output> {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path)?,
            Err(error) => return Err(error),
        };
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            let file = OpenOptions::new().write(true).open(&path)?;
            return Ok(Output { file, kind: Kind::Stream });
        }
        let parent = path.parent().ok_or(io::ErrorKind::IsADirectory)?;
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::open(parent, flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => Ok(Output { file: File::from(file), kind: Kind::Unnamed(path) }),
            // What a file system says that has no such files; EISDIR is a kernel's that does not know of them.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::ISDIR) => {
                let partial = Partial::beside(&path)?;
                let file = OpenOptions::new().write(true).create_new(true).open(&partial.0)?;
                Ok(Output { file, kind: Kind::Partial(partial, path) })
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Everything is written: gives the file its name, in the place of what has it.
    pub(super) fn keep(self) -> io::Result<()> {
        match self.kind {
            Kind::Stream => Ok(()),
            Kind::Partial(partial, path) => fs::rename(&partial.0, path),
            Kind::Unnamed(path) => {
                // A link cannot take the place of a file, a name can.
                let partial = Partial::beside(&path)?;
                let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, file, CWD, &partial.0, AtFlags::SYMLINK_FOLLOW)?;
                fs::rename(&partial.0, path)
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_what_it_has_until_the_new_one_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        fs::write(&path, "old").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("x.tar", &link).unwrap();
        let entries = || fs::read_dir(directory.path()).unwrap().count();
        let mut given_up = Output::file(&path).unwrap();
        given_up.write_all(b"new").unwrap();
        drop(given_up);
        assert_eq!((fs::read(&path).unwrap(), entries()), (b"old".to_vec(), 2));
        for (name, content) in [(&path, "new"), (&link, "newer")] {
            let mut output = Output::file(name).unwrap();
            output.write_all(content.as_bytes()).unwrap();
            output.keep().unwrap();
            assert_eq!((fs::read(&path).unwrap(), entries()), (content.as_bytes().to_vec(), 2));
        }
    }
}
