//! Challenges: Bearer tokens from a token server, and Basic.
//!
//! Credentials leave only in reply to the registry's own challenge, and only to the registry or to
//! a token server that is known to be its: by the table here or by configuration. A stranger's
//! realm is asked without them, or not at all.
//! Source: distribution's `docs/spec/auth/token.md` and `oauth.md`.

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{HeaderMap, WWW_AUTHENTICATE};
use serde::Deserialize;

use crate::reference::DOCKER_HUB;

use super::access::Scheme;
use super::credentials::Credentials;
use super::error::RegistryError;
use super::reply::Reply;
use super::url::{Origin, Url};
use super::{Party, Registry, Wanted, is_redirect, redirect};

/// Public registries whose token server has another host.
const TOKEN_HOSTS: &[(&str, &str)] = &[
    (DOCKER_HUB, "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
    ("nvcr.io", "authn.nvidia.com"),
    ("registry.redhat.io", "sso.redhat.com"),
];
/// What token servers know us as, where an identity token has been made by way of Docker's clients.
const CLIENT_ID: &str = "docker";
/// How long a token lives that does not say so, by the token specification.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// The value of an Authorization header. Never printed.
#[derive(Clone)]
pub(super) struct Authorization {
    value: String,
    expires: Option<Instant>,
}

impl Authorization {
    pub(super) fn header(&self) -> &str {
        &self.value
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|expires| Instant::now() < expires)
    }

    /// What answers a Basic challenge; a token does not.
    fn basic(credentials: &Credentials) -> Option<Authorization> {
        let Credentials::Password { username, password } = credentials else { return None };
        let pair = STANDARD.encode(format!("{username}:{password}"));
        Some(Authorization { value: format!("Basic {pair}"), expires: None })
    }

    /// `None` for what is no token: it would end the header's line.
    fn bearer(token: &str, expires: Option<Instant>) -> Option<Authorization> {
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then(|| Authorization { value: format!("Bearer {token}"), expires })
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Authorization(…)")
    }
}

/// The right to pull from one repository, as somebody: what an authorization is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Right {
    pub party: Party,
    origin: Origin,
    repository: String,
}

impl Right {
    pub(super) fn of(repository: &str, origin: &Origin, party: Party) -> Right {
        Right { party, origin: origin.clone(), repository: repository.to_owned() }
    }
}

/// What the registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Bearer { realm: String, service: Option<String> },
    Basic,
}

/// The token server's reply.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Answers the challenges of one response; `None` if there is nothing to answer with.
pub(super) async fn answer(
    registry: &Registry,
    url: &Url,
    right: &Right,
    challenges: &[Challenge],
) -> Result<Option<Authorization>, RegistryError> {
    let credentials = match right.party {
        Party::Ourselves => registry.identity().await?.map(|identity| &identity.credentials),
        Party::Nobody => None,
    };
    let bearer = challenges.iter().find_map(|challenge| match challenge {
        Challenge::Bearer { realm, service } => Some((realm, service.as_deref())),
        Challenge::Basic => None,
    });
    match (bearer, credentials) {
        (Some(_), Some(Credentials::RegistryToken(token))) => Ok(Authorization::bearer(token, None)),
        (Some((realm, service)), credentials) => {
            let realm = url.join(realm);
            let realm =
                realm.map_err(|source| RegistryError::Url { kind: "realm", url: url.to_string(), source })?;
            buy(registry, realm, (right, service), credentials).await.map(Some)
        }
        (None, credentials) if challenges.contains(&Challenge::Basic) => {
            Ok(credentials.and_then(Authorization::basic))
        }
        (None, _) => Err(RegistryError::Challenge { url: url.to_string() }),
    }
}

/// Asks a token server for the right to pull from this repository, whatever the challenge names.
async fn buy(
    registry: &Registry,
    realm: Url,
    (right, service): (&Right, Option<&str>),
    credentials: Option<&Credentials>,
) -> Result<Authorization, RegistryError> {
    let server = realm.origin.to_string();
    let may_see = may_see_credentials(registry, &realm);
    if credentials.is_some() && !may_see {
        let registry = registry.origin.to_string();
        return Err(RegistryError::ForeignRealm { registry, realm: server });
    }
    let mut query = format!("scope=repository:{}:pull", right.repository);
    if let Some(service) = service {
        query.push_str(&format!("&service={}", percent_encoded(service)));
    }
    // A certificate is said for one host and port, and what it buys there would go to the registry. So it is shown to no
    // other token server than the registry itself: whose certificates count for the scope is known before anybody is asked.
    let party = if realm.origin == registry.origin { right.party } else { Party::Nobody };
    let reply = match credentials {
        Some(Credentials::IdentityToken(token)) => {
            let token = percent_encoded(token);
            let form =
                format!("grant_type=refresh_token&client_id={CLIENT_ID}&{query}&refresh_token={token}");
            ask(registry, (realm, party), Some(&form), None).await?
        }
        Some(Credentials::Password { username, .. }) => {
            let query = format!("account={}&{query}", percent_encoded(username));
            let basic = credentials.and_then(Authorization::basic);
            ask(registry, (with(realm, &query), party), None, basic).await?
        }
        Some(Credentials::RegistryToken(_)) | None => {
            ask(registry, (with(realm, &query), party), None, None).await?
        }
    };
    if reply.status != StatusCode::OK {
        return Err(registry.failure(reply, "a token").await);
    }
    let (_, body) = reply.bytes(registry.limits.token_bytes).await?;
    let token = serde_json::from_slice::<Token>(&body).ok().and_then(bearer);
    token.ok_or_else(|| RegistryError::NoToken { registry: right.origin.to_string(), realm: server })
}

