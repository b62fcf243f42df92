//! Where the bytes of artifacts go.

use std::sync::Arc;

use super::Destination;
use super::upload::Uploader;
use crate::config::{ArtifactStorage, ConfigFile};

/// Uploads at the same time.
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
}
