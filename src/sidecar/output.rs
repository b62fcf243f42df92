//! What a container beside a task's prints: the end of it, for when it fails.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::{Errno, read};

use crate::background::Background;
use crate::readiness::readable;
use crate::text::excerpt;

/// Bytes that are kept.
const KEPT_BYTES: usize = 16 << 10;

/// Lines that are shown.
const SHOWN_LINES: usize = 20;

/// Reads until nobody can print any more, or until this value goes.
#[derive(Debug)]
pub(super) struct Output {
    kept: Arc<Mutex<VecDeque<u8>>>,
    _reading: Background,
}

impl Output {
    /// Reads what is printed into a pipe.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    pub(super) fn collect(pipe: OwnedFd) -> io::Result<Output> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let pipe = readable(pipe)?;
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let into = Arc::clone(&kept);
        let reading = Background::start(async move {
            let mut buffer = [0; 4 << 10];
            loop {
                // Whoever prints without end is not to keep all else waiting.
                tokio::task::coop::consume_budget().await;
                let Ok(mut ready) = pipe.readable().await else { return };
                match read(pipe.get_ref(), &mut buffer) {
                    Ok(0) => return,
                    Ok(length) => keep(&into, buffer.get(..length).unwrap_or_default()),
                    Err(Errno::AGAIN) => ready.clear_ready(),
                    Err(Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Output { kept, _reading: reading })
    }

    /// The last lines, each cut and without what could steer a terminal. What has just been printed may be missing.
    pub(super) fn last_lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().copied().collect()
        };
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(SHOWN_LINES);
        lines
            .get(from..)
            .unwrap_or_default()
            .iter()
            .map(|line| excerpt(line.trim_end()).to_string())
            .collect()
    }
}

fn keep(kept: &Mutex<VecDeque<u8>>, more: &[u8]) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.extend(more);
    let surplus = kept.len().saturating_sub(KEPT_BYTES);
    kept.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::time::Duration;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[tokio::test]
    async fn the_end_is_kept_and_it_is_fit_for_a_log() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let output = Output::collect(read).unwrap();
        assert_eq!(output.last_lines(), Vec::<String>::new());
        let writing = tokio::task::spawn_blocking(move || {
            let mut write = File::from(write);
            for number in 0..20_000 {
                writeln!(write, "line {number}\r").unwrap();
            }
            write.write_all(b"\n\x1b[31mred\xff\n[taskcluster] said by nobody").unwrap();
        });
        writing.await.unwrap();
        while !output.last_lines().last().is_some_and(|line| line.contains("nobody")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let lines = output.last_lines();
        assert_eq!(lines.len(), SHOWN_LINES);
        assert_eq!(
            lines[SHOWN_LINES - 3..],
            ["line 19999", "\\u001b[31mred\u{fffd}", "[taskcluster] said by nobody"]
        );
        assert!(output.kept.lock().unwrap().len() <= KEPT_BYTES);
    }
}
