//! Connections to storage, kept for a while for the next upload. Dropping one closes it, whatever is under way on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use super::body::Body;
use crate::background::Background;
use crate::text::chain;

/// How long a connection is kept for another upload: less than storage keeps it.
const IDLE: Duration = Duration::from_secs(4);

/// Connections that are kept.
const KEPT: usize = 8;

/// Makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    dialler: HttpsConnector<HttpConnector>,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// One that is open.
#[derive(Debug)]
pub(super) struct Connection {
    origin: Origin,
    sender: SendRequest<Body>,
    _driving: Background,
}

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin(String);

impl Origin {
    fn of(url: &Uri) -> Origin {
        let scheme = url.scheme_str().unwrap_or_default();
        let authority = url.authority().map_or("", |authority| authority.as_str());
        Origin(format!("{scheme}://{authority}"))
    }
}

/// TLS with the authorities that this host trusts. Blocks.
pub(crate) fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    // Certificates that this host cannot read are as if they were not installed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    // The provider is passed by hand: two in one program would leave no default.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Connector {
    /// With the authorities that this host trusts.
    pub(super) fn new(timeout: Duration) -> Result<Connector, rustls::Error> {
        let tls = tls()?;
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Ok(Connector { dialler: builder.wrap_connector(tcp), idle: Mutex::default() })
    }

    /// Sends a request; the connection comes with its response, to be kept when that has been read. What goes wrong is
    /// told in words.
    pub(super) async fn send(
        &self,
        url: &Uri,
        mut request: Request<Body>,
    ) -> Result<(Connection, Response<Incoming>), String> {
        let origin = Origin::of(url);
        while let Some(mut connection) = self.reuse(&origin) {
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                // Closed since: nothing was sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(chain(error.error())),
                },
            }
        }
        let mut connection = self.dial(url, origin).await?;
        let response = connection.sender.send_request(request).await.map_err(|error| chain(&error))?;
        Ok((connection, response))
    }

    /// Keeps a connection whose response has been read.
    pub(super) fn keep(&self, connection: Connection) {
        let mut idle = self.lock();
        idle.retain(|idle| idle.since.elapsed() < IDLE);
        if idle.len() < KEPT {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    fn reuse(&self, origin: &Origin) -> Option<Connection> {
        let mut idle = self.lock();
        idle.retain(|idle| idle.since.elapsed() < IDLE && !idle.connection.sender.is_closed());
        let found = idle.iter().rposition(|idle| idle.connection.origin == *origin)?;
        Some(idle.swap_remove(found).connection)
    }

    async fn dial(&self, url: &Uri, origin: Origin) -> Result<Connection, String> {
        let stream = self.dialler.clone().call(url.clone()).await.map_err(|error| chain(&*error))?;
        let (sender, connection) = handshake(stream).await.map_err(|error| chain(&error))?;
        // Its errors reach whoever waits for the response.
        let driving = Background::start(async { drop(connection.await) });
        Ok(Connection { origin, sender, _driving: driving })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        // A panic under the lock leaves a list of connections, which may be closed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
