//! The registry client: Docker's registry API v2 over HTTP/1.1, with TLS but where allowed without.
//!
//! ```text
//!  offer ──► manifests/TAG ──► (index: what fits best) ──► blobs/CONFIG     whole, in memory
//!  blob  ──► blobs/LAYER ──► chunks ──► channel                                  resumed by Range
//!                │
//!  of each: the registry's mirrors in their order, and then the registry itself (mirrors)
//!  each request: send ──► 401: challenge answered (auth) ──► again
//!                     └─► 3xx: checked redirect          ──► again, without Authorization elsewhere
//!  each connection: resolve ──► check the address ──► dial that address ──► TLS
//!                   or by way of a proxy, which resolves by itself
//! ```
//!
//! Trusted is only what a digest proves. A registry, its token server and the targets of its
//! redirects may be hostile: they get no credentials of another origin, lead us to no address of
//! this machine, and cannot make us wait or store without bound.
//!
//! Why not a ready HTTP client: redirects and addresses must be ours to check, hop by hop.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, PROXY_AUTHORIZATION, RANGE, USER_AGENT,
};
use hyper::{Method, Request, StatusCode};
use tokio::sync::OnceCell;

use crate::digest::Digest;
use crate::limits::Limits;
use crate::reference::{DOCKER_HUB, Reference};

mod access;
mod address;
mod auth;
mod connect;
mod credential_helper;
mod credentials;
mod docker_config;
mod error;
mod fetch;
mod mirrors;
mod proxy;
mod reply;
mod retry;
mod tls;
mod tunnel;
mod url;

pub use access::{Access, AddressBlock, Addresses, ClientCertificate, Fallback, HostRules, Loopback, Scheme};
pub use address::{Reach, reach};
pub use credential_helper::HelperError;
pub use credentials::{Credentials, CredentialsError, DockerConfig, Keyring, Place};
pub use docker_config::{ConfigError, auth_pair};
pub use error::RegistryError;
pub use proxy::{Proxies, ProxyError};
pub use url::UrlError;

pub(crate) use fetch::Received;
pub(crate) use mirrors::Sources;

use auth::{Authorization, Right};
use connect::{Connection, Connector, within};
use credentials::Identity;
use reply::Reply;
use url::{Origin, Url};

/// Where Docker Hub's API lives.
const DOCKER_HUB_API: &str = "registry-1.docker.io";
const AGENT: &str = concat!("docker-worker/", env!("CARGO_PKG_VERSION"));

/// One repository of one registry, for one pull.
#[derive(Debug)]
pub(crate) struct Registry {
    reference: Reference,
    origin: Origin,
    connector: Arc<Connector>,
    access: Access,
    limits: Limits,
    /// Whether anything was asked for.
    has_asked: AtomicBool,
    /// Who we are there, once somebody has looked.
    identity: OnceCell<Option<Identity>>,
    /// What the last challenges were answered with; requests of the same pull send it at once.
    authorizations: Mutex<HashMap<Right, Authorization>>,
    /// Layers that the manifest says are not to be had here.
    foreign: Mutex<Vec<Digest>>,
}

/// A request for something of the registry.
struct Wanted<'a> {
    /// `image NAME` or `blob DIGEST`, for messages.
    what: &'a str,
    /// Below `/v2/REPOSITORY/`.
    path: &'a str,
    accept: Option<&'a str>,
    /// Skip so many bytes.
    from: u64,
    /// What is sent along, as forms are; the request is then a POST.
    form: Option<&'a str>,
}

impl Registry {
    /// Prepares requests for the repository that a name spells; nothing is dialled yet.
    pub(crate) fn new(
        reference: &Reference,
        access: &Access,
        limits: &Limits,
    ) -> Result<Registry, RegistryError> {
        let origin = origin(reference, access)?;
        let connector = Arc::new(Connector::new(access, origin.clone(), limits));
        Ok(Registry {
            reference: reference.clone(),
            origin,
            connector,
            access: access.clone(),
            limits: limits.clone(),
            has_asked: AtomicBool::new(false),
            identity: OnceCell::new(),
            authorizations: Mutex::default(),
            foreign: Mutex::default(),
        })
    }

