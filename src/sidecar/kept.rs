//! All containers beside a task's that a run has, from before they are begun until each has ended.

use std::sync::Arc;
use std::time::Duration;

use super::{NotEnded, Place, Sidecar, SidecarError, Wanted};
use crate::net::{Network, TaskNetwork};

/// Those of one run. Dropping the value ends their containers, and leaves the rest for a clean-up.
#[derive(Debug, Default)]
pub struct Sidecars(Vec<Sidecar>);

/// One whose command has ended while its task ran.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// Whose it was.
    pub name: &'static str,
    /// How it ended.
    pub status: i32,
    /// What it printed last, fit for a log.
    pub last_words: Vec<String>,
}

impl Sidecars {
    /// Begins to make one for a task, and keeps it.
    ///
    /// # Errors
    ///
    /// [`SidecarError::Directory`], also where the run has a container of that name; [`SidecarError::Prepare`].
    pub fn start(
        &mut self,
        place: &Place<'_>,
        (network, task): (&Arc<Network>, &TaskNetwork),
        what: Wanted,
    ) -> Result<&mut Sidecar, SidecarError> {
        let number = u8::try_from(self.0.len()).unwrap_or(u8::MAX);
        self.0.push(Sidecar::start(place, (network, task, number), what)?);
        self.0.last_mut().ok_or(SidecarError::Unwanted)
    }

    /// Tells those that are still being made that nobody waits for them any more. They are there to be ended all the same.
    pub fn give_up(&self) {
        self.0.iter().filter(|sidecar| sidecar.making.is_some()).for_each(|sidecar| sidecar.stop.cancel());
    }

    /// Those that served once and whose command has ended by itself. Each is named once.
    pub async fn lost(&mut self) -> Vec<Lost> {
        let mut lost = Vec::new();
        for sidecar in &mut self.0 {
            // What there is to be heard has been said: there is nothing to wait for.
            if let Ok(Ok(exited)) = tokio::time::timeout(Duration::ZERO, sidecar.exited()).await {
                let last_words = sidecar.last_words();
                lost.push(Lost { name: sidecar.name, status: exited.status, last_words });
            }
        }
        lost
    }

    /// Ends all of them at the same time. That goes on to its end also when the caller is dropped while it waits.
    ///
    /// # Errors
    ///
    /// All that resists; then the run's directories have to stay, for a clean-up.
    pub async fn end(self) -> Result<(), Vec<NotEnded>> {
        let endings: Vec<_> = self.0.into_iter().map(|sidecar| tokio::spawn(sidecar.end())).collect();
        let mut resisting = Vec::new();
        for ending in endings {
            match ending.await {
                Ok(ended) => resisting.extend(ended.err().into_iter().flatten()),
                Err(error) => resisting.push(error.into()),
            }
        }
        if resisting.is_empty() { Ok(()) } else { Err(resisting) }
    }
}
