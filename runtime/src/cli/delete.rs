//! `delete`: removes what is left of a container, whether it ended or its monitor was killed.

use std::os::fd::AsFd;

use lexopt::Arg;

use super::{Global, Problem, start};
use crate::execute::monitor_socket::readable_within;
use crate::hooks::Stage;
use crate::id::ContainerId;
use crate::launch::kill_init;
use crate::limits::KILLED;
use crate::state::{ContainerDirectory, Known, StateError, Status};
use crate::undo;

/// What may be done to a container that runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    No,
    Kill,
}

pub(super) fn delete(global: &Global, mut arguments: lexopt::Parser) -> Result<u8, Problem> {
    let (mut id, mut force) = (None, Force::No);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("force") | Arg::Short('f') => force = Force::Kill,
            Arg::Value(text) if id.is_none() => id = Some(ContainerId::new(&text.to_string_lossy())?),
            other => return Err(other.unexpected().into()),
        }
    }
    let Some(id) = id else { return Err(Problem::Usage("give the container's id".into())) };
    let because = |error: &dyn std::error::Error| Problem::because(&format!("delete {id}"), error);
    let directory = match ContainerDirectory::open(&global.root, &id) {
        Ok(directory) => directory,
        Err(StateError::Missing { .. }) if force == Force::Kill => return Ok(0),
        Err(error) => return Err(because(&error)),
    };
    let known = directory.look().map_err(|error| because(&error))?;
    if known.status == Status::Running && force == Force::No {
        return Err(Problem::Failed(format!(
            "failed to delete {id}: it is running; kill it first, or use --force"
        )));
    }
    end(&known).map_err(|error| because(&error))?;
    match force {
        // Its monitor, if it has one, is undoing everything now; when it lets go there may be nothing left.
        Force::Kill => directory.wait_for_lock().map_err(|error| because(&error))?,
        Force::No => directory.lock().map_err(|error| because(&error))?,
    }
    if let Some(journal) = directory.journal().map_err(|error| because(&error))? {
        undo::undo_all(&journal).map_err(|error| because(&error))?;
    }
    directory.remove().map_err(|error| because(&error))?;
    if let Some(state) = known.state {
        start::run_hooks(global, &state, Stage::PostStop, Status::Stopped)?;
    }
    Ok(0)
}

/// Kills PID 1 and waits until it has ended.
fn end(known: &Known) -> std::io::Result<()> {
    let Some(init) = &known.init else { return Ok(()) };
    kill_init(init.as_fd())?;
    if readable_within(init.as_fd(), KILLED)? {
        return Ok(());
    }
    Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "its first process survived SIGKILL"))
}
