//! Image references as Docker spells and completes them.
//!
//! `busybox` means `docker.io/library/busybox:latest`. The first part is a registry only if it
//! holds a dot or a colon, is `localhost`, or has an upper-case letter; else it belongs to the
//! repository on Docker Hub. Grammar and limits are those of the distribution project's
//! reference package: a name of at most 255 bytes, a tag of at most 128.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// Docker Hub's name inside references; its API lives at another host (see `registry`).
pub const DOCKER_HUB: &str = "docker.io";

/// Other names of Docker Hub: of its first index, its API, its pages. All mean the same repositories.
const DOCKER_HUB_ALIASES: &[&str] = &["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
const DEFAULT_TAG: &str = "latest";
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;
/// Name, tag and the longest digest with their separators: `NAME:TAG@sha512:HEX`.
const MAX_TEXT_BYTES: usize = MAX_NAME_BYTES + 1 + MAX_TAG_BYTES + 8 + 128;

/// A complete image reference: registry, repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference. Texts are printed escaped: they come from task files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("parse an image name: it is empty; write for example \"busybox\"")]
    Empty,
    /// The host part is not a host.
    #[error("parse image name {text:?}: {host:?} is not HOST or HOST:PORT")]
    Registry {
        /// The whole text.
        text: String,
        /// What stands where the registry does.
        host: String,
    },
    /// Docker has names in lower case only.
    #[error("parse image name {text:?}: repository names are lower case; write {lower:?}")]
    UpperCase {
        /// The whole text.
        text: String,
        /// The same with the repository in lower case.
        lower: String,
    },
    /// A path component of the repository is malformed.
    #[error(
        "parse image name {text:?}: {component:?} is no part of a repository name; use a-z, 0-9 and \
         between them '.', '_', '__' or '-'"
    )]
    Component {
        /// The whole text.
        text: String,
        /// The part at fault.
        component: String,
    },
    /// The text after the colon is not a tag.
    #[error("parse image name {text:?}: {tag:?} is not a tag (letters, digits, '_', '.', '-'; at most 128)")]
    Tag {
        /// The whole text.
        text: String,
        /// What stands where the tag does.
        tag: String,
    },
    /// The text after the @ is not a digest.
    #[error("parse image name {text:?}")]
    Digest {
        /// The whole text.
        text: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
    /// Longer than Docker allows.
    #[error(
        "parse an image name of {bytes} bytes: registry and repository may have {MAX_NAME_BYTES} together"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Sixty-four hex digits: Docker takes them for an image id, not a name.
    #[error("parse image name {text:?}: 64 hex digits are an image id, not a name")]
    ImageId {
        /// The whole text.
        text: String,
    },
}

impl Reference {
    /// Parses and completes a name: registry `docker.io`, `library/`, tag `latest` (the latter
    /// only without a digest).
    ///
    /// # Errors
    ///
    /// [`ReferenceError`] says which part is malformed.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        // Also so that no message below repeats more than that.
        if text.len() > MAX_TEXT_BYTES {
            return Err(ReferenceError::TooLong { bytes: text.len() });
        }
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::ImageId { text: text.to_owned() });
        }
        let (rest, digest) = split_digest(text)?;
        let (name, tag) = split_tag(text, rest)?;
        let (registry, path) = split_registry(name);
        if !is_registry(registry) {
            return Err(ReferenceError::Registry { text: text.to_owned(), host: registry.to_owned() });
        }
        let registry = canonical_registry(registry);
        check_repository(text, path)?;
        let repository = if registry == DOCKER_HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let bytes = registry.len() + 1 + repository.len();
        if bytes > MAX_NAME_BYTES {
            return Err(ReferenceError::TooLong { bytes });
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }

    /// The registry as names spell it: `docker.io`, or HOST or HOST:PORT.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path in the registry, e.g. `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` only if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest after `@`. It decides what is pulled, whatever the tag says.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image in another registry, below a prefix of its names if that is not empty.
    pub(crate) fn moved_to(&self, registry: &str, prefix: &str) -> Reference {
        let slash = if prefix.is_empty() { "" } else { "/" };
        let repository = format!("{prefix}{slash}{}", self.repository);
        Reference { registry: registry.to_owned(), repository, ..self.clone() }
    }

    /// Whether it is one of Docker Hub's own images, which are everybody's.
    pub fn is_official(&self) -> bool {
        let name = self.repository.strip_prefix("library/");
        self.registry == DOCKER_HUB && name.is_some_and(|name| !name.contains('/'))
    }

    /// The short form that people write: `busybox:latest`, `ghcr.io/a/b:1`.
    pub fn familiar(&self) -> String {
        let name = match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            (DOCKER_HUB, Some(official)) if self.is_official() => official.to_owned(),
            (DOCKER_HUB, _) => self.repository.clone(),
            (registry, _) => format!("{registry}/{}", self.repository),
        };
        format!("{name}{}", self.suffix())
    }

    /// What stands after the repository in a request for the manifest: digest, else tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{tag}{digest}")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        Reference::parse(text)
    }
}

/// The one name under which credentials and rules of a registry are looked up.
pub(crate) fn canonical_registry(name: &str) -> &str {
    if DOCKER_HUB_ALIASES.contains(&name) { DOCKER_HUB } else { name }
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    let Some((rest, digest)) = text.split_once('@') else { return Ok((text, None)) };
    match Digest::parse(digest) {
        Ok(digest) => Ok((rest, Some(digest))),
        Err(source) => Err(ReferenceError::Digest { text: text.to_owned(), source }),
    }
}

