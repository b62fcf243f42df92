//! A further process in a container that runs, as asynchronous code sees it.
//!
//! It is looked after by a process of its own, the runtime's `exec`; the container's monitor has no part in it. Whatever comes
//! first, its own end, the container's or that of whoever holds it, leaves nothing of it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use runtime::launch::{Ended, Entered, ExecMonitor, ExecReport, LaunchExec, ReceiveError, launch_exec};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use super::{ContainerError, UNDO_TIME};
use crate::readiness::readable;

/// A process that is being started in a container, runs there, or has ended.
///
/// Dropping it ends the command, in the background; [`Exec::end`] waits for that.
#[derive(Debug)]
pub struct Exec {
    reports: AsyncFd<OwnedFd>,
    /// There until it is dropped or ended.
    process: Option<Process>,
}

/// The runtime's `exec`.
#[derive(Debug)]
struct Process {
    monitor: ExecMonitor,
    death: AsyncFd<OwnedFd>,
}

impl Process {
    /// Waits for its end, so that no dead process is left lying about.
    async fn reap(mut self) -> io::Result<()> {
        self.death.readable().await.map(drop)?;
        self.monitor.wait().map(drop)
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        // There is no error to be met with, and nobody to be told.
        process.monitor.abandon().unwrap_or(());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(process.reap());
        }
    }
}

impl Exec {
    /// Starts the runtime's `exec`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Launch`]: there is no process. [`ContainerError::Watch`]: there may be one, which ends by itself.
    pub fn launch(what: LaunchExec) -> Result<Exec, ContainerError> {
        let monitor = launch_exec(what)?;
        let duplicate = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().and_then(readable);
        let reports = duplicate(monitor.report_fd()).map_err(ContainerError::Watch)?;
        let death = duplicate(monitor.pidfd()).map_err(ContainerError::Watch)?;
        Ok(Exec { reports, process: Some(Process { monitor, death }) })
    }

    /// Waits until the command runs.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Failed`]: it does not, and why. [`ContainerError::Lost`]: nobody can say.
    pub async fn started(&mut self) -> Result<Entered, ContainerError> {
        match self.next().await? {
            ExecReport::Started(entered) => Ok(entered),
            ExecReport::Failed(failed) => Err(ContainerError::Failed(failed)),
            ExecReport::Exited(_) => Err(ReceiveError::Malformed { what: "order of reports" }.into()),
        }
    }

    /// Waits for the command's end. What it has started may go on in the container.
    ///
    /// # Errors
    ///
    /// As [`Exec::started`].
    pub async fn exited(&mut self) -> Result<Ended, ContainerError> {
        match self.next().await? {
            ExecReport::Exited(ended) => Ok(ended),
            ExecReport::Failed(failed) => Err(ContainerError::Failed(failed)),
            ExecReport::Started(_) => Err(ReceiveError::Malformed { what: "order of reports" }.into()),
        }
    }

    /// Ends the command if it runs, and waits until nobody looks after it any more. A caller that is dropped while it waits
    /// has ended it all the same.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] when that takes long, as it does while the container is paused; it goes on without the
    /// caller.
    pub async fn end(mut self) -> io::Result<()> {
        let Some(process) = self.process.take() else { return Ok(()) };
        process.monitor.abandon()?;
        let reaping = tokio::spawn(process.reap());
        let ended = tokio::time::timeout(UNDO_TIME, reaping).await;
        ended.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)?
    }

    async fn next(&mut self) -> Result<ExecReport, ContainerError> {
        let Some(Process { monitor, death }) = &self.process else { return Err(ReceiveError::Ended.into()) };
        loop {
            let mut ready = tokio::select! {
                biased;
                ready = self.reports.readable() => ready.map_err(ContainerError::Watch)?,
                // Whoever else has the socket open keeps it from ending.
                ended = death.readable() => {
                    ended.map(drop).map_err(ContainerError::Watch)?;
                    return monitor.try_recv()?.ok_or_else(|| ReceiveError::Ended.into());
                }
            };
            match monitor.try_recv()? {
                Some(report) => return Ok(report),
                None => ready.clear_ready(),
            }
        }
    }
}
