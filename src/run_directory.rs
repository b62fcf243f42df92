//! Where one container's things lie, who holds them, and how they go.
//!
//! ```text
//!   <run>/<container id>/     locked (flock) by the worker that runs it: tells dead from alive
//!                             bundle/  config.json
//!                             hosts, hostname, resolv.conf
//!                             network  what a crash would leave of the task's network
//!                             runtime/ the runtime's own state and journal
//!   <data>/runs/<container id>/  locked as well; log, upper/, root/, image/, volumes/
//! ```
//!
//! Two places, because `/run` is small and a tmpfs: an overlay's upper directory and the log belong
//! on the disk. Both are 0700 and named by the container's random id. The places themselves are locked
//! too: shared while a container's directories are made, exclusive while a sweep looks for dead ones.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::id::ContainerId;
use rustix::fs::OFlags;

use crate::directories::Directories;
use crate::file_lock::{self, Hold};
use crate::net::tables::TablesError;
use crate::own_directory::{Foreign, OwnDirectory, OwnDirectoryError};
use crate::random::random_hex;
use crate::remove_tree::{RemoveTreeError, remove_tree};
use crate::undo_containers::UndoContainerError;

/// How long a sweep waits for the monitors of dead workers, all together.
const MONITOR_TIME: Duration = Duration::from_secs(10);

/// The runtime's state directory.
const RUNTIME: &str = "runtime";

/// The file that names what there is of a container's network.
const NETWORK: &str = "network";

/// The directories of one container, held until they are removed.
#[derive(Debug)]
pub struct RunDirectory {
    run: PathBuf,
    data: PathBuf,
    /// Held open for their locks.
    _locks: [File; 2],
}

