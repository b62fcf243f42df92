//! Which image of several is for this host, by containerd's rules.

use std::fmt;

use oci_spec::image as oci;

use crate::digest::Digest;
use crate::image::ImageConfig;
use crate::json::shortened;
use crate::limits::Limits;

use super::{Descriptor, Index, ManifestError};

/// Manifests and indexes that are fetched to choose one image: honest indexes need one or two.
const MOST_DOCUMENTS: usize = 16;

/// An operating system and architecture, as Go names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// The highest variant of the architecture that the processor has: 3 of amd64 is `v3`.
    pub level: u8,
}

impl Platform {
    /// The platform of this executable and processor.
    pub fn of_host() -> Platform {
        let (architecture, level) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", amd64_level()),
            "aarch64" => ("arm64", 8),
            "arm" => ("arm", 7),
            "x86" => ("386", 0),
            "powerpc64" => ("ppc64le", 0),
            other => (other, 0),
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), level }
    }

    /// How well an image for such a platform fits; less is better. `None`: not at all.
    fn distance(&self, os: &str, architecture: &str, variant: Option<&str>) -> Option<u8> {
        if os != self.os || architecture != self.architecture {
            return None;
        }
        // The level that an image has which does not say so.
        let unsaid = match architecture {
            "amd64" => 1,
            "arm64" => 8,
            "arm" => 7,
            _ => return Some(u8::from(variant.is_some())),
        };
        let level = match variant {
            None | Some("") => unsaid,
            Some(variant) => variant.strip_prefix('v')?.parse().ok()?,
        };
        self.level.checked_sub(level)
    }

    /// Whether an image that is asked itself is for this platform.
    pub(crate) fn admits(&self, config: &ImageConfig) -> bool {
        self.distance(&config.os, &config.architecture, None).is_some()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)
    }
}

/// By the x86-64 psABI: what each level adds, as far as it can be asked for. Each contains the one before.
#[cfg(target_arch = "x86_64")]
fn amd64_level() -> u8 {
    use std::arch::is_x86_feature_detected as has;
    let second = has!("sse4.2") && has!("ssse3") && has!("popcnt") && has!("cmpxchg16b");
    let third = has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c") && has!("fma") && has!("lzcnt");
    let fourth =
        has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    match (second, third, fourth) {
        (true, true, true) => 4,
        (true, true, false) => 3,
        (true, false, _) => 2,
        (false, ..) => 1,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_level() -> u8 {
    1
}

/// An entry of an index that may be the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub blob: Descriptor,
    /// Whether the index says that it fits; else its configuration has to.
    pub says_platform: bool,
    depth: u32,
}

/// The way through an index, and those that it names, to the image that fits best.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    platform: &'a Platform,
    limits: &'a Limits,
    /// The first index, for messages.
    digest: Digest,
    index: Index,
    /// The best last.
    left: Vec<Candidate>,
    tried: usize,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(
        digest: Digest,
        index: Index,
        platform: &'a Platform,
        limits: &'a Limits,
    ) -> Choice<'a> {
        Choice { platform, limits, digest, left: Vec::new(), index, tried: 0 }.filled()
    }

    fn filled(mut self) -> Choice<'a> {
        self.left = candidates(&self.index, self.platform, 1);
        self
    }

    /// What to try next.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Platform`] lists what there is instead.
    pub(crate) fn next(&mut self) -> Result<Candidate, ManifestError> {
        self.tried += 1;
        match self.left.pop() {
            Some(candidate) if self.tried <= MOST_DOCUMENTS => Ok(candidate),
            _ => Err(ManifestError::Platform {
                digest: self.digest.clone(),
                wanted: self.platform.clone(),
                found: platforms(&self.index),
            }),
        }
    }

    /// Goes on inside an index that a candidate turned out to be.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Nesting`].
    pub(crate) fn enter(
        &mut self,
        candidate: &Candidate,
        digest: Digest,
        index: Index,
    ) -> Result<(), ManifestError> {
        let limit = self.limits.index_nesting;
        if candidate.depth > limit {
            return Err(ManifestError::Nesting { digest, limit });
        }
        self.left.extend(candidates(&index, self.platform, candidate.depth + 1));
        Ok(())
    }
}

/// The entries that may fit, the best last: those that say so by how well, then, in the order of the
/// document, those that say nothing. One whose digest is none is no entry.
fn candidates(index: &Index, platform: &Platform, depth: u32) -> Vec<Candidate> {
    let mut ranked: Vec<(u8, Candidate)> = Vec::new();
    for entry in &index.entries {
        let rank = match entry.platform() {
            Some(has) => {
                let (os, architecture) = (has.os().to_string(), has.architecture().to_string());
                platform.distance(&os, &architecture, has.variant().as_deref())
            }
            None => Some(u8::MAX),
        };
        if let (Some(rank), Ok(blob)) = (rank, entry.descriptor(&Digest::of(b""))) {
            ranked.push((rank, Candidate { blob, says_platform: entry.platform().is_some(), depth }));
        }
    }
    // Stable: of equal ones the document's first.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().rev().map(|(_, candidate)| candidate).collect()
}

fn platforms(index: &Index) -> String {
    let text = |has: &oci::Platform| {
        let variant = has.variant().as_deref().map(|variant| format!("/{variant}")).unwrap_or_default();
        shortened(&format!("{}/{}{variant}", has.os(), has.architecture()))
    };
    let mut platforms: Vec<String> =
        index.entries.iter().filter_map(|entry| entry.platform().map(text)).take(20).collect();
    platforms.dedup();
    if platforms.is_empty() { "no platforms".to_owned() } else { platforms.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_chosen_by_what_the_processor_has() {
        let host = |architecture: &str, level| Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            level,
        };
        let cases = [
            (host("amd64", 3), "amd64", None, Some(2)),
            (host("amd64", 3), "amd64", Some(""), Some(2)),
            (host("amd64", 3), "amd64", Some("v2"), Some(1)),
            (host("amd64", 3), "amd64", Some("v3"), Some(0)),
            (host("amd64", 3), "amd64", Some("v4"), None),
            (host("amd64", 3), "amd64", Some("v9"), None),
            (host("amd64", 3), "amd64", Some("odd"), None),
            (host("amd64", 1), "amd64", None, Some(0)),
            (host("amd64", 3), "arm64", Some("v8"), None),
            (host("arm64", 8), "arm64", None, Some(0)),
            (host("arm64", 8), "arm64", Some("v8"), Some(0)),
            (host("arm64", 8), "arm64", Some("v9"), None),
            (host("arm", 7), "arm", Some("v6"), Some(1)),
            (host("s390x", 0), "s390x", None, Some(0)),
        ];
        for (host, architecture, variant, expected) in cases {
            assert_eq!(host.distance("linux", architecture, variant), expected, "{host:?} {variant:?}");
        }
        assert_eq!(host("amd64", 3).distance("windows", "amd64", None), None);
    }
}
