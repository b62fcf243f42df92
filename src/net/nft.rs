//! The program `nft`: the one way in for rules, fed by standard input with text of our own. It is run once
//! for a worker's tables; what changes with each task goes over netlink ([`super::elements`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Where distributions install it. Never looked for in `PATH`.
const PLACES: &[&str] = &["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];

/// It takes milliseconds, unless something is wrong.
const TIME: Duration = Duration::from_secs(10);

/// Bytes of its complaint that are kept.
const COMPLAINT_BYTES: u64 = 2048;

/// Why rules are not in force. None of the transaction is.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// It is not installed.
    #[error("find nft: install the package nftables, or run the task with --network none")]
    Missing,
    /// It could not be run.
    #[error("run {}", path.display())]
    Run {
        /// Which program.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It does not come to an end.
    #[error("load rules: {} was not done after {} s; is the host overloaded?", path.display(), TIME.as_secs())]
    Slow {
        /// Which program.
        path: PathBuf,
    },
    /// It refused the rules.
    #[error("load rules: {} refused them: {complaint}", path.display())]
    Refused {
        /// Which program.
        path: PathBuf,
        /// Its first words.
        complaint: String,
    },
}

/// The program, if it is there.
pub fn find() -> Option<&'static Path> {
    PLACES.iter().map(Path::new).find(|path| path.exists())
}

/// `nft` at work on one transaction. To be finished in any case: a process is waited for.
#[must_use]
#[derive(Debug)]
pub struct Loading {
    path: &'static Path,
    child: Child,
    written: io::Result<()>,
}

/// Begins to load `rules` in one transaction, into the calling thread's network namespace. The program
/// shares `lock` until it ends, by its standard output, which it does not use: it may outlive us, and whoever
/// cleans up after us has to wait for it.
///
/// # Errors
///
/// [`NftError`], and nothing has changed.
pub fn start(rules: &str, lock: &File) -> Result<Loading, NftError> {
    let path = find().ok_or(NftError::Missing)?;
    let failed = |source| NftError::Run { path: path.to_owned(), source };
    let mut child = Command::new(path)
        .args(["-f", "-"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(lock.try_clone().map_err(failed)?)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let written = write(&mut child, rules);
    Ok(Loading { path, child, written })
}

impl Loading {
    /// Waits until the rules are in force.
    ///
    /// # Errors
    ///
    /// [`NftError`], and nothing has changed.
    pub fn finish(mut self) -> Result<(), NftError> {
        let path = self.path;
        let failed = |source| NftError::Run { path: path.to_owned(), source };
        if !ends_in_time(&self.child).map_err(failed)? {
            self.child.kill().map_err(failed)?;
            self.child.wait().map_err(failed)?;
            return Err(NftError::Slow { path: path.to_owned() });
        }
        let status = self.child.wait().map_err(failed)?;
        if !status.success() {
            let complaint = complaint(&mut self.child).map_err(failed)?;
            return Err(NftError::Refused { path: path.to_owned(), complaint });
        }
        self.written.map_err(failed)
    }
}

/// The text is smaller than a pipe, so nobody has to read for this to end.
fn write(child: &mut Child, rules: &str) -> io::Result<()> {
    match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(rules.as_bytes()),
        None => Ok(()),
    }
}

fn ends_in_time(child: &Child) -> io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let time = Timespec { tv_sec: TIME.as_secs().cast_signed(), tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time))? == 1)
}

/// What it says first, on one line.
fn complaint(child: &mut Child) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(COMPLAINT_BYTES).read_to_end(&mut bytes)?;
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    Ok(first.unwrap_or("it does not say why").to_owned())
}
