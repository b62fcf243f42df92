//! The monitor's wait: one poll loop over PID 1's socket, its pidfd, signals, the lifeline, a hook and a terminal. It
//! is deaf to none of them while another takes its time.

mod held;
mod progress;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::signal::Signal as NixSignal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::executing::Executing;
use super::failure;
use super::host::Host;
use super::signals::{Signals, ends_all, pass_on};
use crate::cgroup;
use crate::hooks::{HookSequence, Progress, Stage};
use crate::launch::{Exited, Failed, FailureKind, Usage};
use crate::limits::PTY_BYTES;
use crate::sys::wait::{self, Ended, Reaped};
use crate::terminal::relay::Relay;
use held::Held;

/// Who hears of the container, and whose death ends it.
#[derive(Debug, Default)]
pub struct Outlet {
    /// The report socket (`--report-fd`).
    pub report: Option<OwnedFd>,
    /// Its end means that the caller is gone (`--lifeline-fd`).
    pub lifeline: Option<OwnedFd>,
    /// Where PID 1's number is written (`--pid-file`).
    pub pid_file: Option<PathBuf>,
}

/// Everything that the loop waits for.
struct Watch<'h, 'c> {
    host: &'h mut Host<'c>,
    outlet: Outlet,
    signals: &'h Signals,
    relay: Option<Relay>,
    hooks: Option<HookSequence>,
    failed: Option<Failed>,
    phase: Phase,
    /// If there is a holder.
    held: Option<Held>,
    /// It was asked for the container's end.
    ending: bool,
    /// PID 1 has ended: its pidfd stays readable from then on.
    ended: bool,
}

/// How far PID 1 is.
#[derive(Debug)]
enum Phase {
    /// It carries out its steps.
    SettingUp,
    /// It waits for `start`.
    Ready,
    /// It has said its last message.
    Executing(Executing),
    /// It is the command.
    Command,
    /// It has failed, or its socket has ended without its last message: there will be no command.
    Lost,
}

/// PID 1 did not become the command, and did not say why.
#[derive(Debug, thiserror::Error)]
#[error("start the command: before that the container's first process {}", describe(*.0))]
struct EndedEarly(Ended);

