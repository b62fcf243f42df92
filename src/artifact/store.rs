//! Where the bytes of artifacts go.

use std::sync::Arc;

use super::Destination;
use super::upload::Uploader;

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
    /// How many artifacts are stored at the same time.
    pub(super) fn at_once(&self) -> usize {
        match self {
            // Names that cannot be paths together give way to those that came before: one after the other.
            Store::Directory(_) => 1,
            Store::Queue(_) => UPLOADS,
        }
    }
}
