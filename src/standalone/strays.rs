//! Bytes of artifacts of which the queue knows nothing: a loss of power came between the two, or a copy of the queue has
//! taken its place that is older than they are.
//!
//! Such a copy may be the wrong one. So they are marked when they are seen first, and stay as long after that as an artifact
//! does that has expired; once they are known again their mark goes. No start removes any: whoever has restored the wrong
//! copy begins with a start.
//!
//! Files are looked at first and rows then, for a row is there before its file is: no file of a row that is made meanwhile
//! can be taken for a stray. What is being put has another name. Of each file 32 bytes are held.

use std::io;
use std::time::SystemTime;

use super::artifacts::object_name;
use super::storage::{Listing, Storage, name_digest};
use super::sweep::{SweepError, Unremoved};
use crate::queue::EmbeddedQueue;

/// What is done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strays {
    /// They are not looked for.
    Leave,
    /// They are marked.
    Mark,
    /// They are marked, and those removed that were before.
    RemoveMarkedBefore(SystemTime),
}

/// Looks for them.
pub(super) async fn look(
    queue: &EmbeddedQueue,
    storage: &Storage,
    strays: Strays,
    unremoved: &mut Unremoved,
) -> Result<(), SweepError> {
    if strays == Strays::Leave {
        return Ok(());
    }
    let Listing { mut bytes, mut marks } = storage.list().await.map_err(SweepError::Look)?;
    let mut after = None;
    loop {
        let page = queue.artifacts(after).await?;
        for (run, name) in page.items {
            bytes.remove(&name_digest(&object_name(&run, &name)));
        }
        after = page.next;
        if after.is_none() || bytes.is_empty() {
            break;
        }
    }
    // What goes comes first: on a full disk there may be no room for a mark before.
    let (marked, others): (Vec<_>, Vec<_>) = bytes.into_iter().partition(|stray| marks.remove(stray));
    if let Strays::RemoveMarkedBefore(before) = strays {
        for stray in marked {
            note(storage.remove_marked(&stray, before).await, unremoved);
        }
    }
    for known_or_gone in marks {
        note(storage.unmark(&known_or_gone).await, unremoved);
    }
    for stray in others {
        note(storage.mark(&stray).await, unremoved);
    }
    Ok(())
}

/// What cannot be done about one is in no other's way.
fn note(done: io::Result<()>, unremoved: &mut Unremoved) {
    if let Err(error) = done {
        unremoved.add(error);
    }
}
