//! A file of the operator's that is not there before it is whole, and where it goes. Until then it has no name, so that
//! nothing is left of it where the worker is killed.
//!
//! ```text
//!   public/a          a file
//!   public/a%2Fb      the artifact public/a/b beside it: a queue's names are no paths, a directory's are
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::queue::artifact_name::ArtifactName;
use crate::random::random_hex;

/// The worker's own file beside the artifacts, which says how the run ended.
pub const RESOLUTION: &str = "resolution.json";

/// Stands for a slash in the name of a file.
const SLASH: &str = "%2F";

/// Where an artifact lies: a directory, and a name in it.
pub(super) struct Place {
    directory: OwnedFd,
    last: String,
    /// The whole path, below the directory for artifacts.
    path: String,
}

impl Place {
    /// Finds the place for a name; directories are made as far as they are missing. Where another artifact's file
    /// stands in the way of a directory, or a directory in the way of the file, the slash becomes part of the name.
    pub(super) fn of(top: &OwnedFd, name: &ArtifactName) -> io::Result<Place> {
        let mut directory = top.as_fd().try_clone_to_owned()?;
        let mut rest = name.as_str();
        let mut path = String::new();
        let mut last = None;
        while let Some((component, below)) = rest.split_once('/') {
            // The worker's own file comes last, and no task may keep it from its place.
            let is_reserved = path.is_empty() && component == RESOLUTION;
            if is_reserved || is(&directory, component, FileType::RegularFile)? {
                last = Some(rest.replace('/', SLASH));
                break;
            }
            directory = open_or_make(&directory, component)?;
            path += component;
            path.push('/');
            rest = below;
        }
        let mut last = last.unwrap_or_else(|| rest.to_owned());
        if is(&directory, &last, FileType::Directory)? {
            last += SLASH;
        }
        path += &last;
        Ok(Place { directory, last, path })
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(super) fn last(&self) -> &str {
        &self.last
    }

    /// Whether something is there, a link to nowhere included.
    pub(super) fn is_taken(&self) -> io::Result<bool> {
        match fs::statat(&self.directory, self.last.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Where it is, if not where its name says.
    pub(super) fn other_name(&self, name: &ArtifactName) -> Option<String> {
        (self.path != name.as_str()).then(|| self.path.clone())
    }
}

fn is(directory: &OwnedFd, name: &str, kind: FileType) -> io::Result<bool> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(FileType::from_raw_mode(status.st_mode) == kind),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn open_or_make(directory: &OwnedFd, component: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::mkdirat(directory, component, Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            let made = fs::openat(directory, component, flags, Mode::empty())?;
            fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
            Ok(made)
        }
        Err(Errno::EXIST) => Ok(fs::openat(directory, component, flags, Mode::empty())?),
        Err(errno) => Err(errno.into()),
    }
}

/// A file that has no name of an artifact's yet. Dropping it removes it.
pub(super) struct Draft<'a> {
    name: DraftName<'a>,
    file: File,
    kind: Kind,
}

/// Whether a draft has a name of its own.
enum Kind {
    /// None, so that it goes with the worker, however that dies.
    Unnamed,
    /// The file system has no files without one.
    Named,
}

impl Draft<'_> {
    /// An empty file, beside its place.
    pub(super) fn create(place: &Place) -> io::Result<Draft<'_>> {
        let name = DraftName::new(place)?;
        let mode = Mode::from_raw_mode(0o600);
        let unnamed = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let (file, kind) = match fs::openat(&place.directory, ".", unnamed, mode) {
            Ok(file) => (file, Kind::Unnamed),
            // What a file system says that has no such files; EISDIR is a kernel's that does not know of them.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::ISDIR) => {
                let named =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                (fs::openat(&place.directory, &name.text, named, mode)?, Kind::Named)
            }
            Err(errno) => return Err(errno.into()),
        };
        let draft = Draft { name, file: File::from(file), kind };
        // The operator's file, to be read as any other of theirs: the worker's umask is not for it.
        fs::fchmod(&draft.file, Mode::from_raw_mode(0o644))?;
        Ok(draft)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, in the place of what has it.
    pub(super) fn keep(self) -> io::Result<()> {
        match self.kind {
            Kind::Named => {}
            // A link cannot take the place of a file, a name can.
            Kind::Unnamed => {
                let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let directory = &self.name.place.directory;
                fs::linkat(fs::CWD, file, directory, &self.name.text, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        self.name.keep()
    }

    /// Gives a file that is there the name as well; `false` where the file system cannot do that.
    pub(super) fn adopt(
        place: &Place,
        directory: BorrowedFd<'_>,
        file: impl rustix::path::Arg,
    ) -> io::Result<bool> {
        let name = DraftName::new(place)?;
        match fs::linkat(directory, file, &place.directory, &name.text, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        fs::chmodat(&place.directory, &name.text, Mode::from_raw_mode(0o644), AtFlags::empty())?;
        name.keep()?;
        Ok(true)
    }
}

/// A name that only a draft has. Whatever has it is removed with this value.
struct DraftName<'a> {
    place: &'a Place,
    text: String,
}

impl DraftName<'_> {
    fn new(place: &Place) -> io::Result<DraftName<'_>> {
        Ok(DraftName { place, text: format!(".docker-worker-{}", random_hex(8)?) })
    }

    fn keep(&self) -> io::Result<()> {
        let directory = &self.place.directory;
        Ok(fs::renameat(directory, &self.text, directory, &self.place.last)?)
    }
}

impl Drop for DraftName<'_> {
    fn drop(&mut self) {
        // After renaming there is nothing to remove, unless both names were the same file's.
        if fs::unlinkat(&self.place.directory, &self.text, AtFlags::empty()).is_err() {}
    }
}
