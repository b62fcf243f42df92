//! Where one container's things lie, who holds them, and how they go.
//!
//! ```text
//!   <run>/<container id>/     lock     held (flock) by the worker that runs it: tells dead from alive
//!                             journal  what there is to undo, written before it is made
//!                             bundle/  config.json
//!                             hosts, hostname, resolv.conf
//!                             network  what a crash would leave of the task's network
//!                             runtime/ the runtime's own state and journal
//!   <data>/runs/<container id>/  lock, log, upper/, root/, image/, volumes/
//!   <data>/lock                  shared while a container's directories are made, exclusive for a sweep
//! ```
//!
//! Two places, because `/run` is small and a tmpfs: an overlay's upper directory and the log belong
//! on the disk. Both are 0700 and named by the container's random id.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use runtime::id::ContainerId;
use runtime::journal::{Journal, JournalError, UndoError, UndoStep};

use crate::config::Directories;
use crate::net::tables::TablesError;

/// The file whose lock says that a live process holds a directory.
const LOCK: &str = "lock";

/// Where a directory's journal lies.
const JOURNAL: &str = "journal";

/// The file that names what there is of a container's network.
const NETWORK: &str = "network";

/// The directories of one container, held until they are removed.
#[derive(Debug)]
pub struct RunDirectory {
    run: PathBuf,
    data: PathBuf,
    journal: Journal,
    /// Held open for their locks.
    _locks: [File; 2],
}

