//! Carries out what a journal says, backwards.
//!
//! It is idempotent: "already gone" is success, so a replay that is itself killed is simply replayed again.

use std::path::PathBuf;

use apparmor::policy::{self, Identity, PolicyError};
use apparmor::profile::{OwnName, OwnNameError};

use crate::cgroup;
use crate::journal::{Journal, Recorded, UndoStep};

/// Something that a journal names is still there. The journal is to be kept, so that undoing can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// A control group stays.
    #[error(transparent)]
    Cgroup(#[from] cgroup::RemoveError),
    /// A profile stays.
    #[error(transparent)]
    Profile(#[from] PolicyError),
    /// A profile that none of ours can be.
    #[error(transparent)]
    ProfileName(#[from] OwnNameError),
    /// A line that nobody here can carry out; the others are.
    #[error(
        "undo the line {line:?} of the journal {}: another version wrote it; delete the container with that one, or \
         take back by hand what the line names and remove the journal's directory", journal.display()
    )]
    Foreign {
        /// The journal.
        journal: PathBuf,
        /// The line's beginning.
        line: String,
    },
}

/// Undoes every step of a journal, the newest first. One that fails does not keep the older ones from being undone.
///
/// # Errors
///
/// The first failure.
pub fn undo_all(journal: &Journal) -> Result<(), UndoError> {
    undo_each(journal, || ())
}

/// [`undo_all`], which calls `undone` after each step.
pub(crate) fn undo_each(journal: &Journal, mut undone: impl FnMut()) -> Result<(), UndoError> {
    let mut result = Ok(());
    for recorded in journal.steps().iter().rev() {
        result = result.and(undo(journal, recorded));
        undone();
    }
    result
}

fn undo(journal: &Journal, recorded: &Recorded) -> Result<(), UndoError> {
    let step = match recorded {
        Recorded::Step(step) => step,
        Recorded::Foreign(line) => {
            return Err(UndoError::Foreign { journal: journal.path().to_owned(), line: line.clone() });
        }
    };
    match step {
        UndoStep::RemoveCgroup { .. }
        | UndoStep::RemoveEmptyCgroup { .. }
        | UndoStep::UnloadProfile { .. }
            if journal.is_of_an_earlier_boot() =>
        {
            Ok(())
        }
        UndoStep::RemoveCgroup { path, inode } => Ok(cgroup::remove(path, *inode)?),
        UndoStep::RemoveEmptyCgroup { path, inode } => Ok(cgroup::remove_if_empty(path, *inode)?),
        UndoStep::UnloadProfile { name, identity } => {
            let identity = identity.clone().map(Identity::from_text);
            Ok(policy::unload(&OwnName::new(name)?, identity.as_ref())?)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::journal::Keeper;

    #[test]
    fn what_ended_with_an_earlier_boot_is_left_to_its_new_owner() {
        let scratch = tempfile::tempdir().unwrap();
        // The path is no cgroup and the name none of ours, so undoing them would be refused.
        let group = "{\"undo\":\"remove-cgroup\",\"path\":\"/\",\"inode\":1}";
        let profile = "{\"undo\":\"unload-profile\",\"name\":\"docker-default\",\"identity\":null}";
        let text = format!("{{\"boot\":\"another\"}}\n{group}\n{profile}\n");
        std::fs::write(scratch.path().join("journal"), text).unwrap();
        let directory = File::open(scratch.path()).unwrap();
        undo_all(&Journal::open(directory.as_fd(), scratch.path()).unwrap().unwrap()).unwrap();
    }

    #[test]
    fn a_profile_whose_name_is_none_of_ours_is_not_unloaded() {
        for name in ["docker-default", "/usr/sbin/ntpd", "docker-worker-a//&b", ":ns:docker-worker-a", ""] {
            let scratch = tempfile::tempdir().unwrap();
            let directory = File::open(scratch.path()).unwrap();
            let mut journal = Journal::create(directory.as_fd(), scratch.path(), Keeper::Caller).unwrap();
            journal.record(&UndoStep::UnloadProfile { name: name.to_owned(), identity: None }).unwrap();
            assert!(matches!(undo_all(&journal), Err(UndoError::ProfileName(_))), "{name}");
        }
    }
}
