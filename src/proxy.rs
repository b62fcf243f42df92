//! The taskcluster proxy: plain HTTP inside a task, signed requests outside, which may do what the task may and no more.
//!
//! ```text
//!   task ── http://taskcluster/api/queue/v1/… ──► 169.254.1.1:80 ──► connections ──► target    whose is that path?
//!                                                                        │        signature    with the run's credentials
//!                                                                        ▼
//!                                                                     forward ──► dial ──► <root URL>/api/queue/v1/…
//! ```
//!
//! Each task has a listener of its own, bound to its own link, and with it go the credentials and scopes that its requests
//! are signed with: nothing that a request says has a part in that. The credentials change under it with each reclaim.
//!
//! What a task sends is hostile: connections, heads and what is kept of a body to send it again are bounded; everything
//! else is passed on as it comes. [`dial`] looks at each address that a name leads to before it connects: but for the
//! root URL's own origin, only those of the internet are for tasks, and none of this host or beside it.

mod connections;
mod credentials;
mod dial;
mod forward;
mod label;
mod signature;
mod target;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use hyper::Uri;
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::JoinError;

use self::dial::{Dialler, Origin};
use crate::background::Background;
use crate::queue::Credentials;

/// A body on its way, in either direction.
type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// What requests go out by.
type Outside = Client<HttpsConnector<Dialler>, Body>;

/// Bytes of one task's requests that are kept to send them again. What does not fit is sent once.
const KEPT_BYTES: usize = 16 << 20;

/// How long a connection to the outside is kept for another request.
const IDLE: Duration = Duration::from_secs(4);

/// The proxy of one worker.
#[derive(Debug)]
pub struct Proxy {
    root_url: String,
    /// Made for the first task that has the proxy.
    connector: OnceCell<HttpsConnector<Dialler>>,
}

/// Why a task cannot have the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The root URL is none.
    #[error("call Taskcluster at {0:?}: set rootUrl to http://HOST or https://HOST")]
    RootUrl(String),
    /// There can be no TLS.
    #[error("prepare TLS")]
    Tls(#[from] rustls::Error),
    /// The thread that reads this host's certificates panicked.
    #[error("read the certificates that this host trusts")]
    Panicked(#[from] JoinError),
    /// The socket cannot be waited for.
    #[error("listen for the task's requests")]
    Listen(#[source] io::Error),
}

/// Serves one task as long as it lives; with it all connections of the task end.
#[derive(Debug)]
#[must_use = "the task is served as long as this lives"]
pub struct Serving {
    _accepting: Background,
    _renewing: Background,
}

/// In whose name requests are made.
#[derive(Debug)]
pub struct Caller {
    /// The run's credentials, which change with each reclaim.
    pub credentials: watch::Receiver<Credentials>,
    /// What its requests may do at most: the credentials may be good for more.
    pub scopes: Vec<String>,
}

/// All that belongs to one task.
struct Door {
    root_url: String,
    outside: Outside,
    credentials: watch::Sender<Credentials>,
    scopes: Vec<String>,
    /// See [`KEPT_BYTES`].
    kept: Arc<Semaphore>,
}

impl Proxy {
    /// For the deployment at a root URL. Nothing is made before the first task has it.
    pub fn new(root_url: &str) -> Proxy {
        Proxy { root_url: root_url.trim_end_matches('/').to_owned(), connector: OnceCell::new() }
    }

    /// Serves a task by a socket that takes connections of this task only. Inside a tokio runtime only.
    ///
    /// # Errors
    ///
    /// [`ProxyError`]
    pub async fn serve(&self, listener: TcpListener, caller: Caller) -> Result<Serving, ProxyError> {
        let connector = self.connector.get_or_try_init(|| connector(&self.root_url)).await?.clone();
        // Connections of its own: whatever became of one, no task is sent what another one has asked for.
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        let outside = client.build(connector);
        listener.set_nonblocking(true).map_err(ProxyError::Listen)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(ProxyError::Listen)?;
        let Caller { mut credentials, scopes } = caller;
        let present = credentials.borrow_and_update().clone();
        let door = Arc::new(Door {
            root_url: self.root_url.clone(),
            outside,
            credentials: watch::Sender::new(present),
            scopes,
            kept: Arc::new(Semaphore::new(KEPT_BYTES)),
        });
        let renewed = Arc::clone(&door);
        let renewing = Background::start(async move {
            while credentials.changed().await.is_ok() {
                let next = credentials.borrow_and_update().clone();
                renewed.credentials.send_replace(next);
            }
        });
        let accepting = Background::start(connections::accept(listener, door));
        Ok(Serving { _accepting: accepting, _renewing: renewing })
    }
}

async fn connector(root_url: &str) -> Result<HttpsConnector<Dialler>, ProxyError> {
    let unknown = || ProxyError::RootUrl(root_url.to_owned());
    let origin = root_url.parse::<Uri>().ok().and_then(|url| Origin::of(&url)).ok_or_else(unknown)?;
    // Reads many files.
    let tls = tokio::task::spawn_blocking(tls).await??;
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    Ok(builder.wrap_connector(Dialler::new(origin)))
}

fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    // Certificates that this host cannot read are as if they were not installed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    // The provider is passed by hand: two in one program would leave no default.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}
