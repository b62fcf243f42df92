//! A copy of the database, made while it is in use.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::queue::QueueError;

/// Pages of one step: a mebibyte, for which others wait a few milliseconds.
const PAGES: i32 = 256;

/// Where the header says how the database is to be read and written, and the values for "with a rollback journal" and
/// "with a write-ahead log" (<https://www.sqlite.org/fileformat2.html#file_format_version_numbers>).
pub(super) const FORMAT_VERSIONS: u64 = 18;
pub(super) const ROLLBACK: [u8; 2] = [1, 1];
pub(super) const WITH_LOG: [u8; 2] = [2, 2];

/// Writes all that is in the database to a new file, for its owner only. Between two steps it asks whether that `goes_on`,
/// which may change the database: the copy has what there is at its end. Without success there is no file.
pub(super) fn copy(
    database: &Connection,
    file: &Path,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<(), QueueError> {
    let written = write(database, file, goes_on);
    if written.is_err() {
        fs::remove_file(file).unwrap_or_default();
    }
    written.map_err(|source| QueueError::Internal { call: "copy its database", source })
}

fn write(
    database: &Connection,
    file: &Path,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let written = |error: std::io::Error| format!("write {}: {error}", file.display());
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(written)?;
    let mut copy = Connection::open(file)?;
    // Of a copy that is not whole nothing is wanted; whoever takes it elsewhere sees to it that it gets to the disk there.
    copy.pragma_update(None, "journal_mode", "OFF")?;
    copy.pragma_update(None, "synchronous", "OFF")?;
    let steps = Backup::new(database, &mut copy)?;
    while steps.step(PAGES)? != StepResult::Done {
        if !goes_on() {
            return Err("it was interrupted".into());
        }
    }
    drop(steps);
    copy.close().map_err(|(_, error)| error)?;
    // A database with a write-ahead log cannot be read where nothing can be written.
    created.write_all_at(&ROLLBACK, FORMAT_VERSIONS).map_err(written)?;
    Ok(())
}
