//! Who we are to a registry: each name and password is for one host and port, and there for all repositories or for those
//! below a prefix.
//!
//! What the caller holds comes before Docker's file, and in each of them the longest prefix before shorter ones. The file is
//! read anew whenever it is needed: those who log in every few hours write there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::limits::Limits;
use crate::reference::canonical_registry;

use super::credential_helper::{self, HelperError};
use super::docker_config::{self, ConfigError};
use super::url::Origin;

/// What a registry takes for proof of who asks. Secrets are never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// For Basic authentication, and to buy tokens with.
    Password {
        /// The user's name.
        username: String,
        /// The password or access token.
        password: String,
    },
    /// Buys tokens in the place of a password, of token servers only: OAuth 2 calls it a refresh token.
    IdentityToken(String),
    /// Is shown to the registry as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Password { username, .. } => {
                out.debug_struct("Password").field("username", username).finish_non_exhaustive()
            }
            Credentials::IdentityToken(_) => out.write_str("IdentityToken(…)"),
            Credentials::RegistryToken(_) => out.write_str("RegistryToken(…)"),
        }
    }
}

/// What credentials are for: `HOST`, `HOST:PORT`, or either with `/PREFIX`, as names of images spell it. `HOST` is the port
/// of its scheme only. Docker Hub is one host under all its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    host: String,
    /// Whole components of a repository's name; none is all repositories.
    prefix: String,
}

impl Place {
    /// Reads `HOST[:PORT][/PREFIX]`; a slash at the end means nothing.
    pub fn new(text: &str) -> Place {
        let (host, prefix) = text.split_once('/').unwrap_or((text, ""));
        let host = canonical_registry(&host.to_ascii_lowercase()).to_owned();
        Place { host, prefix: prefix.trim_matches('/').to_owned() }
    }

    /// The host, with its port if that is named.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// `PREFIX`, or nothing.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a repository is one of those.
    fn covers(&self, repository: &str) -> bool {
        let rest = repository.strip_prefix(self.prefix.as_str());
        self.prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(out, "{}{slash}{}", self.host, self.prefix)
    }
}

/// All credentials that there are.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// The caller's own.
    pub held: BTreeMap<Place, Credentials>,
    /// Docker's `config.json`, if its credentials count as well.
    pub docker_config: Option<DockerConfig>,
}

