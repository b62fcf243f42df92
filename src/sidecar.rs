//! A container beside a task's, from an image, that serves that task alone.
//!
//! ```text
//!   start ─► network ─► link to the task ─► root ─► bundle ─► runtime ─► readiness
//!                 (in a background that goes to its end or takes back what it made)
//!   ready ◄── the address for the task's /etc/hosts, or why not and what the container printed last
//!   end   ─► container killed ─► network released ─► root unmounted
//! ```
//!
//! A hook of a feature may be dropped wherever it waits. So the making is not the hook's own: it goes on in the background
//! until it notices that it is not wanted, and [`Sidecar::end`] waits for it before it undoes anything. What is left by a
//! worker that is killed lies in the run's directories, where a clean-up finds it as it finds the task's container; the
//! container itself goes with its monitor, and that with the worker.

mod making;
mod output;
mod readiness;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use images::store::{Cancel, Lease, Store};
use oci_spec::runtime::Capability;
use runtime::launch::{Exited, ReceiveError};
use rustix::mount::{UnmountFlags, unmount};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::container::bundle::BundleError;
use crate::container::{Container, ContainerError, Created, EndError, UNDO_TIME};
use crate::host::Host;
use crate::net::names::Alias;
use crate::net::tables::TablesError;
use crate::net::{AttachError, Network, TaskNetwork};
use crate::root_file_system::RootError;
use crate::run_directory::{ContainerDirectory, RunDirectory, RunDirectoryError};
use crate::spec::{Bind, Device, Limits, SocketCall};
use crate::undo_containers::{UndoContainerError, undo_containers};

use making::Making;
use output::Output;

pub use readiness::{NotReady, Readiness};

/// What a sidecar is to be.
#[derive(Debug)]
pub struct Wanted {
    /// What it is called in the run's directories and in sentences.
    pub name: &'static str,
    /// Name and value, above the image's own.
    pub environment: Vec<(String, String)>,
    /// Names in its own `/etc/hosts`.
    pub hosts: Vec<Alias>,
    /// What it sees of the host's.
    pub binds: Vec<Bind>,
    /// Device nodes of the host's that it may open.
    pub devices: Vec<Device>,
    /// Capabilities beyond the fourteen. They count on the host, as there is no user namespace: an image with
    /// `CAP_NET_ADMIN` is trusted with the links of the whole host, so it is for the administrator to name.
    pub capabilities: Vec<Capability>,
    /// When it counts as there.
    pub readiness: Readiness,
}

/// Where it is made.
#[derive(Debug)]
pub struct Place<'a> {
    /// The run's directories.
    pub run: &'a RunDirectory,
    /// The image store.
    pub store: &'a Store,
    /// What containers get on this host.
    pub host: &'a Host,
    /// What it may use: the task's processor too, where that has one to itself.
    pub limits: &'a Limits,
    /// Whether its 32-bit programs may make sockets.
    pub socketcall: SocketCall,
    /// The AppArmor profile that it runs under, which is loaded and stays so.
    pub apparmor: Option<&'a str>,
    /// The worker's network.
    pub network: &'a Arc<Network>,
    /// The task's.
    pub task: &'a TaskNetwork,
    /// Tells apart the sidecars of one task.
    pub number: u8,
}

