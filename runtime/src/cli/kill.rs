//! `kill`: a signal to PID 1, to the command where PID 1 is its holder, or to every process of the container.

use std::os::fd::AsFd;

use lexopt::Arg;
use nix::sys::signal::Signal;

use super::{Global, Problem, id_among};
use crate::groups;
use crate::state::{ContainerDirectory, Status};
use crate::sys::signals;

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
    let known = directory.look().map_err(|error| because(&error))?;
    // A holder would pass it on, but for those that it cannot; and SIGKILL is for the container.
    // Before `start` there is no command yet: its process would not outlive what the container's first one does not feel.
    let has_command = matches!(known.status, Status::Running | Status::Paused);
    let held = known.command.is_some();
    let command = known.command.filter(|_| signal != libc::SIGKILL && has_command);
    if let (true, Some(journal)) = (all, &journal) {
        // Also where PID 1 has ended, and without a pid namespace of its own left others behind.
        let holder = held.then_some(known.state).flatten().map(|state| state.pid);
        let sent = match signal {
            libc::SIGKILL => groups::kill_all(journal),
            other => groups::signal_all(journal, other, holder),
        };
        return sent.map(|()| 0).map_err(|error| because(&error));
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
