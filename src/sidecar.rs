//! A container beside a task's, from an image, that serves that task alone.
//!
//! ```text
//!   start ─► image ─► network ─► link to the task ─► root ─► bundle ─► runtime ─► readiness
//!                 (in a background that goes to its end or takes back what it made)
//!   ready ◄── the address for the task's /etc/hosts, or why not and what the container printed last
//!   end   ─► container killed ─► network released ─► root unmounted
//! ```
//!
//! A hook of a feature may be dropped wherever it waits. So the making is not the hook's own: it goes on in the background
//! until it notices that it is not wanted, and [`Sidecar::end`] waits for it before it undoes anything. And a sidecar is not
//! the feature's own: the run keeps all of its [`Sidecars`] from before they are begun until each has ended. What is left by
//! a worker that is killed lies in the run's directories, where a clean-up finds it as it finds the task's container; the
//! container itself goes with its monitor, and that with the worker.
//!
//! The worker's own requests to it go through its [`Door`], which no task sees.

mod door;
mod kept;
mod making;
mod output;
mod readiness;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use images::source::Source;
use images::store::{Cancel, Lease, PullError, PullEvent, PullOptions, Store};
use oci_spec::runtime::Capability;
use runtime::launch::{Exited, ReceiveError};
use rustix::mount::{UnmountFlags, unmount};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::apparmor_profiles::{DefaultProfile, ProfileError, Use};
use crate::config::Secret;
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

pub use door::{Call, CallError, Door};
pub use kept::{Lost, Sidecars};
pub use output::Secrets;
pub use readiness::{NotReady, Readiness};

/// What a sidecar is to be.
#[derive(Debug)]
pub struct Wanted {
    /// What it is called in the run's directories and in sentences.
    pub name: &'static str,
    /// Where its image comes from.
    pub image: Source,
    /// What follows the image's entry point; the image's own command if empty.
    pub arguments: Vec<Secret>,
    /// What it knows, by these arguments or later, that nobody may read in a log.
    pub secrets: Secrets,
    /// Name and value, above the image's own.
    pub environment: Vec<(String, String)>,
    /// Names in its own `/etc/hosts`.
    pub hosts: Vec<Alias>,
    /// What it sees of the host's.
    pub binds: Vec<Bind>,
    /// Device nodes of the host's that it may open.
    pub devices: Vec<Device>,
    /// Capabilities beyond the fourteen. They count on the host, as there is no user namespace: whoever has
    /// `CAP_NET_ADMIN` may change the links of every network namespace that a link of their own leads to, and of the sidecar's
    /// the one leads to the host. So an image with it is trusted with the host's network, and for the administrator to name.
    pub capabilities: Vec<Capability>,
    /// When it counts as there.
    pub readiness: Readiness,
}

/// Where it is made.
pub struct Place<'a> {
    /// The run's directories.
    pub run: &'a RunDirectory,
    /// The image store.
    pub store: &'a Store,
    /// How its image may be pulled.
    pub options: &'a PullOptions,
    /// Hears how that goes on.
    pub observer: &'a Arc<dyn Fn(&PullEvent) + Send + Sync>,
    /// What containers get on this host.
    pub host: &'a Host,
    /// What it may use: the task's processor too, where that has one to itself.
    pub limits: &'a Limits,
    /// Whether its 32-bit programs may make sockets where there is no AppArmor profile.
    pub socketcall: SocketCall,
    /// The profile that it runs under, where there can be one: the one that all containers share, whichever its task has.
    pub profile: Option<&'a Arc<DefaultProfile>>,
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
    /// Its image.
    #[error(transparent)]
    Image(#[from] PullError),
    /// Its AppArmor profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
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
    name: &'static str,
    secrets: Secrets,
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
    profile: Option<Use>,
    network: Option<TaskNetwork>,
    mounts: Vec<PathBuf>,
    container: Option<Container>,
    created: Option<Created>,
    output: Option<Output>,
    /// Keeps it in the store while it is mounted.
    image: Option<Lease>,
}

impl Sidecar {
    /// Begins to make one. Its directories are there when this returns. `number` tells apart those of one task.
    ///
    /// # Errors
    ///
    /// [`SidecarError::Directory`], also where the run has a container of that name; [`SidecarError::Prepare`].
    fn start(
        place: &Place<'_>,
        (network, task, number): (&Arc<Network>, &TaskNetwork, u8),
        what: Wanted,
    ) -> Result<Sidecar, SidecarError> {
        let directory = place.run.add_container(what.name)?;
        let (stop, in_making) = (Cancel::default(), directory.clone());
        let (name, secrets) = (what.name, what.secrets.clone());
        let making = Making {
            what,
            store: place.store.clone(),
            options: PullOptions { cancel: stop.clone(), ..place.options.clone() },
            observer: Arc::clone(place.observer),
            host: place.host.clone(),
            limits: place.limits.clone(),
            socketcall: place.socketcall,
            profile: place.profile.map(Arc::clone),
            network: Arc::clone(network),
            task: task.namespace().try_clone_to_owned().map_err(SidecarError::Prepare)?,
            number,
            stop: stop.clone(),
        };
        let making = tokio::spawn(async move {
            let mut made = Made::default();
            let result = making.make(&mut made, &in_making).await;
            (made, result)
        });
        let network = Arc::clone(network);
        Ok(Sidecar { name, secrets, directory, network, stop, making: Some(making), made: Made::default() })
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
        self.made.output.as_ref().map(|output| output.last_lines(&self.secrets)).unwrap_or_default()
    }

    /// By which the worker calls a port of it.
    ///
    /// # Errors
    ///
    /// It does not serve yet or any more, or there is no descriptor to be had.
    pub fn door(&self, port: u16) -> io::Result<Door> {
        let network = self.made.network.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Door::new(network.namespace().try_clone_to_owned()?, port))
    }

    /// Waits for the end of its command, which is nobody's wish.
    ///
    /// # Errors
    ///
    /// [`ContainerError`], also when it does not serve yet or any more.
    async fn exited(&mut self) -> Result<Exited, ContainerError> {
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
    /// Its AppArmor profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
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
        resisting
            .extend(self.profile.take().and_then(|profile| profile.give_back().err()).map(NotEnded::from));
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
