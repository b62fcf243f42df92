//! What every response says of the proxy: tools for debugging read it, and tasks do.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

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

/// Says who answers, in whose name, and for whom if it was a service.
pub(super) fn put(
    headers: &mut HeaderMap,
    credentials: &Credentials,
    scopes: &[String],
    endpoint: Option<&str>,
) {
    let mut say = |name: HeaderName, text: &str| {
        // What no header can hold, such as a client's name with a line end, is left out.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    say(VERSION, env!("CARGO_PKG_VERSION"));
    say(REVISION, concat!("docker-worker ", env!("CARGO_PKG_VERSION")));
    if let Some(endpoint) = endpoint {
        say(ENDPOINT, endpoint);
    }
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
}

fn list(scopes: &[String]) -> String {
    serde_json::Value::from(scopes).to_string()
}
