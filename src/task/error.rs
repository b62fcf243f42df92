//! Why a run does not go on: what its author reads, how far the run came, what caused it.

use std::error::Error;
use std::io;

use images::store::StoreError;

use crate::root_file_system::RootError;
use crate::task::outcome::End;
use crate::text::{chain, escaped};

/// A failure of one phase.
#[derive(Debug)]
pub struct TaskError {
    /// The lines for the task log, each after the error marker; words of the task are escaped.
    pub lines: Vec<String>,
    /// How far the run came.
    pub end: End,
}

impl TaskError {
    /// A failure with one line.
    pub fn new(end: End, line: impl Into<String>) -> TaskError {
        TaskError { lines: vec![line.into()], end }
    }

    /// An interrupt came; the resolution says which one, in the log as well.
    pub fn interrupted() -> TaskError {
        TaskError { lines: Vec::new(), end: End::Interrupted }
    }

    /// Adds a line.
    #[must_use]
    pub fn and(mut self, line: impl Into<String>) -> TaskError {
        self.lines.push(line.into());
        self
    }
}

/// How far a run came that ended with `error`: a disk that is full is not the host's unfitness, and not the worker's
/// fault; anything else is `otherwise`.
pub fn end_by(error: &(dyn Error + 'static), otherwise: End) -> End {
    let mut causes = std::iter::successors(Some(error), |error| Error::source(*error));
    let is_full = causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        })
    });
    if is_full { End::ResourceShort } else { otherwise }
}

impl From<RootError> for TaskError {
    fn from(error: RootError) -> TaskError {
        let end = match error {
            RootError::Store(StoreError::Unwanted { .. }) => return TaskError::interrupted(),
            RootError::Store(StoreError::Locked { .. }) => End::HostBusy,
            RootError::Store(_) | RootError::Mount(_) => End::HostUnfit,
            RootError::User(_) | RootError::Accounts { .. } | RootError::Directory { .. } => End::SetupFailed,
            RootError::Panicked(_) => End::WorkerFault,
        };
        let end = end_by(&error, end);
        let why = escaped(&chain(&error)).to_string();
        TaskError::new(end, format!("Docker configuration could not be created. Failed to {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_waits_for_others_is_not_the_hosts_fault_and_an_interrupt_nobodys() {
        let locked = StoreError::Locked { path: "/lock".into(), holder: "process 4711".to_owned() };
        let failure = TaskError::from(RootError::Store(locked));
        assert_eq!(failure.end, End::HostBusy);
        assert!(failure.lines.iter().any(|line| line.contains("process 4711")), "{failure:?}");
        let unwanted = TaskError::from(RootError::Store(StoreError::Unwanted { path: "/lock".into() }));
        assert_eq!((unwanted.end, unwanted.lines.len()), (End::Interrupted, 0));
    }
}
