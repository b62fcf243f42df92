//! What is held of a process, and its end: it is killed by its own descriptor before anybody else is asked for anything.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use runtime::launch::kill_init;
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use crate::container::{Container, EndError};
use crate::net::Network;
use crate::net::confinement::Confinement;
use crate::net::tables::TablesError;
use crate::parent_group::{self, ParentGroupError};
use crate::run_directory::{RunDirectory, RunDirectoryError};

/// How long a process that was killed may take to be gone.
const KILL_TIME: Duration = Duration::from_secs(5);

/// See the module's head.
pub(super) struct Held {
    pub(super) container: Container,
    pub(super) directory: RunDirectory,
    pub(super) network: Arc<Network>,
    pub(super) confinement: Confinement,
    /// Readable when the process is gone, with all that it had open. Nothing of one that has not come to run.
    pub(super) process: Option<AsyncFd<OwnedFd>>,
}

/// Why a process may still run.
#[derive(Debug, thiserror::Error)]
pub(super) enum KillError {
    /// It has not come to run as far as anybody knows.
    #[error("find the proxy's process")]
    Unknown,
    /// It cannot be killed or waited for.
    #[error("kill the proxy")]
    Kill(#[from] io::Error),
    /// The kernel does not let it go.
    #[error("see the proxy's end within {} s of its being killed", KILL_TIME.as_secs())]
    Late,
}

/// Why something of a process may still be there.
#[derive(Debug, thiserror::Error)]
pub(super) enum UndoError {
    /// Its container, and the process too if that could not be killed.
    #[error("end the proxy: {0}")]
    Container(#[from] EndError),
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// The rules for it.
    #[error(transparent)]
    SetFree(#[from] TablesError),
    /// The control group above its own.
    #[error(transparent)]
    ParentGroup(#[from] ParentGroupError),
    /// A thread that was to do it panicked.
    #[error("undo what there was of the proxy")]
    Panicked(#[from] JoinError),
}

impl Held {
    /// Kills it, and waits until it is gone: nobody is connected to it then.
    ///
    /// # Errors
    ///
    /// [`KillError`]: it may still run.
    pub(super) async fn kill(&self) -> Result<(), KillError> {
        let process = self.process.as_ref().ok_or(KillError::Unknown)?;
        kill_init(process.get_ref().as_fd())?;
        timeout(KILL_TIME, process.readable()).await.map_err(|_| KillError::Late)?.map(drop)?;
        Ok(())
    }

    /// Undoes what was made for it. Its monitor kills it as well.
    ///
    /// # Errors
    ///
    /// [`UndoError`]: something is left for a clean-up. The rules that confine the process stay while it may run.
    pub(super) async fn undo(mut self) -> Result<(), UndoError> {
        self.container.end(self.directory.task().runtime_state()).await?;
        let Held { directory, network, confinement, .. } = self;
        let undo = move || {
            directory.remove()?;
            network.set_free(confinement)?;
            // It may outlive the last task: then that group was still in use when the task was undone.
            Ok(parent_group::remove()?)
        };
        spawn_blocking(undo).await?
    }
}
