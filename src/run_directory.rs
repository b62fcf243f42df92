//! Where the things of one run's containers lie, who holds them, and how they go. The run has the name of its task's
//! container.
//!
//! ```text
//!   <run>/<container id>/        locked (flock) by the worker that runs it: tells dead from alive
//!     containers/task/           the bundle (config.json); hosts, hostname, resolv.conf
//!                network         what a crash would leave of the container's network
//!                apparmor/       the journal of a profile of the container's own
//!                runtime/        the runtime's own state and journal
//!     containers/<another>/      the same for each container that serves the task
//!   <data>/runs/<container id>/  locked as well; log, volumes/
//!     containers/task/           upper/, root/, image/
//!   <run>/<random id>/           a worker process's own: see [`process`]
//! ```
//!
//! The one container that serves all tasks of a worker has directories like a run's, so that it is found like one.
//!
//! Two places, because `/run` is small and a tmpfs: an overlay's upper directory and the log belong
//! on the disk. Both are 0700 and named by the container's random id. The places themselves are locked
//! too: shared while a container's directories are made, exclusive while a sweep looks for dead ones.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::id::ContainerId;
use rustix::fs::OFlags;

use self::process::DeadProcess;
use crate::directories::{CLAIMS, Directories};
use crate::file_lock::{self, Hold, Lock};
use crate::net::tables::TablesError;
use crate::own_directory::{Foreign, OwnDirectory, OwnDirectoryError};
use crate::random::random_hex;
use crate::remove_tree::{RemoveTreeError, remove_tree};
use crate::undo_containers::{UndoContainerError, undo_containers, undo_journal};

pub mod process;

/// How long a sweep waits for the monitors of dead workers, all together.
const MONITOR_TIME: Duration = Duration::from_secs(10);

/// The runtime's state directory.
const RUNTIME: &str = "runtime";

/// The file that names what there is of a container's network; in the run directory, what there is of all.
const NETWORK: &str = "network";

/// The directory with the journal of a container's own AppArmor profile.
const PROFILE: &str = "apparmor";

/// The directory of the containers' own.
const CONTAINERS: &str = "containers";

/// The file of the task's log, in the data directory.
const LOG: &str = "log";

/// The container of the task's command.
const TASK: &str = "task";

/// The directories of one run, held until they are removed.
#[derive(Debug)]
pub struct RunDirectory {
    run: PathBuf,
    data: PathBuf,
    task: ContainerDirectory,
    _locks: [Lock; 2],
}

