//! Temporary credentials: a certificate that their issuer has signed says what they may do, and until when.
//!
//! ```text
//!   token     = HMAC-SHA256(issuer's token, seed), base64url
//!   signature = HMAC-SHA256(issuer's token, "version:1", ["clientId:…", "issuer:…",] "seed:…", "start:…", "expiry:…",
//!               "scopes:", scopes…), base64
//! ```
//!
//! Source: Taskcluster's manual, "Temporary credentials"; clients of any language make and use them so.

use std::io;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::queue::Credentials;
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

/// How far a clock may be off, in milliseconds.
const DRIFT: i64 = 5 * 60 * 1000;
/// The longest life, in milliseconds.
const LONGEST: i64 = 31 * 24 * 60 * 60 * 1000;
/// Characters of a seed.
const SEED_CHARS: usize = 44;

/// What temporary credentials bring with each request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Certificate {
    version: u8,
    /// What they may do.
    pub(super) scopes: Vec<String>,
    /// Milliseconds since the epoch.
    start: i64,
    expiry: i64,
    seed: String,
    signature: String,
    /// Who has made them, where they have a name of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
}

/// Why a certificate is refused; each names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("ext.certificate.version must be 1")]
    Version,
    #[error("ext.certificate.seed must have {SEED_CHARS} characters")]
    Seed,
    #[error("ext.certificate.scopes must be scopes: printable ASCII")]
    Scopes,
    #[error("ext.certificate.start > now")]
    Early,
    #[error("ext.certificate.expiry < now")]
    Expired,
    #[error("ext.certificate must not last longer than 31 days")]
    TooLong,
    #[error("ext.certificate.signature is not that of its issuer for this clientId")]
    Signature,
}

/// Makes credentials with a name of their own.
///
/// # Errors
///
/// When the kernel has no random bytes.
pub(super) fn issue(
    issuer: &Credentials,
    client_id: String,
    scopes: Vec<String>,
    (start, expiry): (Timestamp, Timestamp),
) -> io::Result<Credentials> {
    let seed = format!("{}{}", TaskId::random()?, TaskId::random()?);
    let (start, expiry) = (start.as_millis(), expiry.as_millis());
    let issuer_id = Some(issuer.client_id.clone());
    let mut certificate =
        Certificate { version: 1, scopes, start, expiry, seed, signature: String::new(), issuer: issuer_id };
    let key = key(&issuer.access_token);
    certificate.signature = STANDARD.encode(hmac::sign(&key, certificate.signed(&client_id).as_bytes()));
    let access_token = certificate.token(&issuer.access_token);
    let certificate = serde_json::to_string(&certificate)?;
    Ok(Credentials { client_id, access_token, certificate: Some(certificate) })
}

impl Certificate {
    /// Whether its issuer has made it for this client and it is good now.
    pub(super) fn verify(
        &self,
        client_id: &str,
        issuer_token: &str,
        now: Timestamp,
    ) -> Result<(), CertificateError> {
        let now = now.as_millis();
        if self.version != 1 {
            return Err(CertificateError::Version);
        }
        if self.seed.len() != SEED_CHARS {
            return Err(CertificateError::Seed);
        }
        if !self.scopes.iter().all(|scope| is_scope(scope)) {
            return Err(CertificateError::Scopes);
        }
        if self.start > now.saturating_add(DRIFT) {
            return Err(CertificateError::Early);
        }
        if self.expiry < now.saturating_sub(DRIFT) {
            return Err(CertificateError::Expired);
        }
        if self.expiry.saturating_sub(self.start) > LONGEST {
            return Err(CertificateError::TooLong);
        }
        let signature = STANDARD.decode(&self.signature).map_err(|_| CertificateError::Signature)?;
        hmac::verify(&key(issuer_token), self.signed(client_id).as_bytes(), &signature)
            .map_err(|_| CertificateError::Signature)
    }

