//! `PUT /credentials`: what the original's worker renewed credentials with. Here they come from the worker itself; a task
//! may still give its own proxy others, until the next reclaim.

use hyper::StatusCode;
use serde::Deserialize;

use crate::queue::Credentials;

/// Bytes of credentials: a certificate holds all scopes of a task.
pub(super) const BYTES: usize = 1 << 20;

/// What is sent. What is missing is empty.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Given {
    client_id: String,
    access_token: String,
    certificate: String,
}

/// Credentials from a request's body, or the status that says what is wrong with it.
pub(super) fn read(body: &[u8]) -> Result<Credentials, StatusCode> {
    let given: Given = serde_json::from_slice(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let Given { client_id, access_token, certificate } = given;
    let certificate = Some(certificate).filter(|certificate| !certificate.is_empty());
    Ok(Credentials { client_id, access_token, certificate })
}
