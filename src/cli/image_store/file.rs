//! Where an archive is written to: a stream, or a file that is there when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::draft::Draft;

/// Where an archive is written to.
pub(super) enum Output {
    /// A pipe, a device: what is written is gone.
    Stream(File),
    /// What will have a name.
    File(Draft),
}

impl Output {
    /// Standard output.
    pub(super) fn standard() -> io::Result<Output> {
        Ok(Output::Stream(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// A file; a link leads to the one that is meant.
    pub(super) fn file(path: &Path) -> io::Result<Output> {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path)?,
            Err(error) => return Err(error),
        };
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Ok(Output::Stream(OpenOptions::new().write(true).open(&path)?));
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(parent, flags, Mode::empty())?;
        Ok(Output::File(Draft::create(parent.as_fd(), name, Mode::from_raw_mode(0o666))?))
    }

    /// Everything is written: gives the file its name, in the place of what has it.
    pub(super) fn keep(self) -> io::Result<()> {
        match self {
            Output::Stream(_) => Ok(()),
            Output::File(draft) => draft.keep(),
        }
    }

    fn inner(&self) -> &File {
        match self {
            Output::Stream(file) => file,
            Output::File(draft) => draft.file(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
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