    /// The token that goes with it.
    pub(super) fn token(&self, issuer_token: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&key(issuer_token), self.seed.as_bytes()))
    }

    fn signed(&self, client_id: &str) -> String {
        let mut lines = vec![format!("version:{}", self.version)];
        if let Some(issuer) = &self.issuer {
            lines.extend([format!("clientId:{client_id}"), format!("issuer:{issuer}")]);
        }
        lines.push(format!("seed:{}", self.seed));
        lines.extend([format!("start:{}", self.start), format!("expiry:{}", self.expiry)]);
        lines.push("scopes:".to_owned());
        lines.extend(self.scopes.iter().cloned());
        lines.join("\n")
    }
}

/// Whether a text can be a scope.
pub(super) fn is_scope(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn key(token: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TOKEN: &str = "issuer-token";

    fn scopes() -> Vec<String> {
        vec!["a:b".to_owned(), "c:*".to_owned()]
    }

    /// As the official client makes it.
    fn official(name: Option<&str>) -> taskcluster::Credentials {
        let issuer = taskcluster::Credentials::new("issuer", TOKEN);
        let hour = Duration::from_secs(3600);
        match name {
            Some(name) => issuer.create_named_temp_creds(name, hour, scopes()),
            None => issuer.create_temp_creds(hour, scopes()),
        }
        .unwrap()
    }

    fn certificate(text: Option<&String>) -> Certificate {
        serde_json::from_str(text.unwrap()).unwrap()
    }

    #[test]
    fn what_the_official_client_makes_is_good_for_its_own_client_only() {
        for name in [Some("temporary"), None] {
            let made = official(name);
            let certificate = certificate(made.certificate.as_ref());
            assert_eq!(certificate.scopes, scopes());
            assert_eq!(certificate.token(TOKEN), made.access_token);
            let now = Timestamp::now();
            assert_eq!(certificate.verify(&made.client_id, TOKEN, now), Ok(()), "{name:?}");
            let signature = Err(CertificateError::Signature);
            assert_eq!(certificate.verify(&made.client_id, "other", now), signature);
            let others = certificate.verify("somebody", TOKEN, now);
            // Without a name of its own it is the issuer's, whose token signs the request.
            assert_eq!(others, if name.is_some() { signature } else { Ok(()) });
        }
    }

    #[test]
    fn what_is_made_here_is_what_the_official_client_would_make() {
        let issuer =
            Credentials { client_id: "issuer".to_owned(), access_token: TOKEN.to_owned(), certificate: None };
        let now = Timestamp::now();
        let times = (now, now.plus(Duration::from_secs(1200)));
        let made = issue(&issuer, "task".to_owned(), scopes(), times).unwrap();
        let certificate = certificate(made.certificate.as_ref());
        assert_eq!(certificate.verify("task", TOKEN, now), Ok(()));
        assert_eq!(certificate.token(TOKEN), made.access_token);
        assert_eq!((certificate.issuer.as_deref(), certificate.seed.len()), (Some("issuer"), SEED_CHARS));
    }

    #[test]
    fn each_field_is_judged() {
        let good = certificate(official(Some("t")).certificate.as_ref());
        let now = Timestamp::now();
        let cases = [
            (Certificate { version: 2, ..good.clone() }, CertificateError::Version),
            (Certificate { seed: "short".to_owned(), ..good.clone() }, CertificateError::Seed),
            (Certificate { scopes: vec!["é".to_owned()], ..good.clone() }, CertificateError::Scopes),
            (Certificate { start: i64::MAX, ..good.clone() }, CertificateError::Early),
            (Certificate { expiry: i64::MIN, ..good.clone() }, CertificateError::Expired),
            (Certificate { start: i64::MIN, expiry: i64::MAX, ..good.clone() }, CertificateError::TooLong),
            (Certificate { scopes: vec!["*".to_owned()], ..good.clone() }, CertificateError::Signature),
            (Certificate { expiry: good.expiry + 1, ..good.clone() }, CertificateError::Signature),
            (Certificate { issuer: None, ..good.clone() }, CertificateError::Signature),
            (Certificate { signature: "%".to_owned(), ..good.clone() }, CertificateError::Signature),
        ];
        for (certificate, expected) in cases {
            assert_eq!(certificate.verify("t", TOKEN, now), Err(expected), "{certificate:?}");
        }
    }
}
