//! `exec`: a further process in a container that runs.
//!
//! ```text
//!  this process                     usher                                        the new process
//!    │ holds PID 1 and the groups
//!    │── clone3 ─────────────────────▶│ label, OOM score
//!    │                                │ control groups
//!    │                                │ namespaces, pty, directory, user,
//!    │                                │ capabilities; command found
//!    │                                │── clone3, as this process's child ──────────▶│ in the pid namespace
//!    │◀── Forked + pidfd, pty ────────│ _exit                                        │
//!    │ pid file, console socket                                                      │
//!    │── Go ────────────────────────────────────────────────────────────────────────▶│ group of pids, session, terminal
//!    │◀── Executing + word ──────────────────────────────────────────────────────────│ seccomp, execve
//!    │◀── end of socket, and the word is 0 ──────────────────────────────────────────│ the command
//!    │ relay, signals                                                                │
//!    │◀── pidfd readable ────────────────────────────────────────────────────────────┘
//! ```
//!
//! The container's own monitor takes no part in it, and nothing of the host is changed: what this process leaves when it is
//! killed at any point is a process that has no command yet, which ends with the socket, or a command. That is sent SIGKILL
//! then, unless it is detached or has seen to it that it is not (prctl(2), a set-user-id program), and ends at the latest with
//! the container.
//!
//! A container that is paused in between makes usher and new process wait for ever, and so does a signal that stops the
//! latter. All of that has one deadline, [`limits::ENTRY`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as NixSignal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::child::{self, Entering, UsherHeld};
use super::executing::Executing;
use super::signals::{Signals, asks_to_end, pass_on};
use super::{failure, pid_file, say};
use crate::cgroup::Entrance;
use crate::launch::messages::{self, ChildMessage, Newcomer};
use crate::launch::{Entered, ExecReport, Failed, FailureKind, ReceiveError};
use crate::limits::{self, PTY_BYTES};
use crate::plan::ExecPlan;
use crate::sys::clone3::{Forked, Namespaces, SingleThreaded, clone3};
use crate::sys::signals::send;
use crate::sys::wait::{self, Ended};
use crate::terminal;
use crate::terminal::relay::Relay;

/// A process to be started in a container.
#[derive(Debug)]
pub struct Exec {
    /// What it is to be.
    pub plan: ExecPlan,
    /// The container's first process.
    pub init: OwnedFd,
    /// The inode of the user namespace that one was started in.
    pub user_namespace: u64,
    /// The ways into the container's control groups.
    pub(crate) groups: Vec<Entrance>,
    /// Descriptors 3 … 2 + n are passed on to the command.
    pub preserve_fds: u16,
    /// Where the pty's master goes.
    pub console_socket: Option<PathBuf>,
    /// Where the process's number is written.
    pub pid_file: Option<PathBuf>,
    /// Whether it is waited for.
    pub stay: Stay,
}

/// How long `exec` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// Until the command has started.
    Detached,
    /// Until it has ended, which it does with this process.
    ToTheEnd,
}

