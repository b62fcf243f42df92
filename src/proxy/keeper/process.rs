//! One process from its start to its end: a container of our runtime, and the socket to what runs in it.
//!
//! Its directory is made like a run's: so whatever becomes of the worker, a clean-up finds it and undoes what there is. The
//! rules that confine it ([`crate::net::confinement`]) are there before it, and go after it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use images::image::ImageConfig;
use runtime::id::ContainerId;
use runtime::launch::Launch;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::super::messages::{Order, Report, Reports, Sending};
use super::super::serve::MEMORY_BYTES;
use super::held::{Held, UndoError};
use super::line::Line;
use super::root::{self, RootError};
use super::surroundings::{Surroundings, View, deployment};
use crate::config::Config;
use crate::container::bundle::{Bundle, BundleError, Files};
use crate::container::{Container, ContainerError};
use crate::directories::Directories;
use crate::event::Events;
use crate::host::Host;
use crate::net::confinement::{Confinement, Opening};
use crate::net::tables::TablesError;
use crate::net::{AttachError, Network};
use crate::readiness::readable;
use crate::run_directory::{Beginning, RunDirectory, RunDirectoryError, random_id};
use crate::spec::process::RlimitCeilings;
use crate::spec::{Bind, ContainerRequest, Limits, NetworkChoice, Profile, ResolvedUser, SocketCall};

/// Its threads.
const PIDS: i64 = 64;

/// How long it may take until it serves.
const START_TIME: Duration = Duration::from_secs(30);

/// Bytes of what it has said last that are told.
const LAST_WORDS: u64 = 1024;

/// What a process is started with.
#[derive(Clone, Debug)]
pub struct Ground {
    root_url: String,
    directories: Directories,
    /// By which it is confined.
    network: Arc<Network>,
    user: u32,
    /// The executable `docker-worker-runtime`.
    runtime: PathBuf,
    ceilings: RlimitCeilings,
    processors: usize,
    limits: Limits,
    memory_for_all: Option<u64>,
}

/// A process that serves tasks.
pub(super) struct Process {
    held: Held,
    line: Line,
    /// Its standard error.
    errors: File,
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
    /// The worker has come to its end.
    #[error("start the proxy: the worker is ending")]
    GivenUp,
    /// One has been started, and may be there.
    #[error("{why}; it may still run")]
    Remains {
        /// Why it is of no use.
        why: Box<StartError>,
        /// What has become of its end.
        source: UndoError,
    },
    /// A thread that was to do some of it panicked.
    #[error("start the proxy")]
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
    pub fn of(root_url: &str, config: &Config, (network, host): (Arc<Network>, &Host)) -> Ground {
        let at_most = |own: i64, most: i64| own.min(most);
        Ground {
            root_url: root_url.to_owned(),
            directories: config.directories.clone(),
            network,
            user: config.file.proxy_user(),
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
    /// Starts one, and waits until it is ready for tasks, or until it is given up.
    ///
    /// # Errors
    ///
    /// [`StartError`], and what was made is undone; [`StartError::Remains`] if that is not so.
    pub(super) async fn start(
        ground: &Ground,
        events: Events,
        given_up: oneshot::Receiver<()>,
    ) -> Result<Process, StartError> {
        let deployment = deployment(&ground.root_url).await;
        let own = ground.clone();
        let Place { id, directory, binds, surroundings, confinement } =
            spawn_blocking(move || Place::make(&own, &events, deployment)).await??;
        let network = Arc::clone(&ground.network);
        match launch(ground, &id, &directory, (binds, given_up)).await {
            Ok(Launched { container, process, control, errors }) => {
                let held = Held { container, directory, network, confinement, process: Some(process) };
                Ok(Process { held, line: Line::of(control, View::of(surroundings)), errors })
            }
            Err((error, Some((container, process)))) => {
                let held = Held { container, directory, network, confinement, process };
                // Its end is what counts, and that is what the next one is about.
                drop(held.kill().await);
                match held.undo().await {
                    Ok(()) => Err(error),
                    Err(source) => Err(StartError::Remains { why: Box::new(error), source }),
                }
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

    /// The way to it.
    pub(super) fn line(&mut self) -> &mut Line {
        &mut self.line
    }

    /// What it has said on standard error, as long as nobody has asked before.
    pub(super) fn last_words(&self) -> String {
        last_words(&self.errors)
    }

    /// Nobody speaks to it any more: what is to be killed and undone.
    pub(super) fn let_go(self) -> Held {
        self.held
    }
}

impl Place {
    /// Blocks.
    fn make(ground: &Ground, events: &Events, deployment: Option<Vec<Opening>>) -> Result<Place, StartError> {
        let id = random_id().map_err(StartError::Id)?;
        let directory = RunDirectory::create(&Beginning::of_a_run(&ground.directories, &|| true)?, &id)?;
        let made = root::make(directory.task()).map_err(StartError::from).and_then(|(binds, names)| {
            let surroundings =
                Surroundings::of(names, (&ground.network, events), &ground.root_url, deployment);
            let confinement = ground.network.confine(&surroundings.open())?;
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
    process: AsyncFd<OwnedFd>,
    /// Our end, and what has come by it after the first word.
    control: (UnixStream, Reports),
    errors: File,
}

/// Why there is none that is ready, and what has to be ended all the same.
type Unready = (StartError, Option<(Container, Option<AsyncFd<OwnedFd>>)>);

/// Starts the container and waits until the process serves. What fails leaves a container that has to be ended, if there
/// is one.
async fn launch(
    ground: &Ground,
    id: &ContainerId,
    directory: &RunDirectory,
    (binds, given_up): (Vec<Bind>, oneshot::Receiver<()>),
) -> Result<Launched, Unready> {
    let before = |error| (error, None);
    let (control, theirs) = ends().map_err(|error| before(error.into()))?;
    let (errors, output) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|errno| before(io::Error::from(errno).into()))?;
    let launch = describe(ground, id, directory, (binds, output)).await.map_err(before)?;
    let launch = Launch { descriptors: vec![theirs], ..launch };
    let mut container = Container::launch(launch).map_err(|error| before(error.into()))?;
    let (errors, mut reports) = (File::from(errors), Reports::default());
    let mut process = None;
    let ready = async {
        let created = container.started(ground.memory_for_all).await?;
        process = Some(readable(created.init)?);
        let root_url = ground.root_url.clone();
        Sending::of(&Order::Open { root_url }, None)?.finish(&control).await?;
        match reports.next(&control).await? {
            Some(Report::Ready) => Ok(()),
            Some(_) => Err(StartError::NotReady("it is not of the same build".to_owned())),
            None => Err(StartError::NotReady(format!("it has ended ({})", last_words(&errors)))),
        }
    };
    let late = || StartError::NotReady(format!("it was not ready within {} s", START_TIME.as_secs()));
    let ended = tokio::select! {
        ready = timeout(START_TIME, ready) => ready.unwrap_or_else(|_| Err(late())),
        _ = given_up => Err(StartError::GivenUp),
    };
    match (ended, process) {
        (Ok(()), Some(process)) => Ok(Launched { container, process, control: (control, reports), errors }),
        (Ok(()), None) => Err((late(), Some((container, None)))),
        (Err(error), process) => Err((error, Some((container, process)))),
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
    let (uid, gid) = (ground.user, ground.network.group());
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
        apparmor: None,
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
