//! Undoing what an earlier worker that died has left, before this one begins.

use super::operator::Operator;
use crate::cleanup::{Claims, CleanupError, Unfinished, clean_up};
use crate::directories::Directories;
use crate::event::Event;
use crate::queue::WorkerIdentity;
use crate::text::chain;

/// Undoes what is left, and tells the operator what resists. Gives the runs that somebody should tell their queue about.
///
/// # Errors
///
/// When a place cannot be looked through at all.
pub(super) fn recover(
    directories: &Directories,
    operator: &Operator,
) -> Result<Vec<Unfinished>, CleanupError> {
    let cleaned = clean_up(directories, Claims::Keep)?;
    for container_id in &cleaned.sweep.removed {
        operator.events().emit(&Event::Recovered { container_id });
    }
    for foreign in &cleaned.sweep.foreign {
        operator.note(&foreign.to_string());
    }
    for (id, error) in &cleaned.sweep.failed {
        operator.note(&format!("failed to remove what is left of container {id}: {}", chain(error)));
    }
    for note in &cleaned.notes {
        operator.note(note);
    }
    Ok(cleaned.unfinished)
}

/// Names the unfinished runs of others with the same directories.
pub(super) fn leave_alone(others: &[Unfinished], operator: &Operator) {
    for Unfinished { held, .. } in others {
        let WorkerIdentity { worker_group, worker_id } = &held.worker;
        operator.note(&format!(
            "left alone: {} of {}, which only its own worker, {worker_group}/{worker_id}, can resolve",
            held.run, held.root_url
        ));
    }
}
