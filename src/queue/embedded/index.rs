//! Tasks by names that people choose: the index.
//!
//! A name is words with dots between them. Of two tasks that want the same one the one with the higher rank has it, and
//! among equals the later.

use rusqlite::{OptionalExtension, Transaction, named_params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::store::{FORGOTTEN_AT_ONCE, execute, failed, json, limit, text};
use super::{EmbeddedQueue, definitions};
use crate::queue::QueueError;
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

pub(super) const SCHEMA: &str = "
    CREATE TABLE indexed_tasks (
        path TEXT PRIMARY KEY,
        -- Milliseconds.
        expires INTEGER NOT NULL,
        entry TEXT NOT NULL
    ) STRICT;
    CREATE INDEX old_indexed_tasks ON indexed_tasks (expires);
";

/// Characters of a name.
const PATH_CHARS: usize = 255;

/// A task's route that begins so asks for the name behind it, once the task is completed.
const ROUTE: &str = "index.";

/// A task under its name, as the index service shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexedTask {
    /// Its name.
    pub namespace: String,
    /// The task.
    pub task_id: TaskId,
    /// How much it wants the name.
    pub rank: Number,
    /// Whatever whoever put it there has to say.
    pub data: Map<String, Value>,
    /// Until when it has the name.
    pub expires: Timestamp,
}

/// What a completed task's definition says about its names.
#[derive(Deserialize)]
struct Wishes {
    routes: Vec<String>,
    extra: Map<String, Value>,
    expires: Timestamp,
}

/// Whether a task can have this name.
#[must_use]
pub fn is_index_path(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_!~*'()%-".contains(&byte);
    text.len() <= PATH_CHARS && text.split('.').all(|word| !word.is_empty() && word.bytes().all(fits))
}

impl EmbeddedQueue {
    /// The task of a name in the index, if there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn find_indexed(&self, path: &str) -> Result<Option<IndexedTask>, QueueError> {
        let path = path.to_owned();
        self.ask(move |database, now| find(database, &path, now)).await
    }

    /// Puts a task under a name in the index, unless one of a higher rank has it; gives what is there then.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn insert_indexed(&self, wanted: IndexedTask) -> Result<IndexedTask, QueueError> {
        self.ask(move |database, now| insert(database, wanted, now)).await
    }
}

/// Puts a task under a name, unless one of a higher rank has it; gives what is there then.
pub(super) fn insert(
    database: &Transaction<'_>,
    wanted: IndexedTask,
    now: Timestamp,
) -> Result<IndexedTask, QueueError> {
    let call = "write to the index";
    forget(database, now)?;
    let rank = |task: &IndexedTask| task.rank.as_f64().unwrap_or_default();
    if let Some(known) = find(database, &wanted.namespace, now)?
        && rank(&known) > rank(&wanted)
    {
        return Ok(known);
    }
    database
        .execute(
            "INSERT OR REPLACE INTO indexed_tasks (path, expires, entry) VALUES (:path, :expires, :entry)",
            named_params! {
                ":path": wanted.namespace,
                ":expires": wanted.expires.as_millis(),
                ":entry": text(&wanted, call)?,
            },
        )
        .map_err(failed(call))?;
    Ok(wanted)
}

/// Forgets a piece of the names that nothing has any more; gives their number.
pub(super) fn forget(database: &Transaction<'_>, now: Timestamp) -> Result<usize, QueueError> {
    execute(
        database,
        "forget what was indexed",
        "DELETE FROM indexed_tasks
         WHERE rowid IN (SELECT rowid FROM indexed_tasks WHERE expires <= :now LIMIT :most)",
        named_params! { ":now": now.as_millis(), ":most": limit(FORGOTTEN_AT_ONCE) },
    )
}

/// The task of that name.
pub(super) fn find(
    database: &Transaction<'_>,
    path: &str,
    now: Timestamp,
) -> Result<Option<IndexedTask>, QueueError> {
    database
        .query_row(
            "SELECT entry FROM indexed_tasks WHERE path = :path AND expires > :now",
            named_params! { ":path": path, ":now": now.as_millis() },
            |row| json(row, "entry"),
        )
        .optional()
        .map_err(failed("read the index"))
}

/// Gives a completed task the names that its routes ask for. As with the index service, what cannot be one is left out, and
/// a rank that is no number, or data that is no object, gets the task none.
pub(super) fn insert_completed(
    database: &Transaction<'_>,
    task_id: &TaskId,
    now: Timestamp,
) -> Result<(), QueueError> {
    let Some(Wishes { routes, extra, expires }) = definitions::find(database, task_id)? else {
        return Ok(());
    };
    let wish = |key: &str| extra.get("index").and_then(|wishes| wishes.get(key));
    let rank = match wish("rank") {
        None => Number::from(0),
        Some(Value::Number(rank)) => rank.clone(),
        Some(_) => return Ok(()),
    };
    let data = match wish("data") {
        None => Map::new(),
        Some(Value::Object(data)) => data.clone(),
        Some(_) => return Ok(()),
    };
    let expires =
        match wish("expires").map(|expires| expires.as_str().and_then(|it| Timestamp::parse(it).ok())) {
            None => expires,
            Some(Some(expires)) => expires,
            Some(None) => return Ok(()),
        };
    for path in routes.iter().filter_map(|route| route.strip_prefix(ROUTE)).filter(|path| is_index_path(path))
    {
        let (namespace, task_id) = (path.to_owned(), task_id.clone());
        let wanted = IndexedTask { namespace, task_id, rank: rank.clone(), data: data.clone(), expires };
        insert(database, wanted, now)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rusqlite::Connection;
    use serde_json::json;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(Duration::from_secs(seconds))
    }

    fn task(rank: Value, expires: u64) -> IndexedTask {
        let task_id = TaskId::random().unwrap();
        let entry = json!({ "namespace": "a.b", "taskId": task_id, "rank": rank, "data": {}, "expires": at(expires) });
        serde_json::from_value(entry).unwrap()
    }

    #[test]
    fn the_highest_rank_has_a_name_and_the_later_among_equals_until_it_expires() {
        let mut database = Connection::open_in_memory().unwrap();
        database.execute_batch(SCHEMA).unwrap();
        let database = database.transaction().unwrap();
        let [low, high, later, last] =
            [(1, 9), (2, 5), (2, 5), (0, 9)].map(|(rank, end)| task(json!(rank), end));
        let insert = |task: &IndexedTask, now| insert(&database, task.clone(), at(now)).unwrap();
        assert_eq!(insert(&low, 1), low);
        assert_eq!(insert(&high, 1), high);
        assert_eq!(insert(&low, 1), high);
        assert_eq!(insert(&later, 1), later);
        assert_eq!(find(&database, "a.b", at(4)).unwrap(), Some(later));
        assert_eq!(find(&database, "a.b", at(5)).unwrap(), None);
        assert_eq!(find(&database, "a", at(1)).unwrap(), None);
        assert_eq!(insert(&last, 5), last);
    }

    #[test]
    fn a_name_is_words_with_dots_between_them() {
        for (text, fits) in [
            ("a", true),
            ("project.x.v2.latest-1_~!*'()%", true),
            ("", false),
            ("a.", false),
            (".a", false),
            ("a..b", false),
            ("a/b", false),
            ("a b", false),
            ("\u{e9}", false),
            (&"a".repeat(255), true),
            (&"a".repeat(256), false),
        ] {
            assert_eq!(is_index_path(text), fits, "{text}");
        }
    }
}
