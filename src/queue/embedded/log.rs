//! The write-ahead log of the database: nothing of overwritten secrets is to stay there.

use rusqlite::Connection;

use super::store::failed;
use crate::queue::QueueError;

/// What a change has overwritten, of which nobody is to read anything any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overwritten {
    Nothing,
    Secrets,
}

/// Whether there may be something of them.
#[derive(Debug)]
pub(super) struct Log {
    is_clean: bool,
}

impl Log {
    /// As it is found: the process before may have ended between a change and this.
    pub(super) fn found() -> Log {
        Log { is_clean: false }
    }

    /// Leaves nothing of what a change has overwritten, nor of what others have for which that has failed: whoever asks for
    /// such a change again overwrites nothing.
    pub(super) fn clean(
        &mut self,
        database: &Connection,
        overwritten: Overwritten,
    ) -> Result<(), QueueError> {
        self.is_clean &= overwritten == Overwritten::Nothing;
        if !self.is_clean {
            empty(database)?;
            self.is_clean = true;
        }
        Ok(())
    }
}

/// Takes all that is in the log into the database: what was overwritten would lie there until others take its place.
fn empty(database: &Connection) -> Result<(), QueueError> {
    let call = "empty the log of its database";
    let is_busy: bool = database
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get("busy"))
        .map_err(failed(call))?;
    if is_busy {
        return Err(QueueError::Internal { call, source: "somebody reads it".into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::embedded::open;

    #[test]
    fn a_log_that_could_not_be_emptied_is_emptied_after_the_next_change_whatever_that_overwrites() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.sqlite");
        let database = open::in_file(&path).unwrap();
        let length = || std::fs::metadata(path.with_extension("sqlite-wal")).unwrap().len();
        let write = |name: &str| {
            database.execute("INSERT INTO secrets VALUES (?1, 0, '{}')", [name]).unwrap();
            assert_ne!(length(), 0);
        };
        let mut log = Log::found();
        log.clean(&database, Overwritten::Nothing).unwrap();
        assert_eq!(length(), 0);
        write("a");
        log.clean(&database, Overwritten::Nothing).unwrap();
        assert_ne!(length(), 0, "nothing was overwritten");
        let mut reading = database.prepare("SELECT name FROM secrets").unwrap();
        let mut rows = reading.query([]).unwrap();
        rows.next().unwrap().unwrap();
        log.clean(&database, Overwritten::Secrets).unwrap_err();
        drop(rows);
        log.clean(&database, Overwritten::Nothing).unwrap();
        assert_eq!(length(), 0);
    }
}
