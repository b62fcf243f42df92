//! `delete`: removes what is left of a container, whether it ended or its monitor was killed.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use lexopt::Arg;
use rustix::event::{Timespec, poll};

use super::{Global, Problem, id_among, start};
use crate::execute::sentence;
use crate::groups;
use crate::id::ContainerId;
use crate::journal::Keeper;
use crate::launch::kill_init;
use crate::limits::{KILLED, MONITOR};
use crate::state::{self, ContainerDirectory, StateError, Status};
use crate::sys::wait::readable_within;
use crate::undo;

/// How long to wait before trying a lock again: it tells nobody that it is free.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What may be done to a container that runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    No,
    Kill,
}

pub(super) fn delete(global: &Global, arguments: lexopt::Parser) -> Result<u8, Problem> {
    let mut force = Force::No;
    let id = id_among(arguments, |argument| {
        match argument {
            Arg::Long("force") | Arg::Short('f') => force = Force::Kill,
            other => return Err(other.unexpected().into()),
        }
        Ok(())
    })?;
    let because = |error: &dyn std::error::Error| Problem::because(&format!("delete {id}"), error);
    let seized = ContainerDirectory::open(&global.root, &id).and_then(|directory| match force {
        Force::Kill => seize(&directory).map(|()| directory),
        Force::No => Ok(directory),
    });
    let directory = match seized {
        Ok(directory) => directory,
        // It is gone, by its monitor or somebody else. If there is another one of its id, that was not meant.
        Err(StateError::Missing { .. }) if force == Force::Kill => return Ok(0),
        Err(error) => return Err(because(&error)),
    };
    let locked = directory.lock();
    if force == Force::No {
        let status = directory.look().map_err(|error| because(&error))?.status;
        if matches!(status, Status::Running | Status::Paused) {
            let advice = format!("failed to delete {id}: it is {status}; kill it first, or use --force");
            return Err(Problem::Failed(advice));
        }
    }
    locked.map_err(|error| because(&error))?;
    destroy(global, directory).map(|()| 0)
}

/// Removes what killed monitors and killed `create`s have left: nobody will say `delete` for it. What resists is
/// told, and keeps nobody from their work.
pub(super) fn sweep(global: &Global) {
    // A state root that cannot be read is told by whoever needs it next.
    for id in state::list(&global.root).unwrap_or_default() {
        let swept = match find_dead(global, &id) {
            Ok(None) => Ok(()),
            Ok(Some(dead)) => destroy(global, dead),
            Err(error) => Err(Problem::because(&format!("look at container {id}"), &error)),
        };
        if let Err(Problem::Failed(sentence)) = swept {
            global.log.warning(&sentence);
        }
    }
}

/// A container that nobody is at work on, and nobody will be.
fn find_dead(global: &Global, id: &ContainerId) -> Result<Option<ContainerDirectory>, StateError> {
    let opened = ContainerDirectory::open(&global.root, id).and_then(|it| it.lock().map(|()| it));
    let directory = match opened {
        Ok(directory) => directory,
        // Somebody is at work on it, or has removed it.
        Err(StateError::Busy { .. } | StateError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Without a journal it is not ours, or another one is just beginning.
    let Some(journal) = directory.journal()? else { return Ok(None) };
    let is_set_up = directory.look()?.state.is_some_and(|state| state.is_set_up);
    let is_dead = match journal.keeper() {
        Keeper::Monitor => true,
        Keeper::Caller => !is_set_up,
    };
    Ok(is_dead.then_some(directory))
}

/// Ends what is left of a locked container, undoes it, and runs its `poststop` hooks: what they say is a warning.
pub(super) fn destroy(global: &Global, directory: ContainerDirectory) -> Result<(), Problem> {
    let id = directory.id().clone();
    let because = |error: &dyn std::error::Error| Problem::because(&format!("delete {id}"), error);
    let (init, state) = match directory.look() {
        Ok(known) => (known.init, Ok(known.state)),
        Err(error) => (None, Err(error)),
    };
    // Whatever another version has noted, what the journal says is undone.
    end(&directory, init).map_err(|error| because(error.as_ref()))?;
    // Without a state nothing of it ever ran.
    let hooks = state.map_err(|error| because(&error))?.map(|state| (state, directory.spec()));
    directory.remove().map_err(|error| because(&error))?;
    match hooks {
        Some((state, Ok(spec))) => start::run_poststop(global, &spec, &state),
        Some((_, Err(error))) => {
            global.log.warning(&format!("no poststop hooks of {id}: failed to {}", sentence(&error)));
        }
        None => {}
    }
    Ok(())
}

/// Kills a container and locks it. Its monitor, if it has one, then undoes everything, and there is nothing left.
///
/// Killed again and again: while the container is being set up it is not written down yet which its first process is.
fn seize(directory: &ContainerDirectory) -> Result<(), StateError> {
    let deadline = Instant::now() + MONITOR;
    loop {
        // What cannot be killed now is told by whoever undoes it.
        if let Ok(known) = directory.look()
            && let Some(init) = &known.init
        {
            kill_init(init.as_fd()).unwrap_or(());
        }
        if let Some(journal) = directory.journal()? {
            groups::kill_all(&journal).unwrap_or(());
        }
        match directory.lock() {
            Err(StateError::Busy { .. }) if Instant::now() < deadline => {}
            locked => return locked,
        }
        poll(&mut [], Some(&LOOK_AGAIN)).unwrap_or_default();
    }
}

/// Kills what is left of a locked container and undoes everything.
fn end(directory: &ContainerDirectory, init: Option<OwnedFd>) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(init) = &init {
        kill_init(init.as_fd())?;
    }
    if let Some(journal) = directory.journal()? {
        undo::undo_all(&journal)?;
    }
    match init {
        Some(init) if !readable_within(init.as_fd(), KILLED)? => {
            Err("its first process survived SIGKILL".into())
        }
        _ => Ok(()),
    }
}