#[derive(Debug, thiserror::Error)]
enum ExecError {
    #[error("fork: {call}")]
    Fork { call: &'static str, source: io::Error },
    #[error("hear from the new process")]
    Receive(#[source] ReceiveError),
    #[error("start the command: before that the new process {}", .0.map_or_else(|| "ended".to_owned(), describe))]
    EndedEarly(Option<Ended>),
    #[error(
        "start the command: within {:?} it has not come to it; is the container paused, or did a process in it stop the \
         new one?",
        limits::ENTRY
    )]
    TooSlow,
    #[error("start the command: whoever asked for it has gone")]
    Left,
    #[error("start the command: interrupted by signal {0}")]
    Interrupted(i32),
    #[error("look after the command")]
    Watch(#[source] io::Error),
}

fn describe(ended: Ended) -> String {
    match ended {
        Ended::Exited(status) => format!("exited with status {status}"),
        // The container's own limit on memory, or its end.
        Ended::Signaled(libc::SIGKILL) => {
            "was killed: has the container ended, or no memory left?".to_owned()
        }
        Ended::Signaled(signal) => format!("was killed by signal {signal}"),
    }
}

/// Starts the process and, if this one stays, tells how it ended. Whoever holds the other end of `report` hears of it, gets
/// the pty's master, and is followed to its end by the command.
///
/// # Errors
///
/// Its command did not start, or could not be looked after any more: then nothing of it is left.
pub fn exec(exec: Exec, report: Option<&OwnedFd>, signals: &mut Signals) -> Result<Option<Ended>, Failed> {
    let (stay, pid_file, console_socket) = (exec.stay, exec.pid_file.clone(), exec.console_socket.clone());
    let mut entry = Entry::begin(exec, report).map_err(|error| broken(&error))?;
    let mut reported = None;
    let started = entry.start(signals, |newcomer| {
        if let Some(path) = &pid_file {
            let written = pid_file::write(path, newcomer.pid);
            written.map_err(|error| failure("pid-file", FailureKind::Host, &error))?;
        }
        let terminal = newcomer.terminal.take();
        if report.is_some() {
            reported = terminal;
            return Ok(None);
        }
        hand_over(terminal, console_socket.as_deref())
    });
    let (command, relay) = match started {
        Ok(started) => started,
        Err(failed) => {
            entry.abort();
            return Err(failed);
        }
    };
    if stay == Stay::Detached {
        return Ok(None);
    }
    let ended = announce(report, &command, reported)
        .and_then(|()| watch(&command, relay, report, signals))
        .and_then(|ended| tell(report, &ExecReport::Exited(ended)).map(|()| ended));
    if ended.is_err() {
        kill(&command);
    }
    ended.map(Some).map_err(|error| broken(&ExecError::Watch(error)))
}

/// The caller holds the command from here on.
fn announce(report: Option<&OwnedFd>, command: &OwnedFd, terminal: Option<OwnedFd>) -> io::Result<()> {
    if report.is_none() {
        return Ok(());
    }
    tell(report, &ExecReport::Started(Entered { process: command.try_clone()?, terminal }))
}

fn tell(report: Option<&OwnedFd>, what: &ExecReport) -> io::Result<()> {
    let Some(report) = report else { return Ok(()) };
    match messages::send_exec_report(report.as_fd(), what) {
        // The caller has gone: `watch` sees that, or there is nobody left to be told.
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The pty's master goes to whoever is to hold it.
fn hand_over(master: Option<OwnedFd>, socket: Option<&std::path::Path>) -> Result<Option<Relay>, Failed> {
    let Some(master) = master else { return Ok(None) };
    match socket {
        Some(path) => terminal::send_to(path, master.as_fd())
            .map(|()| None)
            .map_err(|error| failure("terminal.send", FailureKind::Host, &error)),
        None => {
            Relay::new(master).map(Some).map_err(|error| failure("terminal.relay", FailureKind::Host, &error))
        }
    }
}

/// How long an usher that is killed may take to be gone; in a paused container it stays.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A process on its way, seen from here.
struct Entry<'r> {
    usher: OwnedFd,
    socket: OwnedFd,
    command: Option<OwnedFd>,
    /// The new process may be the command by now: signals are its own to act on.
    is_let_go: bool,
    deadline: Instant,
    /// Its end is the caller's, who then wants nothing of this any more.
    caller: Option<&'r OwnedFd>,
}

impl<'r> Entry<'r> {
    fn begin(exec: Exec, caller: Option<&'r OwnedFd>) -> Result<Entry<'r>, ExecError> {
        let failed = |call| move |source: io::Error| ExecError::Fork { call, source };
        let alone = SingleThreaded::witness().map_err(failed("count threads"))?;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|errno| failed("socketpair")(errno.into()))?;
        match clone3(&alone, Namespaces::default(), None).map_err(failed("clone3"))? {
            Forked::Child => {
                drop(ours);
                let Exec { plan, user_namespace, preserve_fds, init, groups, stay, .. } = exec;
                let dies_with_starter = stay == Stay::ToTheEnd;
                let entering = Entering { plan: &plan, user_namespace, preserve_fds, dies_with_starter };
                child::usher(&entering, UsherHeld { init, groups, socket: theirs, alone })
            }
            Forked::Parent { child: usher, .. } => {
                let deadline = Instant::now() + limits::ENTRY;
                Ok(Entry { usher, socket: ours, command: None, is_let_go: false, deadline, caller })
            }
        }
    }

    /// From the fork to the command; `prepare` does what must be done once the process exists and before its command runs.
    fn start(
        &mut self,
        signals: &Signals,
        prepare: impl FnOnce(&mut Newcomer) -> Result<Option<Relay>, Failed>,
    ) -> Result<(OwnedFd, Option<Relay>), Failed> {
        let mut newcomer = match self.hear(signals)? {
            Some(ChildMessage::Forked(newcomer)) => newcomer,
            other => return Err(self.unexpected(other)),
        };
        let kept = newcomer.pidfd.try_clone();
        self.command = Some(kept.map_err(|source| broken(&ExecError::Watch(source)))?);
        let relay = prepare(&mut newcomer)?;
        self.is_let_go = true;
        match say(&self.socket, &ChildMessage::Go) {
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {} // It has ended: that is heard below.
            Err(errno) => return Err(broken(&ExecError::Watch(errno.into()))),
        }
        let executing = match self.hear(signals)?.map(Executing::from_message) {
            Some(Ok(executing)) => executing,
            Some(Err(other)) => return Err(self.unexpected(Some(other))),
            None => return Err(self.unexpected(None)),
        };
        match self.hear(signals)? {
            None => executing.outcome()?,
            Some(message) => return Err(self.unexpected(Some(message))),
        }
        // Its part is done; it has ended, or will at once. One that has been stopped or paused meanwhile is not waited for.
        kill(&self.usher);
        let reap = || {
            if wait::readable_within(self.usher.as_fd(), limits::KILLED)? {
                wait::wait(self.usher.as_fd())?;
            }
            Ok(())
        };
        reap().map_err(|source: io::Error| broken(&ExecError::Watch(source)))?;
        Ok((newcomer.pidfd, relay))
    }

    /// The next message; `None` at their end.
    fn hear(&self, signals: &Signals) -> Result<Option<ChildMessage>, Failed> {
        let received = self
            .wait_for_message(signals)
            .and_then(|()| messages::receive(self.socket.as_fd()).map_err(ExecError::Receive));
        match received {
            // The socket blocks, so there is one.
            Ok(packet) => packet
                .map(messages::decode_child)
                .transpose()
                .map_err(|error| broken(&ExecError::Receive(error))),
            Err(ExecError::Receive(ReceiveError::Ended)) => Ok(None),
            Err(error) => Err(broken(&error)),
        }
    }

    fn wait_for_message(&self, signals: &Signals) -> Result<(), ExecError> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let time = Timespec::try_from(left).map_err(|error| ExecError::Watch(io::Error::other(error)))?;
            let mut fds = vec![
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            fds.extend(self.caller.map(|caller| PollFd::new(caller, PollFlags::IN)));
            match poll(&mut fds, Some(&time)) {
                Ok(0) => return Err(ExecError::TooSlow),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(ExecError::Watch(errno.into())),
            }
            let mut found = fds.iter().map(|fd| !fd.revents().is_empty());
            let [message, signal, is_left] = [(); 3].map(|()| found.next().unwrap_or(false));
            if is_left {
                return Err(ExecError::Left);
            }
            while signal && let Some(number) = signals.next().map_err(ExecError::Watch)? {
                match &self.command {
                    Some(command) if self.is_let_go => pass_on(number, command).map_err(ExecError::Watch)?,
                    _ if asks_to_end(number) => return Err(ExecError::Interrupted(number)),
                    _ => {}
                }
            }
            if message {
                return Ok(());
            }
        }
    }

    /// What came in place of what was expected, as a failure.
    fn unexpected(&mut self, message: Option<ChildMessage>) -> Failed {
        match message {
            Some(ChildMessage::Failed(failed)) => failed,
            Some(_) => broken(&ExecError::Receive(ReceiveError::Malformed { what: "order of messages" })),
            // Whoever has closed it has ended: how, is known once it is reaped.
            None => {
                let last = self.command.as_ref().unwrap_or(&self.usher);
                let ended = wait::readable_within(last.as_fd(), limits::KILLED);
                let ended = ended.ok().filter(|ended| *ended).and_then(|_| wait::wait(last.as_fd()).ok());
                broken(&ExecError::EndedEarly(ended.map(|reaped| reaped.ended)))
            }
        }
    }

    /// Ends both. In a paused container the new one ends when that goes on.
    fn abort(&mut self) {
        if self.command.is_none() {
            kill(&self.usher);
            // It may have said which process it has forked, or be about to.
            let ended = wait::readable_within(self.usher.as_fd(), LAST_WORD).unwrap_or(false);
            self.command = if ended { self.last_word() } else { None };
        }
        for process in [Some(&self.usher), self.command.as_ref()].into_iter().flatten() {
            kill(process);
        }
    }
}

impl Entry<'_> {
    /// The new process, if the usher's last message that nobody has heard is about one.
    fn last_word(&self) -> Option<OwnedFd> {
        if !wait::readable_within(self.socket.as_fd(), Duration::ZERO).unwrap_or(false) {
            return None;
        }
        let packet = messages::receive(self.socket.as_fd()).ok()??;
        match messages::decode_child(packet).ok()? {
            ChildMessage::Forked(newcomer) => Some(newcomer.pidfd),
            _ => None,
        }
    }
}

