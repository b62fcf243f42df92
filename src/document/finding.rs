//! What a check of a task definition or payload found: all of it at once, each with the place it concerns.

use std::fmt;

use serde::Serialize;

use crate::limits;
use crate::text::escaped;

/// Whether the task can run in spite of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The task is refused as malformed-payload.
    Error,
    /// The task runs; its log says what was overlooked.
    Warning,
}

/// One thing that is wrong with a task, or that its author should know.
///
/// `pointer` is raw (RFC 6901, as a program wants it); `message` and `hint` have every untrusted word escaped already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// JSON pointer into the checked document; empty for the document itself.
    pub pointer: String,
    /// One sentence fragment: what is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether it refuses the task.
    pub severity: Severity,
}

impl fmt::Display for Finding {
    /// One line for a log or a terminal: `/maxRunTime: must be …. Hint.`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pointer.is_empty() {
            write!(out, "{}: ", escaped(&self.pointer))?;
        }
        out.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(out, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Findings in the order in which they were made, [`limits::FINDINGS`] at most.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    errors: usize,
    left_off: usize,
}

impl Findings {
    /// Adds an error.
    pub fn error(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.errors += 1;
        self.add(pointer.into(), message.into(), Severity::Error);
    }

    /// Adds a warning.
    pub fn warning(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.add(pointer.into(), message.into(), Severity::Warning);
    }

    /// Gives the finding added last a hint.
    pub fn hint(&mut self, hint: impl Into<String>) {
        if let Some(last) = self.list.last_mut().filter(|_| self.left_off == 0) {
            last.hint = Some(hint.into());
        }
    }

    /// Whether one of them refuses the task.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The findings; what went beyond the bound is one more finding that says how many.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Finding> {
        if self.left_off > 0 {
            let severity = if self.errors > 0 { Severity::Error } else { Severity::Warning };
            let message = format!("{} more findings are not shown", self.left_off);
            self.list.push(Finding { pointer: String::new(), message, hint: None, severity });
        }
        self.list
    }

    fn add(&mut self, pointer: String, message: String, severity: Severity) {
        if self.list.len() < limits::FINDINGS {
            self.list.push(Finding { pointer, message, hint: None, severity });
        } else {
            self.left_off += 1;
        }
    }
}

/// The pointer of the member `key` of what `parent` points at (RFC 6901 §3).
#[must_use]
pub fn pointer_to(parent: &str, key: &str) -> String {
    format!("{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_escapes_tilde_and_slash() {
        assert_eq!(pointer_to("/artifacts", "public/a~b"), "/artifacts/public~1a~0b");
        assert_eq!(pointer_to("", ""), "/");
    }

    #[test]
    fn a_finding_reads_as_one_line_with_its_place_escaped() {
        let mut findings = Findings::default();
        findings.error("/env/A\nB", "must be a string");
        findings.hint("quote it");
        let lines: Vec<_> = findings.into_list().iter().map(Finding::to_string).collect();
        assert_eq!(lines, ["/env/A\\nB: must be a string (quote it)"]);
    }

    #[test]
    fn findings_beyond_the_bound_are_counted_in_one_last_finding() {
        let mut findings = Findings::default();
        for _ in 0..limits::FINDINGS {
            findings.warning("", "old");
        }
        findings.error("", "bad");
        findings.hint("not for the one before");
        assert!(findings.has_errors());
        let list = findings.into_list();
        assert_eq!(list.len(), limits::FINDINGS + 1);
        assert!(list.iter().all(|finding| finding.hint.is_none()));
        let last = list.last().unwrap();
        assert_eq!(
            (last.message.as_str(), last.severity),
            ("1 more findings are not shown", Severity::Error)
        );
    }
}
