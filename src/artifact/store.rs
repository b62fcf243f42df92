//! Where the bytes of artifacts go.

use std::sync::Arc;

use super::Destination;

/// Where the bytes of a run's artifacts go.
#[derive(Clone, Debug)]
pub enum Store {
    /// Where the operator of `run` says. The queue knows the artifacts' names only.
    Directory(Arc<Destination>),
}

impl Store {
    /// How many artifacts are stored at the same time.
    pub(super) fn at_once(&self) -> usize {
        match self {
            // Names that cannot be paths together give way to those that came before: one after the other.
            Store::Directory(_) => 1,
        }
    }
}
