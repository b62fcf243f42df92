//! A file of the operator's that is not there before it is whole. Until then it has no name, so that nothing is left of it
//! whatever ends the process.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::random::random_hex;

/// A file that has not its name yet. Dropping it removes it.
#[derive(Debug)]
pub struct Draft {
    name: DraftName,
    file: File,
    kind: Kind,
}

/// Whether a draft has a name of its own.
#[derive(Debug)]
enum Kind {
    /// None, so that it goes with the process, however that dies.
    Unnamed,
    /// The file system has no files without one.
    Named,
}

impl Draft {
    /// An empty file for that name in a directory, with a mode that the umask restricts.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn create(directory: BorrowedFd<'_>, last: &OsStr, mode: Mode) -> io::Result<Draft> {
        let name = DraftName::new(directory, last)?;
        let unnamed = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let (file, kind) = match fs::openat(directory, ".", unnamed, mode) {
            Ok(file) => (file, Kind::Unnamed),
            // What a file system says that has no such files; EISDIR is a kernel's that does not know of them.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::ISDIR) => {
                let named =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                (fs::openat(directory, &name.text, named, mode)?, Kind::Named)
            }
            Err(errno) => return Err(errno.into()),
        };
        Ok(Draft { name, file: File::from(file), kind })
    }

    /// What it is written through.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, in the place of what has it.
    ///
    /// # Errors
    ///
    /// When the name is a directory's, or cannot be given.
    pub fn keep(self) -> io::Result<()> {
        match self.kind {
            Kind::Named => {}
            // A link cannot take the place of a file, a name can.
            Kind::Unnamed => {
                let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                fs::linkat(fs::CWD, file, &self.name.directory, &self.name.text, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        self.name.keep()
    }

    /// Gives a file that is there a name in a directory as well, and that mode; `false` where the file system cannot do
    /// that.
    ///
    /// # Errors
    ///
    /// Any other of linking and renaming.
    pub fn adopt(
        (directory, last): (BorrowedFd<'_>, &OsStr),
        (from, file): (BorrowedFd<'_>, impl Arg),
        mode: Mode,
    ) -> io::Result<bool> {
        let name = DraftName::new(directory, last)?;
        match fs::linkat(from, file, directory, &name.text, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        fs::chmodat(directory, &name.text, mode, AtFlags::empty())?;
        name.keep()?;
        Ok(true)
    }
}

/// A name that only a draft has. Whatever has it is removed with this value.
#[derive(Debug)]
struct DraftName {
    directory: OwnedFd,
    last: OsString,
    text: String,
}

impl DraftName {
    fn new(directory: BorrowedFd<'_>, last: &OsStr) -> io::Result<DraftName> {
        let text = format!(".docker-worker-{}", random_hex(8)?);
        Ok(DraftName { directory: directory.try_clone_to_owned()?, last: last.to_owned(), text })
    }

    fn keep(&self) -> io::Result<()> {
        Ok(fs::renameat(&self.directory, &self.text, &self.directory, &self.last)?)
    }
}

impl Drop for DraftName {
    fn drop(&mut self) {
        // After renaming there is nothing to remove, unless both names were the same file's.
        if fs::unlinkat(&self.directory, &self.text, AtFlags::empty()).is_err() {}
    }
}
