//! Docker's `config.json`, as far as it is about credentials. Podman's `auth.json` has the same form.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::limits::Limits;

use super::credentials::{Credentials, Place};

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    pub credentials: BTreeMap<Place, Credentials>,
    /// Helpers of single hosts.
    pub helpers: BTreeMap<Place, String>,
    /// The helper of all others.
    pub helper_of_all: Option<String>,
}

/// Why the file cannot be used. What stands in it is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("read the credentials in {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is larger than such a file is.
    #[error("read the credentials in {path:?}: it has more than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// It is none of Docker's.
    #[error("read the credentials in {path:?}: line {line} is not as Docker writes it")]
    Format {
        /// The file.
        path: PathBuf,
        /// Where it stops to be one.
        line: usize,
    },
    /// What stands for one registry is no name and password.
    #[error("use the credentials in {path:?}: those of {host:?} are no name and password; log in again")]
    Entry {
        /// The file.
        path: PathBuf,
        /// Whose they are.
        host: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Content {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// Reads the file; `None` if there is none.
pub(super) async fn read(path: &Path, limits: &Limits) -> Result<Option<File>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let limit = limits.credentials_file_bytes;
    let mut text = Vec::new();
    let reading = async {
        let file = tokio::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).await?;
        // One byte more than is allowed, so that the limit is noticed.
        file.take(limit + 1).read_to_end(&mut text).await
    };
    match reading.await {
        Ok(_) if text.len() as u64 > limit => Err(ConfigError::TooLarge { path: path.to_owned(), limit }),
        Ok(_) => parse(&text, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn parse(text: &[u8], path: &Path) -> Result<File, ConfigError> {
    // The parser's own words may hold what stands there.
    let content: Content = serde_json::from_slice(text)
        .map_err(|error| ConfigError::Format { path: path.to_owned(), line: error.line() })?;
    let mut file = File::default();
    for (host, entry) in &content.auths {
        let malformed = || ConfigError::Entry { path: path.to_owned(), host: host.clone() };
        if let Some(credentials) = credentials(entry).ok_or_else(malformed)? {
            file.credentials.insert(place(host), credentials);
        }
    }
    let helpers = content.cred_helpers.into_iter().filter(|(_, name)| !name.is_empty());
    file.helpers = helpers.map(|(host, name)| (place(&host), name)).collect();
    file.helper_of_all = Some(content.creds_store).filter(|name| !name.is_empty());
    Ok(file)
}

/// `None` where there is something that is no credentials. An entry may be empty: the helper has them.
fn credentials(entry: &Entry) -> Option<Option<Credentials>> {
    if !entry.registrytoken.is_empty() {
        return Some(Some(Credentials::RegistryToken(entry.registrytoken.clone())));
    }
    if !entry.identitytoken.is_empty() {
        return Some(Some(Credentials::IdentityToken(entry.identitytoken.clone())));
    }
    let (username, password) = match entry.auth.as_str() {
        "" if entry.username.is_empty() => return Some(None),
        "" => (entry.username.clone(), entry.password.clone()),
        auth => auth_pair(auth)?,
    };
    Some(Some(Credentials::Password { username, password }))
}

/// A user's name and password as Docker joins them: base64 of `NAME:PASSWORD`.
pub fn auth_pair(auth: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker once wrote a zero byte at the end.
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
        .filter(|(name, _)| !name.is_empty())
}

/// `HOST`, or as Docker Hub's once: `https://index.docker.io/v1/`.
fn place(key: &str) -> Place {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    Place::new(key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Credentials {
        Credentials::Password { username: username.into(), password: password.into() }
    }

    #[test]
    fn what_docker_and_podman_write_is_read() {
        let text = r#"{
            "auths": {
                "https://index.docker.io/v1/": {"auth": "bWU6c2VzYW1l"},
                "quay.io/team": {"auth": "dGVhbTpwYTpzcw=="},
                "h:5000": {"username": "a", "password": "b"},
                "http://old.example.com": {"auth": "YTpi"},
                "registry.azurecr.io": {"auth": "MDAwOg==", "identitytoken": "ey"},
                "t.example.com": {"registrytoken": "tok"},
                "stored.example.com": {}
            },
            "credHelpers": {"1.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login", "off.example.com": ""},
            "credsStore": "desktop", "HttpHeaders": {"User-Agent": "Docker"}, "proxies": {"default": {}}
        }"#;
        let file = parse(text.as_bytes(), Path::new("/c")).unwrap();
        let expected = [
            ("docker.io", password("me", "sesame")),
            ("quay.io/team", password("team", "pa:ss")),
            ("h:5000", password("a", "b")),
            ("old.example.com", password("a", "b")),
            ("registry.azurecr.io", Credentials::IdentityToken("ey".into())),
            ("t.example.com", Credentials::RegistryToken("tok".into())),
        ];
        assert_eq!(file.credentials, expected.map(|(at, who)| (Place::new(at), who)).into());
        let helper = (Place::new("1.dkr.ecr.eu-west-1.amazonaws.com"), "ecr-login".to_owned());
        assert_eq!(file.helpers, [helper].into());
        assert_eq!(file.helper_of_all.as_deref(), Some("desktop"));
        assert_eq!(parse(b"{}", Path::new("/c")).unwrap(), File::default());
    }

    #[test]
    fn what_is_no_such_file_is_refused_and_not_repeated() {
        let entry = |auth: &str| format!(r#"{{"auths": {{"h": {{"auth": "{auth}"}}}}}}"#);
        let cases = [
            ("", "line 1"),
            ("sesame", "line 1"),
            ("{\n\"auths\": \"sesame\"}", "line 2"),
            ("{\"credHelpers\": {\"h\": 7}}", "line 1"),
            (&entry("sesame!"), "those of \"h\" are no name and password"),
            (&entry(&STANDARD.encode("sesame")), "those of \"h\""),
            (&entry(&STANDARD.encode(":sesame")), "those of \"h\""),
            (&entry(&STANDARD.encode(b"\xff:sesame")), "those of \"h\""),
        ];
        for (text, expected) in cases {
            let error = parse(text.as_bytes(), Path::new("/c")).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("/c"), "{text}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_file_has_a_bound_and_need_not_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let limits = Limits { credentials_file_bytes: 10, ..Limits::default() };
        assert_eq!(read(&path, &limits).await.unwrap(), None);
        for (text, is_read) in [("{}        ", true), ("{}         ", false)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path, &limits).await.is_ok(), is_read, "{}", text.len());
        }
        assert!(matches!(read(directory.path(), &limits).await, Err(ConfigError::Read { .. })));
    }
}
