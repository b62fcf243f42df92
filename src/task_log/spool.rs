//! The task's log while the task runs: one file, written once, read by everybody who wants it.
//!
//! ```text
//!   worker's lines ─┐
//!                   ├─► Spool ──► <data>/runs/<id>/log ──► Follower ──► standard output
//!   pty master ─────┘  (append)        (the only buffer)  └──► backing log, bulk log, at the end
//! ```
//!
//! Memory is bounded because nobody holds the log but the file. The task is slowed down by nothing
//! but the disk: a reader of the log who is slow, or has stopped reading, only lags behind.
//!
//! Why no pipe or channel to the readers: each would need a bound, and at the bound either the task
//! waits for a reader or the reader loses lines.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::readiness::write_all;
use crate::task_log;
use crate::timestamp::Timestamp;

/// Bytes copied to a reader between two looks at whether somebody interrupts.
const FOLLOW_STEP_BYTES: u64 = 1 << 20;

/// Bytes that are written to a reader at once.
const COPY_BYTES: usize = 128 << 10;

/// How much of the log there is, and whether more will come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    bytes: u64,
    ended: bool,
}

/// The writing end of a task's log. Clones write to the same log, one line or chunk at a time.
#[derive(Clone, Debug)]
pub struct Spool {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    file: File,
    progress: watch::Sender<Progress>,
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
        let file = File::options().append(true).create_new(true).mode(0o600).open(path)?;
        let (progress, _) = watch::channel(Progress::default());
        let state = State { file, progress, bytes: 0, limit_bytes, rest: Rest::Kept };
        Ok(Spool { path: path.to_owned(), state: Arc::new(Mutex::new(state)) })
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
        match rest {
            Rest::Broken(error) => Some(error),
            Rest::Kept | Rest::OverLimit | Rest::Ended => None,
        }
    }

    /// A reader of the log from its first byte.
    ///
    /// # Errors
    ///
    /// What opening the file says.
    pub fn follow(&self) -> io::Result<Follower> {
        let file = File::open(&self.path)?;
        Ok(Follower { file, copied: 0, progress: self.state().progress.subscribe() })
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
        match self.file.write_all(bytes) {
            Ok(()) => self.bytes += bytes.len() as u64,
            Err(error) => self.rest = Rest::Broken(error),
        }
    }

    fn publish(&self) {
        let bytes = self.bytes;
        self.progress.send_modify(|progress| progress.bytes = bytes);
    }
}

/// The reading end: copies the log to `out` as it grows.
#[derive(Debug)]
pub struct Follower {
    file: File,
    copied: u64,
    progress: watch::Receiver<Progress>,
}

impl Follower {
    /// Copies until the log has ended. `stalled` hears how far it has come.
    ///
    /// The copying itself is done where it may block; when this future is dropped, the copy that is
    /// under way stays behind until its reader reads or goes.
    ///
    /// # Errors
    ///
    /// What writing to `out` says: `EPIPE` when its reader has gone.
    pub async fn copy_to(mut self, mut out: File, copied: watch::Sender<u64>) -> io::Result<()> {
        loop {
            let now = *self.progress.borrow_and_update();
            while self.copied < now.bytes {
                let step = (now.bytes - self.copied).min(FOLLOW_STEP_BYTES);
                let copy = tokio::task::spawn_blocking(move || {
                    let result = copy_bytes(&self.file, &out, step);
                    (self, out, result)
                });
                let (follower, file, result) = copy.await.map_err(io::Error::other)?;
                (self, out) = (follower, file);
                self.copied += result?;
                copied.send_replace(self.copied);
            }
            if now.ended || self.progress.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Copies so many bytes, or all that there are.
fn copy_bytes(file: &File, out: &File, most: u64) -> io::Result<u64> {
    let mut rest = file.take(most);
    // No more than is there: most steps are a line or two, and each page of the buffer is a fault.
    let mut buffer = vec![0; usize::try_from(most).unwrap_or(COPY_BYTES).min(COPY_BYTES)];
    let mut copied = 0;
    loop {
        let read = rest.read(&mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(copied);
        }
        write_all(out, bytes)?;
        copied += read as u64;
    }
}

/// Waits until `copied` has not moved for `patience`.
pub async fn stalled(mut copied: watch::Receiver<u64>, patience: Duration) {
    while let Ok(Ok(())) = tokio::time::timeout(patience, copied.changed()).await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(limit: u64) -> (tempfile::TempDir, Spool) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::create(&directory.path().join("log"), limit).unwrap();
        (directory, spool)
    }

    #[test]
    fn output_beyond_the_limit_is_dropped_and_one_line_says_so() {
        let (_directory, spool) = spool(10);
        for _ in 0..3 {
            spool.output(b"abcdefgh");
        }
        spool.text("after");
        let text = std::fs::read_to_string(spool.path()).unwrap();
        assert!(text.starts_with("abcdefghab\n[taskcluster:error] The log has reached"), "{text}");
        assert_eq!(text.matches("limits.log").count(), 1, "{text}");
        assert!(text.ends_with("\nafter"), "{text}");
    }

    #[tokio::test]
    async fn a_follower_gets_everything_in_order_and_then_ends() {
        let (directory, spool) = spool(1 << 30);
        let copy = directory.path().join("copy");
        let follower = spool.follow().unwrap();
        let (copied, _) = watch::channel(0);
        let following = tokio::spawn(follower.copy_to(File::create(&copy).unwrap(), copied));
        for number in 0..1000 {
            spool.output(format!("line {number}\r\n").as_bytes());
            if number % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let path = spool.path().to_owned();
        assert!(spool.end().is_none());
        spool.text("late\n");
        following.await.unwrap().unwrap();
        assert_eq!(std::fs::read(copy).unwrap(), std::fs::read(path).unwrap());
    }

    #[tokio::test]
    async fn a_pipe_that_does_not_block_loses_nothing() {
        let (_directory, spool) = spool(1 << 30);
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let line = "x".repeat(99) + "\n";
        spool.text(&line.repeat(20_000));
        let path = spool.path().to_owned();
        let (copied, progress) = watch::channel(0);
        let following = tokio::spawn(spool.follow().unwrap().copy_to(File::from(writer), copied));
        assert!(spool.end().is_none());
        rustix::io::ioctl_fionbio(&reader, false).unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            File::from(reader).read_to_end(&mut bytes).map(|_| bytes)
        });
        following.await.unwrap().unwrap();
        assert_eq!(*progress.borrow(), 2_000_000);
        assert_eq!(reading.await.unwrap().unwrap(), std::fs::read(path).unwrap());
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_an_error_and_not_a_hang() {
        let (_directory, spool) = spool(1 << 30);
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        spool.text("line\n");
        let (copied, _) = watch::channel(0);
        let result = spool.follow().unwrap().copy_to(File::from(writer), copied).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
