//! How many connections there are at once.
//!
//! A place is for one connection of a task's and the one to the outside that it may have ([`super::outside`]). Some places
//! are each task's own, so that it gets on whatever the others do; the rest are for whoever comes first. There are so many
//! and no more, however many tasks there are ([`super::bounds`]): the first sixteen at once have some of their own.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All of them.
pub(super) const ALL: usize = 176;

/// Those of them that are set aside for tasks to have for themselves.
const ASIDE: usize = 64;

/// Connections of one task at a time; further ones wait until one of these ends.
const MOST: usize = 64;

/// Those of them that no other task can take.
const OWN: usize = 4;

/// The places of all tasks.
pub(super) struct AllPlaces {
    /// For whoever comes first.
    common: Arc<Semaphore>,
    aside: Arc<Semaphore>,
}

/// The places of one task.
pub(super) struct Places {
    own: Arc<Semaphore>,
    /// Beyond its own.
    more: Arc<Semaphore>,
    common: Arc<Semaphore>,
    /// As long as the task is there.
    _set_aside: Option<OwnedSemaphorePermit>,
}

/// One connection's.
pub(super) struct Place {
    _taken: Vec<OwnedSemaphorePermit>,
}

impl AllPlaces {
    pub(super) fn new() -> AllPlaces {
        let [common, aside] = [ALL - ASIDE, ASIDE].map(|count| Arc::new(Semaphore::new(count)));
        AllPlaces { common, aside }
    }

    /// How many nobody has, nor any task for itself.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.common.available_permits() + self.aside.available_permits()
    }
}

impl Places {
    pub(super) fn of(all: &AllPlaces) -> Places {
        let set_aside =
            u32::try_from(OWN).ok().and_then(|own| Arc::clone(&all.aside).try_acquire_many_owned(own).ok());
        let own = if set_aside.is_some() { OWN } else { 0 };
        let [own, more] = [own, MOST - own].map(|count| Arc::new(Semaphore::new(count)));
        Places { own, more, common: Arc::clone(&all.common), _set_aside: set_aside }
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

    fn fill(places: &Places) -> Vec<Place> {
        std::iter::from_fn(|| places.take().now_or_never()).take(2 * ALL).collect()
    }

    #[test]
    fn a_task_that_takes_all_it_can_leaves_others_their_own() {
        let all = AllPlaces::new();
        let tasks = [(); 3].map(|()| Places::of(&all));
        let taken = tasks.each_ref().map(fill);
        // The second one finds what the first one has left of those for all.
        let second = ALL - ASIDE - (MOST - OWN) + OWN;
        assert_eq!(taken.each_ref().map(Vec::len), [MOST, second, OWN]);
        drop(taken);
        assert_eq!(fill(&tasks[2]).len(), MOST);
    }

    #[test]
    fn there_are_no_more_of_them_however_many_tasks_there_are() {
        let all = AllPlaces::new();
        let mut tasks: Vec<Places> = (0..3 * ASIDE).map(|_| Places::of(&all)).collect();
        let taken: Vec<Place> = tasks.iter().flat_map(fill).collect();
        assert_eq!(taken.len(), ALL);
        drop(taken);
        // One that comes later has what another one leaves.
        tasks.truncate(1);
        let later = Places::of(&all);
        let taken: Vec<Place> = tasks.iter().chain([&later]).flat_map(fill).collect();
        assert_eq!(taken.len(), MOST + ALL - ASIDE - (MOST - OWN) + OWN);
        drop((taken, tasks, later));
        assert_eq!(all.free(), ALL);
    }
}
