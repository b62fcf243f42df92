//! Lists that are given out in pages.

use rusqlite::{Params, Row, Transaction};
use serde::Serialize;
use serde_json::value::RawValue;

use super::store::{failed, json, parsed};
use crate::queue::model::TaskStatus;
use crate::queue::task_id::TaskId;
use crate::queue::{QueueError, ReceivedDefinition};

/// Bytes of definitions that are enough for one answer: whoever has asked for more tasks gets them the next time.
pub(super) const ENOUGH_BYTES: usize = 16 << 20;

/// Which part of a list is wanted.
#[derive(Clone, Debug)]
pub struct Part<K> {
    /// What it begins after: [`Page::next`] of the one before; None for the first.
    pub after: Option<K>,
    /// How many it may have.
    pub most: usize,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<T, K> {
    /// What is in it: no more than was wanted, and fewer where they are large.
    pub items: Vec<T>,
    /// What the next part begins after, if there is one.
    pub next: Option<K>,
}

/// A task as lists show it.
#[derive(Clone, Debug, Serialize)]
pub struct ListedTask {
    /// Its state.
    pub status: TaskStatus,
    /// What it is.
    #[serde(rename = "task")]
    pub definition: ReceivedDefinition,
}

/// An item, with its place in the list and the bytes that it takes.
pub(super) type Placed<T, K> = (T, K, usize);

/// The first rows of a query that begins where it should and is in the list's order.
pub(super) fn read<T, K>(
    database: &Transaction<'_>,
    call: &'static str,
    (query, wanted): (&str, impl Params),
    most: usize,
    item: impl Fn(&Row<'_>) -> rusqlite::Result<Placed<T, K>>,
) -> Result<Page<T, K>, QueueError> {
    let read = || {
        let mut statement = database.prepare_cached(query)?;
        let mut rows = statement.query(wanted)?;
        let (mut items, mut last, mut bytes) = (Vec::new(), None, 0);
        while let Some(row) = rows.next()? {
            if items.len() >= most || bytes > ENOUGH_BYTES {
                return Ok(Page { items, next: last });
            }
            let (next, place, taken) = item(row)?;
            items.push(next);
            last = Some(place);
            bytes += taken;
        }
        Ok(Page { items, next: None })
    };
    read().map_err(failed(call))
}

/// A task from its columns.
pub(super) fn task(row: &Row<'_>) -> rusqlite::Result<Placed<ListedTask, TaskId>> {
    let definition = definition(row)?;
    let bytes = definition.text().len();
    let task = ListedTask { status: json(row, "status")?, definition };
    Ok((task, parsed(row, "task_id", TaskId::parse)?, bytes))
}

/// A definition from its column, as it is.
pub(super) fn definition(row: &Row<'_>) -> rusqlite::Result<ReceivedDefinition> {
    let text: Box<RawValue> = json(row, "definition")?;
    Ok(ReceivedDefinition::new(text))
}
