//! Connections: resolve, check the address, dial it, TLS, HTTP/1.1. Idle ones are used again.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::limits::Limits;

use super::Party;
use super::access::{Access, Addresses, HostRules, Loopback, Scheme};
use super::address::{Reach, reach};
use super::error::RegistryError;
use super::proxy::Proxy;
use super::tls::{Trust, tls_error};
use super::tunnel;
use super::url::{Origin, Url};

/// Bytes of hyper's read buffer: 64 KiB would cost a third of the speed. A header block must fit
/// into it, and is held to its own limit when it has arrived.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// How long one address may be silent before the next is tried beside it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// A connection to a host, or for a host in the clear to its proxy.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    proxy: Option<Proxy>,
    /// As whom it was opened.
    party: Party,
}

impl Connection {
    fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// What a request for this URL is for: a path, but a proxy has to hear of which host.
    pub(super) fn target(&self, url: &Url) -> String {
        match &self.proxy {
            None => url.path_and_query.clone(),
            Some(_) => format!("http://{}{}", url.origin.authority(), url.path_and_query),
        }
    }

    /// What says to the proxy who we are.
    pub(super) fn proxy_authorization(&self) -> Option<&str> {
        self.proxy.as_ref()?.authorization.as_deref()
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.send_request(request).await
    }

    /// Whether it was the proxy that refused, for itself.
    pub(super) fn check(&self, origin: &Origin, status: StatusCode) -> Result<(), RegistryError> {
        match &self.proxy {
            Some(proxy) if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(tunnel::refused(proxy, origin, status))
            }
            _ => Ok(()),
        }
    }
}

/// What bytes go through.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Dials hosts under the rules of one pull.
#[derive(Debug)]
pub(super) struct Connector {
    access: Access,
    /// The registry that the image's name spells.
    registry: Origin,
    /// It has been found on this machine.
    is_here: AtomicBool,
    limits: Limits,
    idle: Mutex<HashMap<(Origin, Party), Vec<Connection>>>,
    /// TLS configurations: each host has only its own authorities and certificate.
    tls: Mutex<HashMap<Trust, Arc<ClientConfig>>>,
}

impl Connector {
    pub(super) fn new(access: &Access, registry: Origin, limits: &Limits) -> Connector {
        let (access, limits) = (access.clone(), limits.clone());
        let (idle, tls, is_here) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Connector { access, registry, is_here, limits, idle, tls }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A connection from an earlier request, if one is still open.
    pub(super) fn reuse(&self, origin: &Origin, party: Party) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(&(origin.clone(), party))?;
        std::iter::from_fn(|| connections.pop()).find(|connection| connection.is_ready())
    }

    /// Keeps a connection whose response has been read to its end.
    pub(super) fn keep(&self, origin: Origin, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry((origin, connection.party)).or_default();
        if connections.len() < self.limits.parallel_blobs {
            connections.push(connection);
        }
    }

    /// Dials a host that the rules admit.
    pub(super) async fn connect(&self, origin: &Origin, party: Party) -> Result<Connection, RegistryError> {
        self.check_scheme(origin)?;
        if let Some(proxy) = self.access.proxies.of(origin) {
            return self.connect_by(proxy, origin, party).await;
        }
        let addresses =
            within(self.limits.connect, "find the address of", origin, self.resolve(origin)).await??;
        let stream = self.dial(origin, addresses).await?;
        match origin.scheme {
            Scheme::Http => self.handshake(origin, stream, (None, party)).await,
            Scheme::Https => {
                let stream = self.secure(origin, party, stream).await?;
                self.handshake(origin, stream, (None, party)).await
            }
        }
    }

    /// Has a proxy dial it. Where a name leads is for the proxy to know and to judge; what is an address is judged here.
    async fn connect_by(
        &self,
        proxy: &Proxy,
        origin: &Origin,
        party: Party,
    ) -> Result<Connection, RegistryError> {
        let limit = self.limits.connect;
        if origin.is_numeric() {
            within(limit, "find the address of", origin, self.resolve(origin)).await??;
        }
        let addresses = within(limit, "find the address of", proxy, lookup(&proxy.origin, proxy)).await??;
        let stream = self.dial(proxy, addresses).await?;
        let stream: Box<dyn Stream> = match proxy.origin.scheme {
            Scheme::Http => Box::new(stream),
            Scheme::Https => Box::new(self.secure(&proxy.origin, Party::Ourselves, stream).await?),
        };
        match origin.scheme {
            Scheme::Http => self.handshake(origin, stream, (Some(proxy.clone()), party)).await,
            Scheme::Https => {
                let stream = tunnel::open(stream, proxy, origin, &self.limits).await?;
                let stream = self.secure(origin, party, stream).await?;
                self.handshake(origin, stream, (None, party)).await
            }
        }
    }

    async fn dial(
        &self,
        whom: &impl ToString,
        addresses: Vec<SocketAddr>,
    ) -> Result<TcpStream, RegistryError> {
        let dialled = within(self.limits.connect, "connect to", whom, dial(addresses)).await?;
        let stream = dialled.map_err(|source| RegistryError::Connect { origin: whom.to_string(), source })?;
        // A failure only delays small writes.
        drop(stream.set_nodelay(true));
        Ok(stream)
    }

