//! Why a run does not go on: what its author reads, how far the run came, what caused it.

use std::error::Error;
use std::io;

use crate::task::outcome::End;

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
