//! `kill`: a signal to PID 1, to the command where PID 1 is its holder, or to every process of the container but a holder whose
//! command runs. To a holder whose command has ended: it is seen to go.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use lexopt::Arg;
use nix::sys::signal::Signal;
use rustix::io::Errno;

use super::{Global, Problem, id_among};
use crate::groups;
use crate::holder::asks_to_end;
use crate::launch::kill_init;
use crate::limits::HOLDER;
use crate::state::{ContainerDirectory, Status};
use crate::sys::signals;
use crate::sys::wait::readable_within;

pub(super) fn kill(global: &Global, arguments: lexopt::Parser) -> Result<u8, Problem> {
    let (mut signal, mut all) = (None, false);
    let id = id_among(arguments, |argument| {
        match argument {
            Arg::Long("all") | Arg::Short('a') => all = true,
            Arg::Value(text) if signal.is_none() => signal = Some(parse(&text.to_string_lossy())?),
            other => return Err(other.unexpected().into()),
        }
        Ok(())
    })?;
    let signal = signal.unwrap_or(Signal::SIGTERM as i32);
    let because = |error: &dyn std::error::Error| Problem::because(&format!("kill {id}"), error);
    let directory = ContainerDirectory::open(&global.root, &id).map_err(|error| because(&error))?;
    let journal = directory.journal().map_err(|error| because(&error))?;
    if let (true, libc::SIGKILL, Some(journal)) = (all, signal, &journal) {
        // Whatever of the container cannot be looked at: this is for all.
        return groups::kill_all(journal).map(|()| 0).map_err(|error| because(&error));
    }
    let known = directory.look().map_err(|error| because(&error))?;
    // A holder would pass it on, but for those that it cannot; and SIGKILL is for the container.
    // Before `start` there is no command yet: its process would not outlive what the container's first one does not feel.
    let has_command = matches!(known.status, Status::Running | Status::Paused);
    let held = known.command.is_some();
    let command = known.command.filter(|_| signal != libc::SIGKILL && has_command);
    let outlives =
        known.state.as_ref().and_then(|state| state.command.as_ref()).is_some_and(|it| it.has_ended);
    let is_to_go = outlives && asks_to_end(signal) && known.status == Status::Running;
    let lonely = known.init.as_ref().filter(|_| is_to_go);
    if let (true, Some(journal)) = (all, &journal) {
        // Also where PID 1 has ended, and without a pid namespace of its own left others behind.
        let holder = held.then_some(known.state).flatten().map(|state| state.pid);
        groups::signal_all(journal, signal, holder).map_err(|error| because(&error))?;
        lonely.map_or(Ok(()), |holder| end(holder, signal)).map_err(|error| because(&error))?;
        return Ok(0);
    }
    if let Some(holder) = lonely {
        return end(holder, signal).map(|()| 0).map_err(|error| because(&error));
    }
    let Some(init) = known.init else {
        // The words that podman and containerd look for.
        return Err(Problem::Failed(format!("failed to kill {id}: container not running")));
    };
    let target = command.unwrap_or(init);
    signals::send(target.as_fd(), signal).map_err(|error| because(&error))?;
    if let (libc::SIGKILL, Some(journal)) = (signal, &journal) {
        groups::thaw(journal).map_err(|error| because(&error))?;
    }
    Ok(0)
}

/// Ends a holder whose command has ended. One signal is not enough for that: of two of a kind the first is taken, which may be
/// from inside, and as long as the command is traced the holder does not know of its end. So it is sent again and again, and
/// at last comes the one that is sure; then nobody hears from the holder how the command ended.
fn end(holder: &OwnedFd, signal: i32) -> io::Result<()> {
    const AGAIN: Duration = Duration::from_millis(100);
    let deadline = Instant::now() + HOLDER;
    while Instant::now() < deadline {
        match signals::send(holder.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(()),
            sent => sent?,
        }
        if readable_within(holder.as_fd(), AGAIN)? {
            return Ok(());
        }
    }
    kill_init(holder.as_fd())
}

/// `TERM`, `SIGTERM`, `term` or `15`; 0 only asks whether there is somebody to be signalled.
fn parse(text: &str) -> Result<i32, Problem> {
    let unknown = || Problem::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}