    async fn secure<S>(&self, origin: &Origin, party: Party, stream: S) -> Result<TlsStream<S>, RegistryError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(origin.host.clone()).map_err(|error| tls_error(origin, error))?;
        let handshake = TlsConnector::from(self.tls(origin, party)?).connect(name, stream);
        let stream = within(self.limits.connect, "connect to", origin, handshake).await?;
        stream.map_err(|source| RegistryError::of_handshake(origin, source))
    }

    fn check_scheme(&self, origin: &Origin) -> Result<(), RegistryError> {
        let by_rule = self.rules(origin).is_some_and(|rules| rules.scheme == Scheme::Http);
        // The registry's own scheme was settled from the same rules when its name was read.
        let is_named = *origin == self.registry;
        let stays_here = self.may_stay_here() && origin.is_loopback();
        if origin.scheme == Scheme::Https || is_named || by_rule || stays_here {
            return Ok(());
        }
        Err(RegistryError::PlainHttp { origin: origin.to_string() })
    }

    /// Whether the operator's registry is on this machine, so that it may lead to others here.
    fn may_stay_here(&self) -> bool {
        self.access.loopback == Loopback::Operator && self.is_here.load(Ordering::Relaxed)
    }

    /// The addresses of a host, none of which is refused. What is checked is what is dialled.
    async fn resolve(&self, origin: &Origin) -> Result<Vec<SocketAddr>, RegistryError> {
        let addresses = lookup(origin, origin).await?;
        addresses.iter().try_for_each(|address| self.check_address(origin, address.ip()))?;
        Ok(addresses)
    }

    fn check_address(&self, origin: &Origin, address: IpAddr) -> Result<(), RegistryError> {
        let rules = self.rules(origin);
        let is_plain = rules.is_some_and(|rules| rules.scheme == Scheme::Http);
        let addresses = rules.map_or(Addresses::Ordinary, |rules| rules.addresses);
        let is_operator = self.access.loopback == Loopback::Operator;
        let is_excluded = self.access.excluded.iter().any(|block| block.contains(address));
        let reach = reach(address);
        if matches!(reach, Reach::Here(_)) && *origin == self.registry {
            self.is_here.store(true, Ordering::Relaxed);
        }
        let elsewhere = "use one that has another address";
        let (why, admitted, remedy) = match reach {
            _ if addresses == Addresses::Any => return Ok(()),
            _ if is_excluded => ("an address of containers", false, elsewhere),
            Reach::Public => return Ok(()),
            Reach::Private => {
                let admitted = is_operator || is_plain || addresses == Addresses::Private;
                (
                    "a private address",
                    admitted,
                    "privateAddresses: true for this host in the worker's `registries` allows it",
                )
            }
            Reach::Here(why) => {
                let remedy =
                    "plainHttp: true for this host in the worker's `registries` allows it, without TLS";
                (why, is_plain || self.may_stay_here(), remedy)
            }
            Reach::Special(why) => (why, false, elsewhere),
        };
        if admitted {
            return Ok(());
        }
        Err(RegistryError::Address { origin: origin.to_string(), address, why, remedy })
    }

    fn rules(&self, origin: &Origin) -> Option<&HostRules> {
        self.access.rules(origin)
    }

    async fn handshake<S>(
        &self,
        origin: &Origin,
        stream: S,
        (proxy, party): (Option<Proxy>, Party),
    ) -> Result<Connection, RegistryError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES).max_headers(self.limits.header_fields);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| RegistryError::Http { url: origin.to_string(), source })?;
        // Its errors reach whoever waits for the response.
        tokio::spawn(connection);
        Ok(Connection { sender, proxy, party })
    }

    fn tls(&self, origin: &Origin, party: Party) -> Result<Arc<ClientConfig>, RegistryError> {
        let trust = self.rules(origin).map(|rules| Trust::of(rules, party)).unwrap_or_default();
        let mut known = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known.get(&trust) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(trust.configuration(origin)?);
        known.insert(trust, Arc::clone(&config));
        Ok(config)
    }
}

/// All addresses of a host, which messages call `whom`.
async fn lookup(origin: &Origin, whom: &impl ToString) -> Result<Vec<SocketAddr>, RegistryError> {
    let resolved = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
    let failed = |source| RegistryError::Resolve { origin: whom.to_string(), source };
    resolved.map(Iterator::collect).map_err(failed)
}

/// Connects to whichever address answers first. One that is silent holds up the next, of the other
/// family, for a moment only (RFC 8305).
async fn dial(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut failure = io::Error::other("the name has no address");
    let mut rest = alternating(addresses).into_iter();
    let mut dialling = JoinSet::new();
    loop {
        match rest.next() {
            Some(address) => drop(dialling.spawn(TcpStream::connect(address))),
            None if dialling.is_empty() => return Err(failure),
            None => {}
        }
        let next = tokio::select! {
            Some(ended) = dialling.join_next() => ended,
            () = tokio::time::sleep(NEXT_ADDRESS), if rest.len() > 0 => continue,
        };
        match next.map_err(io::Error::other).flatten() {
            // The others are dropped, and with them their connections.
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
}

/// In the resolver's order, but the families by turns.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let longest = preferred.len().max(other.len());
    let turns = (0..longest).flat_map(|turn| [preferred.get(turn), other.get(turn)]);
    turns.flatten().copied().collect()
}

/// Waits for something of the outside world for `limit` at most.
pub(super) async fn within<T>(
    limit: Duration,
    action: &'static str,
    what: &impl ToString,
    future: impl Future<Output = T>,
) -> Result<T, RegistryError> {
    let timed = tokio::time::timeout(limit, future).await;
    timed.map_err(|_elapsed| RegistryError::Timeout { action, url: what.to_string(), limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let six = ["[2001:db8::1]:1", "[2001:db8::2]:1"].map(parse);
        let four = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].map(parse);
        let turns = alternating([&six[..], &four[..]].concat());
        assert_eq!(turns, [six[0], four[0], six[1], four[1], four[2]]);
        assert_eq!(alternating(Vec::new()), []);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_address_that_refuses_does_not_keep_the_next_from_answering() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let answering = listener.local_addr().unwrap();
        let stream = dial(vec![closed, answering]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answering);
        assert_eq!(dial(vec![closed]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
