//! Names of artifacts: checked once, safe as a relative path and in a log line's quotes.
//!
//! A name comes from the payload or from a file name inside the container, and becomes a name in the queue and, with
//! `--artifacts DIR`, a path below DIR. So it is relative, normal (no `.`, `..` or empty component) and bounded.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;
use crate::text::{escaped, is_unprintable};

/// The name of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactName(String);

/// Why a text is not the name of an artifact; reads after "must …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactNameError {
    /// It has no character.
    #[error("have at least one character")]
    Empty,
    /// It has more than [`limits::ARTIFACT_NAME_BYTES`].
    #[error("be at most {} bytes long", limits::ARTIFACT_NAME_BYTES)]
    TooLong,
    /// It has more components than [`limits::ARTIFACT_NAME_DEPTH`].
    #[error("have at most {} components", limits::ARTIFACT_NAME_DEPTH)]
    TooDeep,
    /// It begins with a slash.
    #[error("not begin with a slash")]
    Absolute,
    /// Two slashes follow one another, or one ends it.
    #[error("not have empty components")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("not have \".\" or \"..\" as a component")]
    Dots,
    /// A character cannot be shown: control characters, line ends, bidirectional controls.
    #[error("not have control characters, line ends or bidirectional controls")]
    Unprintable,
}

impl ArtifactName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn new(name: &str) -> Result<ArtifactName, ArtifactNameError> {
        if name.is_empty() {
            return Err(ArtifactNameError::Empty);
        }
        if name.len() > limits::ARTIFACT_NAME_BYTES {
            return Err(ArtifactNameError::TooLong);
        }
        if name.chars().any(is_unprintable) {
            return Err(ArtifactNameError::Unprintable);
        }
        if name.starts_with('/') {
            return Err(ArtifactNameError::Absolute);
        }
        if name.split('/').count() > limits::ARTIFACT_NAME_DEPTH {
            return Err(ArtifactNameError::TooDeep);
        }
        match name.split('/').find(|part| matches!(*part, "" | "." | "..")) {
            Some("") => Err(ArtifactNameError::EmptyComponent),
            Some(_) => Err(ArtifactNameError::Dots),
            None => Ok(ArtifactName(name.to_owned())),
        }
    }

    /// The name of what lies at `below`, a relative path, in a directory artifact of this name.
    ///
    /// # Errors
    ///
    /// As [`ArtifactName::new`] for the joined name.
    pub fn join(&self, below: &str) -> Result<ArtifactName, ArtifactNameError> {
        ArtifactName::new(&format!("{}/{below}", self.0))
    }

    /// Whether this one begins with all components of `other` and has more.
    #[must_use]
    pub fn is_below(&self, other: &ArtifactName) -> bool {
        self.0.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The name, components separated by `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name under which the finished log is stored while this one is live: `_backing` goes in before the last
    /// extension (`public/logs/live.log` → `public/logs/live_backing.log`).
    ///
    /// O10: a name without a directory gets no leading slash.
    ///
    /// # Errors
    ///
    /// [`ArtifactNameError::TooLong`] if there is no room for the eight characters more.
    pub fn backing(&self) -> Result<ArtifactName, ArtifactNameError> {
        let (directory, file) = match self.0.rsplit_once('/') {
            Some((directory, file)) => (format!("{directory}/"), file),
            None => (String::new(), self.0.as_str()),
        };
        // As node's path.extname(): a dot that begins the file name begins no extension.
        let (stem, extension) = match file.rfind('.').filter(|dot| *dot > 0) {
            Some(dot) => file.split_at(dot),
            None => (file, ""),
        };
        ArtifactName::new(&format!("{directory}{stem}_backing{extension}"))
    }
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(&self.0).fmt(out)
    }
}

impl Serialize for ArtifactName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ArtifactName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ArtifactName, D::Error> {
        let name = String::deserialize(deserializer)?;
        ArtifactName::new(&name)
            .map_err(|error| serde::de::Error::custom(format!("an artifact name must {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s57_a_name_that_could_leave_its_directory_or_its_line_is_refused() {
        use ArtifactNameError::*;
        let cases = [
            ("", Err(Empty)),
            ("/public/x", Err(Absolute)),
            ("public//x", Err(EmptyComponent)),
            ("public/x/", Err(EmptyComponent)),
            ("..", Err(Dots)),
            ("public/../../etc/passwd", Err(Dots)),
            ("public/./x", Err(Dots)),
            ("public/a\nb", Err(Unprintable)),
            ("public/\u{1b}[31m", Err(Unprintable)),
            ("public/\u{202e}gpj.exe", Err(Unprintable)),
            ("public/a\0", Err(Unprintable)),
            ("public/..x/...", Ok(())),
            ("public/naïve plan.txt", Ok(())),
            (" ", Ok(())),
        ];
        for (name, expected) in cases {
            assert_eq!(ArtifactName::new(name).map(|_| ()), expected, "{name:?}");
        }
    }

    #[test]
    fn a_name_is_bounded_in_bytes_and_depth() {
        let longest = "x".repeat(limits::ARTIFACT_NAME_BYTES);
        assert!(ArtifactName::new(&longest).is_ok());
        assert_eq!(ArtifactName::new(&format!("{longest}x")), Err(ArtifactNameError::TooLong));
        let deepest = vec!["d"; limits::ARTIFACT_NAME_DEPTH].join("/");
        assert!(ArtifactName::new(&deepest).is_ok());
        assert_eq!(ArtifactName::new(&format!("{deepest}/d")), Err(ArtifactNameError::TooDeep));
    }

    #[test]
    fn the_backing_log_is_named_after_the_live_log() {
        let cases = [
            ("public/logs/live.log", "public/logs/live_backing.log"),
            ("apple/banana.log.txt", "apple/banana.log_backing.txt"),
            ("live.log", "live_backing.log"), // O10: no leading slash.
            ("public.d/log", "public.d/log_backing"),
            ("public/.log", "public/.log_backing"),
        ];
        for (live, expected) in cases {
            assert_eq!(ArtifactName::new(live).unwrap().backing().unwrap().as_str(), expected, "{live}");
        }
    }

    proptest! {
        #[test]
        fn any_accepted_name_stays_below_its_directory(name in "[./a\\x00-\\x7f]{1,12}") {
            if let Ok(name) = ArtifactName::new(&name) {
                let path = std::path::Path::new(name.as_str());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }

        #[test]
        fn a_backing_name_differs_from_its_live_name(name in "[a-c./]{1,12}") {
            if let Ok(live) = ArtifactName::new(&name) {
                let backing = live.backing().unwrap();
                prop_assert_ne!(backing.as_str(), live.as_str());
                prop_assert_eq!(backing.as_str().replacen("_backing", "", 1), live.as_str());
            }
        }
    }
}
