//! Undoing what an earlier worker that died has left, before this one begins.

use super::operator::Operator;
use crate::cleanup::{CleanupError, clean_up};
use crate::directories::Directories;
use crate::event::Event;
use crate::text::chain;

/// Undoes what is left, and tells the operator what resists.
///
/// # Errors
///
/// When a place cannot be looked through at all.
pub(super) fn recover(directories: &Directories, operator: &Operator) -> Result<(), CleanupError> {
    let sweep = clean_up(directories)?;
    for container_id in &sweep.removed {
        operator.events().emit(&Event::Recovered { container_id });
    }
    for foreign in &sweep.foreign {
        operator.note(&foreign.to_string());
    }
    for (id, error) in &sweep.failed {
        operator.note(&format!("failed to remove what is left of container {id}: {}", chain(error)));
    }
    Ok(())
}
