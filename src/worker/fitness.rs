//! Whether runs can begin here. One that could not goes to another worker; before this one asks for a task again, it tries
//! without one what has failed: it would only keep the others from them.

use std::cell::Cell;
use std::sync::Arc;

use tokio::time::Instant;

use super::Service;
use crate::task::opening::{BeginError, rehearse};
use crate::text::chain;

/// What is known so far.
#[derive(Debug, Default)]
pub struct Fitness {
    /// When a run could not begin; nothing once one could.
    doubted_at: Cell<Option<Instant>>,
    /// The log says why no task is asked for.
    is_told: Cell<bool>,
}

impl Fitness {
    /// When a run could not begin, if it is not known that one could since.
    pub(super) fn doubted_at(&self) -> Option<Instant> {
        self.doubted_at.get()
    }
}

impl Service {
    /// To be called when a run could not begin.
    pub(super) fn doubt_fitness(&self) {
        self.fitness.doubted_at.set(Some(Instant::now()));
    }

    /// Whether a run could begin now; says once in the log why not.
    pub(super) async fn is_fit(&self) -> bool {
        let Fitness { doubted_at, is_told } = &self.fitness;
        if doubted_at.get().is_none() {
            return true;
        }
        let worker = Arc::clone(&self.worker);
        let rehearsed = tokio::task::spawn_blocking(move || rehearse(&worker)).await;
        match rehearsed.map_err(BeginError::from).flatten() {
            Ok(()) => {
                doubted_at.set(None);
                is_told.set(false);
                true
            }
            Err(error) => {
                if !is_told.replace(true) {
                    self.warn(&format!(
                        "no task is asked for until one can begin: failed to {}",
                        chain(&error)
                    ));
                }
                false
            }
        }
    }
}
