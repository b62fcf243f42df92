//! Reading a task's log: from any byte, while it grows, by as many as want to.
//!
//! A reader is a handle on the one open file and on the word how far it is written; it has no buffer, no descriptor and
//! no thread of its own. Whoever waits is woken when there is more, and reads when they can take it: a reader who is
//! slow, or does not read at all, costs the task nothing and the worker no memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tokio::sync::watch;

/// How much of the log there is, and whether more will come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that can be read.
    pub bytes: u64,
    /// Nothing follows.
    pub ended: bool,
}

/// How much a log grows between two words of it to those who need not hear of each line.
pub const MILESTONE_BYTES: u64 = 1 << 20;

/// A way to read a log. Clones read on their own.
#[derive(Clone, Debug)]
pub struct LogReader {
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
    /// The same word, given only once in [`MILESTONE_BYTES`] and at the end.
    milestones: watch::Receiver<Progress>,
}

impl LogReader {
    /// A reader of what is written to `file` as far as `progress` says.
    pub(super) fn new(
        file: Arc<File>,
        progress: watch::Receiver<Progress>,
        milestones: watch::Receiver<Progress>,
    ) -> LogReader {
        LogReader { file, progress, milestones }
    }

    /// How far the log has come.
    pub fn progress(&self) -> Progress {
        let written = *self.progress.borrow();
        // Whoever wrote it may have gone without a word.
        Progress { ended: written.ended || self.progress.has_changed().is_err(), ..written }
    }

    /// Waits until the log reaches beyond `offset`, or has ended.
    pub async fn wait(&mut self, offset: u64) -> Progress {
        let further = self.progress.wait_for(|progress| progress.bytes > offset || progress.ended).await;
        match further.map(|progress| *progress) {
            Ok(progress) => progress,
            Err(_) => self.progress(),
        }
    }

    /// Waits until the log reaches well beyond `offset`, or has ended; nobody is woken for a line.
    pub async fn milestone(&mut self, offset: u64) -> Progress {
        let is_far = |progress: &Progress| progress.bytes >= offset + MILESTONE_BYTES || progress.ended;
        // An error is a writer that has gone without a word: what there is is all.
        drop(self.milestones.wait_for(is_far).await);
        self.progress()
    }

    /// Reads what there is from `offset` on, at most so many bytes. Blocks, if at all, for the disk only.
    ///
    /// # Errors
    ///
    /// What reading the file says.
    pub fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let there = self.progress().bytes.saturating_sub(offset);
        // No more than is there: most reads are for a line or two, and each page of the buffer is a fault.
        let mut buffer = vec![0; usize::try_from(there).unwrap_or(usize::MAX).min(most)];
        let read = loop {
            match self.file.read_at(&mut buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        buffer.truncate(read);
        Ok(buffer)
    }

    /// The next bytes from `offset` on, once there are any; none when the log has ended before.
    ///
    /// # Errors
    ///
    /// What reading the file says.
    pub async fn next(&mut self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        if self.wait(offset).await.bytes <= offset {
            return Ok(Vec::new());
        }
        let reader = self.clone();
        tokio::task::spawn_blocking(move || reader.read(offset, most)).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::task_log::spool::Spool;

    /// Everything from `offset` to the end, a few bytes at a time.
    async fn all(mut reader: LogReader, offset: u64, most: usize) -> String {
        let mut text = Vec::new();
        loop {
            let next = reader.next(offset + text.len() as u64, most).await.unwrap();
            if next.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            assert!(next.len() <= most);
            text.extend(next);
        }
    }

    #[tokio::test]
    async fn many_readers_follow_one_log_each_from_its_own_byte() {
        let (_directory, spool) = Spool::temporary(1 << 30);
        spool.output(b"before\n");
        let readers: Vec<_> = (0..100_u8)
            .map(|number| tokio::spawn(all(spool.reader(), number.into(), 1 + usize::from(number))))
            .collect();
        for number in 0..50 {
            spool.output(format!("line {number}\n").as_bytes());
            tokio::task::yield_now().await;
        }
        let whole = std::fs::read_to_string(spool.path()).unwrap();
        assert!(spool.end().is_none());
        for (offset, reader) in readers.into_iter().enumerate() {
            assert_eq!(reader.await.unwrap(), whole[offset..]);
        }
    }

    #[tokio::test]
    async fn a_reader_beyond_the_end_waits_and_then_has_nothing() {
        let (_directory, spool) = Spool::temporary(1 << 30);
        let mut reader = spool.reader();
        spool.output(b"123");
        assert_eq!(reader.wait(2).await, Progress { bytes: 3, ended: false });
        let waited = tokio::time::timeout(Duration::from_millis(20), reader.wait(3)).await;
        assert!(waited.is_err(), "{waited:?}");
        assert!(spool.end().is_none());
        assert_eq!(reader.wait(3).await, Progress { bytes: 3, ended: true });
        assert_eq!(all(reader, 10, 8).await, "");
    }

    /// Counts how often somebody who waits is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_waits_for_a_milestone_is_not_woken_for_a_line() {
        let (_directory, spool) = Spool::temporary(1 << 30);
        let (mut far, mut near) = (spool.reader(), spool.reader());
        let woken = [(); 2].map(|()| Arc::new(Woken::default()));
        let [of_far, of_near] = woken.each_ref().map(|woken| Waker::from(Arc::clone(woken)));
        let woken = || woken.each_ref().map(|woken| woken.0.load(Ordering::SeqCst));
        let (mut far, mut near) = (pin!(far.milestone(0)), pin!(near.wait(0)));
        assert!(far.as_mut().poll(&mut Context::from_waker(&of_far)).is_pending());
        assert!(near.as_mut().poll(&mut Context::from_waker(&of_near)).is_pending());
        let half = "x".repeat(1 << 19);
        spool.text(&half);
        assert_eq!(woken(), [0, 1]);
        spool.text(&half);
        assert_eq!(woken(), [1, 1]);
        let reached = far.poll(&mut Context::from_waker(&of_far));
        assert_eq!(reached, Poll::Ready(Progress { bytes: 1 << 20, ended: false }));
    }

    #[tokio::test]
    async fn the_end_of_a_log_is_a_milestone() {
        let (_directory, spool) = Spool::temporary(1 << 30);
        let mut reader = spool.reader();
        spool.text("last");
        assert!(spool.end().is_none());
        assert_eq!(reader.milestone(0).await, Progress { bytes: 4, ended: true });
    }

    #[tokio::test]
    async fn a_log_whose_writer_has_gone_is_at_its_end_and_can_still_be_read() {
        let (directory, spool) = Spool::temporary(1 << 30);
        let reader = spool.reader();
        spool.output(b"text");
        drop(spool);
        directory.close().unwrap();
        assert!(reader.progress().ended);
        assert_eq!(all(reader, 0, 3).await, "text");
    }
}