/// The monitor's own wait has failed.
#[derive(Debug, thiserror::Error)]
#[error("look after the container")]
struct WatchError(#[source] io::Error);

fn describe(ended: Ended) -> String {
    match ended {
        Ended::Exited(status) => format!("exited with status {status}"),
        Ended::Signaled(signal) => format!("was killed by signal {signal}"),
    }
}

/// PID 1 has ended. What it printed may not have been passed on yet.
pub(super) struct Gone {
    reaped: Reaped,
    relay: Option<Relay>,
}

impl Gone {
    /// Passes on what is left in the terminal, once everything that could print is dead.
    pub fn drain(mut self, interrupt: Option<BorrowedFd<'_>>) -> Result<Reaped, Failed> {
        if let Some(relay) = &mut self.relay {
            relay.drain(interrupt, PTY_BYTES).map_err(blind)?;
        }
        Ok(self.reaped)
    }
}

/// Waits until PID 1 has ended, and says how.
///
/// # Errors
///
/// The command did not start.
pub(super) fn watch(host: &mut Host<'_>, outlet: Outlet, signals: &Signals) -> Result<Gone, Failed> {
    let mut watch = Watch::new(host, outlet, signals);
    // A hook behind the start is not cut short because the command was quick.
    while !(watch.ended && watch.hooks.is_none()) {
        watch.turn()?;
    }
    watch.end()
}

/// For `create`: waits until PID 1 has done all its steps.
///
/// # Errors
///
/// A step failed, or PID 1 ended.
pub(super) fn watch_until_ready(
    host: &mut Host<'_>,
    outlet: Outlet,
    signals: &Signals,
) -> Result<(), Failed> {
    let mut watch = Watch::new(host, outlet, signals);
    while !watch.ended && !matches!(watch.phase, Phase::Ready) {
        watch.turn()?;
    }
    if watch.failed.is_none() && !watch.ended && !watch.ending {
        return Ok(());
    }
    // It has ended, or is being killed for what failed.
    watch.end().and_then(|gone| Err(broken(&EndedEarly(gone.reaped.ended))))
}

/// What one wait found: the events of each descriptor, none if it was not waited for.
struct Found {
    ended: PollFlags,
    signal: PollFlags,
    child: PollFlags,
    lifeline: PollFlags,
    holder: PollFlags,
    command: PollFlags,
    relay: [PollFlags; 3],
}

impl<'h, 'c> Watch<'h, 'c> {
    fn new(host: &'h mut Host<'c>, outlet: Outlet, signals: &'h Signals) -> Watch<'h, 'c> {
        let phase = Phase::SettingUp;
        let (ending, ended) = (false, false);
        let held = host.holder.take().map(Held::new);
        Watch { host, outlet, signals, relay: None, hooks: None, failed: None, phase, held, ending, ended }
    }

    /// Waits once and handles what came. What failed before this does is the reason.
    fn turn(&mut self) -> Result<(), Failed> {
        self.wait_and_handle().map_err(|error| self.failed.take().unwrap_or_else(|| blind(error)))
    }

    fn wait_and_handle(&mut self) -> io::Result<()> {
        let found = self.wait()?;
        if !found.signal.is_empty() {
            self.take_signals()?;
        }
        if !found.child.is_empty() {
            self.take_messages();
        }
        if !found.lifeline.is_empty() {
            self.outlet.lifeline = None;
            self.end_all()?;
        }
        if !found.command.is_empty() {
            self.expect_word();
        }
        if !found.holder.is_empty() {
            self.hear_holder();
        }
        self.end_if_overdue();
        self.pass_on_output(found.relay)?;
        if !found.ended.is_empty() {
            self.ended = true;
            while self.is_starting() && self.has_message() {
                self.take_messages();
            }
            // Its last word may have come together with its end.
            self.hear_holder();
            // Those before the start have nothing left to prepare. What is to be told is PID 1's end.
            if self.hooks.as_ref().is_some_and(|hooks| hooks.stage() == Stage::CreateRuntime) {
                drop(self.hooks.take().and_then(|mut hooks| hooks.interrupt()));
            }
        }
        self.go_on_with_hooks();
        Ok(())
    }

    fn wait(&self) -> io::Result<Found> {
        let Some(child) = &self.host.child else {
            return Err(io::Error::from(Errno::CHILD));
        };
        let relay = self.relay.as_ref().map(Relay::interests).unwrap_or_default();
        let wanted = [
            (!self.ended).then(|| PollFd::new(&child.pidfd, PollFlags::IN)),
            Some(PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)),
            self.is_starting().then(|| PollFd::new(&child.socket, PollFlags::IN)),
            self.outlet.lifeline.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)),
        ];
        let held = self.held.as_ref().map(Held::interests).unwrap_or_default();
        let wanted = wanted.into_iter().chain(held).chain(relay);
        let mut places = [None; 9];
        let mut fds = Vec::with_capacity(11);
        for (place, wanted) in places.iter_mut().zip(wanted) {
            *place = wanted.as_ref().map(|_| fds.len());
            fds.extend(wanted);
        }
        fds.extend(self.hooks.iter().flat_map(HookSequence::interests));
        let hooks: Option<Timespec> = self.hooks.as_ref().and_then(HookSequence::time_left);
        let word = self.held.as_ref().and_then(Held::time_left);
        let word = word.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let time = match (hooks, word) {
            (Some(hooks), Some(word)) => Some(hooks.min(word)),
            (hooks, word) => hooks.or(word),
        };
        match poll(&mut fds, time.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [ended, signal, child, lifeline, holder, command, relay @ ..] =
            places.map(|place| place.and_then(|at| fds.get(at)).map_or(PollFlags::empty(), PollFd::revents));
        Ok(Found { ended, signal, child, lifeline, holder, command, relay })
    }

    fn pass_on_output(&mut self, found: [PollFlags; 3]) -> io::Result<()> {
        let Some(relay) = &mut self.relay else { return Ok(()) };
        relay.handle(found)?;
        // Not before the command has ended: whoever leads the terminal's session is hung up on when the master goes, also
        // if they have nothing of it open any more.
        if self.held.as_ref().is_some_and(|held| held.running().is_none()) && relay.is_over() {
            // The container goes on without anybody at its terminal: the operator gets theirs back.
            self.relay = None;
        }
        Ok(())
    }

    /// What the hooks can do now without being waited for.
    fn go_on_with_hooks(&mut self) {
        let Some(hooks) = &mut self.hooks else { return };
        let stage = hooks.stage();
        match hooks.advance() {
            Ok(Progress::Waiting) => {}
            Ok(Progress::Done) => {
                self.hooks = None;
                if stage == Stage::CreateRuntime
                    && let Err(failed) = self.go_on()
                {
                    self.fail(failed);
                }
            }
            Err(error) => {
                self.hooks = None;
                self.fail(failure(format!("hooks {stage}"), FailureKind::Host, &error));
            }
        }
    }

    fn interrupt_hooks(&mut self) {
        if let Some(error) = self.hooks.take().and_then(|mut hooks| hooks.interrupt()) {
            self.failed.get_or_insert(failure("hooks", FailureKind::Host, &error));
        }
    }

    /// Remembers the first failure and ends the container.
    fn fail(&mut self, failed: Failed) {
        self.failed.get_or_insert(failed);
        // If the kernel refuses to signal our own child, nothing is left that could be done about it.
        self.host.kill().unwrap_or(());
    }

    /// The caller has gone, or asks for the end: hooks are not waited for either.
    fn end_all(&mut self) -> io::Result<()> {
        self.ending = true;
        self.interrupt_hooks();
        self.host.kill()
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(number) = self.signals.next()? {
            let child = self.host.child.as_ref().filter(|_| !self.ended);
            let held = self.held.as_ref().and_then(Held::running);
            let command = held.filter(|_| matches!(self.phase, Phase::Command));
            match (&self.relay, child) {
                (Some(relay), _) if number == NixSignal::SIGWINCH as i32 => relay.resize()?,
                (_, Some(_)) if let Some(command) = command => pass_on(number, command)?,
                (_, child) if ends_all(number, child.map(|child| child.pid)) => self.end_all()?,
                (_, Some(child)) => pass_on(number, &child.pidfd)?,
                (_, None) => {}
            }
        }
        Ok(())
    }

    /// PID 1 has ended, or is about to: reaps it.
    fn end(mut self) -> Result<Gone, Failed> {
        self.interrupt_hooks();
        let Some(child) = self.host.child.take() else {
            return Err(blind(Errno::CHILD.into()));
        };
        let reaped = wait::wait(child.pidfd.as_fd()).map_err(blind)?;
        match self.failed.take() {
            Some(failed) => Err(failed),
            None if !matches!(self.phase, Phase::Command) => Err(broken(&EndedEarly(reaped.ended))),
            None => {
                let ended = self.held.as_ref().map_or(reaped.ended, Held::outcome);
                Ok(Gone { reaped: Reaped { ended, ..reaped }, relay: self.relay })
            }
        }
    }
}

/// The monitor itself cannot go on.
fn broken(error: &dyn std::error::Error) -> Failed {
    failure("monitor", FailureKind::Host, error)
}

fn blind(source: io::Error) -> Failed {
    broken(&WatchError(source))
}

/// How PID 1's end reads to whoever started it.
pub(super) fn exited(reaped: Reaped, counters: cgroup::Counters) -> Exited {
    let status = reaped.ended.status();
    let signal = match reaped.ended {
        Ended::Exited(_) => None,
        Ended::Signaled(signal) => Some(signal),
    };
    let oom_killed = counters.oom_kills.is_some_and(|kills| kills > 0);
    let cpu = counters.cpu.unwrap_or(reaped.cpu);
    let usage = Usage { cpu, memory_peak_bytes: counters.memory_peak_bytes };
    Exited { status, signal, oom_killed, usage }
}
