//! Where an image comes from: a registry, or an archive or directory as skopeo names them.

use std::fmt;
use std::path::PathBuf;

use crate::reference::{Reference, ReferenceError};

/// The source of an image. Everything but a registry belongs to the operator: a task claimed
/// from a queue may only name a registry (see [`Source::is_local`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
    Registry(Reference),
    /// `docker-archive:FILE[:REFERENCE]`: what `docker save` writes, also gzip'd.
    DockerArchive {
        /// The tar file.
        path: PathBuf,
        /// Which image of several.
        reference: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: an OCI layout in a tar file.
    OciArchive {
        /// The tar file.
        path: PathBuf,
        /// Which image of several.
        tag: Option<String>,
    },
    /// `oci:DIR[:TAG]`: an OCI layout.
    Oci {
        /// The directory with `oci-layout` and `index.json`.
        dir: PathBuf,
        /// Which image of several.
        tag: Option<String>,
    },
    /// `dir:DIR`: skopeo's flat directory of one image.
    Dir {
        /// The directory with `manifest.json`.
        path: PathBuf,
    },
}

/// Why a text names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It is no transport, and no image name either.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Nothing after the transport.
    #[error("parse image {text:?}: a path must follow \"{transport}:\"")]
    NoPath {
        /// The whole text.
        text: String,
        /// The transport before the colon.
        transport: &'static str,
    },
    /// skopeo has it and we do not.
    #[error(
        "parse image {text:?}: the transport {transport:?} is not supported; use a name, docker-archive:, \
         oci-archive:, oci: or dir:"
    )]
    Transport {
        /// The whole text.
        text: String,
        /// The transport before the colon.
        transport: &'static str,
    },
}

/// skopeo's other transports. Refused by name: `docker://x` would else be a puzzling bad tag.
const OTHER_TRANSPORTS: &[&str] =
    &["docker", "docker-daemon", "containers-storage", "ostree", "sif", "tarball", "atomic"];

impl Source {
    /// Parses a transport or, without one, an image name.
    ///
    /// As in skopeo a path ends at the first colon, but for `dir:`, which takes all of it.
    ///
    /// # Errors
    ///
    /// [`SourceError`]: no path, an unknown transport, or not an image name.
    pub fn parse(text: &str) -> Result<Source, SourceError> {
        let (transport, rest) = text.split_once(':').unwrap_or(("", text));
        let path_and_name = |transport| {
            let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
            if path.is_empty() {
                return Err(SourceError::NoPath { text: text.to_owned(), transport });
            }
            let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
            Ok((PathBuf::from(path), name))
        };
        match transport {
            "docker-archive" => path_and_name("docker-archive")
                .map(|(path, reference)| Source::DockerArchive { path, reference }),
            "oci-archive" => path_and_name("oci-archive").map(|(path, tag)| Source::OciArchive { path, tag }),
            "oci" => path_and_name("oci").map(|(dir, tag)| Source::Oci { dir, tag }),
            "dir" if rest.is_empty() => Err(SourceError::NoPath { text: text.to_owned(), transport: "dir" }),
            "dir" => Ok(Source::Dir { path: PathBuf::from(rest) }),
            _ => named(text, transport, rest),
        }
    }

    /// Whether it names a file or directory of this host.
    pub fn is_local(&self) -> bool {
        !matches!(self, Source::Registry(_))
    }
}

fn named(text: &str, transport: &str, rest: &str) -> Result<Source, SourceError> {
    let other = OTHER_TRANSPORTS.iter().find(|other| **other == transport);
    // `docker:24` is an image and its tag; `docker://x` and `docker-daemon:x` are not.
    match other {
        Some(transport) if *transport != "docker" || rest.starts_with("//") => {
            Err(SourceError::Transport { text: text.to_owned(), transport })
        }
        _ => Ok(Source::Registry(Reference::parse(text)?)),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, name) = match self {
            Source::Registry(reference) => return reference.fmt(out),
            Source::DockerArchive { path, reference } => ("docker-archive", path, reference.as_ref()),
            Source::OciArchive { path, tag } => ("oci-archive", path, tag.as_ref()),
            Source::Oci { dir, tag } => ("oci", dir, tag.as_ref()),
            Source::Dir { path } => ("dir", path, None),
        };
        write!(out, "{transport}:{}", path.display())?;
        name.map_or(Ok(()), |name| write!(out, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_spelled_as_by_skopeo() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("docker:24", "docker.io/library/docker:24"),
            ("oci/x", "docker.io/oci/x:latest"),
            ("docker-archive:/x.tar", "docker-archive:/x.tar"),
            ("docker-archive:x.tar:busybox:1", "docker-archive:x.tar:busybox:1"),
            ("oci-archive:/x.tar:v1", "oci-archive:/x.tar:v1"),
            ("oci:/d", "oci:/d"),
            ("oci:/d:", "oci:/d"),
            ("oci:/d:latest", "oci:/d:latest"),
            ("dir:/a:b", "dir:/a:b"),
        ];
        for (text, printed) in cases {
            assert_eq!(Source::parse(text).map(|source| source.to_string()).unwrap(), printed, "{text}");
        }
    }

    #[test]
    fn other_transports_and_empty_paths_are_refused_by_name() {
        let no_path = ["docker-archive:", "oci-archive::x", "oci:", "dir:"];
        for text in no_path {
            assert!(matches!(Source::parse(text), Err(SourceError::NoPath { .. })), "{text}");
        }
        for text in ["docker://busybox", "containers-storage:x", "docker-daemon:x:1"] {
            assert!(matches!(Source::parse(text), Err(SourceError::Transport { .. })), "{text}");
        }
    }

    #[test]
    fn only_registries_are_not_local() {
        assert!(!Source::parse("x/y").unwrap().is_local());
        for text in ["docker-archive:/x", "oci-archive:/x", "oci:/x", "dir:/x"] {
            assert!(Source::parse(text).unwrap().is_local(), "{text}");
        }
    }
}
