//! A registry and its token server, as strict as the real ones: a token is for one repository and one service, for a time,
//! and is bought in exactly the ways that their specification knows.
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::scripted::{Reply, Request};

/// Its registry's name, as challenges have it.
pub const SERVICE: &str = "registry.example.com";

pub struct TokenServer {
    /// Where it is, for challenges.
    pub realm: String,
    pub user: &'static str,
    pub password: &'static str,
    pub identity_token: &'static str,
    /// Whether everybody may pull.
    pub is_public: bool,
    /// How long tokens live.
    pub lifetime: Duration,
    issued: Mutex<HashMap<String, (String, Instant)>>,
}

impl TokenServer {
    pub fn new(realm: impl Into<String>) -> TokenServer {
        TokenServer {
            realm: realm.into(),
            user: "user",
            password: "pa55word",
            identity_token: "identity&token=",
            is_public: false,
            lifetime: Duration::from_secs(60),
            issued: Mutex::default(),
        }
    }

    /// A token, or what is served to those who have one.
    pub fn answer(&self, request: &Request, served: impl Fn(&Request) -> Reply) -> Reply {
        if request.path.split('?').next() == Some("/token") {
            return self.token(request);
        }
        if self.admits(request) {
            return served(request);
        }
        let scope = repository(request).map(|name| format!(r#",scope="repository:{name}:pull""#));
        let (realm, scope) = (&self.realm, scope.unwrap_or_default());
        Reply::new(401, "").with(
            "WWW-Authenticate",
            format!(r#"Bearer realm="{realm}",service="{SERVICE}"{scope},error="invalid_token""#),
        )
    }

    /// Whether the request has a token for its own repository that has not expired.
    fn admits(&self, request: &Request) -> bool {
        let Some(token) = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "))
        else {
            return false;
        };
        let issued = self.issued.lock().unwrap();
        issued.get(token).is_some_and(|(name, until)| {
            repository(request) == Some(name.as_str()) && Instant::now() < *until
        })
    }

    fn token(&self, request: &Request) -> Reply {
        let refused = |words: &str| {
            Reply::new(401, format!(r#"{{"errors":[{{"code":"UNAUTHORIZED","message":"{words}"}}]}}"#))
        };
        let repository = match request.method.as_str() {
            "GET" => {
                let basic = STANDARD.encode(format!("{}:{}", self.user, self.password));
                let is_user = match request.header("authorization") {
                    None => self.is_public && request.parameter("account").is_none(),
                    Some(header) => {
                        header == format!("Basic {basic}") && request.parameter("account") == Some(self.user)
                    }
                };
                if !is_user || !request.body.is_empty() || request.parameter("service") != Some(SERVICE) {
                    return refused("access denied");
                }
                request.parameter("scope").map(str::to_owned)
            }
            "POST" => {
                let form: HashMap<_, _> =
                    request.body.split('&').filter_map(|pair| pair.split_once('=')).collect();
                let expected = [
                    ("grant_type", "refresh_token".to_owned()),
                    ("service", SERVICE.to_owned()),
                    ("refresh_token", self.identity_token.replace('&', "%26").replace('=', "%3D")),
                ];
                let is_form = request.header("content-type") == Some("application/x-www-form-urlencoded");
                let is_right = expected.iter().all(|(key, value)| form.get(key) == Some(&value.as_str()));
                if !is_form
                    || !is_right
                    || form.get("client_id").is_none_or(|id| id.is_empty())
                    || request.header("authorization").is_some()
                    || request.path != "/token"
                {
                    return refused("the refresh token has expired");
                }
                form.get("scope").map(|scope| (*scope).to_owned())
            }
            _ => return Reply::new(405, ""),
        };
        let name = repository.as_deref().and_then(|scope| scope.strip_prefix("repository:"));
        let Some(name) = name.and_then(|scope| scope.strip_suffix(":pull")) else {
            return refused("no such scope");
        };
        let mut issued = self.issued.lock().unwrap();
        let token = format!("t0ken-{}", issued.len());
        issued.insert(token.clone(), (name.to_owned(), Instant::now() + self.lifetime));
        let (key, seconds) =
            (if request.method == "POST" { "access_token" } else { "token" }, self.lifetime.as_secs());
        Reply::new(200, format!(r#"{{"{key}":"{token}","expires_in":{seconds}}}"#))
    }
}

/// `/v2/REPOSITORY/manifests/…`.
fn repository(request: &Request) -> Option<&str> {
    let rest = request.path.strip_prefix("/v2/")?;
    rest.split_once("/manifests/").or_else(|| rest.split_once("/blobs/")).map(|(name, _)| name)
}
