//! Where an artifact's file goes in a directory of the operator's.
//!
//! ```text
//!   public/a          a file
//!   public/a%2Fb      the artifact public/a/b beside it: a queue's names are no paths, a directory's are
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::draft::Draft;
use crate::queue::artifact_name::ArtifactName;

/// The worker's own file beside the artifacts, which says how the run ended.
pub const RESOLUTION: &str = "resolution.json";

/// Stands for a slash in the name of a file.
const SLASH: &str = "%2F";

/// Of all artifacts.
const MODE: Mode = Mode::from_raw_mode(0o644);

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

    /// An empty file that will have this place. The operator's, to be read as any other of theirs: the worker's umask is not
    /// for it.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        let draft = Draft::create(self.directory(), self.last.as_ref(), Mode::from_raw_mode(0o600))?;
        fs::fchmod(draft.file(), MODE)?;
        Ok(draft)
    }

    /// Gives it to a file that is there as well; `false` where the file system cannot do that.
    pub(super) fn adopt(&self, from: BorrowedFd<'_>, file: impl Arg) -> io::Result<bool> {
        Draft::adopt((self.directory(), self.last.as_ref()), (from, file), MODE)
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
