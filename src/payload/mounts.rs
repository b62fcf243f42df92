//! `payload.cache`: names of caches and the places where they appear in the container.

use std::collections::BTreeMap;
use std::fmt;

use crate::document::finding::Findings;
use crate::document::reader::Place;
use crate::limits;
use crate::text::{escaped, excerpt, is_unprintable};

/// The name of a cache: metadata and part of a scope, never part of a path on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheName(String);

/// Why a text is not the name of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CacheNameError {
    /// It has no character.
    #[error("the name of a cache must have at least one character")]
    Empty,
    /// It has more than [`limits::CACHE_NAME_BYTES`].
    #[error("the name of a cache must be at most {} bytes long", limits::CACHE_NAME_BYTES)]
    TooLong,
    /// It has `::`, which would make its scope ambiguous. The original's sentence.
    #[error("Invalid key name was provided.  Ensure that the cache name does not contain \"::\".")]
    DoubleColon,
    /// A segment is `..`.
    #[error("the name of a cache must not have \"..\" as a segment")]
    Dots,
    /// It has characters that a log line cannot show.
    #[error("the name of a cache must not have control characters, line ends or bidirectional controls")]
    Unprintable,
}

impl CacheName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn new(name: &str) -> Result<CacheName, CacheNameError> {
        if name.is_empty() {
            return Err(CacheNameError::Empty);
        }
        if name.len() > limits::CACHE_NAME_BYTES {
            return Err(CacheNameError::TooLong);
        }
        if name.contains("::") {
            return Err(CacheNameError::DoubleColon);
        }
        if name.split('/').any(|segment| segment == "..") {
            return Err(CacheNameError::Dots);
        }
        if name.chars().any(is_unprintable) {
            return Err(CacheNameError::Unprintable);
        }
        Ok(CacheName(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CacheName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(&self.0).fmt(out)
    }
}

/// Where something is mounted in a container: absolute, normal, and neither `/` nor in one of the kernel's trees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountPoint(String);

/// Why a text is not a place to mount something; reads after "must …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MountPointError {
    /// It does not begin with a slash.
    #[error("be an absolute path")]
    Relative,
    /// It is the root itself.
    #[error("not be the root of the container")]
    Root,
    /// A component is `.` or `..`.
    #[error("not have \".\" or \"..\" as a component")]
    Dots,
    /// It lies in `/proc`, `/sys` or `/dev`.
    #[error("not lie in /proc, /sys or /dev")]
    Kernel,
    /// It is longer than the kernel allows, as a whole or in one component.
    #[error("be at most {} bytes long, each component {}", limits::PATH_BYTES, limits::PATH_COMPONENT_BYTES)]
    TooLong,
    /// It has characters that a log line cannot show.
    #[error("not have control characters, line ends or bidirectional controls")]
    Unprintable,
}

impl MountPoint {
    /// Checks a path; repeated and trailing slashes are dropped, as docker does.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn new(path: &str) -> Result<MountPoint, MountPointError> {
        if !path.starts_with('/') {
            return Err(MountPointError::Relative);
        }
        if path.chars().any(is_unprintable) {
            return Err(MountPointError::Unprintable);
        }
        let components: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if components.iter().any(|part| part.len() > limits::PATH_COMPONENT_BYTES)
            || path.len() > limits::PATH_BYTES
        {
            return Err(MountPointError::TooLong);
        }
        if components.iter().any(|part| matches!(*part, "." | "..")) {
            return Err(MountPointError::Dots);
        }
        match components.first() {
            None => Err(MountPointError::Root),
            Some(&("proc" | "sys" | "dev")) => Err(MountPointError::Kernel),
            Some(_) => Ok(MountPoint(format!("/{}", components.join("/")))),
        }
    }

    /// The path: absolute, without `.`, `..`, repeated or trailing slashes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MountPoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(&self.0).fmt(out)
    }
}

/// The mount points that a payload has used so far, and for what.
pub(super) type Taken = BTreeMap<MountPoint, String>;

/// Reads `payload.cache`.
pub(super) fn read(
    place: Option<Place<'_>>,
    taken: &mut Taken,
    findings: &mut Findings,
) -> BTreeMap<CacheName, MountPoint> {
    let mut caches = BTreeMap::new();
    let Some(object) = place.as_ref().and_then(|place| place.object(findings)) else {
        return caches;
    };
    if let Some(place) = place.filter(|_| object.members().count() > limits::CACHES) {
        place.refuse(format!("must have at most {} caches", limits::CACHES), findings);
        return caches;
    }
    for (name, place) in object.members() {
        let name = CacheName::new(name).map_err(|error| place.refuse(error.to_string(), findings));
        let path = place.string(findings).and_then(|path| read_mount_point(path, &place, findings));
        let (Ok(name), Some(path)) = (name, path) else { continue };
        take(&path, format!("the cache \"{name}\""), &place, taken, findings);
        caches.insert(name, path);
    }
    caches
}

/// Checks a path at which something is to be mounted.
pub(super) fn read_mount_point(path: &str, place: &Place<'_>, findings: &mut Findings) -> Option<MountPoint> {
    MountPoint::new(path)
        .map_err(|error| {
            place.refuse(format!("the mount point \"{}\" must {error}", excerpt(path)), findings)
        })
        .ok()
}

/// Notes a mount point's use; two uses of one are an error (O30: the original let the order decide).
pub(super) fn take(
    path: &MountPoint,
    user: String,
    place: &Place<'_>,
    taken: &mut Taken,
    findings: &mut Findings,
) {
    if let Some(other) = taken.get(path) {
        place.refuse(format!("{path} is the mount point of {other} already"), findings);
        findings.hint("give each a mount point of its own");
        return;
    }
    taken.insert(path.clone(), user);
}
