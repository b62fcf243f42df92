//! Many tasks at once, by their ids. Those that there are not are left out.

use std::collections::BTreeSet;
use std::ops::Bound;

use rusqlite::Transaction;

use super::pages::{ENOUGH_BYTES, Page, Part};
use super::{EmbeddedQueue, definitions, store};
use crate::queue::model::TaskStatus;
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, ReceivedDefinition};

impl EmbeddedQueue {
    /// The states of these tasks, by their ids.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn statuses(
        &self,
        ids: BTreeSet<TaskId>,
        part: Part<TaskId>,
    ) -> Result<Page<TaskStatus, TaskId>, QueueError> {
        let find = |database: &Transaction<'_>, id: &TaskId| {
            let status = store::find_status(database, id)?;
            Ok(status.map(|status| (status, 0)))
        };
        self.ask(move |database, _now| find_each(&ids, &part, |id| find(database, id))).await
    }

    /// The definitions of these tasks, by their ids.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn definitions(
        &self,
        ids: BTreeSet<TaskId>,
        part: Part<TaskId>,
    ) -> Result<Page<(TaskId, ReceivedDefinition), TaskId>, QueueError> {
        let find = |database: &Transaction<'_>, id: &TaskId| {
            let text = definitions::find(database, id)?.map(ReceivedDefinition::new);
            Ok(text.map(|definition| {
                let bytes = definition.text().len();
                ((id.clone(), definition), bytes)
            }))
        };
        self.ask(move |database, _now| find_each(&ids, &part, |id| find(database, id))).await
    }
}

/// Looks for a part of them; `find` gives what there is, and the bytes that it takes.
fn find_each<T>(
    ids: &BTreeSet<TaskId>,
    part: &Part<TaskId>,
    find: impl Fn(&TaskId) -> Result<Option<(T, usize)>, QueueError>,
) -> Result<Page<T, TaskId>, QueueError> {
    let first = part.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for (looked_for, id) in ids.range((first, Bound::Unbounded)).enumerate() {
        if looked_for >= part.most || bytes > ENOUGH_BYTES {
            return Ok(Page { items, next: last });
        }
        if let Some((item, taken)) = find(id)? {
            items.push(item);
            bytes += taken;
        }
        last = Some(id.clone());
    }
    Ok(Page { items, next: None })
}
