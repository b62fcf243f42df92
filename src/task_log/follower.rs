//! Copies a task's log to an open file as it grows.

use std::fs::File;
use std::io;
use std::time::Duration;

use tokio::sync::watch;

use crate::readiness::write_all;
use crate::task_log::reader::LogReader;

/// Bytes copied between two looks at whether somebody interrupts.
const FOLLOW_STEP_BYTES: u64 = 1 << 20;

/// Bytes that are written at once.
const COPY_BYTES: usize = 128 << 10;

/// Copies the log to `out` until it has ended. Whoever has the other end of `copied` hears how far it has come.
///
/// The copying itself is done where it may block; when this future is dropped, the copy that is under way stays behind
/// until the reader of `out` reads or goes.
///
/// # Errors
///
/// What writing to `out` says: `EPIPE` when its reader has gone.
pub async fn follow(mut log: LogReader, mut out: File, copied: watch::Sender<u64>) -> io::Result<()> {
    let mut offset = 0;
    loop {
        let there = log.wait(offset).await.bytes;
        if there <= offset {
            return Ok(());
        }
        let step = (there - offset).min(FOLLOW_STEP_BYTES);
        let copy = tokio::task::spawn_blocking(move || {
            let result = copy_bytes(&log, offset, &out, step);
            (log, out, result)
        });
        let result;
        (log, out, result) = copy.await.map_err(io::Error::other)?;
        offset += result?;
        copied.send_replace(offset);
    }
}

/// Copies so many bytes, or all that there are.
fn copy_bytes(log: &LogReader, offset: u64, out: &File, most: u64) -> io::Result<u64> {
    let mut copied = 0;
    while copied < most {
        let step = usize::try_from(most - copied).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        let bytes = log.read(offset + copied, step)?;
        if bytes.is_empty() {
            // Somebody has cut it off: without this, whoever follows it would come back for ever.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all(out, &bytes)?;
        copied += bytes.len() as u64;
    }
    Ok(copied)
}

/// Waits until `copied` has not moved for `patience`.
pub async fn stalled(mut copied: watch::Receiver<u64>, patience: Duration) {
    while let Ok(Ok(())) = tokio::time::timeout(patience, copied.changed()).await {}
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::task_log::spool::Spool;

    #[tokio::test]
    async fn a_follower_gets_everything_in_order_and_then_ends() {
        let (directory, spool) = Spool::temporary(1 << 30);
        let copy = directory.path().join("copy");
        let (copied, _) = watch::channel(0);
        let following = tokio::spawn(follow(spool.reader(), File::create(&copy).unwrap(), copied));
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
        let (_directory, spool) = Spool::temporary(1 << 30);
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let line = "x".repeat(99) + "\n";
        spool.text(&line.repeat(20_000));
        let path = spool.path().to_owned();
        let (copied, progress) = watch::channel(0);
        let following = tokio::spawn(follow(spool.reader(), File::from(writer), copied));
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
        let (_directory, spool) = Spool::temporary(1 << 30);
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        spool.text("line\n");
        let (copied, _) = watch::channel(0);
        let result = follow(spool.reader(), File::from(writer), copied).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
