//! What a plan must know of the host, gathered once: the only reader of host state before execution.

use std::fs::File;
use std::io::{self, Read};

use crate::cgroup::Hierarchies;
use crate::limits::SMALL_FILE_BYTES;

/// The facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The control group hierarchies; `None` if the host has none.
    pub hierarchies: Option<Hierarchies>,
}

/// A fact could not be learnt.
#[derive(Debug, thiserror::Error)]
#[error("read {path}: is /proc mounted?")]
pub struct HostFactsError {
    path: &'static str,
    source: io::Error,
}

impl HostFacts {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
    ///
    /// # Errors
    ///
    /// `/proc` is not there.
    pub fn gather() -> Result<HostFacts, HostFactsError> {
        let (mounts, groups) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        Ok(HostFacts { hierarchies: Hierarchies::parse(&mounts, &groups) })
    }
}

/// Room for what is usually read: the kernel writes such files anew at each read.
const USUAL: usize = 16 << 10;

fn read(path: &'static str) -> Result<String, HostFactsError> {
    let mut text = Vec::with_capacity(USUAL);
    let read = File::open(path).and_then(|file| file.take(SMALL_FILE_BYTES).read_to_end(&mut text));
    read.map_err(|source| HostFactsError { path, source })?;
    // A mount point need not be UTF-8; one that is not is none of ours.
    Ok(String::from_utf8_lossy(&text).into_owned())
}
