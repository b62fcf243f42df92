//! `pause` and `resume`: a container stands still, and goes on.

use super::{Global, Problem, only_id};
use crate::groups;
use crate::journal::Journal;
use crate::state::{ContainerDirectory, Status};

/// What of the two is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Still,
    Running,
}

pub(super) fn pause(global: &Global, arguments: lexopt::Parser, wanted: Wanted) -> Result<u8, Problem> {
    let id = only_id(arguments)?;
    let (verb, expected) = match wanted {
        Wanted::Still => ("pause", Status::Running),
        Wanted::Running => ("resume", Status::Paused),
    };
    let because = |error: &dyn std::error::Error| Problem::because(&format!("{verb} {id}"), error);
    let refused = |why: String| Problem::Failed(format!("failed to {verb} {id}: {why}"));
    let directory = ContainerDirectory::open(&global.root, &id).map_err(|error| because(&error))?;
    let status = directory.look().map_err(|error| because(&error))?.status;
    if status != expected {
        return Err(refused(format!("it is {status}, not {expected}")));
    }
    let journal: Option<Journal> = directory.journal().map_err(|error| because(&error))?;
    let Some(journal) = journal else { return Err(refused("it has just ended".into())) };
    match wanted {
        Wanted::Running => groups::thaw(&journal).map_err(|error| because(&error))?,
        Wanted::Still if groups::pause(&journal).map_err(|error| because(&error))? => {}
        Wanted::Still => {
            let none =
                "it has no control group that could stand still: mount cgroup2, or the freezer of cgroup v1";
            return Err(refused(none.into()));
        }
    }
    Ok(0)
}
