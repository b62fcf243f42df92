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
use crate::limits::{HOLDER, TRACED};
use crate::state::{self, HeldCommand};
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
    /// It has ended, and the holder has not told how yet.
    patience: Option<Patience>,
    ended: Option<Ended>,
}

/// How long the holder may yet take to tell how the command ended. It is looked after once in a while, and only the time counts
/// in which nothing stood in its way: a holder that may go on has the whole of it again.
#[derive(Debug, Clone, Copy)]
struct Patience {
    next: Instant,
    left: Duration,
    /// For those who trace the command, in all.
    traced: Duration,
}

/// What stands in the holder's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hindrance {
    Nothing,
    /// The operator's pause, which has no end but theirs.
    Pause,
    /// Somebody in the container.
    Tracer,
}

impl Patience {
    const LOOK: Duration = Duration::from_secs(1);

    fn begin(now: Instant) -> Patience {
        Patience { next: now + Patience::LOOK, left: HOLDER, traced: TRACED }
    }

    /// Whether it has come to an end with the look that is due.
    fn look(&mut self, now: Instant, hindrance: Hindrance) -> bool {
        self.next = now + Patience::LOOK;
        match hindrance {
            Hindrance::Nothing => self.left = self.left.saturating_sub(Patience::LOOK),
            Hindrance::Pause => self.left = HOLDER,
            Hindrance::Tracer => {
                self.left = HOLDER;
                self.traced = self.traced.saturating_sub(Patience::LOOK);
            }
        }
        self.left.is_zero() || self.traced.is_zero()
    }
}

/// It cannot be named for those who come later.
#[derive(Debug, thiserror::Error)]
#[error("look at the process that is to be the command")]
struct NoteError(#[source] io::Error);

impl Held {
    pub fn new(socket: OwnedFd) -> Held {
        Held { socket: Some(socket), ..Held::default() }
    }

    /// What to wait for: the holder's word, the command's end.
    pub fn interests(&self) -> [Option<PollFd<'_>>; 2] {
        [self.socket.as_ref(), self.running()].map(|fd| fd.map(|fd| PollFd::new(fd, PollFlags::IN)))
    }

    /// Until the holder is looked after.
    pub fn time_left(&self) -> Option<Duration> {
        let patience = self.patience.filter(|_| self.ended.is_none())?;
        Some(patience.next.saturating_duration_since(Instant::now()))
    }

    /// The command, as long as it is not known to have ended.
    pub fn running(&self) -> Option<&OwnedFd> {
        self.command.as_ref().filter(|_| self.patience.is_none() && self.ended.is_none())
    }

    /// Whether somebody who traces the command is told of its end before the holder is, and has not taken notice yet. That
    /// nobody can say is no tracing.
    fn is_traced(&self) -> bool {
        self.command.as_ref().is_some_and(|command| state::is_traced(command.as_fd()).unwrap_or(false))
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
        let note = match HeldCommand::new(command.as_fd()) {
            Ok(note) => note,
            Err(error) => return self.fail(failure("hold", FailureKind::Host, &NoteError(error))),
        };
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
            Some(Said::Failed(error)) => {
                self.fail(failure("hold", FailureKind::Host, &error));
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
            held.patience.get_or_insert(Patience::begin(Instant::now()));
        }
    }

    /// A holder that does not say how the command ended is held by somebody in the container, or stands still with it. The
    /// former have their time, and then it ends.
    pub(super) fn end_if_overdue(&mut self) {
        let Some(held) = &mut self.held else { return };
        if !held.time_left().is_some_and(|left| left.is_zero()) {
            return;
        }
        let hindrance = match self.host.is_paused() {
            true => Hindrance::Pause,
            false if held.is_traced() => Hindrance::Tracer,
            false => Hindrance::Nothing,
        };
        if held.patience.as_mut().is_some_and(|patience| patience.look(Instant::now(), hindrance)) {
            // If it cannot be killed it is tried again.
            self.host.kill().unwrap_or(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at what `hindrance` says of each second, and returns the one with which patience ends.
    fn ends_with(hindrance: impl Fn(u32) -> Hindrance) -> u32 {
        let begun = Instant::now();
        let mut patience = Patience::begin(begun);
        (1..1000)
            .find(|&second| {
                let now = begun + Patience::LOOK * second;
                assert_eq!(patience.next, now);
                patience.look(now, hindrance(second))
            })
            .expect("it is not for ever")
    }

    #[test]
    fn patience_ends_after_ten_seconds_in_a_row_in_which_nothing_stood_in_the_way() {
        for hindrance in [Hindrance::Pause, Hindrance::Tracer] {
            for (hindered, last) in [(&[][..], 10), (&[1], 11), (&[9], 19), (&[3, 12, 21], 31)] {
                let looked = ends_with(|second| match hindered.contains(&second) {
                    true => hindrance,
                    false => Hindrance::Nothing,
                });
                assert_eq!(looked, last, "{hindrance:?} {hindered:?}");
            }
        }
    }

    #[test]
    fn a_pause_is_waited_for_and_a_tracer_only_for_a_minute_in_all() {
        assert_eq!(ends_with(|_| Hindrance::Tracer), 60);
        let paused = |second| if second <= 600 { Hindrance::Pause } else { Hindrance::Tracer };
        assert_eq!(ends_with(paused), 660);
        // That it lets go of the command now and then is no new beginning.
        let by_turns = |second| if second % 2 == 0 { Hindrance::Tracer } else { Hindrance::Nothing };
        assert_eq!(ends_with(by_turns), 120);
    }
}
