//! Bytes of artifacts of which the queue knows nothing: a loss of power came between the two, or a copy of the queue has
//! taken its place that is older than they are.
//!
//! Files are looked at first and rows then, for a row is there before its file is: no file of a row that is made meanwhile
//! can be taken for a stray. What is being put has another name. Of each file that is old enough 32 bytes are held.

use std::time::SystemTime;

use super::artifacts::object_name;
use super::storage::{Storage, name_digest};
use super::sweep::{SweepError, Unremoved};
use crate::queue::EmbeddedQueue;

/// Removes those that came before a point in time.
pub(super) async fn remove(
    queue: &EmbeddedQueue,
    storage: &Storage,
    before: SystemTime,
    unremoved: &mut Unremoved,
) -> Result<(), SweepError> {
    let mut strays = storage.older_than(before).await.map_err(SweepError::Look)?;
    let mut after = None;
    loop {
        let page = queue.artifacts(after).await?;
        for (run, name) in page.items {
            strays.remove(&name_digest(&object_name(&run, &name)));
        }
        after = page.next;
        if after.is_none() || strays.is_empty() {
            break;
        }
    }
    for stray in strays {
        if let Err(error) = storage.remove_older(&stray, before).await {
            unremoved.add(error);
        }
    }
    Ok(())
}
