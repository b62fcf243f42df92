//! The task log on standard output.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::interrupt::Interrupts;
use crate::task_log::follower::{self, stalled};
use crate::task_log::reader::LogReader;

/// How long an interrupted run waits for a reader who does not read.
const PATIENCE: Duration = Duration::from_secs(3);

/// A copy of the log to standard output that is under way.
pub struct Following {
    copying: JoinHandle<io::Result<()>>,
    copied: watch::Receiver<u64>,
}

/// Starts copying the log to standard output.
///
/// # Errors
///
/// When there is no standard output.
pub fn follow(log: LogReader) -> io::Result<Following> {
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (sender, copied) = watch::channel(0);
    let copying = tokio::spawn(follower::follow(log, out, sender));
    Ok(Following { copying, copied })
}

impl Following {
    /// Waits until the reader has everything; of an interrupted run only as long as it reads.
    ///
    /// # Errors
    ///
    /// Why the reader does not get the rest. That it has gone is its own choice and no error.
    pub async fn finish(self, mut interrupts: Interrupts) -> io::Result<()> {
        let Following { copying, copied } = self;
        let impatient = async {
            interrupts.interrupted().await;
            stalled(copied, PATIENCE).await;
        };
        let result = tokio::select! {
            biased;
            copied = copying => copied.map_err(io::Error::other)?,
            () = impatient => Err(io::Error::new(io::ErrorKind::TimedOut, "its reader does not read")),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}
