//! What there is of a run before anything else: its processor, word of it for a successor of this worker, its directories,
//! its log.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use runtime::id::ContainerId;
use tokio::task::{JoinError, spawn_blocking};

use crate::claim_file::{self, ClaimFile, ClaimFileError, HeldRun, Logs};
use crate::event::Event;
use crate::interrupt::Interrupts;
use crate::processors::Processor;
use crate::queue::{RunQueue, WorkerIdentity};
use crate::run_directory::{Beginning, RunDirectory, RunDirectoryError, random_id};
use crate::task::run::Worker;
use crate::task_log::spool::Spool;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// Why a run could not even begin; nothing of it is in any log.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// No place for the container's things.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// Nobody could resolve the run if this worker were killed.
    #[error(transparent)]
    Claim(#[from] ClaimFileError),
    /// More runs than processors.
    #[error("find a processor for the task: each has one to itself (restrictCPU), and none is free")]
    NoProcessor,
    /// The thread that was to make them panicked.
    #[error("make the directories of a run")]
    Panicked(#[from] JoinError),
    /// No place for the log, or no random id.
    #[error("begin the task's log in {}", path.display())]
    Log {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What a run begins with.
pub(super) struct Opened {
    pub(super) id: ContainerId,
    pub(super) directory: RunDirectory,
    pub(super) log: Spool,
    pub(super) file: Option<ClaimFile>,
    /// The run's own, where each has one.
    pub(super) processor: Option<Processor>,
}

/// Takes the run's processor, writes down that there is a run, and makes its directories and its log. Where something
/// fails once the run is written down, or about to be, the file comes with the error: a successor of this worker may have
/// to resolve it.
pub(super) async fn open(
    worker: &Arc<Worker>,
    interrupts: &Interrupts,
    held: Option<HeldRun>,
) -> Result<Opened, (BeginError, Option<ClaimFile>)> {
    open_with(worker, interrupts, held, take_processor).await
}

/// The same for a run that is never carried out: it needs no processor.
pub(super) async fn open_idle(
    worker: &Arc<Worker>,
    interrupts: &Interrupts,
    held: Option<HeldRun>,
) -> Result<Opened, (BeginError, Option<ClaimFile>)> {
    open_with(worker, interrupts, held, |_| Ok(None)).await
}

async fn open_with(
    worker: &Arc<Worker>,
    interrupts: &Interrupts,
    held: Option<HeldRun>,
    processor: fn(&Worker) -> Result<Option<Processor>, BeginError>,
) -> Result<Opened, (BeginError, Option<ClaimFile>)> {
    let (worker, interrupts, written) = (Arc::clone(worker), interrupts.clone(), Arc::new(OnceLock::new()));
    let note = Arc::clone(&written);
    let opening = spawn_blocking(move || open_now(&worker, &interrupts, (held, processor(&worker)?), &note));
    let opened = opening.await.map_err(BeginError::from).flatten();
    opened.map_err(|error| (error, written.get().cloned()))
}

/// Blocks.
fn open_now(
    worker: &Worker,
    interrupts: &Interrupts,
    (held, processor): (Option<HeldRun>, Option<Processor>),
    written: &OnceLock<ClaimFile>,
) -> Result<Opened, BeginError> {
    let directories = &worker.config.directories;
    let id = new_id(worker)?;
    // A claim without directories is a dead run's: nobody may look between its writing and their making.
    let beginning = Beginning::of_a_run(directories, &|| interrupts.current().is_none())?;
    let held = held.map(|held| HeldRun { container_id: id.as_str().to_owned(), ..held });
    if let Some(held) = &held {
        // Noted first: the file may be there although its writing fails.
        written.get_or_init(|| held.file(directories));
        ClaimFile::create(directories, held)?;
    }
    let file = written.get().cloned();
    let (directory, log) = make(worker, &beginning, &id)?;
    Ok(Opened { id, directory, log, file, processor })
}

/// Does the same without a run, and undoes it: says what keeps a run from beginning now. Blocks.
///
/// # Errors
///
/// What [`open`] would say.
pub fn rehearse(worker: &Worker) -> Result<(), BeginError> {
    let directories = &worker.config.directories;
    drop(take_processor(worker)?);
    let beginning = Beginning::of_a_run(directories, &|| true)?;
    claim_file::rehearse(directories)?;
    let (directory, log) = make(worker, &beginning, &new_id(worker)?)?;
    drop(log);
    Ok(directory.remove()?)
}

fn new_id(worker: &Worker) -> Result<ContainerId, BeginError> {
    random_id().map_err(|source| BeginError::Log { path: worker.config.directories.runs(), source })
}

fn take_processor(worker: &Worker) -> Result<Option<Processor>, BeginError> {
    let processors = worker.host.processor_for_each.as_ref();
    processors.map(|all| all.take().ok_or(BeginError::NoProcessor)).transpose()
}

fn make(
    worker: &Worker,
    beginning: &Beginning,
    id: &ContainerId,
) -> Result<(RunDirectory, Spool), BeginError> {
    let directory = RunDirectory::create(beginning, id)?;
    match Spool::create(&directory.log(), worker.config.file.log_bytes()) {
        Ok(log) => Ok((directory, log)),
        Err(source) => {
            // What resists is a clean-up's; the run is told why it could not begin.
            if let Err(error) = directory.remove() {
                let message = format!("failed to {}", chain(&error));
                worker.events.emit(&Event::Warning { message: &message });
            }
            Err(BeginError::Log { path: worker.config.directories.runs(), source })
        }
    }
}

/// What a successor of this worker has to know to resolve a run; nothing where no call is signed, as the queue is in
/// this process. The container has no name yet.
pub(super) fn held(
    worker: &Worker,
    queue: &RunQueue,
    (taken_until, expires): (Timestamp, Timestamp),
    logs: Logs,
) -> Option<HeldRun> {
    let file = &worker.config.file;
    let (root_url, worker_id) = (file.root_url.clone()?, file.worker_id.clone()?);
    let credentials = queue.credentials()?.borrow().clone();
    Some(HeldRun {
        root_url,
        worker: WorkerIdentity { worker_group: file.worker_group().to_owned(), worker_id },
        run: queue.run().clone(),
        taken_until,
        expires,
        began: Timestamp::now(),
        container_id: String::new(),
        logs,
        credentials,
    })
}