/// Why the directories of a container could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum RunDirectoryError {
    /// A file or directory could not be made.
    #[error("{call} {}: check that the file system is writable and has room, or choose another place with --data and DOCKER_WORKER_RUN", path.display())]
    Io {
        /// What was tried.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something recorded could not be undone.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// The network of a task could not be undone.
    #[error(transparent)]
    Network(#[from] TablesError),
}

impl RunDirectory {
    /// Makes the directories of a new container.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError`], and nothing is left behind but what `cleanup` knows how to remove.
    pub fn create(directories: &Directories, id: &ContainerId) -> Result<RunDirectory, RunDirectoryError> {
        // While this lock is shared nobody sweeps: a directory without its lock looks like a dead one.
        let _no_sweep = lock_place(directories, Hold::Shared)?;
        let run = directories.run.join(id.as_str());
        let data = directories.runs().join(id.as_str());
        make_directory(&run)?;
        let run_lock = lock_new(&run)?;
        let mut journal = Journal::create(&run.join(JOURNAL))?;
        journal.record(&UndoStep::RemoveTree { path: run.clone() })?;
        journal.record(&UndoStep::RemoveTree { path: data.clone() })?;
        make_directory(&data)?;
        let data_lock = lock_new(&data)?;
        make_directory(&run.join("bundle"))?;
        make_directory(&run.join("runtime"))?;
        Ok(RunDirectory { run, data, journal, _locks: [run_lock, data_lock] })
    }

    /// The OCI bundle: a directory with `config.json`.
    pub fn bundle(&self) -> PathBuf {
        self.run.join("bundle")
    }

    /// The runtime's state directory (`--root`) for this one container.
    pub fn runtime_state(&self) -> PathBuf {
        self.run.join("runtime")
    }

    /// A file that is bound into the container.
    pub fn file(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// What a crash would leave of the task's network.
    pub fn network(&self) -> PathBuf {
        self.run.join(NETWORK)
    }

    /// The directory on the data directory's file system.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where the log is collected.
    pub fn log(&self) -> PathBuf {
        self.data.join("log")
    }

    /// Records something that is about to be done to the host.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written: then it must not be done.
    pub fn record(&mut self, step: &UndoStep) -> Result<(), JournalError> {
        self.journal.record(step)
    }

    /// Undoes everything that is recorded, the directories last.
    ///
    /// # Errors
    ///
    /// When something resists; it stays recorded for the next `cleanup`.
    pub fn remove(mut self) -> Result<(), RunDirectoryError> {
        Ok(self.journal.undo_all()?)
    }
}

enum Hold {
    Shared,
    Exclusive,
}

/// Locks the place where all containers' directories lie.
fn lock_place(directories: &Directories, hold: Hold) -> Result<File, RunDirectoryError> {
    make_directories(&directories.run)?;
    make_directories(&directories.runs())?;
    let path = directories.data.join(LOCK);
    let failed = |source| RunDirectoryError::Io { call: "lock", path: path.clone(), source };
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    match hold {
        Hold::Shared => file.lock_shared().map_err(failed)?,
        Hold::Exclusive => file.lock().map_err(failed)?,
    }
    Ok(file)
}

fn lock_new(directory: &Path) -> Result<File, RunDirectoryError> {
    let path = directory.join(LOCK);
    let failed = |source| RunDirectoryError::Io { call: "lock", path: path.clone(), source };
    let file = File::options().create_new(true).append(true).open(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

fn make_directory(path: &Path) -> Result<(), RunDirectoryError> {
    DirBuilder::new().mode(0o700).create(path).map_err(|source| RunDirectoryError::Io {
        call: "make the directory",
        path: path.to_owned(),
        source,
    })
}

fn make_directories(path: &Path) -> Result<(), RunDirectoryError> {
    DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(|source| RunDirectoryError::Io {
        call: "make the directory",
        path: path.to_owned(),
        source,
    })
}

/// What a sweep found and did.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Containers of workers that are gone, whose things are removed now.
    pub removed: Vec<String>,
    /// Containers of workers that live.
    pub alive: Vec<String>,
    /// What could not be removed.
    pub failed: Vec<(String, RunDirectoryError)>,
}

/// Undoes what workers that are gone have left behind, and leaves alone what belongs to live ones.
///
/// # Errors
///
/// When the places cannot be read or locked at all.
pub fn sweep(directories: &Directories) -> Result<Sweep, RunDirectoryError> {
    let _alone = lock_place(directories, Hold::Exclusive)?;
    let mut ids = names(&directories.run)?;
    ids.extend(names(&directories.runs())?);
    let mut sweep = Sweep::default();
    for id in ids {
        let places = [directories.run.join(&id), directories.runs().join(&id)];
        if places.iter().any(|place| is_held(&place.join(LOCK))) {
            sweep.alive.push(id);
            continue;
        }
        match undo(&directories.run, &places) {
            Ok(()) => sweep.removed.push(id),
            Err(error) => sweep.failed.push((id, error)),
        }
    }
    Ok(sweep)
}

/// The container ids among the names in a directory, which may hold other things of the worker's.
fn names(directory: &Path) -> Result<std::collections::BTreeSet<String>, RunDirectoryError> {
    let failed = |source| RunDirectoryError::Io { call: "read", path: directory.to_owned(), source };
    let mut names = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(name) = name.to_str().filter(|name| is_container_id(name)) {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// Digits of a container's id: 256 random bits in hexadecimal.
const ID_DIGITS: usize = 64;

fn is_container_id(name: &str) -> bool {
    name.len() == ID_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes a new container's id: 64 random hexadecimal digits, as docker's.
///
/// # Errors
///
/// When the kernel has no random bytes.
pub fn random_id() -> io::Result<ContainerId> {
    let id = random_hex(ID_DIGITS / 2)?;
    ContainerId::new(&id).map_err(io::Error::other)
}

/// `bytes` random bytes of the kernel's as hexadecimal digits.
///
/// # Errors
///
/// When the kernel has none.
pub fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0_u8; bytes];
    let filled = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())?;
    if filled != bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_held(lock: &Path) -> bool {
    match File::options().append(true).open(lock) {
        Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
        // What cannot be looked at now (EMFILE, ENOMEM) may be alive.
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

fn undo(all: &Path, places: &[PathBuf; 2]) -> Result<(), RunDirectoryError> {
    let [run, data] = places;
    crate::cleanup::undo_containers(&run.join("runtime"))?;
    // After its processes, so that nobody speaks from the address any more.
    crate::net::undo(all, &run.join(NETWORK))?;
    let journal = run.join(JOURNAL);
    if journal.exists() {
        Journal::open(&journal)?.undo_all()?;
    }
    // A crash before the journal's first line, or a reboot that emptied /run.
    for place in [run, data] {
        runtime::journal::remove_tree(place).map_err(UndoError::from)?;
    }
    Ok(())
}
