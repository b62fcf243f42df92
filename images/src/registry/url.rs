//! Where a request goes: an origin and a path.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

use crate::json::shortened;
use crate::reference::canonical_registry;

use super::access::Scheme;

/// The longest `Location` or `realm` that is looked at.
const MAX_URL_BYTES: usize = 8 << 10;

/// What credentials are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub scheme: Scheme,
    /// Lower case; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

/// An absolute URL. Printed without its query: that may be a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub origin: Origin,
    pub path_and_query: String,
}

/// Why a URL is not followed. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than any that is needed.
    #[error("it has more than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// Neither `http://…`, `https://…` nor `/…`.
    #[error("it is neither an absolute http(s) URL nor a path")]
    Malformed,
    /// `user@host`.
    #[error("it holds a user name")]
    UserInfo,
}

impl Origin {
    pub(super) fn has_default_port(&self) -> bool {
        self.port == default_port(self.scheme)
    }

    /// As rules and credentials may spell it: without the port if that is the usual one, and with it.
    pub(super) fn names(&self) -> [String; 2] {
        let host = canonical_registry(&self.host);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let exact = format!("{host}:{}", self.port);
        [if self.has_default_port() { host } else { exact.clone() }, exact]
    }

    /// By its spelling: what a name resolves to is checked when it is dialled.
    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether it is an address, in whichever notation: `127.1`, `0x7f000001` and `2130706433` are one as well (inet_aton(3)).
    pub(super) fn is_numeric(&self) -> bool {
        let last = self.host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let is_decimal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        self.host.contains(':') || is_decimal || last.starts_with("0x")
    }

    /// The host as names and headers spell it.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.has_default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        write!(out, "{scheme}://{}", shortened(&self.authority()))
    }
}

impl Url {
    /// Parses an absolute URL.
    pub(super) fn parse(text: &str) -> Result<Url, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        let uri: Uri = text.parse().map_err(|_invalid| UrlError::Malformed)?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(UrlError::Malformed),
        };
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        // A port that is there and no number must not turn into the default one.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => default_port(scheme),
            Some(rest) => {
                rest.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or(UrlError::Malformed)?
            }
            None => return Err(UrlError::Malformed),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(UrlError::Malformed);
        }
        let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Url { origin: Origin { scheme, host, port }, path_and_query })
    }

    /// Of which repository a manifest or a blob lies at this path of a registry's.
    pub(super) fn repository(&self) -> Option<&str> {
        let path = self.path_and_query.split('?').next()?.strip_prefix("/v2/")?;
        let (repository, _what) = path.rsplit_once("/manifests/").or_else(|| path.rsplit_once("/blobs/"))?;
        // What is none must not become a part of a query.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        Some(repository).filter(|repository| repository.bytes().all(is_plain))
    }

    /// What a `Location` or a `realm` means here: absolute, or a path of this origin.
    pub(super) fn join(&self, location: &str) -> Result<Url, UrlError> {
        if location.starts_with('/') && !location.starts_with("//") {
            // Of a path that can follow an origin: the origin is not spelled again, which would shorten it.
            let parsed = Url::parse(&format!("http://h{location}"))?;
            return Ok(Url { origin: self.origin.clone(), ..parsed });
        }
        Url::parse(location)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        write!(out, "{}{}", self.origin, shortened(path))
    }
}

fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Https => 443,
        Scheme::Http => 80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_absolute_or_paths_and_carry_no_user() {
        let base = Url::parse("https://Example.org/v2/x/blobs/y?a=1").unwrap();
        let joined = |location| base.join(location).map(|url| (url.origin.to_string(), url.path_and_query));
        let ok = |origin: &str, path: &str| Ok((origin.to_owned(), path.to_owned()));
        let cases = [
            ("/z?q=1", ok("https://example.org", "/z?q=1")),
            ("https://example.org:443/z", ok("https://example.org", "/z")),
            ("http://h:8080", ok("http://h:8080", "/")),
            ("https://[::1]:5000/z#f", ok("https://[::1]:5000", "/z")),
            ("//evil/z", Err(UrlError::Malformed)),
            ("z", Err(UrlError::Malformed)),
            ("file:///etc/passwd", Err(UrlError::Malformed)),
            ("https://user@h/z", Err(UrlError::UserInfo)),
            ("https://h:/z", Err(UrlError::Malformed)),
            ("https://h:99999/z", Err(UrlError::Malformed)),
            ("https:///z", Err(UrlError::Malformed)),
        ];
        for (location, expected) in cases {
            assert_eq!(joined(location), expected, "{location}");
        }
        let long = format!("https://h/{}", "a".repeat(MAX_URL_BYTES));
        assert_eq!(base.join(&long), Err(UrlError::TooLong));
    }

    #[test]
    fn a_repository_is_what_stands_before_what_lies_in_it() {
        let cases = [
            ("/v2/a/b/manifests/1", Some("a/b")),
            ("/v2/a/blobs/sha256:x?q=/manifests/1", Some("a")),
            ("/v2/a/blobs/uploads/manifests/1", Some("a/blobs/uploads")),
            ("/v2/a&scope=b/manifests/1", None),
            ("/v2/_catalog", None),
            ("/a/manifests/1", None),
        ];
        for (path, expected) in cases {
            let url = Url::parse(&format!("https://h{path}")).unwrap();
            assert_eq!(url.repository(), expected, "{path}");
        }
    }

    #[test]
    fn a_printed_url_shows_no_query() {
        let url = Url::parse("https://h/p?X-Amz-Signature=secret").unwrap();
        assert_eq!(url.to_string(), "https://h/p");
    }
}
