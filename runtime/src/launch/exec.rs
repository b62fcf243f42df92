//! A further process in a container that runs, for another process of ours that waits for it.
//!
//! [`launch_exec`] starts `docker-worker-runtime exec`, which enters the container and stays until the command has ended.
//! It tells what became of it on the report socket, and takes that socket's other end for its caller's life: once that is
//! closed it kills the command.
//!
//! Why not the container's monitor: it is one loop that sees to the container's end, and stays deaf to everything else. A
//! shell that is asked for by somebody outside must not be able to keep it busy, or to take it down.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::net::{Shutdown, shutdown};

use super::messages;
use super::{Failed, LaunchError, REPORT, ReceiveError, made, report_socket, self_exec};
use crate::id::ContainerId;
use crate::sys::spawn::{self, Command, Session};
use crate::sys::wait::{self, Ended};

/// What the process is, as `exec` is told (`--process-fd`).
const PROCESS: i32 = 101;

/// A process to be started in a container that runs.
#[derive(Debug)]
pub struct LaunchExec {
    /// The `docker-worker-runtime` executable.
    pub executable: PathBuf,
    /// The state root that the container was started with.
    pub state_root: PathBuf,
    /// The container's id.
    pub id: ContainerId,
    /// JSON: `process` of the OCI runtime specification (config.md, "Process"). Capabilities, limits and profile that it does
    /// not name are those of the container's own process.
    pub process: Vec<u8>,
    /// Standard streams, where the process has no terminal; `None` = `/dev/null`.
    pub streams: [Option<OwnedFd>; 3],
    /// Where the runtime writes its errors (`--log`), beside reporting them.
    pub log: Option<PathBuf>,
}

/// A running `exec`.
///
/// Dropping it closes the report socket, on which the command is killed; it does not wait for that, and leaves a zombie: call
/// [`ExecMonitor::wait`].
#[derive(Debug)]
pub struct ExecMonitor {
    report: OwnedFd,
    pidfd: OwnedFd,
}

/// What `exec` tells, in this order: `Started`, `Exited`; or `Failed` at any point, last.
#[derive(Debug)]
pub enum ExecReport {
    /// The command runs.
    Started(Entered),
    /// It has ended. Processes that it has left in the container go on.
    Exited(Ended),
    /// It did not start.
    Failed(Failed),
}

/// Descriptors by which the caller holds a process that has entered a container.
#[derive(Debug)]
pub struct Entered {
    /// Its pidfd.
    pub process: OwnedFd,
    /// The master of its pty, if it has a terminal.
    pub terminal: Option<OwnedFd>,
}

/// Starts a process in a container.
///
/// # Errors
///
/// The executable cannot be started. What happens after that comes as an [`ExecReport`].
pub fn launch_exec(exec: LaunchExec) -> Result<ExecMonitor, LaunchError> {
    let (report, their_report) = report_socket()?;
    let executable = exec.executable.clone();
    let spawned = |source| LaunchError::Spawn { executable: executable.clone(), source };
    let process = in_memory(&exec.process).map_err(|source| made("description of a process", source))?;
    let mut command = command_line(&exec).map_err(spawned)?;
    // Where this is refused the runtime protects itself, at the cost of a second exec.
    if let Ok(bind) = self_exec::read_only_bind(&exec.executable) {
        command.executable(bind);
    }
    command.session(Session::Own).map_fd(their_report, REPORT).map_fd(process, PROCESS);
    for (stream, number) in exec.streams.into_iter().zip(0..) {
        command.map_optional(stream, number);
    }
    let pidfd = spawn::spawn(&command).map_err(spawned)?;
    Ok(ExecMonitor { report, pidfd })
}

fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("process", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    seek(&file, SeekFrom::Start(0))?;
    Ok(file.into())
}

fn command_line(exec: &LaunchExec) -> io::Result<Command> {
    let mut command = Command::new(&exec.executable)?;
    command.arg("--root")?.arg(&exec.state_root)?;
    if let Some(log) = &exec.log {
        command.arg("--log")?.arg(log)?;
    }
    command.arg("exec")?.arg("--report-fd")?.arg(REPORT.to_string())?;
    command.arg("--process-fd")?.arg(PROCESS.to_string())?;
    command.arg(exec.id.as_str())?;
    Ok(command)
}

impl ExecMonitor {
    /// Readable when there is a report, or the end of them: then call [`ExecMonitor::try_recv`].
    pub fn report_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Readable when `exec` has ended: then call [`ExecMonitor::wait`].
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The next report; `None` if there is none yet. Never blocks.
    ///
    /// # Errors
    ///
    /// [`ReceiveError::Ended`] after the last report.
    pub fn try_recv(&self) -> Result<Option<ExecReport>, ReceiveError> {
        messages::receive(self.report.as_fd())?.map(messages::decode_exec_report).transpose()
    }

    /// Ends the report socket, also for who has a duplicate of it: the command is killed, and nothing more is reported.
    ///
    /// # Errors
    ///
    /// shutdown(2): none that could be met with here.
    pub fn abandon(&self) -> io::Result<()> {
        Ok(shutdown(&self.report, Shutdown::Both)?)
    }

    /// Reaps `exec`. Blocks until it has ended.
    ///
    /// # Errors
    ///
    /// Waiting failed, because somebody else reaped it.
    pub fn wait(&mut self) -> io::Result<Ended> {
        Ok(wait::wait(self.pidfd.as_fd())?.ended)
    }
}
