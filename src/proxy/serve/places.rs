//! How many connections there are at once.
//!
//! A place is for one connection of a task's and the one to the outside that it may have ([`super::outside`]). Some places
//! are each task's own, so that it gets on whatever the others do; the rest are for whoever comes first.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of one task at a time; further ones wait until one of these ends.
const MOST: usize = 64;

/// Those of them that no other task can take.
const OWN: usize = 8;

/// The places of one task.
pub(super) struct Places {
    own: Arc<Semaphore>,
    /// Beyond its own.
    more: Arc<Semaphore>,
    /// Those that all tasks share.
    common: Arc<Semaphore>,
}

/// One connection's.
pub(super) struct Place {
    _taken: Vec<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn of(common: &Arc<Semaphore>) -> Places {
        let [own, more] = [OWN, MOST - OWN].map(|count| Arc::new(Semaphore::new(count)));
        Places { own, more, common: Arc::clone(common) }
    }

    /// Waits for one.
    pub(super) async fn take(&self) -> Place {
        let taken = tokio::select! {
            biased;
            own = Arc::clone(&self.own).acquire_owned() => own.map(|own| vec![own]),
            shared = self.shared() => shared,
        };
        match taken {
            Ok(taken) => Place { _taken: taken },
            // They are never closed.
            Err(_) => std::future::pending().await,
        }
    }

    async fn shared(&self) -> Result<Vec<OwnedSemaphorePermit>, tokio::sync::AcquireError> {
        // First what is this task's, so that it waits for the others' with no more than it could use.
        let more = Arc::clone(&self.more).acquire_owned().await?;
        Ok(vec![more, Arc::clone(&self.common).acquire_owned().await?])
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_task_that_takes_all_it_can_leaves_others_their_own() {
        let common = Arc::new(Semaphore::new(2 * (MOST - OWN) - 1));
        let fill = |places: &Places| {
            std::iter::from_fn(|| places.take().now_or_never()).take(2 * MOST).collect::<Vec<_>>()
        };
        let tasks = [(); 3].map(|()| Places::of(&common));
        let taken = tasks.each_ref().map(fill);
        assert_eq!(taken.each_ref().map(Vec::len), [MOST, MOST - 1, OWN]);
        drop(taken);
        assert_eq!(common.available_permits(), 2 * (MOST - OWN) - 1);
        assert_eq!(fill(&tasks[2]).len(), MOST);
    }
}
