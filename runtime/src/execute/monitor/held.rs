//! The command of a container with a holder ([`crate::holder`]): it ends before the container does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::{Phase, Watch, blind};
use crate::execute::failure;
use crate::holder::Said;
use crate::launch::messages::send_report;
use crate::launch::{CommandEnded, FailureKind, Report};
use crate::limits;
use crate::state::HeldCommand;
use crate::sys::wait::{Ended, readable_within};

/// What the monitor knows of it.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// From the holder, until it has said its word or ended.
    socket: Option<OwnedFd>,
    /// From the moment that it exists.
    command: Option<OwnedFd>,
    /// What is written down of it.
    note: Option<HeldCommand>,
    /// It has ended; by then the holder should have told how.
    overdue: Option<Instant>,
    ended: Option<Ended>,
}

/// The holder could not do its part.
#[derive(Debug, thiserror::Error)]
#[error("confine the container's holder: does this kernel have CONFIG_SECCOMP_FILTER?")]
struct ConfineError(#[source] io::Error);

impl Held {
    pub fn new(socket: OwnedFd) -> Held {
        Held { socket: Some(socket), ..Held::default() }
    }

    /// What to wait for: the holder's word, the command's end.
    pub fn interests(&self) -> [Option<PollFd<'_>>; 2] {
        let command = self.command.as_ref().filter(|_| self.overdue.is_none() && self.ended.is_none());
        [self.socket.as_ref(), command].map(|fd| fd.map(|fd| PollFd::new(fd, PollFlags::IN)))
    }

    /// Until the holder's word is overdue.
    pub fn time_left(&self) -> Option<Duration> {
        let overdue = self.overdue.filter(|_| self.ended.is_none())?;
        Some(overdue.saturating_duration_since(Instant::now()))
    }

    /// The command, as long as it is not known to have ended.
    pub fn running(&self) -> Option<&OwnedFd> {
        self.command.as_ref().filter(|_| self.overdue.is_none() && self.ended.is_none())
    }

    /// How the command ended. Without the holder's word it was killed, as all are with the first process of a pid
    /// namespace.
    pub fn outcome(&self) -> Ended {
        self.ended.unwrap_or(Ended::Signaled(libc::SIGKILL))
    }
}

impl Watch<'_, '_> {
    /// The process that is to be the command exists.
    pub(super) fn take_held(&mut self, command: OwnedFd) {
        // One that has ended already is told of by its socket.
        let note = HeldCommand::new(command.as_fd()).ok();
        if let Some(note) = &note
            && let Err(failed) = self.host.note_command(note.clone())
        {
            self.fail(failed);
        }
        if let Some(held) = &mut self.held {
            (held.command, held.note) = (Some(command), note);
        }
    }

    /// What the holder says, once.
    pub(super) fn hear_holder(&mut self) {
        // The command came before its end.
        while self.is_starting() && self.has_message() {
            self.take_messages();
        }
        let is_command = matches!(self.phase, Phase::Command);
        let Some(held) = &mut self.held else { return };
        let said = held.socket.take().and_then(|socket| Said::hear(socket.as_fd()));
        match said {
            Some(Said::Ended(ended)) if is_command => {
                // A holder in the power of somebody in the container could say so too early.
                let has_ended = held
                    .command
                    .as_ref()
                    .is_some_and(|it| readable_within(it.as_fd(), Duration::ZERO).unwrap_or(false));
                match has_ended {
                    true => {
                        held.ended = Some(ended);
                        self.tell_end(ended);
                    }
                    false => self.host.kill().unwrap_or(()),
                }
            }
            Some(Said::Failed(source)) => {
                self.fail(failure("hold", FailureKind::Host, &ConfineError(source)));
            }
            // It ends, and what never came to its command is told of by its socket.
            Some(Said::Ended(_)) | None => {}
        }
    }

    fn tell_end(&mut self, ended: Ended) {
        let signal = match ended {
            Ended::Exited(_) => None,
            Ended::Signaled(signal) => Some(signal),
        };
        let status = ended.status();
        if let Some(note) = self.held.as_mut().and_then(|held| held.note.take()) {
            let note = HeldCommand { has_ended: true, exit_status: Some(status), ..note };
            if let Err(failed) = self.host.note_command(note) {
                return self.fail(failed);
            }
        }
        let report = Report::CommandEnded(CommandEnded { status, signal });
        if let Some(socket) = &self.outlet.report
            && let Err(errno) = send_report(socket.as_fd(), &report)
        {
            self.fail(blind(errno.into()));
        }
    }

    /// The command has ended: the holder is to say how, which is a moment's work.
    pub(super) fn expect_word(&mut self) {
        if let Some(held) = &mut self.held {
            held.overdue.get_or_insert(Instant::now() + limits::KILLED);
        }
    }

    /// A holder that does not say how the command ended is held by somebody in the container, or stands still with it.
    pub(super) fn end_if_overdue(&mut self) {
        let is_overdue = self.held.as_ref().and_then(Held::time_left).is_some_and(|left| left.is_zero());
        if !is_overdue {
            return;
        }
        let is_paused = self.host.is_paused();
        let Some(held) = &mut self.held else { return };
        held.overdue = Some(Instant::now() + limits::KILLED);
        if !is_paused {
            // If it cannot be killed it is tried again.
            self.host.kill().unwrap_or(());
        }
    }
}
