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

use crate::queue::Credentials;

/// How long a signed URL is good.
const BEWIT_TIME: Duration = Duration::from_secs(3600);

/// Why something cannot be signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    /// There is nowhere to send it to.
    #[error("parse {0:?}: it is no URL with a scheme and a host")]
    Url(String),
    /// The certificate of temporary credentials is no JSON.
    #[error("read the certificate of the credentials")]
    Certificate(#[from] serde_json::Error),
    /// What is to be signed does not fit in a header.
    #[error(transparent)]
    Hawk(#[from] hawk::Error),
}

/// Who signs.
#[derive(Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) credentials: &'a Credentials,
    /// What the request may do at most.
    pub(super) scopes: &'a [String],
}

impl Signer<'_> {
    /// The header `Authorization` of a request.
    pub(super) fn header(&self, method: &Method, url: &Uri) -> Result<String, SignError> {
        let ext = self.ext()?;
        let request = request(method.as_str(), url)?.ext(ext.as_str()).request();
        Ok(format!("Hawk {}", request.make_header(&self.key()?)?))
    }

    /// The URL with a signature in its query, good for an hour.
    pub(super) fn bewit(&self, url: &str) -> Result<String, SignError> {
        let (url, _) = url.split_once('#').unwrap_or((url, ""));
        let parsed: Uri = url.parse().map_err(|_| SignError::Url(url.to_owned()))?;
        let (ext, key) = (self.ext()?, self.key()?);
        let request = request("GET", &parsed)?.ext(ext.as_str()).request();
        let bewit = request.make_bewit_with_ttl(&key, BEWIT_TIME)?.to_str();
        let joint = if parsed.query().is_some() { '&' } else { '?' };
        Ok(format!("{url}{joint}bewit={bewit}"))
    }

    fn key(&self) -> Result<hawk::Credentials, SignError> {
        let Credentials { client_id, access_token, .. } = self.credentials;
        Ok(hawk::Credentials { id: client_id.clone(), key: Key::new(access_token, SHA256)? })
    }

    fn ext(&self) -> Result<String, SignError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Ext<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            certificate: Option<&'a RawValue>,
            authorized_scopes: &'a [String],
        }
        let certificate = self.credentials.certificate.as_deref();
        let certificate = certificate.map(serde_json::from_str::<&RawValue>).transpose()?;
        Ok(STANDARD.encode(serde_json::to_vec(&Ext { certificate, authorized_scopes: self.scopes })?))
    }
}

fn request<'a>(method: &'a str, url: &'a Uri) -> Result<RequestBuilder<'a>, SignError> {
    let no_url = || SignError::Url(url.to_string());
    let scheme_port = match url.scheme_str().ok_or_else(no_url)? {
        "http" => 80,
        "https" => 443,
        _ => return Err(no_url()),
    };
    let host = url.host().ok_or_else(no_url)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    Ok(RequestBuilder::new(method, host, url.port_u16().unwrap_or(scheme_port), path))
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
        let signer = Signer { credentials: &credentials(certificate), scopes: &scopes };
        String::from_utf8(STANDARD.decode(signer.ext().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn no_scopes_are_no_rights_and_a_certificate_is_an_object() {
        assert_eq!(ext(None, &[]), r#"{"authorizedScopes":[]}"#);
        let expected = r#"{"certificate":{"version": 1},"authorizedScopes":["a","b:*"]}"#;
        assert_eq!(ext(Some(r#"{"version": 1}"#), &["a", "b:*"]), expected);
        let signer = Signer { credentials: &credentials(Some("{")), scopes: &[] };
        assert!(matches!(signer.ext(), Err(SignError::Certificate(_))));
    }

    #[test]
    fn a_signed_url_is_good_for_what_was_signed() {
        let key = Key::new("hush", SHA256).unwrap();
        let own = credentials(None);
        let signer = Signer { credentials: &own, scopes: &["a".to_owned()] };
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
