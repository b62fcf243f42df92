//! The task's log while the task runs: one file, written once, read by everybody who wants it.
//!
//! ```text
//!   worker's lines ─┐                                  ┌──► LogReader ──► standard output, live log
//!                   ├─► Spool ──► <data>/runs/<id>/log ┤
//!   pty master ─────┘  (append)     (the only buffer)  └──► backing log, bulk log, at the end
//! ```
//!
//! Memory is bounded because nobody holds the log but the file. The task is slowed down by nothing
//! but the disk: a reader of the log who is slow, or has stopped reading, only lags behind.
//!
//! Why no pipe or channel to the readers: each would need a bound, and at the bound either the task
//! waits for a reader or the reader loses lines.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::task_log;
use crate::task_log::reader::{LogReader, MILESTONE_BYTES, Progress};
use crate::timestamp::Timestamp;

/// The writing end of a task's log. Clones write to the same log, one line or chunk at a time.
#[derive(Clone, Debug)]
pub struct Spool {
    path: PathBuf,
    reader: LogReader,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    file: Arc<File>,
    progress: watch::Sender<Progress>,
    milestones: watch::Sender<Progress>,
    bytes: u64,
    limit_bytes: u64,
    rest: Rest,
}

/// What becomes of what is written from here on.
#[derive(Debug)]
enum Rest {
    Kept,
    /// The log is as long as it may be; the line that says so is written. Lines of the worker's are
    /// kept.
    OverLimit,
    /// Writing failed: what is there stays, the rest is dropped.
    Broken(io::Error),
    /// The log is closed: late lines are dropped.
    Ended,
}

impl Spool {
    /// Creates the file. `limit_bytes` holds for the task's output, not for the worker's lines.
    ///
    /// # Errors
    ///
    /// What creating it says.
    pub fn create(path: &Path, limit_bytes: u64) -> io::Result<Spool> {
        let file = File::options().read(true).append(true).create_new(true).mode(0o600).open(path)?;
        let file = Arc::new(file);
        let (progress, written) = watch::channel(Progress::default());
        let (milestones, reached) = watch::channel(Progress::default());
        let reader = LogReader::new(Arc::clone(&file), written, reached);
        let state = State { file, progress, milestones, bytes: 0, limit_bytes, rest: Rest::Kept };
        Ok(Spool { path: path.to_owned(), reader, state: Arc::new(Mutex::new(state)) })
    }

    /// Where the log lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a line of the worker's that informs.
    pub fn info(&self, text: &str) {
        self.text(&task_log::info(Timestamp::now(), text));
    }

    /// Writes a line of the worker's that says what went wrong.
    pub fn error(&self, text: &str) {
        self.text(&task_log::error(text));
    }

    /// Writes what a container that serves the task printed last; the lines are fit for a log.
    pub fn last_words(&self, name: &str, lines: &[String]) {
        for line in lines {
            self.info(&format!("{name}: {line}"));
        }
    }

    /// Writes text of the worker's as it is.
    pub fn text(&self, text: &str) {
        let mut state = self.state();
        if !matches!(state.rest, Rest::Ended) {
            state.append(text.as_bytes());
            state.publish();
        }
    }

    /// Writes what the task printed. Beyond the limit it is dropped, and one line says so.
    pub fn output(&self, bytes: &[u8]) {
        let mut state = self.state();
        if !matches!(state.rest, Rest::Kept) {
            return;
        }
        let room = state.limit_bytes.saturating_sub(state.bytes);
        let fits = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let (kept, dropped) = bytes.split_at(fits);
        state.append(kept);
        if !dropped.is_empty() && matches!(state.rest, Rest::Kept) {
            let text = format!(
                "The log has reached its limit of {} bytes (limits.log); what the task prints from here on is dropped.",
                state.limit_bytes
            );
            state.append(task_log::error(&text).as_bytes());
            state.rest = Rest::OverLimit;
        }
        state.publish();
    }

    /// Closes the log: late lines are dropped. Says why it is not whole, if writing failed.
    pub fn end(&self) -> Option<io::Error> {
        let mut state = self.state();
        let rest = std::mem::replace(&mut state.rest, Rest::Ended);
        state.progress.send_modify(|progress| progress.ended = true);
        state.milestones.send_replace(Progress { bytes: state.bytes, ended: true });
        match rest {
            Rest::Broken(error) => Some(error),
            Rest::Kept | Rest::OverLimit | Rest::Ended => None,
        }
    }

    /// A reader of the log, from any byte and while it grows.
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// A thread that panicked while it held the lock has left at worst half a line.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, bytes: &[u8]) {
        if matches!(self.rest, Rest::Broken(_)) {
            return;
        }
        match (&*self.file).write_all(bytes) {
            Ok(()) => self.bytes += bytes.len() as u64,
            Err(error) => self.rest = Rest::Broken(error),
        }
    }

    fn publish(&self) {
        let bytes = self.bytes;
        self.progress.send_modify(|progress| progress.bytes = bytes);
        self.milestones.send_if_modified(|milestone| {
            let is_reached = bytes - milestone.bytes >= MILESTONE_BYTES;
            if is_reached {
                milestone.bytes = bytes;
            }
            is_reached
        });
    }
}

#[cfg(test)]
impl Spool {
    /// A log for a test, as long as the directory lives.
    pub(crate) fn temporary(limit_bytes: u64) -> (tempfile::TempDir, Spool) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::create(&directory.path().join("log"), limit_bytes).unwrap();
        (directory, spool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_beyond_the_limit_is_dropped_and_one_line_says_so() {
        let (_directory, spool) = Spool::temporary(10);
        for _ in 0..3 {
            spool.output(b"abcdefgh");
        }
        spool.text("after");
        let text = std::fs::read_to_string(spool.path()).unwrap();
        assert!(text.starts_with("abcdefghab\n[taskcluster:error] The log has reached"), "{text}");
        assert_eq!(text.matches("limits.log").count(), 1, "{text}");
        assert!(text.ends_with("\nafter"), "{text}");
    }
}
