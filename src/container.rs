//! One container and its monitor, as asynchronous code sees them.
//!
//! The monitor is a process of its own; what it reports comes over a socket. When it ends without a
//! word, the container is killed by what it has left us: PID 1's descriptor and the journal.

pub mod bundle;
pub mod exec;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use runtime::launch::{
    Exited, Failed, Launch, LaunchError, Monitor, ReceiveError, Report, kill_init, launch,
};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinError;

use crate::parent_group;
use crate::readiness::readable;
use crate::undo_containers::{UndoContainerError, undo_containers};

/// How long a monitor that was let go of may take to undo what it did.
pub(crate) const UNDO_TIME: Duration = Duration::from_secs(15);

/// A container that is being started, runs, or has ended.
#[derive(Debug)]
pub struct Container {
    monitor: Monitor,
    reports: AsyncFd<OwnedFd>,
    death: AsyncFd<OwnedFd>,
    /// Its exit status is collected.
    reaped: bool,
}

/// What the worker holds of a container from its making to the end of its run.
#[derive(Debug)]
pub struct Created {
    /// PID 1.
    pub init: OwnedFd,
    /// While it is held, what is mounted below the root stays.
    pub mount_namespace: OwnedFd,
    /// The container's `/`.
    pub root: OwnedFd,
    /// The pty's other end, where the container has one.
    pub terminal: Option<OwnedFd>,
}

/// What may be there of a container that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing.
    None,
    /// Processes, mounts, control groups: its monitor did not end in time. What could tell of them is kept, and what
    /// they can reach is given to nobody else, until a clean-up has undone them.
    Container,
}

/// Why a container is not, or no longer, under control.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The monitor could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The monitor says which step failed.
    #[error("{}", .0.message)]
    Failed(Failed),
    /// The monitor has ended, or talks nonsense.
    #[error(transparent)]
    Lost(#[from] ReceiveError),
    /// The monitor's descriptors cannot be waited for.
    #[error("watch the container's monitor")]
    Watch(#[source] io::Error),
    /// The group above the container's does not take its limit.
    #[error("limit the memory of all tasks together: is the control group /docker-worker somebody else's?")]
    MemoryForAll(#[source] io::Error),
    /// PID 1 ended before the command could start.
    #[error("start the command: the container's first process ended before, with status {}{}", .0.status, by_want_of_memory(.0))]
    Died(Exited),
    /// The runtime made a container without the pty that its Spec asks for.
    #[error("get the container's terminal from its monitor: is the executable of the same build?")]
    NoTerminal,
}

/// Why something of a container may still be there.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// Its monitor does not end.
    #[error("wait for the container's monitor")]
    Monitor(#[source] io::Error),
    /// Its monitor runs, and nobody can hear how it ends.
    #[error("watch the container's monitor, which undoes by itself what it has done")]
    Unwatched,
    /// What the monitor left cannot be undone.
    #[error(transparent)]
    Undo(#[from] UndoContainerError),
    /// The thread that was to undo it panicked.
    #[error("undo the container")]
    Panicked(#[from] JoinError),
}

impl Container {
    /// Starts the runtime.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Launch`]: there is no container. [`ContainerError::Watch`]: there may be one. Its monitor is let go
    /// of and undoes what it did, but nobody waits for that.
    pub fn launch(what: Launch) -> Result<Container, ContainerError> {
        let monitor = launch(what)?;
        let duplicate = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().and_then(readable);
        let reports = duplicate(monitor.report_fd()).map_err(ContainerError::Watch)?;
        let death = duplicate(monitor.pidfd()).map_err(ContainerError::Watch)?;
        Ok(Container { monitor, reports, death, reaped: false })
    }

    /// Waits until the command runs. `memory_for_all` bounds this container and those beside it together, in
    /// bytes.
    ///
    /// # Errors
    ///
    /// [`ContainerError`]; the caller then abandons the container.
    pub async fn started(&mut self, memory_for_all: Option<u64>) -> Result<Created, ContainerError> {
        let mut created = None;
        loop {
            match self.next().await? {
                Report::Created(runtime::launch::Created {
                    init,
                    mount_namespace,
                    root,
                    terminal,
                    cgroups,
                }) => {
                    memory_for_all
                        .map_or(Ok(()), |bytes| parent_group::limit_memory(&cgroups, bytes))
                        .map_err(ContainerError::MemoryForAll)?;
                    created = Some(Created { init, mount_namespace, root, terminal });
                }
                // Without the report before, PID 1 has not come as far as that: what ended it follows.
                Report::Started => {
                    if let Some(created) = created.take() {
                        return Ok(created);
                    }
                }
                Report::Failed(failed) => return Err(ContainerError::Failed(failed)),
                Report::Exited(exited) => return Err(ContainerError::Died(exited)),
                // Of containers with a holder: how it ended is said once more with the container's end.
                Report::CommandEnded(_) => {}
            }
        }
    }

    /// Waits until every process of the container is gone.
    ///
    /// # Errors
    ///
    /// [`ContainerError`] when the monitor cannot say so.
    pub async fn exited(&mut self) -> Result<Exited, ContainerError> {
        loop {
            match self.next().await? {
                Report::Exited(exited) => return Ok(exited),
                Report::Failed(failed) => return Err(ContainerError::Failed(failed)),
                Report::Created(_) | Report::Started | Report::CommandEnded(_) => {}
            }
        }
    }

    /// Lets go of the container: its monitor kills what is left, undoes what it did, and ends. What a monitor that was
    /// killed has left in its state directory is undone here.
    ///
    /// # Errors
    ///
    /// [`EndError`]: something may still be there.
    pub async fn end(&mut self, state_root: PathBuf) -> Result<(), EndError> {
        self.monitor.abandon();
        self.reap().await.map_err(EndError::Monitor)?;
        let undo = move || undo_containers(&state_root, Instant::now() + UNDO_TIME);
        Ok(tokio::task::spawn_blocking(undo).await??)
    }

    /// Waits for the monitor's end, so that no dead process is left lying about.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] when it does not end, or what waiting for it says.
    pub async fn reap(&mut self) -> io::Result<()> {
        if self.reaped {
            return Ok(());
        }
        let ended = tokio::time::timeout(UNDO_TIME, self.death.readable()).await;
        let ready = ended.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        ready.map(drop)?;
        self.monitor.wait()?;
        self.reaped = true;
        Ok(())
    }

    async fn next(&mut self) -> Result<Report, ContainerError> {
        loop {
            let mut ready = self.reports.readable().await.map_err(ContainerError::Watch)?;
            match self.monitor.try_recv()? {
                Some(report) => return Ok(report),
                None => ready.clear_ready(),
            }
        }
    }
}

fn by_want_of_memory(exited: &Exited) -> &'static str {
    if exited.oom_killed { ": the kernel killed it because memory was used up (limits.memory)" } else { "" }
}

impl Created {
    /// Kills PID 1, and so every process of its pid namespace.
    ///
    /// # Errors
    ///
    /// What the kernel says; that it is gone already is no error.
    pub fn kill(&self) -> io::Result<()> {
        kill_init(self.init.as_fd())
    }
}
