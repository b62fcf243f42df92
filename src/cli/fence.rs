//! The AppArmor profile of a worker's tasks, from its start to its end.

use crate::apparmor_profiles::{Fence, ProfileError};
use crate::host::without_profile;
use crate::task::run::Worker;
use crate::text::chain;

/// Has the profile before the first task needs it; a sentence why the tasks will have none. Blocks, for some seconds at
/// most.
///
/// # Errors
///
/// It is required, and cannot be had.
pub(super) fn prepare(worker: &Worker) -> Result<Option<String>, ProfileError> {
    let Some(profile) = &worker.profile else { return Ok(None) };
    match profile.enter(&|| true)? {
        Fence::Profile(entered) => {
            entered.give_back()?;
            Ok(None)
        }
        Fence::None(why) => Ok(Some(without_profile(&why))),
    }
}

/// Takes the profile back when the last task has gone; `tell` hears what resists.
pub(super) fn close(worker: &Worker, tell: &dyn Fn(&str)) {
    let closed = worker.profile.as_ref().map_or(Ok(()), |profile| profile.close());
    if let Err(error) = closed {
        tell(&format!("failed to {}; \"docker-worker cleanup\" will try again", chain(&error)));
    }
}
