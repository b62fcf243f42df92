//! Many tasks at once, by their ids. Those that there are not are left out.

use std::collections::BTreeSet;
use std::ops::Bound;

use rusqlite::Transaction;

use super::pages::{ENOUGH_BYTES, Page, Part};
use super::{EmbeddedQueue, definitions, store};
use crate::queue::model::TaskStatus;
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, ReceivedDefinition};

/// Ids that are looked for in one piece of them, whether or not there are such tasks.
const LOOKED_FOR: usize = 10_000;

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

/// Looks for a part of them; `find` gives what there is, and the bytes that it takes. A part is full of what there is: those
/// that there are not take no place in it.
fn find_each<T>(
    ids: &BTreeSet<TaskId>,
    part: &Part<TaskId>,
    find: impl Fn(&TaskId) -> Result<Option<(T, usize)>, QueueError>,
) -> Result<Page<T, TaskId>, QueueError> {
    let first = part.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for (looked_for, id) in ids.range((first, Bound::Unbounded)).enumerate() {
        let found = find(id)?;
        let is_full = found.is_some() && (items.len() >= part.most || bytes > ENOUGH_BYTES);
        if is_full || looked_for >= LOOKED_FOR {
            return Ok(Page { items, next: last });
        }
        if let Some((item, taken)) = found {
            items.push(item);
            bytes += taken;
        }
        last = Some(id.clone());
    }
    Ok(Page { items, next: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_full_of_what_there_is_and_has_a_next_one_where_there_is_more() {
        let mut ids: Vec<TaskId> = (0..7).map(|_| TaskId::random().unwrap()).collect();
        ids.sort();
        // There is no first one, third, fourth, sixth.
        let find = |id: &TaskId| {
            let place = ids.iter().position(|known| known == id).unwrap();
            Ok([1, 4, 6].contains(&place).then_some((place, 0)))
        };
        let all = ids.iter().cloned().collect();
        let part = |after: Option<usize>, most| {
            let part = Part { after: after.map(|place| ids[place].clone()), most };
            let page = find_each(&all, &part, find).unwrap();
            (page.items, page.next.map(|next| ids.iter().position(|id| *id == next).unwrap()))
        };
        assert_eq!(part(None, 2), (vec![1, 4], Some(5)));
        assert_eq!(part(Some(5), 2), (vec![6], None));
        assert_eq!(part(None, 3), (vec![1, 4, 6], None));
        assert_eq!(part(Some(4), 1), (vec![6], None));
        assert_eq!(part(Some(6), 1), (vec![], None));
    }

    #[test]
    fn no_call_looks_for_more_ids_than_are_looked_for_at_once() {
        let ids: BTreeSet<TaskId> = (0..LOOKED_FOR + 5).map(|_| TaskId::random().unwrap()).collect();
        let looked_for = std::cell::Cell::new(0);
        let find = |_: &TaskId| {
            looked_for.set(looked_for.get() + 1);
            Ok(None::<((), usize)>)
        };
        let first = find_each(&ids, &Part { after: None, most: 10 }, find).unwrap();
        assert!(looked_for.get() <= LOOKED_FOR + 1 && first.next.is_some());
        assert!(find_each(&ids, &Part { after: first.next, most: 10 }, find).unwrap().next.is_none());
    }
}
