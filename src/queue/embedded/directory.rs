//! The directory that a queue is kept in.
//!
//! ```text
//!   queue.sqlite, -wal, -shm   the database
//!   copies/                    copies that are being made; those that a process left are nobody's
//!   restored.sqlite            a whole copy that is to be the database: whoever opens the queue next sees to it
//! ```
//!
//! It is locked (flock) by the process that has the queue. What others keep in it is not touched.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{backup, open};
use crate::file_lock::Lock;
use crate::queue::QueueError;
use crate::random::random_hex;
use crate::remove_tree::remove_tree;

const CALL: &str = "open its directory";
const DATABASE: &str = "queue.sqlite";
const COPIES: &str = "copies";
const RESTORED: &str = "restored.sqlite";

/// What SQLite has beside the database: replayed onto another one it would ruin that.
const BESIDE: [&str; 3] = ["queue.sqlite-wal", "queue.sqlite-shm", "queue.sqlite-journal"];

/// A directory that this process has, and no other one.
#[derive(Debug)]
pub(super) struct QueueDirectory {
    path: PathBuf,
    _lock: Lock,
}

/// A copy of a queue beside it. It goes with this value; whoever has it open reads it all the same.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct QueueCopy {
    name: String,
    #[serde(skip)]
    path: PathBuf,
}

impl QueueDirectory {
    /// Takes a directory, and ends what another process began there.
    pub(super) fn take(path: &Path) -> Result<QueueDirectory, QueueError> {
        let taken = QueueDirectory::lock(path)?;
        taken.remove_copies()?;
        taken.end_restoring().map_err(at(path))?;
        Ok(taken)
    }

    /// Takes a directory and leaves all that is in it as it is.
    pub(super) fn lock(path: &Path) -> Result<QueueDirectory, QueueError> {
        let directory = File::open(path).map_err(at(path))?;
        let Some(lock) = Lock::take(directory).map_err(at(path))? else {
            return Err(open::is_in_use(&path.join(DATABASE)));
        };
        Ok(QueueDirectory { path: path.to_owned(), _lock: lock })
    }

    /// Removes the copies that processes have left that are gone.
    fn remove_copies(&self) -> Result<(), QueueError> {
        remove_tree(&self.path.join(COPIES))
            .map_err(|error| QueueError::Internal { call: CALL, source: error.into() })
    }

    pub(super) fn database(&self) -> PathBuf {
        database(&self.path)
    }

    /// A new copy's name; there is nothing at it yet.
    pub(super) fn new_copy(&self) -> Result<QueueCopy, QueueError> {
        self.name_copy().map_err(at(&self.path))
    }

    fn name_copy(&self) -> io::Result<QueueCopy> {
        let copies = self.path.join(COPIES);
        match DirBuilder::new().mode(0o700).create(&copies) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let name = random_hex(8)?;
        Ok(QueueCopy { path: copies.join(&name), name })
    }

    /// Has a copy of a file take the place of the database. Nothing of the queue is touched before that copy is whole and
    /// checked; from its first new name on the old database is gone, whenever this process ends, and so is what another
    /// one was to put in its place.
    pub(super) fn restore(&self, file: &Path) -> Result<(), QueueError> {
        let source = self.open_foreign(file).map_err(at(file))?;
        let copy = self.new_copy()?;
        let written = write_copy(&source, &copy.path).map_err(at(&copy.path))?;
        open::check(&copy.path, file)?;
        let put = || {
            written.sync_all()?;
            fs::rename(&copy.path, self.path.join(RESTORED))?;
            self.sync()?;
            self.end_restoring()
        };
        put().map_err(at(&self.path))?;
        self.remove_copies()
    }

    /// Opens what a queue can be restored from: a file elsewhere that has all of a queue in itself.
    fn open_foreign(&self, file: &Path) -> io::Result<File> {
        let refused = |why: &str| Err(io::Error::other(why));
        // Before it is opened: a pipe would be waited for.
        if !fs::metadata(file)?.is_file() {
            return refused("that is no file; name a copy that was made with --backup");
        }
        if leads_into(&self.path, file)? {
            return refused("that is where the queue itself is; name a copy that lies elsewhere");
        }
        let source = File::open(file)?;
        let mut format = [0; backup::ROLLBACK.len()];
        // One that is shorter is none, which is told when it is opened as a database.
        if source.read_exact_at(&mut format, backup::FORMAT_VERSIONS).is_ok() && format == backup::WITH_LOG {
            return refused(
                "that is the file of a queue, taken without those beside it, which may have the latest of it; \
                 make a copy with docker-worker standalone --backup",
            );
        }
        Ok(source)
    }

    /// Each step leads on to the next one, whatever has been done of it before.
    fn end_restoring(&self) -> io::Result<()> {
        let restored = self.path.join(RESTORED);
        if !restored.try_exists()? {
            return Ok(());
        }
        for name in BESIDE {
            match fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.sync()?;
        fs::rename(restored, self.database())?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl QueueCopy {
    /// Where the copy of that name is, in a queue's directory.
    #[must_use]
    pub fn at(place: &Path, name: &str) -> PathBuf {
        place.join(COPIES).join(name)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for QueueCopy {
    fn drop(&mut self) {
        // What resists goes when the queue is opened again.
        fs::remove_file(&self.path).unwrap_or_default();
    }
}

/// The file that a queue is in, in its directory.
pub(super) fn database(place: &Path) -> PathBuf {
    place.join(DATABASE)
}

/// Whether a path leads into a queue's directory, or to a file of the queue's by another name: by whatever links and
/// mounts.
///
/// # Errors
///
/// Where the path's own directory cannot be found.
pub(super) fn leads_into(place: &Path, path: &Path) -> io::Result<bool> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent.canonicalize()?;
    // What is a link leads somewhere; what is not there yet does not.
    let target = path.canonicalize().unwrap_or_else(|_| parent.clone());
    let is_within = [&parent, &target].into_iter().any(|path| path.ancestors().any(|it| are_same(it, place)));
    let mut own = [DATABASE, RESTORED].iter().chain(&BESIDE);
    Ok(is_within || own.any(|name| are_same(path, &place.join(name))))
}

/// Whether two paths lead to the same.
fn are_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Whether a directory has a queue.
pub(super) fn has_queue(place: &Path) -> bool {
    [DATABASE, RESTORED].iter().any(|name| place.join(name).is_file())
}

fn write_copy(mut source: &File, path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::copy(&mut source, &mut file)?;
    Ok(file)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> QueueError {
    move |error| QueueError::Internal { call: CALL, source: format!("{}: {error}", path.display()).into() }
}
