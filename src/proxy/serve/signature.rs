//! Signatures of requests and of URLs (Hawk, with Taskcluster's `ext`).
//!
//! ```text
//!   ext = base64({"certificate": {…}, "authorizedScopes": [ … ]})
//! ```
//!
//! The certificate is there with temporary credentials only. Whatever these may do, a service does for the request what
//! the authorized scopes allow, and nothing where there are none.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hawk::{Key, RequestBuilder, SHA256};
use hyper::{Method, Uri};
use serde::Serialize;
use serde_json::value::RawValue;

use super::bounds::SIGNED_BYTES;
use super::dial::port;
use crate::queue::Credentials;

/// How long a signed URL is good.
const BEWIT_TIME: Duration = Duration::from_secs(3600);

/// Why something cannot be signed.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum SignError {
    /// There is nowhere to send it to.
    #[error("parse {0:?}: it is no URL with a scheme and a host")]
    Url(String),
    /// The certificate of temporary credentials is no JSON.
    #[error("read the certificate of the credentials")]
    Certificate(#[from] serde_json::Error),
    /// A request would have a header that nobody takes.
    #[error(
        "sign requests in the task's name: its scopes and its credentials' certificate go along with each of them and \
         take {0} bytes, but a header holds {SIGNED_BYTES} bytes of that: give the task fewer scopes, or a role that has \
         them"
    )]
    TooLong(usize),
    /// The signature itself fails.
    #[error(transparent)]
    Hawk(#[from] hawk::Error),
}

/// Who signs.
pub(super) struct Signer {
    credentials: hawk::Credentials,
    /// What every signature says beside the name.
    ext: String,
}

impl Signer {
    /// Signs what may do at most what `scopes` say.
    ///
    /// # Errors
    ///
    /// [`SignError`]: nothing can be signed with such credentials.
    pub(super) fn new(credentials: &Credentials, scopes: &[String]) -> Result<Signer, SignError> {
        let Credentials { client_id, access_token, certificate } = credentials;
        let ext = STANDARD.encode(said(certificate.as_deref(), scopes)?);
        let credentials = hawk::Credentials { id: client_id.clone(), key: Key::new(access_token, SHA256)? };
        Ok(Signer { credentials, ext })
    }

    /// The header `Authorization` of a request.
    pub(super) fn header(&self, method: &Method, url: &Uri) -> Result<String, SignError> {
        let request = request(method.as_str(), url)?.ext(self.ext.as_str()).request();
        Ok(format!("Hawk {}", request.make_header(&self.credentials)?))
    }

    /// The URL with a signature in its query, good for an hour.
    pub(super) fn bewit(&self, url: &str) -> Result<String, SignError> {
        let (url, _) = url.split_once('#').unwrap_or((url, ""));
        let parsed: Uri = url.parse().map_err(|_| SignError::Url(url.to_owned()))?;
        let request = request("GET", &parsed)?.ext(self.ext.as_str()).request();
        let bewit = request.make_bewit_with_ttl(&self.credentials, BEWIT_TIME)?.to_str();
        let joint = if parsed.query().is_some() { '&' } else { '?' };
        Ok(format!("{url}{joint}bewit={bewit}"))
    }
}

/// Whether requests can be signed in the name of a task with these.
///
/// # Errors
///
/// [`SignError`]
pub(in crate::proxy) fn check(certificate: Option<&str>, scopes: &[String]) -> Result<(), SignError> {
    said(certificate, scopes).map(drop)
}

/// What every signature says beside the name.
fn said(certificate: Option<&str>, scopes: &[String]) -> Result<Vec<u8>, SignError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Ext<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        certificate: Option<&'a RawValue>,
        authorized_scopes: &'a [String],
    }
    let fits = |bytes: usize| if bytes > SIGNED_BYTES { Err(SignError::TooLong(bytes)) } else { Ok(()) };
    // Before any of it is copied; a character takes a byte or more in JSON, and each scope three more.
    fits(certificate.map_or(0, str::len) + scopes.iter().map(|scope| scope.len() + 3).sum::<usize>())?;
    let certificate = certificate.map(serde_json::from_str::<&RawValue>).transpose()?;
    let said = serde_json::to_vec(&Ext { certificate, authorized_scopes: scopes })?;
    fits(said.len())?;
    Ok(said)
}

