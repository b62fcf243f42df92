//! A further process in a container that runs, as asynchronous code sees it.
//!
//! It is looked after by a process of its own, the runtime's `exec`; the container's monitor has no part in it. Whatever comes
//! first, its own end, the container's or that of whoever holds it, leaves nothing of it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use runtime::launch::{Ended, Entered, ExecMonitor, ExecReport, LaunchExec, ReceiveError, launch_exec};
use tokio::io::unix::AsyncFd;

use super::{ContainerError, UNDO_TIME};
use crate::readiness::readable;

/// A process that is being started in a container, runs there, or has ended.
///
/// Dropping it ends the command; [`Exec::end`] waits for that as well.
#[derive(Debug)]
pub struct Exec {
    monitor: ExecMonitor,
    reports: AsyncFd<OwnedFd>,
    death: AsyncFd<OwnedFd>,
}

impl Exec {
    /// Starts the runtime's `exec`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Launch`] and [`ContainerError::Watch`]: there will be no process.
    pub fn launch(what: LaunchExec) -> Result<Exec, ContainerError> {
        let monitor = launch_exec(what)?;
        let duplicate = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().and_then(readable);
        let reports = duplicate(monitor.report_fd()).map_err(ContainerError::Watch)?;
        let death = duplicate(monitor.pidfd()).map_err(ContainerError::Watch)?;
        Ok(Exec { monitor, reports, death })
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

    /// Ends the command if it runs, and waits until nobody looks after it any more.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] when that does not end, as it does not while the container is paused.
    pub async fn end(mut self) -> io::Result<()> {
        self.monitor.abandon()?;
        let ended = tokio::time::timeout(UNDO_TIME, self.death.readable()).await;
        ended.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(drop)?;
        self.monitor.wait().map(drop)
    }

    async fn next(&mut self) -> Result<ExecReport, ContainerError> {
        loop {
            let mut ready = self.reports.readable().await.map_err(ContainerError::Watch)?;
            match self.monitor.try_recv()? {
                Some(report) => return Ok(report),
                None => ready.clear_ready(),
            }
        }
    }
}
