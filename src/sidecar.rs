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

use images::store::{Cancel, Lease, Store};
use oci_spec::runtime::Capability;
use rustix::mount::{UnmountFlags, unmount};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::container::bundle::BundleError;
use crate::container::{Container, ContainerError, Created, EndError};
use crate::host::Host;
use crate::net::names::Alias;
use crate::net::tables::TablesError;
use crate::net::{AttachError, Network, TaskNetwork};
use crate::root_file_system::RootError;
use crate::run_directory::{ContainerDirectory, RunDirectory, RunDirectoryError};
use crate::spec::{Bind, SocketCall};

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
    /// Capabilities beyond the fourteen.
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
    directory: Option<ContainerDirectory>,
    network: MadeNetwork,
    mounts: Vec<PathBuf>,
    container: Option<Container>,
    created: Option<Created>,
    output: Option<Output>,
    /// Keeps it in the store while it is mounted.
    image: Option<Lease>,
}

#[derive(Debug, Default)]
struct MadeNetwork {
    /// There is something to be taken back, also where there is no `task`.
    of: Option<Arc<Network>>,
    task: Option<TaskNetwork>,
}

impl Sidecar {
    /// Begins to make one of an image, which runs the command that it names itself. Its directories are there when this returns.
    ///
    /// # Errors
    ///
    /// [`SidecarError::Directory`], also where the run has a container of that name; [`SidecarError::Prepare`].
    pub fn start(place: &Place<'_>, image: Lease, what: Wanted) -> Result<Sidecar, SidecarError> {
        let directory = place.run.add_container(what.name)?;
        let stop = Cancel::default();
        let making = Making {
            what,
            store: place.store.clone(),
            host: place.host.clone(),
            socketcall: place.socketcall,
            apparmor: place.apparmor.map(str::to_owned),
            network: Arc::clone(place.network),
            task: place.task.namespace().try_clone_to_owned().map_err(SidecarError::Prepare)?,
            number: place.number,
            stop: stop.clone(),
        };
        let making = tokio::spawn(async move {
            let mut made = Made { image: Some(image), ..Made::default() };
            let result = making.make(&mut made, &directory).await;
            made.directory = Some(directory);
            (made, result)
        });
        Ok(Sidecar { stop, making: Some(making), made: Made::default() })
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

    /// Ends it, and takes back all that was made for it but its directories, which go with the run's.
    ///
    /// # Errors
    ///
    /// All that resists; then the run's directories have to stay, for a clean-up.
    pub async fn end(mut self) -> Result<(), Vec<NotEnded>> {
        self.stop.cancel();
        let mut resisting = Vec::new();
        if let Some(making) = self.making.take() {
            match making.await {
                Ok((made, _)) => self.made = made,
                Err(error) => resisting.push(NotEnded::Panicked(error)),
            }
        }
        self.made.undo(&mut resisting).await;
        if resisting.is_empty() { Ok(()) } else { Err(resisting) }
    }
}

/// What of a sidecar may still be there.
#[derive(Debug, thiserror::Error)]
pub enum NotEnded {
    /// Its processes.
    #[error(transparent)]
    Container(#[from] EndError),
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
    async fn undo(&mut self, resisting: &mut Vec<NotEnded>) {
        let Some(directory) = self.directory.take() else { return };
        if let Some(mut container) = self.container.take()
            && let Err(error) = container.end(directory.runtime_state()).await
        {
            resisting.push(error.into());
            return;
        }
        self.created = None;
        self.output = None;
        if let MadeNetwork { of: Some(network), task } = std::mem::take(&mut self.network) {
            let record = directory.network();
            match spawn_blocking(move || network.release(task, &record)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => resisting.push(error.into()),
                Err(error) => resisting.push(error.into()),
            }
        }
        for path in std::mem::take(&mut self.mounts).into_iter().rev() {
            if let Err(errno) = unmount(&path, UnmountFlags::DETACH) {
                resisting.push(NotEnded::Mount { path, source: errno.into() });
            }
        }
        self.image = None;
    }
}
