//! Where a worker keeps its things.

use std::path::{Path, PathBuf};

/// Images, caches and what running tasks write, unless told otherwise.
pub const DEFAULT_DATA: &str = "/var/lib/docker-worker";

/// Journals and bundles of running containers, unless told otherwise.
pub const DEFAULT_RUN: &str = "/run/docker-worker";

/// The directory of claims, among those of running containers.
pub const CLAIMS: &str = "claims";

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

    /// The queue that a worker has of its own (`standalone`), with the bytes of its artifacts.
    pub fn queue(&self) -> PathBuf {
        self.data.join("queue")
    }

    /// What running containers write.
    pub fn runs(&self) -> PathBuf {
        self.data.join("runs")
    }

    /// What tells of running tasks' claims.
    pub fn claims(&self) -> PathBuf {
        self.run.join(CLAIMS)
    }

    /// The one of these that a directory lies in, or that lies in it: names which a task chooses may not lead there.
    pub fn overlapping(&self, directory: &Path) -> Option<PathBuf> {
        let directory = without_links(directory);
        [self.data.clone(), self.run.clone(), self.caches()].into_iter().find(|own| {
            let own = without_links(own);
            own.starts_with(&directory) || directory.starts_with(&own)
        })
    }
}

/// The path with the links of the part that is there already resolved.
fn without_links(path: &Path) -> PathBuf {
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut ancestors = path.ancestors();
    let found = ancestors.find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    match found {
        Some((ancestor, real)) => match path.strip_prefix(ancestor) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_within_or_around_the_workers_own_overlaps_also_by_a_link() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        std::fs::create_dir_all(at("a/data")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        let directories =
            Directories { data: at("a/data"), run: at("run"), volume_caches: Some(at("volumes")) };
        for (path, own) in [
            ("out", None),
            ("a/data2", None),
            ("volumes", Some("volumes/docker-worker-caches")),
            ("volumes/docker-worker-caches/x", Some("volumes/docker-worker-caches")),
            ("a/data/images", Some("a/data")),
            ("link/data/new", Some("a/data")),
            ("a", Some("a/data")),
            ("run", Some("run")),
            ("", Some("a/data")),
        ] {
            assert_eq!(directories.overlapping(&at(path)), own.map(at), "{path}");
        }
    }
}
