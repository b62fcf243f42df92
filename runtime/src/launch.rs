//! How another process of ours (the worker, possibly threaded) starts a container and hears of it.
//!
//! [`launch`] starts `docker-worker-runtime run` with exactly these descriptors beside its standard
//! streams: the report socket, the lifeline and, if given, the root, a network namespace and what is passed on to the
//! command. The process that runs stays as the container's *monitor*.
//!
//! ```text
//!  worker                         monitor (one thread)                        PID 1 of the container
//!    │── fork, exec ────────────────▶│                                              │
//!    │                               │ plan; journal; host steps                    │
//!    │                               │── clone3 ───────────────────────────────────▶│
//!    │                               │   (user namespace only) maps ──── Go ───────▶│
//!    │                               │                                              │ child steps
//!    │                               │◀── Ready + root, mount namespace, pty ───────│
//!    │◀── Created + descriptors ─────│                                              │
//!    │                               │◀── Executing + word ─────────────────────────│ seccomp, execve
//!    │◀── Started ───────────────────│◀── end of socket, and the word is 0 ─────────│ the command
//!    │           or                  │           or                                 │
//!    │◀── Failed(step, kind) ────────│◀── Failed(step, kind), the word, or an end ──│ _exit
//!    │                               │◀── pidfd readable ───────────────────────────┘
//!    │                               │ kill the rest, usage, undo by journal
//!    │◀── Exited(status, usage) ─────│
//!    │◀── pidfd readable ────────────┘
//! ```
//!
//! Who notices a death: PID 1's is seen by the monitor (pidfd), the monitor's by the worker (pidfd, end
//! of the report socket), the worker's by the monitor (end of the lifeline: it kills, undoes, ends).
//! When both die, the kernel kills PID 1 (`PR_SET_PDEATHSIG`), and the journal waits for the next start.
//!
//! Why not a stream: descriptors must travel anyway, and a `SOCK_SEQPACKET` message is either there as a whole or not.
//! The word is shared memory: what comes after `Executing` may be forbidden every call by its filter, also the one that
//! would say so.

mod exec;
pub(crate) mod messages;
pub(crate) mod self_exec;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::scheduling::Scheduling;
use crate::sys::descriptors::{FIRST, take_over};
use crate::sys::spawn::{self, Command, Session};
use crate::sys::wait;

pub use crate::sys::wait::Ended;
pub use exec::{Entered, ExecMonitor, ExecReport, LaunchExec, launch_exec};

/// The monitor's descriptor numbers, as [`launch`] maps them and `run` is told. They stand above the command's.
const REPORT: i32 = 100;
const LIFELINE: i32 = 101;
const ROOT: i32 = 102;
const NETWORK: i32 = 103;

/// The path that a Spec gives its network namespace, for the one that comes with [`Launch::network`]:
/// the monitor's own descriptor of it.
pub const NETWORK_PATH: &str = "/proc/self/fd/103";

/// One container to be started.
#[derive(Debug)]
pub struct Launch {
    /// The `docker-worker-runtime` executable.
    pub executable: PathBuf,
    /// Its state root (`--root`), which exists.
    pub state_root: PathBuf,
    /// The container's id.
    pub id: ContainerId,
    /// The directory that holds `config.json`.
    pub bundle: PathBuf,
    /// The mounted root, attached in the caller's mount namespace; `None` = `root.path` of the Spec.
    pub root: Option<OwnedFd>,
    /// The network namespace that the Spec names by [`NETWORK_PATH`].
    pub network: Option<OwnedFd>,
    /// Where the runtime writes its errors (`--log`), beside reporting them.
    pub log: Option<PathBuf>,
    /// Standard output and standard error, where the Spec asks for no terminal; `None` = `/dev/null`. What the runtime
    /// has to say goes there as well.
    pub output: Option<OwnedFd>,
    /// The processors and the niceness of the command, where they are not to be the caller's.
    pub scheduling: Option<Scheduling>,
    /// What the command gets beside its standard streams: numbers 3, 4, … in this order. At most 97.
    pub descriptors: Vec<OwnedFd>,
    /// When the container ends.
    pub until: Until,
}

