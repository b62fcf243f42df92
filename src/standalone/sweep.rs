//! What has expired goes: the bytes of artifacts, then whatever the queue knows of them and of their tasks. So do bytes of
//! which it knows nothing.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Services;
use super::artifacts::object_name;
use super::storage::Storage;
use super::strays::{self, Strays};
use crate::event::{Event, Events};
use crate::queue::{EmbeddedQueue, More, QueueError};
use crate::text::chain;
use crate::timestamp::Timestamp;

/// How often what has expired is looked for.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// Every which time bytes are removed of which the queue knows nothing: once a day.
const STRAYS_EVERY: u64 = 24;
/// How long something is kept after it has expired. Nobody can put the bytes of an artifact so late.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Why not all has gone that should.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    /// Of these files, and of whatever there was to be removed beside them, all others have gone.
    #[error("remove, or mark for it, the bytes of {count} artifacts, one of them here")]
    Unremoved {
        /// How many.
        count: u64,
        /// What is in the way of the first.
        #[source]
        first: io::Error,
    },
    /// Whether there are bytes of which the queue knows nothing cannot be said.
    #[error("look through the bytes of artifacts")]
    Look(#[source] io::Error),
    /// The queue is at fault.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// The files that could not be removed, or not be marked for that.
#[derive(Debug, Default)]
pub(super) struct Unremoved {
    count: u64,
    first: Option<io::Error>,
}

impl Unremoved {
    pub(super) fn add(&mut self, error: io::Error) {
        self.count += 1;
        self.first.get_or_insert(error);
    }
}

/// Sweeps now and then, for ever. Of what does not go it tells once, until all has gone.
pub(super) async fn keep_swept(services: Arc<Services>, events: Events) {
    let mut is_told = false;
    for round in 0_u64.. {
        let swept = sweep(&services.queue, &services.storage, strays_of(round, SystemTime::now())).await;
        if let Err(error) = &swept
            && !is_told
        {
            let message = format!("failed to {}; this is tried again every hour", chain(error));
            events.emit(&Event::Warning { message: &message });
        }
        is_told = swept.is_err();
        tokio::time::sleep(EVERY).await;
    }
}

/// What is done about strays: those that a start finds are left for somebody to see.
fn strays_of(round: u64, now: SystemTime) -> Strays {
    match round {
        0 => Strays::Mark,
        round if round % STRAYS_EVERY == 1 => {
            now.checked_sub(KEPT).map_or(Strays::Mark, Strays::RemoveMarkedBefore)
        }
        _ => Strays::Leave,
    }
}

/// Removes all that has expired long enough ago, and sees to strays.
async fn sweep(queue: &EmbeddedQueue, storage: &Storage, strays: Strays) -> Result<(), SweepError> {
    let mut unremoved = Unremoved::default();
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(queue.now().as_millis().saturating_sub(kept));
    remove_expired(queue, storage, before, &mut unremoved).await?;
    while queue.forget_tasks(before).await? == More::Maybe {}
    while queue.shrink().await? == More::Maybe {}
    strays::look(queue, storage, strays, &mut unremoved).await?;
    match unremoved {
        Unremoved { count, first: Some(first) } => Err(SweepError::Unremoved { count, first }),
        Unremoved { first: None, .. } => Ok(()),
    }
}

async fn remove_expired(
    queue: &EmbeddedQueue,
    storage: &Storage,
    before: Timestamp,
    unremoved: &mut Unremoved,
) -> Result<(), SweepError> {
    let mut after = None;
    loop {
        // A run that still goes on may make an artifact anew: what is put for that comes after what is removed here.
        let names = storage.hold_names().await;
        let page = queue.expired_artifacts(before, after).await?;
        let mut removed = Vec::new();
        for (run, name) in page.items {
            match storage.remove(&object_name(&run, &name)).await {
                Ok(()) => removed.push((run, name)),
                Err(error) => unremoved.add(error),
            }
        }
        drop(names);
        queue.forget_artifacts(before, removed).await?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