    /// Sends a request, answers challenges and follows redirects. Any final status is a reply.
    ///
    /// Where a redirect leads away from what the credentials are for, we are nobody from then on, also should it lead back:
    /// what such a place asks for is answered as a stranger's question would be. So it is with our certificate where it
    /// leads to another host or port.
    async fn send(&self, wanted: &Wanted<'_>) -> Result<Reply, RegistryError> {
        let path_and_query = format!("/v2/{}/{}", self.reference.repository(), wanted.path);
        let mut url = Url { origin: self.origin.clone(), path_and_query };
        let mut right = Some(Right::of(self.reference.repository(), &url.origin, Party::Ourselves));
        let mut connects = Party::Ourselves;
        self.has_asked.store(true, Ordering::Relaxed);
        let (mut redirects, mut challenges) = (0, 0);
        let mut answered = None;
        loop {
            let authorization = right.as_ref().and_then(|right| self.known_authorization(right));
            let reply = self.exchange(&url, connects, wanted, authorization.as_ref()).await?;
            match reply.status {
                StatusCode::UNAUTHORIZED if challenges < self.limits.challenges => {
                    let Some(right) = &right else { return Ok(reply) };
                    challenges += 1;
                    let challenge = (right.clone(), auth::challenges(&reply.headers));
                    // What has just been refused would be refused again.
                    if answered.as_ref() == Some(&challenge) {
                        return Ok(reply);
                    }
                    reply.discard().await;
                    let Some(answer) = auth::answer(self, &url, right, &challenge.1).await? else {
                        return self.exchange(&url, connects, wanted, None).await;
                    };
                    self.remember_authorization(right, answer);
                    answered = Some(challenge);
                }
                status if is_redirect(status) => {
                    redirects += 1;
                    if redirects > self.limits.redirects {
                        let (what, url, limit) =
                            (wanted.what.to_owned(), url.to_string(), self.limits.redirects);
                        return Err(RegistryError::Redirects { what, url, limit });
                    }
                    let next = redirect(&url, &reply)?;
                    reply.discard().await;
                    right = self.right_after(right, &next).await?;
                    if next.origin != self.origin {
                        connects = Party::Nobody;
                    }
                    url = next;
                }
                _ => return Ok(reply),
            }
        }
    }

    /// What may be asked for where a redirect leads; nothing where it is not about a repository.
    async fn right_after(&self, right: Option<Right>, next: &Url) -> Result<Option<Right>, RegistryError> {
        if let Some(right) =
            right.filter(|right| right.party == Party::Ourselves && next.origin == self.origin)
        {
            let identity = self.identity().await?;
            if identity.is_none_or(|identity| identity.is_for(&next.path_and_query)) {
                return Ok(Some(right));
            }
        }
        let repository = next.repository();
        Ok(repository.map(|repository| Right::of(repository, &next.origin, Party::Nobody)))
    }

    /// Who we are to this registry.
    async fn identity(&self) -> Result<Option<&Identity>, RegistryError> {
        let look = || self.access.identity(&self.origin, &self.reference, &self.limits);
        Ok(self.identity.get_or_try_init(look).await?.as_ref())
    }

