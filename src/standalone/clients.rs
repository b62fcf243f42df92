//! Who calls, and what they may do.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::certificate::{Certificate, CertificateError, is_scope};
use super::clients_file::ClientsFile;
use super::hawk::{Authorization, HawkError, Signed};
use crate::queue::Credentials;
use crate::scopes::{ScopeExpression, minimal, satisfies};
use crate::timestamp::Timestamp;

/// What everybody may do, with credentials or without: read, as on public deployments.
const ANONYMOUS: &[&str] = &[
    "index:find-task:*",
    "queue:get-artifact:public/*",
    "queue:get-task:*",
    "queue:status:*",
    "queue:list-artifacts:*",
    "queue:list-task-group:*",
];
/// The scope that stands for these.
const ASSUME_ANONYMOUS: &str = "assume:anonymous";

/// Somebody with permanent credentials.
#[derive(Clone, Debug)]
pub struct Client {
    /// Name and token.
    pub credentials: Credentials,
    /// What they may do.
    pub scopes: Vec<String>,
}

/// Everybody with permanent credentials.
pub(super) struct Clients {
    /// Those that are there as long as the server.
    pub(super) fixed: Vec<Client>,
    /// Those that come and go.
    pub(super) file: Option<ClientsFile>,
}

/// Who has made a request, by its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// None: nobody in particular, without credentials.
    signature: Option<Authorization>,
    pub(super) scopes: Vec<String>,
}

/// Why credentials are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AuthenticationError {
    #[error(transparent)]
    Hawk(#[from] HawkError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("there is no client {0:?}")]
    Unknown(String),
    #[error(
        "this server cannot read who its clients are; \"docker-worker standalone client list\" there says why"
    )]
    Clients,
    #[error("ext cannot be read: {0}")]
    Ext(String),
    #[error("ext.certificate.issuer must be another than the supplied clientId")]
    SelfIssued,
    #[error("ext.certificate: the issuer {issuer:?} lacks {scope:?}")]
    Issuer { issuer: String, scope: String },
    #[error("ext.authorizedScopes: the credentials lack {0:?}")]
    Authorized(String),
}

/// What the attribute `ext` holds, as JSON in base64.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Ext {
    certificate: Option<Certificate>,
    authorized_scopes: Option<Vec<String>>,
}

impl Clients {
    /// Who has signed the head of a request; without a signature nobody in particular.
    pub(super) fn authenticate(
        &self,
        header: Option<&str>,
        signed: &Signed<'_>,
        now: Timestamp,
    ) -> Result<Caller, AuthenticationError> {
        let Some(authorization) = Authorization::of(header, signed)? else {
            return Ok(Caller { signature: None, scopes: expand(&[ASSUME_ANONYMOUS.to_owned()]) });
        };
        let Ext { certificate, authorized_scopes } =
            authorization.ext.as_deref().map_or(Ok(Ext::default()), read_ext)?;
        let named = certificate.as_ref().and_then(|certificate| certificate.issuer.as_ref());
        if named == Some(&authorization.id) {
            return Err(AuthenticationError::SelfIssued);
        }
        let issuer = self.find(named.unwrap_or(&authorization.id))?;
        let (token, mut scopes) = match certificate {
            None => (issuer.credentials.access_token.clone(), issuer.scopes.clone()),
            Some(certificate) => limited(&issuer, &authorization.id, certificate, now)?,
        };
        authorization.verify(&token, signed, now)?;
        if let Some(authorized) = authorized_scopes {
            // What everybody may do may be asked for by everybody.
            let held = expand(&[scopes, vec![ASSUME_ANONYMOUS.to_owned()]].concat());
            if let Some(lacking) = authorized.iter().find(|it| !is_scope(it) || !satisfies(&held, it)) {
                return Err(AuthenticationError::Authorized(lacking.clone()));
            }
            scopes = authorized;
        }
        scopes.push(ASSUME_ANONYMOUS.to_owned());
        Ok(Caller { signature: Some(authorization), scopes: expand(&scopes) })
    }

    fn find(&self, client_id: &str) -> Result<Client, AuthenticationError> {
        let fixed = self.fixed.iter().find(|client| client.credentials.client_id == client_id);
        let found = match (fixed, &self.file) {
            (Some(client), _) => Some(client.clone()),
            (None, Some(file)) => file.find(client_id).map_err(|_| AuthenticationError::Clients)?,
            (None, None) => None,
        };
        found.ok_or_else(|| AuthenticationError::Unknown(client_id.to_owned()))
    }
}

impl Caller {
    /// Who; nobody in particular without credentials.
    pub(super) fn client_id(&self) -> Option<&str> {
        self.signature.as_ref().map(|signature| signature.id.as_str())
    }

    /// Refuses a payload that is not the one that they have signed.
    pub(super) fn sent(self, content_type: &str, payload: &[u8]) -> Result<Caller, AuthenticationError> {
        if let Some(signature) = &self.signature {
            signature.verify_payload(content_type, payload)?;
        }
        Ok(self)
    }

    /// What is missing of what a request needs; `None` when nothing is.
    pub(super) fn lacks(&self, required: &ScopeExpression) -> Option<ScopeExpression> {
        required.missing(&self.scopes)
    }
}

fn read_ext(ext: &str) -> Result<Ext, AuthenticationError> {
    let bytes = STANDARD.decode(ext).map_err(|error| AuthenticationError::Ext(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| AuthenticationError::Ext(error.to_string()))
}

/// Token and scopes of temporary credentials.
fn limited(
    issuer: &Client,
    client_id: &str,
    certificate: Certificate,
    now: Timestamp,
) -> Result<(String, Vec<String>), AuthenticationError> {
    let token = &issuer.credentials.access_token;
    certificate.verify(client_id, token, now)?;
    let name = certificate.issuer.is_some().then(|| format!("auth:create-client:{client_id}"));
    let held = expand(&issuer.scopes);
    if let Some(scope) = name.iter().chain(&certificate.scopes).find(|scope| !satisfies(&held, scope)) {
        let issuer = issuer.credentials.client_id.clone();
        return Err(AuthenticationError::Issuer { issuer, scope: scope.clone() });
    }
    Ok((certificate.token(token), certificate.scopes))
}

/// All that somebody has who has these scopes: with what everybody has, if they are everybody, and without what another
/// one of them stands for; in order.
pub(super) fn expand(scopes: &[String]) -> Vec<String> {
    let mut all = scopes.to_vec();
    if satisfies(scopes, ASSUME_ANONYMOUS) {
        all.extend(ANONYMOUS.iter().map(|&scope| scope.to_owned()));
    }
    minimal(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn scopes_are_expanded_to_what_they_stand_for_and_no_more() {
        let anonymous = expand(&texts(&["assume:anonymous"]));
        assert!(anonymous.contains(&"queue:status:*".to_owned()) && anonymous.is_sorted());
        let cases: &[(&[&str], &[&str])] = &[
            (&[], &[]),
            (&["b", "a", "b"], &["a", "b"]),
            (&["a:b", "a:*", "a"], &["a", "a:*"]),
            (&["*", "a"], &["*"]),
            (&["assume:worker-pool:x"], &["assume:worker-pool:x"]),
        ];
        for (scopes, expected) in cases {
            assert_eq!(expand(&texts(scopes)), texts(expected), "{scopes:?}");
        }
    }
}