/// When a container ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Until {
    /// With its command, which is its first process.
    #[default]
    CommandEnds,
    /// When it is told to go: a holder is its first process (`--hold`).
    ToldToGo,
}

/// Why no monitor could be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The executable could not be run.
    #[error("start {}: is it installed beside docker-worker?", executable.display())]
    Spawn {
        /// Which.
        executable: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No descriptors for the report socket, the lifeline or what is to be said.
    #[error("make the {what} for docker-worker-runtime")]
    Descriptors {
        /// What was to be made.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A running monitor, held by its report socket, its lifeline and its pidfd.
///
/// Dropping it closes the lifeline, on which the monitor kills the container and undoes everything; it
/// does not wait for that, and leaves a zombie: call [`Monitor::wait`].
#[derive(Debug)]
pub struct Monitor {
    report: OwnedFd,
    lifeline: Option<OwnedFd>,
    pidfd: OwnedFd,
}

/// What the monitor tells, in this order: `Created`, `Started`, with a holder `CommandEnded`, `Exited`; or `Failed` at any point, last.
#[derive(Debug)]
pub enum Report {
    /// The container is set up, and its command is about to start.
    Created(Created),
    /// The command runs.
    Started,
    /// The command of a container with a holder has ended; the container goes on until it is told to go
    /// ([`Monitor::abandon`]), and its `Exited` says the same of the command.
    CommandEnded(CommandEnded),
    /// Every process of the container is gone and the host is as before.
    Exited(Exited),
    /// The container did not start; the host is as before.
    Failed(Failed),
}

/// Descriptors by which the caller holds a container.
#[derive(Debug)]
pub struct Created {
    /// The pidfd of PID 1.
    pub init: OwnedFd,
    /// The mount namespace. While it is held, binds stay visible below `root` after PID 1 has ended.
    pub mount_namespace: OwnedFd,
    /// `O_PATH` of the container's `/`.
    pub root: OwnedFd,
    /// The directories of the container's control groups: one (v2), or one for each v1 hierarchy used.
    pub cgroups: Vec<OwnedFd>,
    /// The master of the pty, if the Spec asks for a terminal.
    pub terminal: Option<OwnedFd>,
}

/// How the command of a container with a holder ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnded {
    /// 0..=255: its status, or 128 + the signal that ended it.
    pub status: i32,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// 0..=255: the command's status, or 128 + the signal that ended it.
    pub status: i32,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// What the container used.
    pub usage: Usage,
}

/// Resources used by all processes of a container, from first to last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// The highest memory use in bytes, page cache included; `None` without a memory control group.
    pub memory_peak_bytes: Option<u64>,
}

/// Why a container did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The line of the plan that failed, or the phase before there was a plan.
    pub step: String,
    /// Whose fault it is.
    pub kind: FailureKind,
    /// One sentence: what, where, what to do.
    pub message: String,
}

/// Whose fault a failed start is, and so which exit status it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// 127: the command does not exist in the container.
    CommandNotFound,
    /// 126: it exists, but cannot be executed.
    CommandNotExecutable,
    /// The Spec asks for something impossible or unknown.
    Spec,
    /// The host refused a step.
    Host,
}

/// Why there is no next report.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It has closed the socket: nothing more will come.
    #[error("hear from docker-worker-runtime: it has ended")]
    Ended,
    /// What came is no report: another build's executable?
    #[error("understand docker-worker-runtime ({what}): is the executable of the same build?")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// The socket failed.
    #[error("read the report socket")]
    Socket(#[source] io::Error),
}