    /// One request and the head of its response, over a kept connection or a new one: the certificate for its host, if there
    /// is one, is shown only as ourselves.
    async fn exchange(
        &self,
        url: &Url,
        party: Party,
        wanted: &Wanted<'_>,
        authorization: Option<&Authorization>,
    ) -> Result<Reply, RegistryError> {
        let failed = |source| RegistryError::of_request(url, source);
        let request = |connection: &Connection| {
            let method = if wanted.form.is_some() { Method::POST } else { Method::GET };
            let mut request = Request::builder()
                .method(method)
                .uri(connection.target(url))
                .header(HOST, url.origin.authority())
                .header(USER_AGENT, AGENT);
            if wanted.form.is_some() {
                request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            }
            if let Some(authorization) = connection.proxy_authorization() {
                request = request.header(PROXY_AUTHORIZATION, authorization);
            }
            if let Some(accept) = wanted.accept {
                request = request.header(ACCEPT, accept);
            }
            if wanted.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", wanted.from));
            }
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization.header());
            }
            request
                .body(Full::new(Bytes::from(wanted.form.unwrap_or_default().to_owned())))
                .map_err(|_invalid| RegistryError::Challenge { url: url.to_string() })
        };
        if let Some(mut connection) = self.connector.reuse(&url.origin, party) {
            let request = request(&connection)?;
            let response = within(self.limits.first_byte, "get", url, connection.send(request)).await?;
            // A server may close an idle connection at any moment: then a fresh one is tried at once.
            if let Ok(response) = response {
                return Reply::new(url.clone(), response, connection, &self.connector);
            }
        }
        let mut connection = self.connector.connect(&url.origin, party).await?;
        let request = request(&connection)?;
        let response = within(self.limits.first_byte, "get", url, connection.send(request)).await?;
        let response = response.map_err(failed)?;
        connection.check(&url.origin, response.status())?;
        Reply::new(url.clone(), response, connection, &self.connector)
    }

    /// Whether it has been told who we are, or would have been.
    fn knows_us(&self) -> bool {
        let has_asked = self.has_asked.load(Ordering::Relaxed);
        has_asked && self.access.has_certificate(&self.origin)
            || self.identity.get().is_some_and(Option::is_some)
    }

    /// The error that a status means, with whose credentials were refused.
    async fn failure(&self, reply: Reply, what: &str) -> RegistryError {
        let mut error = reply.into_error(what).await;
        if let RegistryError::Unauthorized { credentials, .. } = &mut error {
            let identity = self.identity.get().and_then(Option::as_ref);
            *credentials = identity.map(|identity| identity.place.to_string());
        }
        error
    }

    /// What is configured for the registry.
    fn rules(&self) -> Option<&HostRules> {
        self.access.rules(&self.origin)
    }

    fn known_authorization(&self, right: &Right) -> Option<Authorization> {
        let known = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(right).filter(|authorization| authorization.is_fresh()).cloned()
    }

    fn remember_authorization(&self, right: &Right, answer: Authorization) {
        let mut known = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(right.clone(), answer);
    }
}

/// As whom something is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Party {
    /// With credentials, or a certificate in the handshake of TLS, if there are any.
    Ourselves,
    /// Without.
    Nobody,
}

/// The origin of a registry's API, with the scheme that the rules give it.
fn origin(reference: &Reference, access: &Access) -> Result<Origin, RegistryError> {
    let name = if reference.registry() == DOCKER_HUB { DOCKER_HUB_API } else { reference.registry() };
    let parse = |scheme: &str| {
        let text = format!("{scheme}://{name}/");
        let url = Url::parse(&text);
        url.map_err(|source| RegistryError::Url { kind: "name", url: name.to_owned(), source })
    };
    let secure = parse("https")?.origin;
    let plain = parse("http")?.origin;
    // `HOST` in the rules is each scheme's own port, and `HOST:PORT` both.
    let rules =
        access.rules(&secure).or_else(|| access.rules(&plain).filter(|rules| rules.scheme == Scheme::Http));
    let scheme = match rules {
        Some(rules) => rules.scheme,
        None if access.loopback == Loopback::Operator && secure.is_loopback() => Scheme::Http,
        None => Scheme::Https,
    };
    Ok(match scheme {
        Scheme::Https => secure,
        Scheme::Http => plain,
    })
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirect(from: &Url, reply: &Reply) -> Result<Url, RegistryError> {
    let location = reply.header(LOCATION).unwrap_or_default();
    let to = from.join(location);
    let to = to.map_err(|source| RegistryError::Url { kind: "redirect", url: from.to_string(), source })?;
    if from.origin.scheme == Scheme::Https && to.origin.scheme == Scheme::Http {
        return Err(RegistryError::Downgrade { url: from.to_string(), to: to.origin.to_string() });
    }
    Ok(to)
}
