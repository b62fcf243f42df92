//! Where a server is for its clients, if that is not where it listens: behind a reverse proxy, which speaks TLS for it.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Scheme;

/// A root URL, without the slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootUrl {
    text: String,
    host: String,
    port: u16,
}

/// Why a text is no root URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it as https://HOST or https://HOST:PORT, without a path")]
pub struct RootUrlError;

impl RootUrl {
    /// As clients sign their calls for it.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// As clients sign their calls for it.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for RootUrl {
    type Err = RootUrlError;

    fn from_str(text: &str) -> Result<RootUrl, RootUrlError> {
        let url: Uri = text.parse().map_err(|_| RootUrlError)?;
        let (scheme, authority) = url.scheme().zip(url.authority()).ok_or(RootUrlError)?;
        let usual_port = match scheme {
            scheme if *scheme == Scheme::HTTPS => 443,
            scheme if *scheme == Scheme::HTTP => 80,
            _ => return Err(RootUrlError),
        };
        let is_bare = url.path() == "/" && url.query().is_none() && !authority.as_str().contains('@');
        if !is_bare || authority.host().is_empty() {
            return Err(RootUrlError);
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => usual_port,
            Some(_) => authority.port_u16().ok_or(RootUrlError)?,
            None => return Err(RootUrlError),
        };
        let host = authority.host().to_lowercase();
        let shown = if port == usual_port { String::new() } else { format!(":{port}") };
        Ok(RootUrl { text: format!("{scheme}://{host}{shown}"), host, port })
    }
}

impl fmt::Display for RootUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_url_is_scheme_host_and_port_and_nothing_else() {
        for (text, expected) in [
            ("https://tc.example.com", Some("https://tc.example.com")),
            ("https://TC.example.com/", Some("https://tc.example.com")),
            ("https://tc.example.com:443/", Some("https://tc.example.com")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("https://tc.example.com/tc", None),
            ("https://tc.example.com/?a", None),
            ("https://me@tc.example.com", None),
            ("https://tc.example.com:", None),
            ("https://tc.example.com:99999", None),
            ("tc.example.com", None),
            ("ftp://tc.example.com", None),
            ("https://", None),
            ("", None),
        ] {
            let read: Option<RootUrl> = text.parse().ok();
            assert_eq!(read.as_ref().map(RootUrl::as_str), expected, "{text}");
        }
    }
}
