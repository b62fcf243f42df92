//! Where a worker keeps its things.

use std::path::PathBuf;

/// Images, caches and what running tasks write, unless told otherwise.
pub const DEFAULT_DATA: &str = "/var/lib/docker-worker";

/// Journals and bundles of running containers, unless told otherwise.
pub const DEFAULT_RUN: &str = "/run/docker-worker";

/// Where the worker keeps its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// Images, caches, what running tasks write. On a real disk.
    pub data: PathBuf,
    /// Journals and bundles of running containers.
    pub run: PathBuf,
    /// Caches, if they lie elsewhere (`cache.volumeCachePath`).
    pub volume_caches: Option<PathBuf>,
}

impl Directories {
    /// The image store.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// The caches.
    pub fn caches(&self) -> PathBuf {
        match &self.volume_caches {
            // The operator may have other things there.
            Some(place) => place.join("docker-worker-caches"),
            None => self.data.join("caches"),
        }
    }

    /// What running containers write.
    pub fn runs(&self) -> PathBuf {
        self.data.join("runs")
    }
}
