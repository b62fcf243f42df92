//! Why a run does not go on: what its author reads, how far the run came, what caused it.

use std::error::Error;

use super::resolve::End;

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

/// An error and what caused it, as one line: `what: why: why`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        // Some errors print their source themselves.
        if !text.ends_with(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        cause = error.source();
    }
    text
}