/// A colon after the last slash starts a tag; before it, a port.
fn split_tag<'a>(text: &str, rest: &'a str) -> Result<(&'a str, Option<&'a str>), ReferenceError> {
    let last_part = rest.rfind('/').map_or(0, |slash| slash + 1);
    let Some(colon) = rest.get(last_part..).and_then(|part| part.find(':')) else { return Ok((rest, None)) };
    let (name, tag) = rest.split_at(last_part + colon);
    let tag = tag.trim_start_matches(':');
    if is_tag(tag) && rest.len() == name.len() + 1 + tag.len() {
        return Ok((name, Some(tag)));
    }
    Err(ReferenceError::Tag { text: text.to_owned(), tag: tag.to_owned() })
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    first && rest && tag.len() <= MAX_TAG_BYTES
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, path)) if looks_like_host(first) => (first, path),
        _ => (DOCKER_HUB, name),
    }
}

fn looks_like_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// HOST, HOST:PORT or [IPv6]:PORT. Labels are letters, digits and inner hyphens.
fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
            return is_address && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
        }
        None => registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port))),
    };
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn check_repository(text: &str, path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let lower = text.replace(path, &path.to_ascii_lowercase());
        // Advice that is refused again is none.
        if Reference::parse(&lower).is_ok() {
            return Err(ReferenceError::UpperCase { text: text.to_owned(), lower });
        }
    }
    match path.split('/').find(|component| !is_component(component)) {
        Some(component) => {
            Err(ReferenceError::Component { text: text.to_owned(), component: component.to_owned() })
        }
        None => Ok(()),
    }
}

/// Runs of a-z and 0-9, joined by one '.', one or two '_', or any number of '-'.
fn is_component(component: &str) -> bool {
    let is_word = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    if !component.starts_with(is_word) || !component.ends_with(is_word) {
        return false;
    }
    let mut separators = component.split(is_word).filter(|separator| !separator.is_empty());
    separators
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{HEX}");
        let cases = [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/a/b:T_.-", "docker.io/a/b:T_.-", "a/b:T_.-"),
            ("registry-1.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("registry.hub.docker.com/a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("library/x/y", "docker.io/library/x/y:latest", "library/x/y:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x/y:1", "localhost:5000/x/y:1", "localhost:5000/x/y:1"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest", "127.0.0.1:5000/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("ghcr.io/a/b__c/d---e", "ghcr.io/a/b__c/d---e:latest", "ghcr.io/a/b__c/d---e:latest"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
        ];
        for (text, canonical, familiar) in cases {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
        let both = Reference::parse(&format!("busybox:1@{digest}")).unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/busybox:1@{digest}"));
        assert_eq!(both.version(), digest);
        let only = Reference::parse(&format!("busybox@{digest}")).unwrap();
        assert_eq!((only.tag(), only.familiar()), (None, format!("busybox@{digest}")));
    }

    #[test]
    fn s27_what_docker_refuses_is_refused() {
        let long_tag = format!("x:{}", "t".repeat(129));
        let long_name = format!("{}/{}", "a".repeat(120), "b".repeat(120));
        let refused = [
            "",
            "Busybox",
            "a/B",
            "../x",
            "-o x",
            "x -o",
            "host/a b",
            "/etc/passwd",
            "a//b",
            "a/",
            "a:",
            "a:b:c",
            "a::b",
            "a:-b",
            ".a",
            "a.",
            "a..b",
            "a___b",
            "a._b",
            "a@",
            "a@sha256:12",
            "a@md5:d41d8cd98f00b204e9800998ecf8427e",
            "host.:1/x",
            "-host.x/y",
            "host:70000/x",
            "host:/x",
            "user@host/x",
            "https://host/x",
            "docker-archive:/etc/passwd",
            "a\nb",
            "\u{1b}[31mx",
            "ä",
            HEX,
            &long_tag,
            &format!("{long_name}/{}", "c".repeat(20)),
        ];
        for text in refused {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(Reference::parse(&format!("x:{}", "t".repeat(128))).is_ok());
        assert!(Reference::parse(&format!("[::1]:5000/{}", "a".repeat(245))).is_err());
        assert!(Reference::parse(&format!("[::1]:5000/{}", "a".repeat(244))).is_ok());
    }

    #[test]
    fn an_upper_case_name_gets_its_lower_case_form_as_advice() {
        let error = Reference::parse("ghcr.io/Mozilla/Foo:1").unwrap_err();
        assert!(
            matches!(&error, ReferenceError::UpperCase { lower, .. } if lower == "ghcr.io/mozilla/foo:1"),
            "{error}"
        );
    }

    #[test]
    fn no_advice_is_a_name_that_is_refused_again() {
        for (text, part) in
            [("Bad Name", "Bad Name"), ("ghcr.io/Foo/b c:1", "Foo"), ("a b/Foo", "a b"), ("Foo__", "Foo__")]
        {
            let error = Reference::parse(text).unwrap_err();
            assert!(
                matches!(&error, ReferenceError::Component { component, .. } if component == part),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_parsed_name_parses_again_to_itself(
            host in "(([a-z0-9]{1,8}\\.){1,2}[a-z]{2,3}(:[1-9][0-9]{0,3})?/)?",
            path in "[a-z0-9]{1,9}([_-][a-z0-9]{1,9}){0,2}(/[a-z0-9]{1,9}([._-][a-z0-9]{1,9})?){0,2}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
        ) {
            let reference = Reference::parse(&format!("{host}{path}{tag}")).unwrap();
            prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
            prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
        }

        #[test]
        fn any_text_is_parsed_or_refused_and_never_leaves_the_grammar(text in "\\PC{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                let printed = reference.to_string();
                prop_assert!(printed.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!printed.contains(".."));
            }
        }
    }
}
