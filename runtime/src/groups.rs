//! A container's own control groups while it is there, found by its journal, and what is done to all of them.
//!
//! On v1 a process is in several, one in each hierarchy that the container uses. A group that is gone, or has another inode
//! than the journal says, is not the container's any more: it is left alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cgroup::{self, Entrance, FreezeError, Hierarchies, RemoveError, UpdateError};
use crate::journal::{Journal, Recorded, UndoStep};
use crate::spec::Resources;

/// Why nobody goes into a container's groups.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// Another version has made the container.
    #[error(
        "read {line:?} in {journal:?}: another version of this program has made the container; use that one"
    )]
    Foreign { journal: PathBuf, line: String },
    /// See [`RemoveError`].
    #[error(transparent)]
    Open(RemoveError),
}

/// By path and inode.
fn groups(journal: &Journal) -> impl Iterator<Item = (&Path, u64)> {
    let steps = journal.steps().iter().filter(|_| !journal.is_of_an_earlier_boot());
    steps.filter_map(|recorded| match recorded {
        Recorded::Step(UndoStep::RemoveCgroup { path, inode }) => Some((path.as_path(), *inode)),
        Recorded::Step(UndoStep::RemoveEmptyCgroup { .. } | UndoStep::UnloadProfile { .. })
        | Recorded::Foreign(_) => None,
    })
}

/// Kills whatever is in them, and removes nothing: the container's monitor may be at work on it. A frozen process ends by
/// this only.
///
/// # Errors
///
/// The first failure.
pub(crate) fn kill_all(journal: &Journal) -> Result<(), RemoveError> {
    let killed = groups(journal).map(|(path, inode)| cgroup::kill_members(path, inode));
    killed.fold(Ok(()), Result::and)
}

/// Sends a signal to whatever is in them, once to each process, and not to `holder`, which would pass it on to one that has it.
///
/// # Errors
///
/// The first failure.
pub(crate) fn signal_all(journal: &Journal, number: i32, holder: Option<i32>) -> Result<(), RemoveError> {
    let mut reached = BTreeSet::from_iter(holder);
    groups(journal).try_for_each(|(path, inode)| cgroup::signal_members(path, inode, number, &mut reached))
}

/// The numbers of all that is in them, in order.
///
/// # Errors
///
/// The first failure.
pub(crate) fn processes(journal: &Journal) -> Result<BTreeSet<i32>, RemoveError> {
    let mut found = BTreeSet::new();
    groups(journal).try_for_each(|(path, inode)| cgroup::processes(path, inode, &mut found))?;
    Ok(found)
}

/// Brings the container to stand still. Whether it has a group in which that can be done.
///
/// # Errors
///
/// [`FreezeError`]; then it goes on.
pub(crate) fn pause(journal: &Journal) -> Result<bool, FreezeError> {
    for (path, inode) in groups(journal) {
        if cgroup::freeze(path, inode)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the container stands still.
///
/// # Errors
///
/// The first failure.
pub(crate) fn is_paused(journal: &Journal) -> Result<bool, FreezeError> {
    for (path, inode) in groups(journal) {
        if cgroup::is_frozen(path, inode)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lets a frozen container go on.
///
/// # Errors
///
/// The first failure.
pub(crate) fn thaw(journal: &Journal) -> Result<(), FreezeError> {
    groups(journal).try_for_each(|(path, inode)| cgroup::thaw(path, inode))
}

/// Sets new limits: those of `resources` that are given.
///
/// # Errors
///
/// [`UpdateError`] says whether anything was changed.
pub(crate) fn update(
    journal: &Journal,
    hierarchies: &Hierarchies,
    resources: &Resources,
) -> Result<(), UpdateError> {
    cgroup::update(groups(journal), hierarchies, resources)
}

/// The ways into all of them for a further process. `None` if one is gone: the container, whose first process is `init`,
/// ends.
///
/// # Errors
///
/// The first failure; or there may be groups that this version does not know of, without whose limits nobody is to go in.
pub(crate) fn open_to_join(journal: &Journal, init: i32) -> Result<Option<Vec<Entrance>>, JoinError> {
    for recorded in journal.steps() {
        if let Recorded::Foreign(line) = recorded {
            return Err(JoinError::Foreign { journal: journal.path().to_owned(), line: line.clone() });
        }
    }
    let entrances = groups(journal).map(|(path, inode)| cgroup::open_to_join(path, inode, init));
    entrances.collect::<Result<_, _>>().map_err(JoinError::Open)
}
