//! The registry client: Docker's registry API v2 over HTTP/1.1, with TLS but where allowed without.
//!
//! ```text
//!  offer ──► manifests/TAG ──► (index: what fits best) ──► blobs/CONFIG     whole, in memory
//!  blob  ──► blobs/LAYER ──► chunks ──► channel                                  resumed by Range
//!                │
//!  each request: send ──► 401: challenge answered (auth) ──► again
//!                     └─► 3xx: checked redirect          ──► again, without Authorization elsewhere
//!  each connection: resolve ──► check the address ──► dial that address ──► TLS
//! ```
//!
//! Trusted is only what a digest proves. A registry, its token server and the targets of its
//! redirects may be hostile: they get no credentials of another origin, lead us to no address of
//! this machine, and cannot make us wait or store without bound.
//!
//! Why not a ready HTTP client: redirects and addresses must be ours to check, hop by hop.

use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, LOCATION, RANGE, USER_AGENT};
use hyper::{Request, StatusCode};

use crate::digest::Digest;
use crate::limits::Limits;
use crate::reference::{DOCKER_HUB, Reference};

mod access;
mod address;
mod auth;
mod connect;
mod error;
mod fetch;
mod reply;
mod retry;
mod url;

pub use access::{Access, AddressBlock, Addresses, Credentials, HostRules, Loopback, Scheme};
pub use address::{Reach, reach};
pub use error::RegistryError;
pub use url::UrlError;

pub(crate) use fetch::Received;

use auth::Authorization;
use connect::{Connector, within};
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
    /// What the last challenge was answered with; requests of the same pull send it at once.
    authorization: Mutex<Option<Authorization>>,
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
            authorization: Mutex::default(),
            foreign: Mutex::default(),
        })
    }

    /// Sends a request, answers challenges and follows redirects. Any final status is a reply.
    async fn send(&self, wanted: &Wanted<'_>) -> Result<Reply, RegistryError> {
        let path_and_query = format!("/v2/{}/{}", self.reference.repository(), wanted.path);
        let mut url = Url { origin: self.origin.clone(), path_and_query };
        let mut authorization = self.known_authorization();
        let (mut redirects, mut challenges) = (0, 0);
        let (mut answered, mut strayed) = (None, false);
        loop {
            let reply = self.exchange(&url, wanted, authorization.as_ref()).await?;
            match reply.status {
                StatusCode::UNAUTHORIZED
                    if url.origin == self.origin && !strayed && challenges < self.limits.challenges =>
                {
                    challenges += 1;
                    let challenge = auth::challenges(&reply.headers);
                    // What has just been refused would be refused again.
                    if answered.as_ref() == Some(&challenge) {
                        return Ok(reply);
                    }
                    reply.discard().await;
                    let answer = auth::answer(self, &url, &challenge).await?;
                    if answer.is_none() {
                        return self.exchange(&url, wanted, None).await;
                    }
                    answered = Some(challenge);
                    self.remember_authorization(answer.clone());
                    authorization = answer;
                }
                status if is_redirect(status) => {
                    redirects += 1;
                    if redirects > self.limits.redirects {
                        let (what, url, limit) =
                            (wanted.what.to_owned(), url.to_string(), self.limits.redirects);
                        return Err(RegistryError::Redirects { what, url, limit });
                    }
                    let next = redirect(&url, &reply)?;
                    // Once away from the origin, its credentials do not come back by a redirect either.
                    if next.origin != self.origin {
                        (authorization, strayed) = (None, true);
                    }
                    reply.discard().await;
                    url = next;
                }
                _ => return Ok(reply),
            }
        }
    }

    /// One request and the head of its response, over a kept connection or a new one.
    async fn exchange(
        &self,
        url: &Url,
        wanted: &Wanted<'_>,
        authorization: Option<&Authorization>,
    ) -> Result<Reply, RegistryError> {
        let failed = |source| RegistryError::Http { url: url.to_string(), source };
        let request = || {
            let mut request = Request::get(url.path_and_query.as_str())
                .header(HOST, url.origin.authority())
                .header(USER_AGENT, AGENT);
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
                .body(Empty::<Bytes>::new())
                .map_err(|_invalid| RegistryError::Challenge { url: url.to_string() })
        };
        if let Some(mut connection) = self.connector.reuse(&url.origin) {
            let response =
                within(self.limits.first_byte, "get", url, connection.send_request(request()?)).await?;
            // A server may close an idle connection at any moment: then a fresh one is tried at once.
            if let Ok(response) = response {
                return Reply::new(url.clone(), response, connection, &self.connector);
            }
        }
        let mut connection = self.connector.connect(&url.origin).await?;
        let response =
            within(self.limits.first_byte, "get", url, connection.send_request(request()?)).await?;
        Reply::new(url.clone(), response.map_err(failed)?, connection, &self.connector)
    }

    /// What is configured for the registry.
    fn rules(&self) -> Option<&HostRules> {
        self.access.rules(&self.origin)
    }

    fn known_authorization(&self) -> Option<Authorization> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone().filter(Authorization::is_fresh)
    }

    fn remember_authorization(&self, answer: Option<Authorization>) {
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }
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
