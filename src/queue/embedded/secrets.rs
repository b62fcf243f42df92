//! Secrets that tasks get from the queue's deployment: values by names, for a while. No file keeps anything of one that is
//! removed, replaced or forgotten.

use rusqlite::{OptionalExtension, Transaction, named_params};
use serde_json::{Map, Value};

use super::EmbeddedQueue;
use super::log::Overwritten;
use super::pages::{Page, Part, read};
use super::store::{FORGOTTEN_AT_ONCE, execute, failed, json, limit, text};
use crate::queue::QueueError;
use crate::timestamp::Timestamp;

pub(super) const SCHEMA: &str = "
    CREATE TABLE secrets (
        name TEXT PRIMARY KEY,
        -- Milliseconds.
        expires INTEGER NOT NULL,
        secret TEXT NOT NULL
    ) STRICT;
    CREATE INDEX old_secrets ON secrets (expires);
";

/// What a secret holds, and until when.
pub type Secret = (Map<String, Value>, Timestamp);

impl EmbeddedQueue {
    /// Writes a secret; it takes the place of one of the same name.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn set_secret(&self, name: &str, secret: Secret) -> Result<(), QueueError> {
        let name = name.to_owned();
        self.overwrite(move |database, now| Ok(((), set(database, &name, &secret, now)?))).await
    }

    /// Removes a secret, if there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn remove_secret(&self, name: &str) -> Result<(), QueueError> {
        let name = name.to_owned();
        self.overwrite(move |database, _now| Ok((remove(database, &name)?, Overwritten::Secrets))).await
    }

    /// The secret of a name, if there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn secret(&self, name: &str) -> Result<Option<Secret>, QueueError> {
        let name = name.to_owned();
        self.ask(move |database, now| get(database, &name, now)).await
    }

    /// The names of secrets, in order.
    ///
    /// # Errors
    ///
    /// [`QueueError::Internal`].
    pub async fn list_secrets(&self, part: Part<String>) -> Result<Page<String, String>, QueueError> {
        self.ask(move |database, now| list(database, &part, now)).await
    }
}

/// Writes a secret; it takes the place of one of the same name.
pub(super) fn set(
    database: &Transaction<'_>,
    name: &str,
    (secret, expires): &Secret,
    now: Timestamp,
) -> Result<Overwritten, QueueError> {
    let call = "write a secret";
    let secret = text(secret, call)?;
    let forgotten = forget(database, now)?;
    let replaces = database
        .prepare_cached("SELECT 1 FROM secrets WHERE name = :name AND secret <> :secret")
        .and_then(|mut other| other.exists(named_params! { ":name": name, ":secret": secret }))
        .map_err(failed(call))?;
    database
        .execute(
            "INSERT OR REPLACE INTO secrets (name, expires, secret) VALUES (:name, :expires, :secret)",
            named_params! { ":name": name, ":expires": expires.as_millis(), ":secret": secret },
        )
        .map_err(failed(call))?;
    Ok(if replaces || forgotten > 0 { Overwritten::Secrets } else { Overwritten::Nothing })
}

/// Forgets a piece of the secrets that have expired; gives their number.
pub(super) fn forget(database: &Transaction<'_>, now: Timestamp) -> Result<usize, QueueError> {
    execute(
        database,
        "forget secrets",
        "DELETE FROM secrets WHERE rowid IN (SELECT rowid FROM secrets WHERE expires <= :now LIMIT :most)",
        named_params! { ":now": now.as_millis(), ":most": limit(FORGOTTEN_AT_ONCE) },
    )
}

/// Removes a secret, if there is one.
pub(super) fn remove(database: &Transaction<'_>, name: &str) -> Result<(), QueueError> {
    let removed = database.execute("DELETE FROM secrets WHERE name = :name", named_params! { ":name": name });
    removed.map(drop).map_err(failed("remove a secret"))
}

/// The secret of that name.
pub(super) fn get(
    database: &Transaction<'_>,
    name: &str,
    now: Timestamp,
) -> Result<Option<Secret>, QueueError> {
    database
        .query_row(
            "SELECT secret, expires FROM secrets WHERE name = :name AND expires > :now",
            named_params! { ":name": name, ":now": now.as_millis() },
            |row| Ok((json(row, "secret")?, Timestamp::from_millis(row.get("expires")?))),
        )
        .optional()
        .map_err(failed("read a secret"))
}

/// The names of secrets, in order.
pub(super) fn list(
    database: &Transaction<'_>,
    part: &Part<String>,
    now: Timestamp,
) -> Result<Page<String, String>, QueueError> {
    let wanted =
        named_params! { ":after": part.after.as_deref().unwrap_or_default(), ":now": now.as_millis() };
    let query = "SELECT name FROM secrets WHERE name > :after AND expires > :now ORDER BY name";
    read(database, "list secrets", (query, wanted), part.most, |row| {
        let name: String = row.get("name")?;
        Ok((name.clone(), name, 0))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_secret_is_there_by_its_name_until_it_expires_or_is_removed() {
        let mut database = Connection::open_in_memory().unwrap();
        database.execute_batch(SCHEMA).unwrap();
        let database = database.transaction().unwrap();
        let at = |seconds| Timestamp::from_millis(0).plus(Duration::from_secs(seconds));
        let secret = |word: &str, expires| (Map::from_iter([("k".to_owned(), word.into())]), at(expires));
        let set = |name, value: &Secret| set(&database, name, value, at(1)).unwrap();
        let get = |name, now| get(&database, name, at(now)).unwrap();
        assert_eq!(set("b", &secret("old", 9)), Overwritten::Nothing);
        assert_eq!(set("b", &secret("new", 5)), Overwritten::Secrets);
        assert_eq!(set("b", &secret("new", 5)), Overwritten::Nothing);
        assert_eq!(set("a/x", &secret("other", 9)), Overwritten::Nothing);
        assert_eq!(get("b", 4), Some(secret("new", 5)));
        assert_eq!((get("b", 5), get("c", 1)), (None, None));
        let names = |after: Option<&str>, most, now| {
            let page = list(&database, &Part { after: after.map(str::to_owned), most }, at(now)).unwrap();
            (page.items.join(" "), page.next)
        };
        assert_eq!(names(None, 9, 1), ("a/x b".to_owned(), None));
        assert_eq!(names(None, 1, 1), ("a/x".to_owned(), Some("a/x".to_owned())));
        assert_eq!(names(Some("a/x"), 1, 1), ("b".to_owned(), None));
        assert_eq!(names(None, 9, 6), ("a/x".to_owned(), None));
        remove(&database, "b").unwrap();
        remove(&database, "b").unwrap();
        assert_eq!(get("b", 1), None);
    }
}
