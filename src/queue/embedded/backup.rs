//! A copy of the database, made while it is in use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, named_params};

use super::store::failed;
use crate::queue::QueueError;
use crate::random::random_hex;

const CALL: &str = "copy its database";

/// Writes all that is in the database to a file of its own, which then takes the place of what has its name: whole, on the
/// disk, for its owner only. Without success nothing is changed and nothing stays.
pub(super) fn copy(database: &Connection, file: &Path) -> Result<(), QueueError> {
    let io = |error: io::Error| QueueError::Internal {
        call: CALL,
        source: format!("write {}: {error}", file.display()).into(),
    };
    let name = file.file_name().ok_or_else(|| io(io::ErrorKind::IsADirectory.into()))?;
    let beside = format!("{}.{}.partial", name.display(), random_hex(8).map_err(io)?);
    let beside = file.with_file_name(beside);
    let text = beside.to_str().ok_or_else(|| io(io::ErrorKind::InvalidFilename.into()))?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(io)?;
    let written = database
        .execute("VACUUM INTO :file", named_params! { ":file": text })
        .map_err(failed(CALL))
        .and_then(|_| put_in_place(&beside, file).map_err(io));
    if written.is_err() {
        // What is left of it has a name that nobody takes for a copy.
        fs::remove_file(&beside).unwrap_or_default();
    }
    written
}

fn put_in_place(beside: &Path, file: &Path) -> io::Result<()> {
    File::open(beside)?.sync_all()?;
    fs::rename(beside, file)?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