/// Docker's file, and what the programs that it names are started with.
#[derive(Clone)]
pub struct DockerConfig {
    /// The file. One that is not there has nothing.
    pub path: PathBuf,
    /// The environment of credential helpers. They are looked for in its `PATH`.
    pub environment: Vec<(OsString, OsString)>,
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An environment may hold secrets.
        out.debug_struct("DockerConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why it is not known who we are to a registry.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Docker's file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The program that has them does not give them out.
    #[error(transparent)]
    Helper(#[from] HelperError),
}

/// Credentials, and what they are for.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub place: Place,
    pub credentials: Credentials,
}

impl Identity {
    /// Whether a path of the registry is that of something which these credentials are for.
    pub(super) fn is_for(&self, path: &str) -> bool {
        let below = path.strip_prefix("/v2/").and_then(|path| path.strip_prefix(self.place.prefix()));
        self.place.prefix().is_empty() || below.is_some_and(|rest| rest.starts_with('/'))
    }
}

impl Keyring {
    /// Who we are to a registry where it is about this repository.
    pub(super) async fn identity(
        &self,
        origin: &Origin,
        repository: &str,
        limits: &Limits,
    ) -> Result<Option<Identity>, CredentialsError> {
        if let Some((place, credentials)) = best(&self.held, origin, repository) {
            return Ok(Some(Identity { place: place.clone(), credentials: credentials.clone() }));
        }
        let Some(DockerConfig { path, environment }) = &self.docker_config else { return Ok(None) };
        let Some(file) = docker_config::read(path, limits).await? else { return Ok(None) };
        // A host's own helper before all else, as Docker has it.
        let helper = best(&file.helpers, origin, repository).map(|(place, name)| (place.clone(), name));
        if let Some((place, credentials)) = best(&file.credentials, origin, repository)
            && helper.is_none()
        {
            return Ok(Some(Identity { place: place.clone(), credentials: credentials.clone() }));
        }
        let of_all = file.helper_of_all.as_ref().map(|name| (Place::new(&origin.names()[0]), name));
        let Some((place, name)) = helper.or(of_all) else { return Ok(None) };
        let credentials = credential_helper::ask(name, place.host(), environment, limits).await?;
        Ok(credentials.map(|credentials| Identity { place, credentials }))
    }
}

/// What is for the longest prefix of a repository; of two the one that names the port.
fn best<'a, T>(all: &'a BTreeMap<Place, T>, origin: &Origin, repository: &str) -> Option<(&'a Place, &'a T)> {
    let names = origin.names();
    let fitting = all.iter().filter(|(place, _)| names.contains(&place.host) && place.covers(repository));
    fitting.max_by_key(|(place, _)| (place.prefix.len(), place.host.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::access::Scheme;

    #[tokio::test(flavor = "current_thread")]
    async fn credentials_are_bound_to_host_port_and_prefix() {
        let mut keyring = Keyring::default();
        for place in
            ["h", "h:5000", "h:5000/team", "h/team/sub", "registry.hub.docker.com/me", "[::1]:80", "Up"]
        {
            let credentials = Credentials::RegistryToken(place.to_owned());
            keyring.held.insert(Place::new(place), credentials);
        }
        let cases = [
            (Scheme::Https, "h", 443, "x", Some("h")),
            (Scheme::Http, "h", 80, "x", Some("h")),
            (Scheme::Http, "h", 443, "x", None),
            (Scheme::Https, "h", 5000, "x", Some("h:5000")),
            (Scheme::Https, "h", 5000, "team", Some("h:5000/team")),
            (Scheme::Https, "h", 5000, "team/x", Some("h:5000/team")),
            (Scheme::Https, "h", 5000, "teams/x", Some("h:5000")),
            (Scheme::Https, "h", 5000, "a/team/x", Some("h:5000")),
            (Scheme::Https, "h", 5001, "team/x", None),
            (Scheme::Https, "h", 443, "team/sub/x", Some("h/team/sub")),
            (Scheme::Https, "h", 443, "team/su", Some("h")),
            (Scheme::Https, "sub.h", 443, "x", None),
            (Scheme::Https, "registry-1.docker.io", 443, "me/x", Some("registry.hub.docker.com/me")),
            (Scheme::Https, "registry-1.docker.io", 443, "you/x", None),
            (Scheme::Http, "::1", 80, "x", Some("[::1]:80")),
            (Scheme::Https, "up", 443, "x", Some("Up")),
        ];
        for (scheme, host, port, repository, expected) in cases {
            let origin = Origin { scheme, host: host.to_owned(), port };
            let found = keyring.identity(&origin, repository, &Limits::default()).await.unwrap();
            let found = found.map(|identity| identity.credentials);
            let expected = expected.map(|place| Credentials::RegistryToken(place.to_owned()));
            assert!(found == expected, "{origin}/{repository}: {expected:?}");
        }
    }

    #[test]
    fn a_path_beside_the_prefix_is_none_of_the_credentials() {
        let identity = |place| Identity {
            place: Place::new(place),
            credentials: Credentials::IdentityToken(String::new()),
        };
        for (place, path, expected) in [
            ("h", "/anything", true),
            ("h/team", "/v2/team/x/blobs/y", true),
            ("h/team", "/v2/teams/x/blobs/y", false),
            ("h/team", "/v2/team", false),
            ("h/team", "/team/x", false),
        ] {
            assert_eq!(identity(place).is_for(path), expected, "{place} {path}");
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let all = [
            Credentials::Password { username: "me".into(), password: "sesame".into() },
            Credentials::IdentityToken("sesame".into()),
            Credentials::RegistryToken("sesame".into()),
        ];
        let environment = vec![("A".into(), "sesame".into())];
        let file = DockerConfig { path: "/f".into(), environment };
        let printed = format!("{all:?} {file:?}");
        assert!(!printed.contains("sesame") && printed.contains("me"), "{printed}");
    }
}