fn with(mut realm: Url, query: &str) -> Url {
    let separator = if realm.path_and_query.contains('?') { '&' } else { '?' };
    realm.path_and_query.push_str(&format!("{separator}{query}"));
    realm
}

/// One request to a token server, and to where it leads. Elsewhere it is asked without credentials and certificate; a form,
/// which holds some, goes nowhere else.
async fn ask(
    registry: &Registry,
    (mut url, mut party): (Url, Party),
    form: Option<&str>,
    mut basic: Option<Authorization>,
) -> Result<Reply, RegistryError> {
    let what = "a token";
    for _ in 0..=registry.limits.redirects {
        let wanted = Wanted { what, path: "", accept: None, from: 0, form };
        let reply = registry.exchange(&url, party, &wanted, basic.as_ref()).await?;
        if !is_redirect(reply.status) {
            return Ok(reply);
        }
        let next = redirect(&url, &reply)?;
        let keeps_form = matches!(reply.status.as_u16(), 307 | 308) && next.origin == url.origin;
        if form.is_some() && !keeps_form {
            let (realm, to) = (url.to_string(), next.origin.to_string());
            return Err(RegistryError::TokenRedirect { realm, to });
        }
        if next.origin != url.origin {
            (basic, party) = (None, Party::Nobody);
        }
        reply.discard().await;
        url = next;
    }
    let limit = registry.limits.redirects;
    Err(RegistryError::Redirects { what: what.to_owned(), url: url.to_string(), limit })
}

fn bearer(reply: Token) -> Option<Authorization> {
    let token = [reply.token, reply.access_token].into_iter().flatten().find(|token| !token.is_empty())?;
    let lifetime = reply.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    Authorization::bearer(&token, Instant::now().checked_add(lifetime))
}

fn may_see_credentials(registry: &Registry, realm: &Url) -> bool {
    let (ours, theirs) = (&registry.origin, &realm.origin);
    if theirs.scheme == Scheme::Http {
        return theirs == ours;
    }
    let built_in =
        TOKEN_HOSTS.iter().any(|(name, host)| *name == registry.reference.registry() && *host == theirs.host);
    let names = theirs.names();
    let is_theirs = |host: &String| names.contains(&host.to_ascii_lowercase());
    let configured = registry.rules().is_some_and(|rules| rules.token_hosts.iter().any(is_theirs));
    theirs.host == ours.host || built_in || configured
}

/// What a response asks for, in its order. A header may hold several challenges (RFC 9110 11.6.1);
/// schemes other than the two are passed over.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(parse).collect()
}

/// Parses `Bearer realm="…",service="…", Basic realm="…"`.
fn parse(text: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let (mut scheme, mut realm, mut service) = (String::new(), None, None);
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word = rest.split([' ', '\t', ',', '=']).next().unwrap_or_default();
        let after = rest.get(word.len()..).unwrap_or_default();
        // A word before an equals sign is a parameter; any other begins the next challenge, as the end does.
        let Some(value) = after.trim_start().strip_prefix('=') else {
            challenges.extend(challenge(&scheme, realm.take(), service.take()));
            if rest.is_empty() {
                return challenges;
            }
            (scheme, rest) = (word.to_ascii_lowercase(), after);
            continue;
        };
        let (value, next) = parameter(value.trim_start());
        match word.to_ascii_lowercase().as_str() {
            "realm" => realm = value,
            "service" => service = value,
            _ => {}
        }
        rest = next;
    }
}

/// A token or a quoted string, and what follows; `None` for a string without an end.
fn parameter(text: &str) -> (Option<String>, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, next) = text.split_once(',').unwrap_or((text, ""));
        return (Some(value.trim_end().to_owned()), next);
    };
    let (mut value, mut is_escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            '\\' if !is_escaped => is_escaped = true,
            '"' if !is_escaped => return (Some(value), quoted.get(at + 1..).unwrap_or_default()),
            other => {
                value.push(other);
                is_escaped = false;
            }
        }
    }
    (None, "")
}

fn challenge(scheme: &str, realm: Option<String>, service: Option<String>) -> Option<Challenge> {
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => realm.map(|realm| Challenge::Bearer { realm, service }),
        _ => None,
    }
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let both = || vec![Challenge::Basic, bearer("/token", Some("x"))];
        let cases = [
            (hub, vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"))]),
            (r#"bearer Realm="/token" , scope="a,b=c""#, vec![bearer("/token", None)]),
            ("Bearer realm=/token,service=x", vec![bearer("/token", Some("x"))]),
            (r#"Basic realm="x""#, vec![Challenge::Basic]),
            ("Basic", vec![Challenge::Basic]),
            (r#"Basic realm="a, Bearer b", Bearer realm="/token",service=x"#, both()),
            (r#"Basic, Bearer realm = "/token", service = "x""#, both()),
            (r#"Negotiate, Digest realm="d", Basic realm="\"", bearer realm="/token",service=x"#, both()),
            ("Bearer", vec![]),
            (r#"Bearer realm="unterminated"#, vec![]),
            ("Negotiate", vec![]),
            ("", vec![]),
            (",, =", vec![]),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials = Credentials::Password { username: "me".into(), password: "secret".into() };
        let printed = format!("{credentials:?} {:?}", Authorization::basic(&credentials).unwrap());
        assert!(!printed.contains("secret") && !printed.contains("bWU6"), "{printed}");
    }
}
