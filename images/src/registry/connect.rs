//! Connections: resolve, check the address, dial it, TLS, HTTP/1.1. Idle ones are used again.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::limits::Limits;

use super::access::{Access, Addresses, HostRules, Loopback, Scheme};
use super::address::{Reach, reach};
use super::error::RegistryError;
use super::tls::{Trust, tls_error};
use super::url::Origin;

/// Bytes of hyper's read buffer: 64 KiB would cost a third of the speed. A header block must fit
/// into it, and is held to its own limit when it has arrived.
const BUFFER_BYTES: usize = 256 << 10;

/// How long one address may be silent before the next is tried beside it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

pub(super) type Connection = SendRequest<Full<Bytes>>;

/// Dials hosts under the rules of one pull.
#[derive(Debug)]
pub(super) struct Connector {
    access: Access,
    /// The registry that the image's name spells.
    registry: Origin,
    /// It has been found on this machine.
    is_here: AtomicBool,
    limits: Limits,
    idle: Mutex<HashMap<Origin, Vec<Connection>>>,
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
    pub(super) fn reuse(&self, origin: &Origin) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(origin)?;
        std::iter::from_fn(|| connections.pop()).find(|connection| connection.is_ready())
    }

    /// Keeps a connection whose response has been read to its end.
    pub(super) fn keep(&self, origin: Origin, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(origin).or_default();
        if connections.len() < self.limits.parallel_blobs {
            connections.push(connection);
        }
    }

    /// Dials a host that the rules admit.
    pub(super) async fn connect(&self, origin: &Origin) -> Result<Connection, RegistryError> {
        self.check_scheme(origin)?;
        let limit = self.limits.connect;
        let addresses = within(limit, "find the address of", origin, self.resolve(origin)).await??;
        let dialled = within(limit, "connect to", origin, dial(addresses)).await?;
        let stream =
            dialled.map_err(|source| RegistryError::Connect { origin: origin.to_string(), source })?;
        // A failure only delays small writes.
        drop(stream.set_nodelay(true));
        match origin.scheme {
            Scheme::Http => self.handshake(origin, stream).await,
            Scheme::Https => {
                let name =
                    ServerName::try_from(origin.host.clone()).map_err(|error| tls_error(origin, error))?;
                let handshake = TlsConnector::from(self.tls(origin)?).connect(name, stream);
                let stream = within(limit, "connect to", origin, handshake).await?;
                let failed = |source| RegistryError::of_handshake(origin, source);
                self.handshake(origin, stream.map_err(failed)?).await
            }
        }
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
        let resolved = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
        let addresses: Vec<SocketAddr> = resolved
            .map_err(|source| RegistryError::Resolve { origin: origin.to_string(), source })?
            .collect();
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

    async fn handshake<S>(&self, origin: &Origin, stream: S) -> Result<Connection, RegistryError>
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
        Ok(sender)
    }

    fn tls(&self, origin: &Origin) -> Result<Arc<ClientConfig>, RegistryError> {
        let trust = self.rules(origin).map(Trust::of).unwrap_or_default();
        let mut known = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known.get(&trust) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(trust.configuration(origin)?);
        known.insert(trust, Arc::clone(&config));
        Ok(config)
    }
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
