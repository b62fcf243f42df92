//! Lines on standard error or standard output that never keep a task waiting.
//!
//! ```text
//!   events, notes, the worker's log ──► queue (bounded) ──► a thread of its own ──► the stream
//! ```
//!
//! Whoever reads the stream may stop reading; a write then blocks for ever, and on the worker's only loop it would
//! make it deaf to signals. So lines go through a queue; what does not fit is counted, and the count is told as soon as
//! there is room again. Only what another program waits for is never lost: words of a protocol, which are few. Before the
//! thread is started, while the command line is looked at, lines are written at once: a signal then still ends the
//! process.
//!
//! Why no O_NONBLOCK: the flag would hold for everybody who shares the terminal or the pipe.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::readiness::write_all;

/// Bytes that wait for a reader who is slow.
const QUEUE_BYTES: usize = 1 << 20;

/// How long the end of the process waits for a reader who does not read.
const PATIENCE: Duration = Duration::from_secs(3);

/// What erases a line of progress: to the beginning, and all that stands there.
const ERASE: &str = "\r\u{1b}[K";

/// The way to one of the process's streams. Clones share it.
#[derive(Clone)]
pub struct LineWriter {
    shared: Arc<Shared>,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard error.
    Error,
    /// Standard output.
    Output,
}

struct Shared {
    stream: Stream,
    state: Mutex<State>,
    changed: Condvar,
    /// Makes a line of how many were lost.
    lost_line: fn(u64) -> String,
}

#[derive(Default)]
struct State {
    queue: VecDeque<String>,
    bytes: usize,
    lost: u64,
    writer: Writer,
    /// A line of progress stands on the terminal, without an end.
    has_progress: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Writer {
    /// Whoever has a line writes it.
    #[default]
    Caller,
    /// A thread waits for lines.
    Waiting,
    /// It is writing one.
    Writing,
}

/// What becomes of a line for which there is no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It is counted.
    Counted,
    /// It waits all the same.
    None,
}

impl LineWriter {
    /// Lines are written at once. `lost_line` words how many lines were lost.
    #[must_use]
    pub fn new(stream: Stream, lost_line: fn(u64) -> String) -> LineWriter {
        let shared = Shared { stream, state: Mutex::default(), changed: Condvar::new(), lost_line };
        LineWriter { shared: Arc::new(shared) }
    }

    /// From here on a thread writes them, and nobody waits for it.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn detach(&self) -> io::Result<()> {
        let out = match self.shared.stream {
            Stream::Error => io::stderr().as_fd().try_clone_to_owned()?,
            Stream::Output => io::stdout().as_fd().try_clone_to_owned()?,
        };
        self.detach_to(File::from(out))
    }

    pub(crate) fn detach_to(&self, out: File) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut state = self.state();
        let thread = std::thread::Builder::new().name("lines".to_owned());
        thread.spawn(move || shared.write_lines(&out))?;
        state.writer = Writer::Waiting;
        Ok(())
    }

    /// Writes a line; its end is added.
    pub fn line(&self, text: &str) {
        let mut state = self.state();
        let erase = if std::mem::take(&mut state.has_progress) { ERASE } else { "" };
        self.put(state, format!("{erase}{text}\n"), Loss::Counted);
    }

    /// Writes a line that is not lost however many wait: a word of a protocol, few and short.
    pub fn word(&self, text: &str) {
        self.put(self.state(), format!("{text}\n"), Loss::None);
    }

    /// Shows how something goes on in a line that the next one replaces; nothing erases it. Dropped where lines wait.
    pub fn progress(&self, text: &str) {
        let mut state = self.state();
        if state.queue.is_empty() && (state.has_progress || !text.is_empty()) {
            state.has_progress = !text.is_empty();
            self.put(state, format!("{ERASE}{text}"), Loss::Counted);
        }
    }

    /// Waits until everything is written, or nobody reads.
    pub fn finish(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        while state.writer == Writer::Writing || !state.queue.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let (next, waited) =
                self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return;
            }
            state = next;
        }
    }

    fn put(&self, mut state: MutexGuard<'_, State>, text: String, loss: Loss) {
        if state.writer == Writer::Caller {
            drop(state);
            let written = match self.shared.stream {
                Stream::Error => write_all(io::stderr(), text.as_bytes()),
                Stream::Output => write_all(io::stdout(), text.as_bytes()),
            };
            if written.is_err() {
                // Nobody reads it: no reason to do anything else than with a reader.
            }
            return;
        }
        if loss == Loss::Counted && state.bytes + text.len() > QUEUE_BYTES {
            state.lost += 1;
            return;
        }
        if state.lost > 0 && loss == Loss::Counted {
            let line = (self.shared.lost_line)(std::mem::take(&mut state.lost)) + "\n";
            state.push(line);
        }
        state.push(text);
        self.shared.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl State {
    fn push(&mut self, text: String) {
        self.bytes += text.len();
        self.queue.push_back(text);
    }
}

impl Shared {
    /// A thread that panicked while it held the lock has left at worst a line too many.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes line after line; ends with the process.
    fn write_lines(&self, out: &File) {
        let mut state = self.state();
        loop {
            let Some(text) = state.queue.pop_front() else {
                state.writer = Writer::Waiting;
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.bytes -= text.len();
            state.writer = Writer::Writing;
            drop(state);
            if write_all(out, text.as_bytes()).is_err() {
                // The reader has gone; the exit status is all that is left to say.
            }
            state = self.state();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn pipe() -> (File, LineWriter) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let lines = LineWriter::new(Stream::Error, |lost| format!("{lost} lost"));
        lines.detach_to(writer.into()).unwrap();
        (reader.into(), lines)
    }

    #[test]
    fn lines_arrive_in_order_and_replace_what_shows_progress() {
        let (mut reader, lines) = pipe();
        lines.line("one");
        lines.finish();
        lines.progress("half");
        lines.finish();
        lines.line("two");
        lines.progress("");
        lines.finish();
        let mut bytes = [0; 64];
        let count = reader.read(&mut bytes).unwrap();
        let text = std::str::from_utf8(&bytes[..count]).unwrap();
        assert_eq!(text, "one\n\r\u{1b}[Khalf\r\u{1b}[Ktwo\n");
    }

    #[test]
    fn a_reader_who_does_not_read_keeps_nobody_and_hears_how_much_was_lost() {
        let (mut reader, lines) = pipe();
        let long = "x".repeat(1000);
        for _ in 0..5000 {
            lines.line(&long);
        }
        let mut kept = vec![0; QUEUE_BYTES / 2];
        reader.read_exact(&mut kept).unwrap();
        lines.line("room again");
        let mut text = String::new();
        while !text.contains("room again") {
            let mut bytes = vec![0; 1 << 16];
            let count = reader.read(&mut bytes).unwrap();
            text += std::str::from_utf8(&bytes[..count]).unwrap();
        }
        assert!(text.contains(" lost\nroom again\n"), "{}", &text[text.len() - 100..]);
    }

    #[test]
    fn a_word_of_a_protocol_is_there_whatever_was_lost() {
        let (mut reader, lines) = pipe();
        let long = "x".repeat(1000);
        for _ in 0..5000 {
            lines.line(&long);
        }
        lines.word("the end");
        let mut text = String::new();
        while !text.contains("the end\n") {
            let mut bytes = vec![0; 1 << 16];
            let count = reader.read(&mut bytes).unwrap();
            text += std::str::from_utf8(&bytes[..count]).unwrap();
            lines.finish();
        }
    }
}
