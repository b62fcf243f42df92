//! Who has asked for which caches to be purged.

use std::time::Duration;

use rusqlite::{Transaction, named_params};

use super::EmbeddedQueue;
use super::store::{failed, select};
use crate::cache::PurgeRequest;
use crate::queue::QueueError;
use crate::timestamp::Timestamp;

pub(super) const SCHEMA: &str = "
    CREATE TABLE purges (
        worker_pool_id TEXT NOT NULL,
        cache_name TEXT NOT NULL,
        -- Milliseconds.
        before INTEGER NOT NULL,
        PRIMARY KEY (worker_pool_id, cache_name)
    ) STRICT;
    CREATE INDEX old_purges ON purges (before);
";

/// How long a request stands. A worker that has not looked for so long may keep a cache that it should have dropped.
const SHOWN: Duration = Duration::from_secs(24 * 60 * 60);
/// Requests that are kept, the newest.
const MOST: i64 = 1000;

impl EmbeddedQueue {
    /// Asks the workers of a pool to drop the caches of a name that they have by now.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn purge_cache(&self, worker_pool_id: &str, cache_name: &str) -> Result<(), QueueError> {
        let (worker_pool_id, cache_name) = (worker_pool_id.to_owned(), cache_name.to_owned());
        self.ask(move |database, before| ask(database, &worker_pool_id, &PurgeRequest { cache_name, before }))
            .await
    }

    /// The caches that workers of a pool are asked to drop.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn purge_requests(&self, worker_pool_id: &str) -> Result<Vec<PurgeRequest>, QueueError> {
        let worker_pool_id = worker_pool_id.to_owned();
        self.ask(move |database, now| list(database, &worker_pool_id, now)).await
    }
}

/// Asks for the caches of a name in a pool that were there before; a later request takes the place of an earlier one.
pub(super) fn ask(
    database: &Transaction<'_>,
    worker_pool_id: &str,
    request: &PurgeRequest,
) -> Result<(), QueueError> {
    let call = "write a purge request";
    let before = request.before.as_millis();
    let wanted = named_params! {
        ":worker_pool_id": worker_pool_id,
        ":cache_name": request.cache_name,
        ":before": before,
    };
    database
        .execute(
            "INSERT OR REPLACE INTO purges (worker_pool_id, cache_name, before)
             VALUES (:worker_pool_id, :cache_name, :before)",
            wanted,
        )
        .map_err(failed(call))?;
    let bounds = named_params! { ":oldest": oldest(request.before), ":most": MOST };
    database
        .execute(
            "DELETE FROM purges WHERE before < :oldest
             OR rowid IN (SELECT rowid FROM purges ORDER BY before DESC, rowid DESC LIMIT -1 OFFSET :most)",
            bounds,
        )
        .map_err(failed(call))?;
    Ok(())
}

/// What is asked for in a pool, by the names of the caches.
pub(super) fn list(
    database: &Transaction<'_>,
    worker_pool_id: &str,
    now: Timestamp,
) -> Result<Vec<PurgeRequest>, QueueError> {
    select(
        database,
        "list purge requests",
        "SELECT cache_name, before FROM purges
         WHERE worker_pool_id = :worker_pool_id AND before >= :oldest ORDER BY cache_name",
        named_params! { ":worker_pool_id": worker_pool_id, ":oldest": oldest(now) },
        |row| {
            let before = Timestamp::from_millis(row.get("before")?);
            Ok(PurgeRequest { cache_name: row.get("cache_name")?, before })
        },
    )
}

/// The oldest request that still stands, in milliseconds.
fn oldest(now: Timestamp) -> i64 {
    now.as_millis().saturating_sub(i64::try_from(SHOWN.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(Duration::from_secs(seconds))
    }

    fn request(name: &str, seconds: u64) -> PurgeRequest {
        PurgeRequest { cache_name: name.to_owned(), before: at(seconds) }
    }

    #[test]
    fn a_pool_is_shown_the_last_request_for_each_of_its_caches_for_a_day() {
        let mut database = Connection::open_in_memory().unwrap();
        database.execute_batch(SCHEMA).unwrap();
        let database = database.transaction().unwrap();
        let ask = |pool, request| ask(&database, pool, &request).unwrap();
        let of = |pool, now| list(&database, pool, now).unwrap();
        ask("p/a", request("x", 1));
        ask("p/b", request("x", 2));
        ask("p/a", request("x", 3));
        assert_eq!(of("p/a", at(3)), [request("x", 3)]);
        assert_eq!(of("p/a", at(3 + SHOWN.as_secs())), [request("x", 3)]);
        assert_eq!(of("p/a", at(4 + SHOWN.as_secs())), []);
        for number in 0..=MOST {
            ask("p/c", request(&format!("{number:04}"), 4));
        }
        let left = of("p/c", at(4));
        assert_eq!((left.len(), &left[0]), (usize::try_from(MOST).unwrap(), &request("0001", 4)));
        assert_eq!(of("p/a", at(4)), []);
        let rows = || database.query_row("SELECT count(*) FROM purges", [], |row| row.get::<_, i64>(0));
        assert_eq!(rows().unwrap(), MOST);
        ask("p/d", request("y", 5 + SHOWN.as_secs()));
        assert_eq!(rows().unwrap(), 1);
    }
}
