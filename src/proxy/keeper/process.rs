//! One process from its start to its end: a container of our runtime, and the socket to what runs in it.
//!
//! Its directory is made like a run's: so whatever becomes of the worker, a clean-up finds it and undoes what there is. The
//! rules that confine it ([`crate::net::confinement`]) are there before it, and go after it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use images::image::ImageConfig;
use runtime::id::ContainerId;
use runtime::launch::Launch;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::UnixStream;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::super::messages::{Order, Report, Reports, send_order};
use super::super::serve::MEMORY_BYTES;
use super::root::{self, RootError};
use super::surroundings::{Surroundings, deployment};
use crate::container::bundle::{Bundle, BundleError, Files};
use crate::container::{Container, ContainerError, EndError};
use crate::directories::Directories;
use crate::host::Host;
use crate::net::confinement::{Confinement, Opening, USER};
use crate::net::tables::TablesError;
use crate::net::{AttachError, Network};
use crate::run_directory::{Beginning, RunDirectory, RunDirectoryError, random_id};
use crate::spec::process::RlimitCeilings;
use crate::spec::{Bind, ContainerRequest, Limits, NetworkChoice, Profile, ResolvedUser, SocketCall};

/// Its threads.
const PIDS: i64 = 64;

/// How long it may take until it serves.
const START_TIME: Duration = Duration::from_secs(30);

/// How long it may take to take in an order.
const ORDER_TIME: Duration = Duration::from_secs(10);

/// Bytes of what it has said last that are told.
const LAST_WORDS: u64 = 1024;

/// What a process is started with.
#[derive(Clone, Debug)]
pub struct Ground {
    root_url: String,
    directories: Directories,
    /// By which it is confined.
    network: Arc<Network>,
    /// The executable `docker-worker-runtime`.
    runtime: PathBuf,
    ceilings: RlimitCeilings,
    processors: usize,
    limits: Limits,
    memory_for_all: Option<u64>,
}