/// Starts a monitor, which starts the container.
///
/// # Errors
///
/// The executable cannot be started. What happens after that comes as a [`Report`].
pub fn launch(launch: Launch) -> Result<Monitor, LaunchError> {
    let (report, their_report) = report_socket()?;
    let (their_lifeline, lifeline) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| made("lifeline", errno.into()))?;

    let executable = launch.executable.clone();
    let spawned = |source| LaunchError::Spawn { executable: executable.clone(), source };
    let mut command = command_line(&launch).map_err(spawned)?;
    // Where this is refused the runtime protects itself, at the cost of a second exec.
    if let Ok(bind) = self_exec::read_only_bind(&launch.executable) {
        command.executable(bind);
    }
    // Ctrl-C at the caller's terminal is the caller's to act on: here it would end the container first.
    command.session(Session::Own).map_fd(their_report, REPORT).map_fd(their_lifeline, LIFELINE);
    command.map_optional(launch.root, ROOT).map_optional(launch.network, NETWORK);
    for (descriptor, number) in launch.descriptors.into_iter().zip(FIRST..) {
        command.map_fd(descriptor, number);
    }
    if let Some(output) = launch.output {
        let errors = output.try_clone().map_err(spawned)?;
        command.map_fd(output, 1).map_fd(errors, 2);
    }
    let pidfd = spawn::spawn(&command).map_err(spawned)?;
    Ok(Monitor { report, lifeline: Some(lifeline), pidfd })
}

/// The end that is read here, and the runtime's.
fn report_socket() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    pair.map_err(|errno| made("report socket", errno.into()))
}

fn made(what: &'static str, source: io::Error) -> LaunchError {
    LaunchError::Descriptors { what, source }
}

/// Takes over the one descriptor that [`Launch::descriptors`] has passed on to this program, and closes all others but the
/// standard streams. It is for the start of the program, when it has opened none of its own, and works once.
///
/// # Errors
///
/// There is none of that number: somebody else has started this program.
pub fn passed_on() -> io::Result<OwnedFd> {
    let [taken] = take_over(0, [Some(FIRST)]).map_err(io::Error::other)?;
    taken.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn command_line(launch: &Launch) -> io::Result<Command> {
    let count = RawFd::try_from(launch.descriptors.len()).unwrap_or(RawFd::MAX - FIRST);
    let mut command = Command::new(&launch.executable)?;
    command.arg("--root")?.arg(&launch.state_root)?;
    if let Some(log) = &launch.log {
        command.arg("--log")?.arg(log)?;
    }
    command.arg("run")?.arg("--bundle")?.arg(&launch.bundle)?;
    command.arg("--report-fd")?.arg(REPORT.to_string())?;
    command.arg("--lifeline-fd")?.arg(LIFELINE.to_string())?;
    if launch.root.is_some() {
        command.arg("--root-fd")?.arg(ROOT.to_string())?;
    }
    if launch.network.is_some() {
        command.arg("--network-fd")?.arg(NETWORK.to_string())?;
    }
    if let Some(scheduling) = &launch.scheduling {
        command.arg("--command-scheduling")?.arg(scheduling.to_string())?;
    }
    if FIRST + count > REPORT {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    if launch.until == Until::ToldToGo {
        command.arg("--hold")?;
    }
    command.arg("--preserve-fds")?.arg(count.to_string())?;
    command.arg(launch.id.as_str())?;
    Ok(command)
}

impl Monitor {
    /// Readable when there is a report, or the end of them: then call [`Monitor::try_recv`].
    pub fn report_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Readable when the monitor process has ended: then call [`Monitor::wait`].
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The next report; `None` if there is none yet. Never blocks.
    ///
    /// # Errors
    ///
    /// [`ReceiveError::Ended`] after the last report.
    pub fn try_recv(&self) -> Result<Option<Report>, ReceiveError> {
        messages::receive(self.report.as_fd())?.map(messages::decode_report).transpose()
    }

    /// Closes the lifeline: the monitor kills the container, undoes every step and ends. This is also how a container whose
    /// command has ended is told to go.
    pub fn abandon(&mut self) {
        self.lifeline = None;
    }

    /// Reaps the monitor. Blocks until it has ended.
    ///
    /// # Errors
    ///
    /// Waiting failed, because somebody else reaped it.
    pub fn wait(&mut self) -> io::Result<Ended> {
        Ok(wait::wait(self.pidfd.as_fd())?.ended)
    }
}

/// Kills PID 1, and with it every process of its pid namespace. "Already gone" is success.
///
/// # Errors
///
/// The kernel refused the signal.
pub fn kill_init(init: BorrowedFd<'_>) -> io::Result<()> {
    match pidfd_send_signal(init, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