fn kill(process: &OwnedFd) {
    // It may have ended, and been reaped.
    send(process.as_fd(), libc::SIGKILL).unwrap_or(());
}

/// Passes on signals, input and output until the command has ended; with the caller's end of `caller` closed, it is killed.
fn watch(
    command: &OwnedFd,
    mut relay: Option<Relay>,
    mut caller: Option<&OwnedFd>,
    signals: &mut Signals,
) -> io::Result<Ended> {
    if let Some(relay) = &relay {
        // The operator's terminal may have changed since the pty was made.
        relay.resize()?;
    }
    loop {
        let interests = relay.as_ref().map(Relay::interests).unwrap_or_default();
        let places = interests.each_ref().map(Option::is_some);
        let mut fds = vec![
            PollFd::new(command, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        fds.extend(interests.into_iter().flatten());
        // Nothing is said there: it becomes readable by its end.
        fds.extend(caller.map(|caller| PollFd::new(caller, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut found = fds.iter().map(PollFd::revents);
        let has_ended = found.next().is_some_and(|events| !events.is_empty());
        let has_signal = found.next().is_some_and(|events| !events.is_empty());
        let relayed = places.map(|waited| {
            if waited { found.next().unwrap_or_else(PollFlags::empty) } else { PollFlags::empty() }
        });
        let is_left = found.next().is_some_and(|events| !events.is_empty());
        drop(found);
        drop(fds);
        if is_left {
            kill(command);
            caller = None;
        }
        while has_signal && let Some(number) = signals.next()? {
            match &relay {
                Some(relay) if number == NixSignal::SIGWINCH as i32 => relay.resize()?,
                _ => pass_on(number, command)?,
            }
        }
        if let Some(relay) = &mut relay {
            relay.handle(relayed)?;
        }
        if has_ended {
            break;
        }
    }
    let ended = wait::wait(command.as_fd())?.ended;
    if let Some(relay) = &mut relay {
        // What the command has printed. Others may go on printing for ever.
        relay.drain(signals.only_those_that_ask_to_end().ok(), PTY_BYTES)?;
    }
    Ok(ended)
}

/// This process cannot go on.
fn broken(error: &dyn std::error::Error) -> Failed {
    failure("exec", FailureKind::Host, error)
}