/// A process that serves tasks.
pub(super) struct Process {
    container: Container,
    directory: RunDirectory,
    control: UnixStream,
    reports: Reports,
    /// Its standard error.
    errors: File,
    /// Nothing while they are looked at.
    surroundings: Option<Surroundings>,
    network: Arc<Network>,
    confinement: Confinement,
}

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// It has no place.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// It has no name.
    #[error("make a name for the proxy's container")]
    Id(#[source] io::Error),
    /// It could reach more than it may.
    #[error("confine the proxy")]
    Confine(#[from] AttachError),
    /// It was confined, and there is none.
    #[error(transparent)]
    SetFree(#[from] TablesError),
    /// It would not have what it needs.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its container cannot be described.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Its container cannot be started.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// There is no way to it.
    #[error("speak to the proxy")]
    Control(#[from] io::Error),
    /// It has not come to serve anybody.
    #[error("have the proxy serve tasks: {0}")]
    NotReady(String),
    /// A thread that was to do some of it panicked.
    #[error("start the proxy")]
    Panicked(#[from] JoinError),
}

/// Why something of it may still be there. Nothing that somebody could connect to.
#[derive(Debug, thiserror::Error)]
pub(super) enum UndoError {
    /// Its container.
    #[error("end the proxy: {0}")]
    Container(#[from] EndError),
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// The rules for it.
    #[error(transparent)]
    SetFree(#[from] TablesError),
    /// A thread that was to do it panicked.
    #[error("undo what there was of the proxy")]
    Panicked(#[from] JoinError),
}

/// What is made before there is anything that runs.
struct Place {
    id: ContainerId,
    directory: RunDirectory,
    binds: Vec<Bind>,
    surroundings: Surroundings,
    confinement: Confinement,
}

impl Ground {
    /// For a worker of the deployment at `root_url`, whose tasks have this network.
    pub fn of(root_url: &str, directories: &Directories, (network, host): (Arc<Network>, &Host)) -> Ground {
        let at_most = |own: i64, most: i64| own.min(most);
        Ground {
            root_url: root_url.to_owned(),
            directories: directories.clone(),
            network,
            runtime: host.runtime.clone(),
            ceilings: host.ceilings.clone(),
            processors: host.processors,
            // What this host cannot enforce for a task it cannot for the proxy.
            limits: Limits {
                pids: host.limits.pids.map(|most| at_most(PIDS, most)),
                memory_bytes: host.limits.memory_bytes.map(|most| at_most(MEMORY_BYTES, most)),
                processor: None,
                shm_bytes: 0,
            },
            memory_for_all: host.memory_for_all,
        }
    }
}

impl Process {
    /// Starts one, and waits until it is ready for tasks.
    ///
    /// # Errors
    ///
    /// [`StartError`], and what was made is undone, or will be by a clean-up.
    pub(super) async fn start(ground: &Ground) -> Result<Process, StartError> {
        let deployment = deployment(&ground.root_url).await;
        let own = ground.clone();
        let Place { id, directory, binds, surroundings, confinement } =
            spawn_blocking(move || Place::make(&own, deployment)).await??;
        let network = Arc::clone(&ground.network);
        match launch(ground, &id, &directory, binds).await {
            Ok(Launched { container, control, reports, errors }) => {
                let surroundings = Some(surroundings);
                Ok(Process {
                    container,
                    directory,
                    control,
                    reports,
                    errors,
                    surroundings,
                    network,
                    confinement,
                })
            }
            Err((error, Some(container))) => {
                // What comes of that is for the clean-up; why it was begun is for the worker.
                undo(container, directory, (network, confinement)).await.unwrap_or_default();
                Err(error)
            }
            // There may be one whose monitor nobody hears of, and which undoes it all by itself. The rules stay.
            Err((error @ StartError::Container(ContainerError::Watch(_)), None)) => Err(error),
            Err((error, None)) => {
                spawn_blocking(move || {
                    directory.remove()?;
                    Ok::<_, StartError>(network.set_free(confinement)?)
                })
                .await??;
                Err(error)
            }
        }
    }

    /// Sends it an order; whoever begins finds the host's names as they are now.
    ///
    /// # Errors
    ///
    /// It is gone, or takes nothing in.
    pub(super) async fn order(&mut self, order: &Order, listener: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if matches!(order, Order::Begin { .. })
            && let Some(mut surroundings) = self.surroundings.take()
        {
            let refresh = move || {
                surroundings.refresh();
                surroundings
            };
            self.surroundings = Some(spawn_blocking(refresh).await.map_err(io::Error::other)?);
        }
        let sent = timeout(ORDER_TIME, send_order(&self.control, order, listener)).await;
        sent.map_err(|_| io::Error::other("it takes in nothing"))?
    }

    /// What it says next; nothing when it is gone. May be dropped while it waits.
    ///
    /// # Errors
    ///
    /// It says nothing that could be understood.
    pub(super) async fn next(&mut self) -> io::Result<Option<Report>> {
        self.reports.next(&self.control).await
    }

    /// What it has said on standard error, as long as nobody has asked before.
    pub(super) fn last_words(&self) -> String {
        last_words(&self.errors)
    }

    /// Ends it, and undoes what was made for it.
    ///
    /// # Errors
    ///
    /// [`UndoError`]: something may still be there, for a clean-up.
    pub(super) async fn end(self) -> Result<(), UndoError> {
        // On which it goes by itself.
        drop(self.control);
        undo(self.container, self.directory, (self.network, self.confinement)).await
    }
}

async fn undo(
    mut container: Container,
    directory: RunDirectory,
    (network, confinement): (Arc<Network>, Confinement),
) -> Result<(), UndoError> {
    container.end(directory.task().runtime_state()).await?;
    let undo = move || {
        directory.remove()?;
        Ok(network.set_free(confinement)?)
    };
    spawn_blocking(undo).await?
}

impl Place {
    /// Blocks.
    fn make(ground: &Ground, deployment: Vec<Opening>) -> Result<Place, StartError> {
        let id = random_id().map_err(StartError::Id)?;
        let directory = RunDirectory::create(&Beginning::of_a_run(&ground.directories, &|| true)?, &id)?;
        let made = root::make(directory.task()).map_err(StartError::from).and_then(|(binds, names)| {
            let surroundings = Surroundings::of(names, &ground.network, &ground.root_url, deployment);
            let confinement = ground.network.confine(surroundings.open())?;
            Ok((binds, surroundings, confinement))
        });
        match made {
            Ok((binds, surroundings, confinement)) => {
                Ok(Place { id, directory, binds, surroundings, confinement })
            }
            Err(error) => {
                directory.remove()?;
                Err(error)
            }
        }
    }
}

/// A process that is ready.
struct Launched {
    container: Container,
    control: UnixStream,
    reports: Reports,
    errors: File,
}

/// Starts the container and waits until the process serves. What fails leaves a container that has to be ended, if there
/// is one.
async fn launch(
    ground: &Ground,
    id: &ContainerId,
    directory: &RunDirectory,
    binds: Vec<Bind>,
) -> Result<Launched, (StartError, Option<Container>)> {
    let before = |error| (error, None);
    let (control, theirs) = ends().map_err(|error| before(error.into()))?;
    let (errors, output) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|errno| before(io::Error::from(errno).into()))?;
    let launch = describe(ground, id, directory, (binds, output)).await.map_err(before)?;
    let launch = Launch { descriptors: vec![theirs], ..launch };
    let mut container = Container::launch(launch).map_err(|error| before(error.into()))?;
    let (errors, mut reports) = (File::from(errors), Reports::default());
    let ready = async {
        container.started(ground.memory_for_all).await?;
        let root_url = ground.root_url.clone();
        send_order(&control, &Order::Open { root_url }, None).await?;
        match reports.next(&control).await? {
            Some(Report::Ready) => Ok(()),
            Some(Report::Begun { .. } | Report::Failed { .. } | Report::Ended { .. }) => {
                Err(StartError::NotReady("it is not of the same build".to_owned()))
            }
            None => Err(StartError::NotReady(format!("it has ended ({})", last_words(&errors)))),
        }
    };
    let late = || StartError::NotReady(format!("it was not ready within {} s", START_TIME.as_secs()));
    match timeout(START_TIME, ready).await.unwrap_or_else(|_| Err(late())) {
        Ok(()) => Ok(Launched { container, control, reports, errors }),
        Err(error) => Err((error, Some(container))),
    }
}

/// Both ends of the socket: ours, and the one that the process gets.
fn ends() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// The container, as it is started.
async fn describe(
    ground: &Ground,
    id: &ContainerId,
    directory: &RunDirectory,
    (binds, output): (Vec<Bind>, OwnedFd),
) -> Result<Launch, StartError> {
    let mut files = Files::default();
    let (uid, gid) = (USER, ground.network.group());
    let user = ResolvedUser { uid, gid, additional_gids: Vec::new(), home: "/".to_owned() };
    let request = ContainerRequest {
        id,
        profile: Profile::Proxy,
        image: &ImageConfig::default(),
        user: &user,
        command: &[root::PROGRAM, "proxy"].map(str::to_owned),
        environment: vec![root::CERTIFICATES.to_owned()],
        binds,
        devices: Vec::new(),
        capabilities: Vec::new(),
        network: NetworkChoice::Host,
        limits: &ground.limits,
        ceilings: &ground.ceilings,
        processors: ground.processors,
        socketcall: SocketCall::Absent,
    };
    let bundle = Bundle {
        runtime: &ground.runtime,
        directory: directory.task(),
        request,
        root: None,
        network: None,
        // It is the worker's own work.
        scheduling: None,
        output: Some(output),
    };
    let launch = bundle.prepare(&mut files)?;
    spawn_blocking(move || files.write()).await??;
    Ok(launch)
}

/// What a pipe has, at most, that does not wait.
fn last_words(errors: &File) -> String {
    let mut bytes = Vec::new();
    // It ends with an error where there is nothing more for now.
    errors.take(LAST_WORDS).read_to_end(&mut bytes).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
