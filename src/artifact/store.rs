//! Where the bytes of artifacts go.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::upload::Uploader;
use super::{Destination, Patience, PublishError, Source};
use crate::config::{ArtifactStorage, ConfigFile};

/// Uploads of one run at the same time.
const UPLOADS: usize = 8;

/// Where the bytes of a run's artifacts go.
#[derive(Clone, Debug)]
pub enum Store {
    /// Where the operator of `run` says. The queue knows the artifacts' names only.
    Directory(Arc<Destination>),
    /// Where the queue says.
    Queue(Uploader),
}

impl Store {
    /// What the queue is told of where they lie.
    pub(super) fn storage(&self, config: &ConfigFile) -> ArtifactStorage {
        match self {
            Store::Directory(_) => ArtifactStorage::S3,
            Store::Queue(_) => config.artifacts.storage,
        }
    }

    /// How many artifacts are stored at the same time.
    pub(super) fn at_once(&self) -> usize {
        match self {
            // Names that cannot be paths together give way to those that came before: one after the other.
            Store::Directory(_) => 1,
            Store::Queue(_) => UPLOADS,
        }
    }

    /// Waits until a file of a task's may be stored beside those of the other runs of this worker. What is the worker's own,
    /// as logs are, is little and waits for none of them.
    pub(super) async fn turn(
        &self,
        source: &Source,
        patience: &Patience,
    ) -> Result<Option<SemaphorePermit<'_>>, PublishError> {
        match (self, source) {
            (Store::Queue(_), Source::Task(_)) => self.turn_of_tasks(patience).await,
            (Store::Queue(_), Source::Log(_) | Source::Own(_)) | (Store::Directory(_), _) => Ok(None),
        }
    }

    /// The same for what is as large as a task has made it.
    pub(super) async fn turn_of_tasks(
        &self,
        patience: &Patience,
    ) -> Result<Option<SemaphorePermit<'_>>, PublishError> {
        match self {
            Store::Queue(uploader) => Ok(Some(permit(uploader.turns(), patience).await?)),
            Store::Directory(_) => Ok(None),
        }
    }
}

/// Waits for a place among those who store.
pub(super) async fn permit<'a>(
    places: &'a Semaphore,
    patience: &Patience,
) -> Result<SemaphorePermit<'a>, PublishError> {
    tokio::select! {
        biased;
        () = patience.over() => Err(PublishError::Interrupted),
        // Nobody closes it.
        permit = places.acquire() => permit.map_err(|_closed| PublishError::Interrupted),
    }
}
