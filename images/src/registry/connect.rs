//! Connections: resolve, check the address, dial it, TLS, HTTP/1.1. Idle ones are used again.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::limits::Limits;

use super::access::{Access, Addresses, HostRules, Loopback, Scheme};
use super::address::special;
use super::error::RegistryError;
use super::url::Origin;

/// Bytes of hyper's read buffer: 64 KiB would cost a third of the speed. A header block must fit
/// into it, and is held to its own limit when it has arrived.
const BUFFER_BYTES: usize = 256 << 10;

pub(super) type Connection = SendRequest<Empty<Bytes>>;

/// Dials hosts under the rules of one pull.
#[derive(Debug)]
pub(super) struct Connector {
    access: Access,
    /// The registry that the image's name spells.
    registry: Origin,
    limits: Limits,
    idle: Mutex<HashMap<Origin, Vec<Connection>>>,
    /// TLS configurations by additional authorities: each host trusts only its own.
    tls: Mutex<HashMap<Option<PathBuf>, Arc<ClientConfig>>>,
}

impl Connector {
    pub(super) fn new(access: &Access, registry: Origin, limits: &Limits) -> Connector {
        let (access, limits) = (access.clone(), limits.clone());
        Connector { access, registry, limits, idle: Mutex::default(), tls: Mutex::default() }
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
        let stream = within(limit, "connect to", origin, self.dial(origin)).await??;
        // A failure only delays small writes.
        drop(stream.set_nodelay(true));
        match origin.scheme {
            Scheme::Http => self.handshake(origin, stream).await,
            Scheme::Https => {
                let name =
                    ServerName::try_from(origin.host.clone()).map_err(|error| tls_error(origin, error))?;
                let handshake = TlsConnector::from(self.tls(origin)?).connect(name, stream);
                let stream = within(limit, "connect to", origin, handshake).await?;
                self.handshake(origin, stream.map_err(|error| tls_error(origin, error))?).await
            }
        }
    }

    fn check_scheme(&self, origin: &Origin) -> Result<(), RegistryError> {
        let rules = self.rules(origin);
        let is_named = *origin == self.registry;
        match origin.scheme {
            Scheme::Https => Ok(()),
            // The registry's own scheme was settled from the same rules when its name was read.
            Scheme::Http if is_named || rules.is_some_and(|rules| rules.scheme == Scheme::Http) => Ok(()),
            Scheme::Http => Err(RegistryError::PlainHttp { origin: origin.to_string() }),
        }
    }

    /// Resolves, and connects to the first address that answers. What is checked is what is dialled.
    async fn dial(&self, origin: &Origin) -> Result<TcpStream, RegistryError> {
        let resolved = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
        let addresses: Vec<SocketAddr> = resolved
            .map_err(|source| RegistryError::Resolve { origin: origin.to_string(), source })?
            .collect();
        let mut failure = io::Error::other("the name has no address");
        for address in addresses {
            self.check_address(origin, address)?;
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(RegistryError::Connect { origin: origin.to_string(), source: failure })
    }

    fn check_address(&self, origin: &Origin, address: SocketAddr) -> Result<(), RegistryError> {
        let Some(why) = special(address.ip()) else { return Ok(()) };
        let by_rule = self.rules(origin).is_some_and(|rules| rules.addresses == Addresses::Any);
        let by_operator = self.access.loopback == Loopback::Operator
            && address.ip().is_loopback()
            && *origin == self.registry;
        if by_rule || by_operator {
            return Ok(());
        }
        Err(RegistryError::Address { origin: origin.to_string(), address: address.ip(), why })
    }

    fn rules(&self, origin: &Origin) -> Option<&HostRules> {
        self.access.rules(&origin.host, origin.port)
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
        let authorities = self.rules(origin).and_then(|rules| rules.authorities.clone());
        let mut known = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known.get(&authorities) {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        // Certificates that this host cannot read are as if they were not installed.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &authorities {
            let failed =
                |error| RegistryError::Authorities { path: path.clone(), source: io::Error::other(error) };
            for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
                let added = roots.add(certificate.map_err(failed)?);
                added.map_err(|error| RegistryError::Authorities {
                    path: path.clone(),
                    source: io::Error::other(error),
                })?;
            }
        }
        // The provider is passed by hand: two in one program would leave no default.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls_error(origin, error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        known.insert(authorities, Arc::clone(&config));
        Ok(config)
    }
}

fn tls_error(origin: &Origin, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RegistryError {
    RegistryError::Tls { origin: origin.to_string(), source: io::Error::other(error) }
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