fn request<'a>(method: &'a str, url: &'a Uri) -> Result<RequestBuilder<'a>, SignError> {
    let no_url = || SignError::Url(url.to_string());
    let (host, port) = url.host().zip(port(url)).ok_or_else(no_url)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    Ok(RequestBuilder::new(method, host, port, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(certificate: Option<&str>) -> Credentials {
        let certificate = certificate.map(str::to_owned);
        Credentials { client_id: "task".to_owned(), access_token: "hush".to_owned(), certificate }
    }

    /// What a signer says to a service beside its name.
    fn ext(certificate: Option<&str>, scopes: &[&str]) -> String {
        let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
        let signer = Signer::new(&credentials(certificate), &scopes).unwrap();
        String::from_utf8(STANDARD.decode(signer.ext).unwrap()).unwrap()
    }

    #[test]
    fn no_scopes_are_no_rights_and_a_certificate_is_an_object() {
        assert_eq!(ext(None, &[]), r#"{"authorizedScopes":[]}"#);
        let expected = r#"{"certificate":{"version": 1},"authorizedScopes":["a","b:*"]}"#;
        assert_eq!(ext(Some(r#"{"version": 1}"#), &["a", "b:*"]), expected);
        let broken = Signer::new(&credentials(Some("{")), &[]);
        assert!(matches!(broken, Err(SignError::Certificate(_))));
    }

    #[test]
    fn what_a_header_holds_is_signed_and_a_byte_more_is_not() {
        let around = r#"{"certificate":{},"authorizedScopes":[""]}"#.len();
        for (more, fits) in [(0, true), (1, false), (4 << 20, false)] {
            let scopes = ["s".repeat(SIGNED_BYTES - around + more)];
            let own = credentials(Some("{}"));
            assert_eq!(check(Some("{}"), &scopes).is_ok(), fits, "{more}");
            match Signer::new(&own, &scopes) {
                Ok(signer) => {
                    let url = Uri::from_static("http://tc/x");
                    let header = signer.header(&Method::GET, &url).unwrap();
                    assert!(fits && header.len() < 48 << 10, "{}", header.len());
                }
                Err(SignError::TooLong(bytes)) => assert!(!fits && bytes > SIGNED_BYTES),
                Err(error) => panic!("{error}"),
            }
        }
        // A certificate that is too long is not even read, and what is written longer in JSON counts so.
        assert!(matches!(check(Some(&"{".repeat(1 << 20)), &[]), Err(SignError::TooLong(_))));
        assert!(matches!(check(None, &["\"".repeat(SIGNED_BYTES / 2)]), Err(SignError::TooLong(_))));
    }

    #[test]
    fn a_signed_url_is_good_for_what_was_signed() {
        let key = Key::new("hush", SHA256).unwrap();
        let signer = Signer::new(&credentials(None), &["a".to_owned()]).unwrap();
        for (url, path) in [
            ("http://tc:8239/api/queue/v1/x%2Fy?b=1&a=2#z", "/api/queue/v1/x%2Fy?b=1&a=2"),
            ("http://tc:8239", "/"),
        ] {
            let signed = signer.bewit(url).unwrap();
            let mut bewit = None;
            let path_and_query = signed.split_once(":8239").unwrap().1;
            let path_and_query = if path_and_query.starts_with('?') {
                format!("/{path_and_query}")
            } else {
                path_and_query.to_owned()
            };
            let request = RequestBuilder::new("GET", "tc", 8239, &path_and_query);
            let request = request.extract_bewit(&mut bewit).unwrap().request();
            let bewit = bewit.unwrap();
            assert!(request.validate_bewit(&bewit, &key), "{signed}");
            let other = RequestBuilder::new("GET", "tc", 8239, path).ext(bewit.ext()).request();
            assert!(other.validate_bewit(&bewit, &key), "{path}");
        }
        for url in ["", "/x", "tc:80", "ftp://tc/", "http://"] {
            assert!(matches!(signer.bewit(url), Err(SignError::Url(_))), "{url}");
        }
    }
}
