//! What a container beside a task's prints: the end of it, for when it fails.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::{Errno, read};

use crate::background::Background;
use crate::config::Secret;
use crate::readiness::readable;
use crate::text::excerpt;

/// Bytes that are kept.
const KEPT_BYTES: usize = 16 << 10;

/// Lines that are shown.
const SHOWN_LINES: usize = 20;

/// What stands in a secret's place.
const HIDDEN: &str = "<hidden>";

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

    /// The last lines, each cut and without what could steer a terminal. What has just been printed may be missing. Secrets
    /// are hidden as far as they are printed as they are; where there are any, only whole lines are shown.
    pub(super) fn last_lines(&self, secrets: &Secrets) -> Vec<String> {
        let secrets = secrets.all();
        let bytes: Vec<u8> = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().copied().collect()
        };
        let mut shown = bytes.as_slice();
        if !secrets.is_empty() {
            // Of a line that is not whole the part may be missing by which a secret would be known.
            let is_end = |byte: &u8| *byte == b'\n';
            let begins = if bytes.len() == KEPT_BYTES { bytes.iter().position(is_end) } else { None };
            let begins = begins.map_or(0, |end| end + 1);
            let ends = bytes.iter().rposition(is_end).map_or(begins, |end| end.max(begins));
            shown = bytes.get(begins..ends).unwrap_or_default();
        }
        let mut text = String::from_utf8_lossy(shown).into_owned();
        for secret in secrets.iter().map(Secret::reveal).filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, HIDDEN);
        }
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

/// What nobody may read of a sidecar's output. Clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Arc<Mutex<Vec<Secret>>>);

impl Secrets {
    /// One more, from now on.
    pub fn add(&self, secret: Secret) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(secret);
    }

    fn all(&self) -> Vec<Secret> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl FromIterator<Secret> for Secrets {
    fn from_iter<T: IntoIterator<Item = Secret>>(secrets: T) -> Secrets {
        Secrets(Arc::new(Mutex::new(secrets.into_iter().collect())))
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
        assert_eq!(output.last_lines(&Secrets::default()), Vec::<String>::new());
        let writing = tokio::task::spawn_blocking(move || {
            let mut write = File::from(write);
            for number in 0..20_000 {
                writeln!(write, "line {number}\r").unwrap();
            }
            write.write_all(b"\n\x1b[31mred\xff\n[taskcluster] said by nobody, sesame\nand ses").unwrap();
        });
        writing.await.unwrap();
        let secrets: Secrets = [Secret::new(String::new())].into_iter().collect();
        secrets.add(Secret::new("sesame".to_owned()));
        while !output.last_lines(&secrets).last().is_some_and(|line| line.contains("nobody")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let lines = output.last_lines(&secrets);
        assert_eq!(lines.len(), SHOWN_LINES);
        assert_eq!(
            lines[SHOWN_LINES - 3..],
            ["line 19999", "\\u001b[31mred\u{fffd}", "[taskcluster] said by nobody, <hidden>"]
        );
        assert!(output.kept.lock().unwrap().len() <= KEPT_BYTES);
    }
}