/// Where one container of a run has its things; they go with the run's.
#[derive(Clone, Debug)]
pub struct ContainerDirectory {
    run: PathBuf,
    data: PathBuf,
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
    /// A dead worker's run cannot be looked through.
    #[error("list {}", path.display())]
    List {
        /// Which directory.
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

/// The beginning of a run: as long as it is held, no sweep looks for dead ones.
#[derive(Debug)]
pub struct Beginning {
    places: Places,
    _no_sweep: [File; 2],
}

impl Beginning {
    /// Makes the places of all runs, and keeps sweeps away. Waits for one while that is `wanted`.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError::Place`].
    pub fn of_a_run(
        directories: &Directories,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Beginning, RunDirectoryError> {
        let places = Places::open(directories)?;
        let no_sweep = places.lock(Hold::Shared, wanted)?;
        Ok(Beginning { places, _no_sweep: no_sweep })
    }
}

impl RunDirectory {
    /// Makes the directories of a new run and of its task's container.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError`], and nothing is left behind but what `cleanup` knows how to remove.
    pub fn create(beginning: &Beginning, id: &ContainerId) -> Result<RunDirectory, RunDirectoryError> {
        let [run, data] =
            [&beginning.places.run, &beginning.places.data].map(|it| it.path().join(id.as_str()));
        let run_lock = make_directory(&run)?;
        let data_lock = make_directory(&data)?;
        for place in [&run, &data] {
            make(&place.join(CONTAINERS))?;
        }
        let task = ContainerDirectory::create(&run, &data, TASK)?;
        Ok(RunDirectory { run, data, task, _locks: [run_lock, data_lock] })
    }

    /// The container of the task's command.
    pub fn task(&self) -> &ContainerDirectory {
        &self.task
    }

    /// Makes the directories of another container of this run. Whatever the run comes to, a clean-up finds it there.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError::Io`], also when the run has a container of that name.
    pub fn add_container(&self, name: &str) -> Result<ContainerDirectory, RunDirectoryError> {
        ContainerDirectory::create(&self.run, &self.data, name)
    }

    /// The directory on the data directory's file system.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where the log is collected.
    pub fn log(&self) -> PathBuf {
        self.data.join(LOG)
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

impl ContainerDirectory {
    fn create(run: &Path, data: &Path, name: &str) -> Result<ContainerDirectory, RunDirectoryError> {
        let [run, data] = [run, data].map(|place| place.join(CONTAINERS).join(name));
        make(&run)?;
        make(&run.join(RUNTIME))?;
        make(&data)?;
        Ok(ContainerDirectory { run, data })
    }

    /// The OCI bundle: a directory with `config.json`.
    pub fn bundle(&self) -> &Path {
        &self.run
    }

    /// The runtime's state directory (`--root`) for this one container.
    pub fn runtime_state(&self) -> PathBuf {
        self.run.join(RUNTIME)
    }

    /// A file that is bound into the container.
    pub fn file(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// What a crash would leave of the container's network.
    pub fn network(&self) -> PathBuf {
        self.run.join(NETWORK)
    }

    /// What a crash would leave of an AppArmor profile of the container's own.
    pub fn profile(&self) -> PathBuf {
        self.run.join(PROFILE)
    }

    /// The directory on the data directory's file system.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

fn make(path: &Path) -> Result<(), RunDirectoryError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| RunDirectoryError::Io { path: path.to_owned(), source })
}

/// Removes what there is of a run's directories. What resists in one does not keep the other.
fn remove(places: [&PathBuf; 2]) -> Result<(), RunDirectoryError> {
    let [first, second] = places.map(|place| remove_tree(place));
    Ok(first.and(second)?)
}

/// The two places where containers' directories lie.
#[derive(Debug)]
struct Places {
    run: OwnDirectory,
    data: OwnDirectory,
}

/// What lies in them.
struct Found {
    containers: BTreeSet<String>,
    processes: BTreeSet<String>,
    foreign: Vec<Foreign>,
}

impl Places {
    fn open(directories: &Directories) -> Result<Places, OwnDirectoryError> {
        Ok(Places {
            run: OwnDirectory::open(&directories.run)?,
            data: OwnDirectory::open(&directories.runs())?,
        })
    }

    fn entries(&self) -> Result<Found, OwnDirectoryError> {
        let run = self
            .run
            .entries(|name| is_container_id(name) || process::is_process_id(name), &[NETWORK, CLAIMS])?;
        let mut data = self.data.entries(is_container_id, &[])?;
        let (processes, mut containers): (BTreeSet<_>, BTreeSet<_>) =
            run.own.into_iter().partition(|name| process::is_process_id(name));
        containers.append(&mut data.own);
        let foreign = run.foreign.into_iter().chain(data.foreign).collect();
        Ok(Found { containers, processes, foreign })
    }

    fn lock(&self, hold: Hold, wanted: &dyn Fn() -> bool) -> Result<[File; 2], OwnDirectoryError> {
        Ok([self.run.lock(hold, wanted)?, self.data.lock(hold, wanted)?])
    }
}

/// Makes a directory and locks it, for as long as the result is held.
fn make_directory(path: &Path) -> Result<Lock, RunDirectoryError> {
    let make = || {
        DirBuilder::new().mode(0o700).create(path)?;
        // Nobody else has it: sweeps stay away.
        Lock::take(open_directory(path)?)?.ok_or(io::ErrorKind::WouldBlock.into())
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
    /// Runs of workers that are gone whose directories somebody wants to see.
    pub kept: Vec<Dead>,
    /// Containers of workers that live.
    pub alive: Vec<String>,
    /// What could not be removed.
    pub failed: Vec<(String, RunDirectoryError)>,
    /// What else lies in the worker's places, and stays there.
    pub foreign: Vec<Foreign>,
}

/// Undoes what workers that are gone have left behind, and leaves alone what belongs to live ones. The directories of
/// those runs that are `wanted` are kept. A run of which something may still run is among those that failed, wanted or
/// not.
///
/// # Errors
///
/// When the places cannot be read or locked at all.
pub fn sweep(directories: &Directories, wanted: &dyn Fn(&str) -> bool) -> Result<Sweep, RunDirectoryError> {
    let deadline = Instant::now() + MONITOR_TIME;
    let mut sweep = Sweep::default();
    let DeadThings { runs, processes } = find_dead(directories, &mut sweep, &|| true)?;
    for mut dead in runs {
        let is_wanted = wanted(&dead.id);
        let undone = dead.undo(&directories.run, deadline);
        let removed = undone.and_then(|()| if is_wanted { Ok(()) } else { dead.remove() });
        match removed {
            Ok(()) if is_wanted => {}
            Ok(()) => sweep.removed.push(dead.id.clone()),
            Err(error) => sweep.failed.push((dead.id.clone(), error)),
        }
        if is_wanted {
            sweep.kept.push(dead);
        }
    }
    if sweep.failed.is_empty() {
        remove_processes(processes, &mut sweep);
    }
    Ok(sweep)
}

/// After all containers of dead workers: what has been made for all of them may hold until the last one.
fn remove_processes(processes: Vec<DeadProcess>, sweep: &mut Sweep) {
    for process in processes {
        if let Err(error) = process.remove() {
            sweep.failed.push((process.id(), error));
        }
    }
}

/// The same with those only that `choose` takes, and nothing of them is kept. Waits for others who begin a run while
/// that is `wanted`.
///
/// # Errors
///
/// As [`sweep`].
pub fn sweep_chosen(
    directories: &Directories,
    choose: &mut dyn FnMut(&str) -> bool,
    wanted: &dyn Fn() -> bool,
) -> Result<Sweep, RunDirectoryError> {
    let deadline = Instant::now() + MONITOR_TIME;
    let mut sweep = Sweep::default();
    let mut is_whole = true;
    let DeadThings { runs, processes } = find_dead(directories, &mut sweep, wanted)?;
    for mut dead in runs {
        if !choose(&dead.id) {
            is_whole = false;
            continue;
        }
        match dead.undo(&directories.run, deadline).and_then(|()| dead.remove()) {
            Ok(()) => sweep.removed.push(dead.id.clone()),
            Err(error) => sweep.failed.push((dead.id.clone(), error)),
        }
    }
    if is_whole && sweep.failed.is_empty() {
        remove_processes(processes, &mut sweep);
    }
    Ok(sweep)
}

/// The containers that there is anything of, their workers' state aside.
///
/// # Errors
///
/// When the places cannot be read.
pub fn containers_there(directories: &Directories) -> Result<BTreeSet<String>, RunDirectoryError> {
    Ok(Places::open(directories)?.entries()?.containers)
}

/// What workers that are gone have left behind.
struct DeadThings {
    runs: Vec<Dead>,
    processes: Vec<DeadProcess>,
}

/// Takes hold of it.
fn find_dead(
    directories: &Directories,
    sweep: &mut Sweep,
    wanted: &dyn Fn() -> bool,
) -> Result<DeadThings, RunDirectoryError> {
    let places = Places::open(directories)?;
    // Nobody begins a container meanwhile: between its making and its lock a directory looks like a dead one's. Each
    // of those that are found is held by a lock of its own, so that undoing them keeps nobody else from their work.
    let _nobody_begins = places.lock(Hold::Exclusive, wanted)?;
    let found = places.entries()?;
    sweep.foreign.extend(found.foreign);
    let processes = found.processes.iter().filter_map(|id| DeadProcess::find(places.run.path().join(id)));
    let processes = processes.collect();
    let mut runs = Vec::new();
    for id in found.containers {
        let paths = [places.run.path().join(&id), places.data.path().join(&id)];
        match paths.each_ref().map(|path| hold(path)) {
            // Its worker has just removed it.
            [Some(None), Some(None)] => {}
            [Some(run), Some(data)] => runs.push(Dead { id, paths, is_undone: false, _locks: [run, data] }),
            _ => sweep.alive.push(id),
        }
    }
    Ok(DeadThings { runs, processes })
}

/// Locks a directory that may be a dead worker's, if it is there; nothing if a live one holds it.
fn hold(path: &Path) -> Option<Option<Lock>> {
    match open_directory(path) {
        Ok(directory) => {
            let lock = Lock::take(directory).ok()??;
            // Another sweep may have removed it before.
            let is_there = file_lock::is_at(path, &*lock).ok()?;
            Some(is_there.then_some(lock))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(None),
        // What cannot be looked at now (EMFILE, ENOMEM) may be alive.
        Err(_) => None,
    }
}

/// What a worker that is gone has left of one run. As long as the value lives, nobody else takes it up.
#[derive(Debug)]
pub struct Dead {
    id: String,
    paths: [PathBuf; 2],
    is_undone: bool,
    _locks: [Option<Lock>; 2],
}

impl Dead {
    /// The run's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory on the data directory's file system, if the run came to have one.
    pub fn data(&self) -> &Path {
        &self.paths[1]
    }

    /// The log, as far as it was written.
    pub fn log(&self) -> PathBuf {
        self.data().join(LOG)
    }

    /// Removes what there is of its directories, unless they name what resists: then a clean-up tries again.
    ///
    /// # Errors
    ///
    /// [`RunDirectoryError::Tree`]
    pub fn remove(&self) -> Result<(), RunDirectoryError> {
        let [run, data] = &self.paths;
        if self.is_undone { remove([data, run]) } else { Ok(()) }
    }

    fn undo(&mut self, all: &Path, deadline: Instant) -> Result<(), RunDirectoryError> {
        let [run, _] = &self.paths;
        let mut result = Ok(());
        for container in containers(run)? {
            let undone = undo_container(&container, all, deadline);
            // What resists in one does not keep the others.
            result = result.and(undone);
        }
        self.is_undone = result.is_ok();
        result
    }
}

/// The directories of a run's containers; none where it came to none.
fn containers(run: &Path) -> Result<Vec<PathBuf>, RunDirectoryError> {
    let path = run.join(CONTAINERS);
    let listed = std::fs::read_dir(&path).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|source| RunDirectoryError::List { path, source }),
    }
}

fn undo_container(container: &Path, all: &Path, deadline: Instant) -> Result<(), RunDirectoryError> {
    undo_containers(&container.join(RUNTIME), deadline)?;
    // After its processes: nobody speaks from the address any more, and nobody is left without a fence.
    let profile = undo_journal(&container.join(PROFILE));
    crate::net::undo(all, &container.join(NETWORK))?;
    Ok(profile?)
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