/// Why a sidecar does not serve.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// A directory of its own.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// A random id, or a descriptor.
    #[error("prepare a container beside the task's")]
    Prepare(#[source] io::Error),
    /// Its network, or the link to the task.
    #[error(transparent)]
    Network(#[from] AttachError),
    /// Its root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It did not start.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// It runs, or did, and does not serve.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// A thread or task panicked.
    #[error("make a container beside the task's")]
    Panicked(#[from] JoinError),
    /// The run has no use for it any more.
    #[error("the run came to its end first")]
    Unwanted,
}

/// A sidecar that is being made, serves, or has ended.
#[derive(Debug)]
pub struct Sidecar {
    directory: ContainerDirectory,
    network: Arc<Network>,
    stop: Cancel,
    making: Option<JoinHandle<(Made, Result<Ipv4Addr, SidecarError>)>>,
    made: Made,
}

/// Without [`Sidecar::end`] its container ends by itself, and the rest is left for a clean-up.
impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// All that there is of it, as far as it came.
#[derive(Debug, Default)]
struct Made {
    network: Option<TaskNetwork>,
    mounts: Vec<PathBuf>,
    container: Option<Container>,
    created: Option<Created>,
    output: Option<Output>,
    /// Keeps it in the store while it is mounted.
    image: Option<Lease>,
}

impl Sidecar {
    /// Begins to make one of an image, which runs the command that it names itself. Its directories are there when this returns.
    ///
    /// # Errors
    ///
    /// [`SidecarError::Directory`], also where the run has a container of that name; [`SidecarError::Prepare`].
    pub fn start(place: &Place<'_>, image: Lease, what: Wanted) -> Result<Sidecar, SidecarError> {
        let directory = place.run.add_container(what.name)?;
        let (stop, in_making) = (Cancel::default(), directory.clone());
        let making = Making {
            what,
            store: place.store.clone(),
            host: place.host.clone(),
            limits: place.limits.clone(),
            socketcall: place.socketcall,
            apparmor: place.apparmor.map(str::to_owned),
            network: Arc::clone(place.network),
            task: place.task.namespace().try_clone_to_owned().map_err(SidecarError::Prepare)?,
            number: place.number,
            stop: stop.clone(),
        };
        let making = tokio::spawn(async move {
            let mut made = Made { image: Some(image), ..Made::default() };
            let result = making.make(&mut made, &in_making).await;
            (made, result)
        });
        let network = Arc::clone(place.network);
        Ok(Sidecar { directory, network, stop, making: Some(making), made: Made::default() })
    }

    /// Waits until it serves, and gives the address by which the task reaches it. To be called once; a caller that is dropped
    /// while it waits has changed nothing.
    ///
    /// # Errors
    ///
    /// [`SidecarError`]; [`Sidecar::last_words`] may say more.
    pub async fn ready(&mut self) -> Result<Ipv4Addr, SidecarError> {
        let Some(making) = &mut self.making else { return Err(SidecarError::Unwanted) };
        let joined = making.await;
        self.making = None;
        let (made, result) = joined?;
        self.made = made;
        result
    }

    /// The last lines that it printed, fit for a log.
    pub fn last_words(&self) -> Vec<String> {
        self.made.output.as_ref().map(Output::last_lines).unwrap_or_default()
    }

    /// Waits for the end of its command, which is nobody's wish.
    ///
    /// # Errors
    ///
    /// [`ContainerError`], also when it does not serve yet or any more.
    pub async fn exited(&mut self) -> Result<Exited, ContainerError> {
        let gone = ContainerError::Lost(ReceiveError::Ended);
        self.made.container.as_mut().ok_or(gone)?.exited().await
    }

    /// Ends it, and takes back all that was made for it but its directories, which go with the run's. That goes on to its end
    /// also when the caller is dropped while it waits.
    ///
    /// # Errors
    ///
    /// All that resists; then the run's directories have to stay, for a clean-up.
    pub async fn end(mut self) -> Result<(), Vec<NotEnded>> {
        self.stop.cancel();
        let (making, mut made) = (self.making.take(), std::mem::take(&mut self.made));
        let (directory, network) = (self.directory.clone(), Arc::clone(&self.network));
        let ending = tokio::spawn(async move {
            let mut resisting = Vec::new();
            if let Some(making) = making {
                match making.await {
                    Ok((by_it, _)) => made = by_it,
                    Err(error) => resisting.push(NotEnded::Panicked(error)),
                }
            }
            made.undo(&directory, network, &mut resisting).await;
            if resisting.is_empty() { Ok(()) } else { Err(resisting) }
        });
        ending.await.unwrap_or_else(|error| Err(vec![error.into()]))
    }
}

/// What of a sidecar may still be there.
#[derive(Debug, thiserror::Error)]
pub enum NotEnded {
    /// Its processes.
    #[error(transparent)]
    Container(#[from] EndError),
    /// Processes that a monitor may have left.
    #[error(transparent)]
    Undo(#[from] UndoContainerError),
    /// Its network.
    #[error(transparent)]
    Network(#[from] TablesError),
    /// Its root.
    #[error("unmount {}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread or task panicked.
    #[error("take back a container beside the task's")]
    Panicked(#[from] JoinError),
}

impl Made {
    /// In the reverse order of the making: while its processes may run nothing that they can reach goes.
    async fn undo(
        mut self,
        directory: &ContainerDirectory,
        network: Arc<Network>,
        resisting: &mut Vec<NotEnded>,
    ) {
        let state = directory.runtime_state();
        let ended = match self.container.take() {
            Some(mut container) => container.end(state).await.map_err(NotEnded::from),
            // Nobody holds one; there may be one all the same.
            None => in_thread(move || Ok(undo_containers(&state, Instant::now() + UNDO_TIME)?)).await,
        };
        if let Err(error) = ended {
            resisting.push(error);
            // They are in use.
            std::mem::forget((self.created, self.image));
            return;
        }
        let record = directory.network();
        let task = self.network.take();
        resisting.extend(in_thread(move || Ok(network.release(task, &record)?)).await.err());
        let unmounted = in_thread(move || {
            drop(self.created);
            let mut unmounted = Ok(());
            for path in self.mounts.into_iter().rev() {
                if let Err(errno) = unmount(&path, UnmountFlags::DETACH) {
                    unmounted = Err(NotEnded::Mount { path, source: errno.into() });
                }
            }
            drop(self.image);
            unmounted
        });
        resisting.extend(unmounted.await.err());
    }
}

async fn in_thread(work: impl FnOnce() -> Result<(), NotEnded> + Send + 'static) -> Result<(), NotEnded> {
    spawn_blocking(work).await?
}
