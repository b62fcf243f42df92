//! The file in which a caller finds the number of the process that it has started (`--pid-file`).

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::open;

/// Nobody would know which process to look after.
#[derive(Debug, thiserror::Error)]
#[error("write the process number to {}", path.display())]
pub(super) struct PidFileError {
    path: PathBuf,
    source: io::Error,
}

/// Writes `pid`, as it is called here, without a line break.
pub(super) fn write(path: &Path, pid: i32) -> Result<(), PidFileError> {
    let file = open::to_write(path, OFlags::TRUNC, Mode::from_raw_mode(0o666));
    file.and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .map_err(|source| PidFileError { path: path.to_owned(), source })
}
