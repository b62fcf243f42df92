//! What every response says of the proxy: tools for debugging read it, and tasks do.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::bounds::LABEL_BYTES;
use crate::queue::Credentials;

const VERSION: HeaderName = HeaderName::from_static("x-taskcluster-proxy-version");
const REVISION: HeaderName = HeaderName::from_static("x-taskcluster-proxy-revision");
const ENDPOINT: HeaderName = HeaderName::from_static("x-taskcluster-endpoint");
const AUTHORIZED_SCOPES: HeaderName = HeaderName::from_static("x-taskcluster-authorized-scopes");
const TEMPORARY_CLIENT: HeaderName = HeaderName::from_static("x-taskcluster-proxy-temp-clientid");
const TEMPORARY_SCOPES: HeaderName = HeaderName::from_static("x-taskcluster-proxy-temp-scopes");
const PERMANENT_CLIENT: HeaderName = HeaderName::from_static("x-taskcluster-proxy-perm-clientid");

/// The one part of a certificate that is no service's business only.
#[derive(Deserialize)]
struct Certificate {
    scopes: Vec<String>,
}

/// Who answers, and in whose name; what it holds is shared by all responses that have it.
#[derive(Default)]
pub(super) struct Label(HeaderMap);

impl Label {
    /// For a task with these.
    pub(super) fn of(credentials: &Credentials, scopes: &[String]) -> Label {
        let mut headers = HeaderMap::new();
        let mut say = |name: HeaderName, text: &str| {
            if let Some(value) = short(text) {
                headers.insert(name, value);
            }
        };
        say(AUTHORIZED_SCOPES, &list(scopes));
        match &credentials.certificate {
            Some(certificate) => {
                say(TEMPORARY_CLIENT, &credentials.client_id);
                if let Ok(Certificate { scopes }) = serde_json::from_str(certificate) {
                    say(TEMPORARY_SCOPES, &list(&scopes));
                }
            }
            None => say(PERMANENT_CLIENT, &credentials.client_id),
        }
        Label(headers)
    }

    /// Says it, and for whom if it was a service.
    pub(super) fn put(&self, headers: &mut HeaderMap, endpoint: Option<&str>) {
        headers.insert(VERSION, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
        let revision = concat!("docker-worker ", env!("CARGO_PKG_VERSION"));
        headers.insert(REVISION, HeaderValue::from_static(revision));
        if let Some(endpoint) = endpoint.and_then(short) {
            headers.insert(ENDPOINT, endpoint);
        }
        for (name, value) in &self.0 {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// As the value of a header. What is long is left out, and what no header can hold, such as a client's name with a line end.
fn short(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok().filter(|value| value.len() <= LABEL_BYTES)
}

fn list(scopes: &[String]) -> String {
    serde_json::Value::from(scopes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(scope_bytes: usize) -> Vec<String> {
        let scopes = ["s".repeat(scope_bytes)];
        let certificate = Some(format!(r#"{{"scopes":["{}"]}}"#, scopes[0]));
        let credentials = Credentials { client_id: "c".to_owned(), access_token: String::new(), certificate };
        let mut headers = HeaderMap::new();
        Label::of(&credentials, &scopes).put(&mut headers, Some("http://tc/x"));
        let mut names: Vec<String> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn scopes_are_said_while_they_are_few_and_the_rest_always() {
        // As JSON they have brackets and quotation marks.
        let most = LABEL_BYTES - 4;
        let (few, many) = (names(most), names(most + 1));
        let scopes = [AUTHORIZED_SCOPES, TEMPORARY_SCOPES];
        assert!(scopes.iter().all(|name| few.iter().any(|said| said == name.as_str())), "{few:?}");
        let rest: Vec<&String> =
            few.iter().filter(|said| scopes.iter().all(|name| *said != name.as_str())).collect();
        assert_eq!(many.iter().collect::<Vec<_>>(), rest);
        assert_eq!(rest.len(), 4);
    }
}