/// Why the directories of a container could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum RunDirectoryError {
    /// A file or directory could not be made.
    #[error("make the directory {}: check that the file system is writable and has room, or choose another place with --data and DOCKER_WORKER_RUN", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A place of containers cannot be used.
    #[error(transparent)]
    Place(#[from] OwnDirectoryError),
    /// The processes of a container cannot be ended.
    #[error(transparent)]
    Container(#[from] UndoContainerError),
    /// A directory is still there, or in part.
    #[error(transparent)]
    Tree(#[from] RemoveTreeError),
    /// The network of a task could not be undone.
    #[error(transparent)]
    Network(#[from] TablesError),
}

impl RunDirectory {
    /// Makes the directories of a new container. Waits for a sweep while that is `wanted`.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError`], and nothing is left behind but what `cleanup` knows how to remove.
    pub fn create(
        directories: &Directories,
        id: &ContainerId,
        wanted: &dyn Fn() -> bool,
    ) -> Result<RunDirectory, RunDirectoryError> {
        let places = Places::open(directories)?;
        let _no_sweep = places.lock(Hold::Shared, wanted)?;
        let run = directories.run.join(id.as_str());
        let data = directories.runs().join(id.as_str());
        let run_lock = make_directory(&run)?;
        let data_lock = make_directory(&data)?;
        make_directory(&run.join("bundle"))?;
        make_directory(&run.join(RUNTIME))?;
        Ok(RunDirectory { run, data, _locks: [run_lock, data_lock] })
    }

    /// The OCI bundle: a directory with `config.json`.
    pub fn bundle(&self) -> PathBuf {
        self.run.join("bundle")
    }

    /// The runtime's state directory (`--root`) for this one container.
    pub fn runtime_state(&self) -> PathBuf {
        self.run.join(RUNTIME)
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

    /// Removes both directories.
    ///
    /// # Errors
    ///
    /// When something resists; the next `cleanup` tries again.
    pub fn remove(self) -> Result<(), RunDirectoryError> {
        remove([&self.data, &self.run])
    }
}

/// Removes what there is of a container's directories. What resists in one does not keep the other.
fn remove(places: [&PathBuf; 2]) -> Result<(), RunDirectoryError> {
    let [first, second] = places.map(|place| remove_tree(place));
    Ok(first.and(second)?)
}

/// The two places where containers' directories lie.
struct Places {
    run: OwnDirectory,
    data: OwnDirectory,
}

impl Places {
    fn open(directories: &Directories) -> Result<Places, OwnDirectoryError> {
        Ok(Places {
            run: OwnDirectory::open(&directories.run)?,
            data: OwnDirectory::open(&directories.runs())?,
        })
    }

    fn lock(&self, hold: Hold, wanted: &dyn Fn() -> bool) -> Result<[File; 2], OwnDirectoryError> {
        Ok([self.run.lock(hold, wanted)?, self.data.lock(hold, wanted)?])
    }
}

/// Makes a directory and locks it, for as long as the result is held.
fn make_directory(path: &Path) -> Result<File, RunDirectoryError> {
    let make = || {
        DirBuilder::new().mode(0o700).create(path)?;
        let directory = open_directory(path)?;
        // Nobody else has it: sweeps stay away.
        directory.try_lock()?;
        Ok(directory)
    };
    make().map_err(|source| RunDirectoryError::Io { path: path.to_owned(), source })
}

/// Opens a directory for its lock, following no link in its place.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)
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
    /// What else lies in the worker's places, and stays there.
    pub foreign: Vec<Foreign>,
}

/// Undoes what workers that are gone have left behind, and leaves alone what belongs to live ones.
///
/// # Errors
///
/// When the places cannot be read or locked at all.
pub fn sweep(directories: &Directories) -> Result<Sweep, RunDirectoryError> {
    let deadline = Instant::now() + MONITOR_TIME;
    let mut sweep = Sweep::default();
    for dead in find_dead(directories, &mut sweep)? {
        match dead.undo(&directories.run, deadline) {
            Ok(()) => sweep.removed.push(dead.id),
            Err(error) => sweep.failed.push((dead.id, error)),
        }
    }
    Ok(sweep)
}

/// Takes hold of what workers that are gone have left behind.
fn find_dead(directories: &Directories, sweep: &mut Sweep) -> Result<Vec<Dead>, RunDirectoryError> {
    let places = Places::open(directories)?;
    // Nobody begins a container meanwhile: between its making and its lock a directory looks like a dead one's. Each
    // of those that are found is held by a lock of its own, so that undoing them keeps nobody else from their work.
    let _nobody_begins = places.lock(Hold::Exclusive, &|| true)?;
    let run = places.run.entries(is_container_id, &[NETWORK])?;
    let data = places.data.entries(is_container_id, &[])?;
    sweep.foreign.extend(run.foreign.into_iter().chain(data.foreign));
    let mut dead = Vec::new();
    for id in &run.own | &data.own {
        let paths = [places.run.path().join(&id), places.data.path().join(&id)];
        match paths.each_ref().map(|path| hold(path)) {
            [Some(run), Some(data)] => dead.push(Dead { id, paths, _locks: [run, data] }),
            _ => sweep.alive.push(id),
        }
    }
    Ok(dead)
}

/// Locks a directory that may be a dead worker's, if it is there; nothing if a live one holds it.
fn hold(path: &Path) -> Option<Option<File>> {
    match open_directory(path) {
        Ok(directory) => {
            directory.try_lock().ok()?;
            // Another sweep may have removed it before.
            let is_there = file_lock::is_at(path, &directory).ok()?;
            Some(is_there.then_some(directory))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(None),
        // What cannot be looked at now (EMFILE, ENOMEM) may be alive.
        Err(_) => None,
    }
}

/// What a worker that is gone has left of one container.
struct Dead {
    id: String,
    paths: [PathBuf; 2],
    _locks: [Option<File>; 2],
}

impl Dead {
    fn undo(&self, all: &Path, deadline: Instant) -> Result<(), RunDirectoryError> {
        let [run, data] = &self.paths;
        crate::undo_containers::undo_containers(&run.join(RUNTIME), deadline)?;
        // After its processes, so that nobody speaks from the address any more.
        crate::net::undo(all, &run.join(NETWORK))?;
        remove([data, run])
    }
}

/// Digits of a container's id: 256 random bits in hexadecimal.
const ID_DIGITS: usize = 64;

fn is_container_id(name: &str) -> bool {
    name.len() == ID_DIGITS && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
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
