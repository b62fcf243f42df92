//! What commands print on standard output that is no log.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::fs::{FileType, fstat, major, minor};

use super::FAILED;
use super::operator::Operator;
use crate::readiness::write_all;

/// The number of `/dev/null` (admin-guide/devices.txt).
const NULL: (u32, u32) = (1, 3);

/// Prints a text, and gives the command's status where that went well.
pub(super) fn print(text: &str, status: ExitCode, operator: &Operator) -> ExitCode {
    match write_all(io::stdout(), text.as_bytes()) {
        Ok(()) => status,
        // Who has closed the pipe has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(FAILED),
        Err(error) => operator.refuse(FAILED, &unwritten(&error)),
    }
}

/// Why what was printed is not there.
pub(super) fn unwritten(error: &io::Error) -> String {
    format!("failed to write to standard output: {error}")
}

/// Whether nobody will ever read it. So it is where a process is started without one: Rust opens this in its place.
pub(super) fn leads_nowhere(out: impl AsFd) -> bool {
    fstat(out).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
            && (major(found.st_rdev), minor(found.st_rdev)) == NULL
    })
}
