//! The embedded queue with the HTTP API of Taskcluster's, so that its clients, and workers, use it unchanged.
//!
//! ```text
//!   client, worker ──► connections ──► routes ──► exchange: payload, hawk ► clients (who, which scopes)
//!                          │                          │
//!                          ▼                          ▼ methods
//!                       storage                    tasks, groups, pools, work, artifacts, … ──► queue
//! ```
//!
//! The page that a browser gets is such a client as well: its files are served by `page`, and what it needs beside the
//! services' own methods is in `page_methods`.
//!
//! What the methods take, need and answer are the services' own; so are codes and statuses of refusals. Of the other
//! services there is what workers and tasks call: auth (scopes), purge-cache, object (what artifacts need), index, secrets.
//!
//! Time is the queue's everywhere: claims, certificates, signatures, URLs, the header `Date`.

mod artifacts;
mod batches;
mod certificate;
mod clients;
pub mod clients_file;
mod connections;
mod cors;
pub mod credentials_file;
mod exchange;
mod groups;
mod hawk;
mod index;
mod methods;
mod objects;
mod page;
mod page_methods;
mod paging;
mod params;
mod pools;
mod priorities;
mod reply;
mod root_url;
mod routes;
mod secrets;
mod storage;
mod stored_body;
mod strays;
mod sweep;
mod tasks;
mod work;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::clients::Clients;
use self::clients_file::ClientsFile;
use self::storage::Storage;
use crate::background::Background;
use crate::event::Events;
use crate::live_log::ServedLogs;
use crate::queue::{Credentials, EmbeddedQueue};

pub use self::clients::Client;
pub use self::root_url::{RootUrl, RootUrlError};

/// How long a request for tasks is held where there are none.
pub const LONG_POLL: Duration = Duration::from_secs(20);

/// How a queue is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 is any free one.
    pub address: SocketAddr,
    /// Where its clients are told to find it, if that is not where they call: behind a reverse proxy.
    pub root_url: Option<RootUrl>,
    /// The directory that keeps the bytes of artifacts; made if there is none.
    pub storage: PathBuf,
    /// Who may do everything. Its token signs the credentials of claims and the URLs of artifacts, so that they are good
    /// as long as it stays the same.
    pub root: Credentials,
    /// Who else may do what.
    pub clients: Vec<Client>,
    /// The data directory whose file names further ones, which come and go.
    pub further_clients: Option<PathBuf>,
    /// How long a request for tasks is held where there are none: [`LONG_POLL`].
    pub long_poll: Duration,
    /// Where it tells of what goes wrong beside the calls.
    pub events: Events,
}

/// A queue that is served, until this value goes.
#[derive(Debug)]
pub struct Standalone {
    address: SocketAddr,
    live_logs: Arc<OnceLock<ServedLogs>>,
    _accepting: Background,
    _sweeping: Background,
}

/// Why a queue cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The directory cannot be had.
    #[error("keep artifacts in {}", .directory.display())]
    Storage {
        /// Which.
        directory: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What all calls share.
struct Services {
    queue: EmbeddedQueue,
    clients: Clients,
    root: Credentials,
    /// Where they listen.
    address: SocketAddr,
    root_url: Option<RootUrl>,
    storage: Storage,
    /// The live logs of the worker in this process, once there is one.
    live_logs: Arc<OnceLock<ServedLogs>>,
    /// Room in bytes for payloads that are large.
    large_payloads: Semaphore,
    long_poll: Duration,
    since: Instant,
}

impl Services {
    /// How long they have been there.
    fn uptime(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Standalone {
    /// Begins to serve a queue. Inside a tokio runtime only.
    ///
    /// # Errors
    ///
    /// [`StandaloneError`].
    pub async fn start(queue: EmbeddedQueue, settings: Settings) -> Result<Standalone, StandaloneError> {
        let Settings { address, root_url, storage: directory, root, mut clients, further_clients, .. } =
            settings;
        let storage = Storage::open(directory.clone(), &root.access_token)
            .map_err(|source| StandaloneError::Storage { directory, source })?;
        let listening = |source| StandaloneError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listening)?;
        let bound = listener.local_addr().map_err(listening)?;
        clients.push(Client { credentials: root.clone(), scopes: vec!["*".to_owned()] });
        let live_logs = Arc::default();
        let services = Services {
            queue,
            clients: Clients { fixed: clients, file: further_clients.as_deref().map(ClientsFile::of) },
            root,
            address: bound,
            root_url,
            storage,
            live_logs: Arc::clone(&live_logs),
            large_payloads: Semaphore::new(exchange::LARGE_BYTES_AT_ONCE),
            long_poll: settings.long_poll,
            since: Instant::now(),
        };
        let services = Arc::new(services);
        let sweeping = Background::start(sweep::keep_swept(Arc::clone(&services), settings.events));
        let accepting = Background::start(connections::accept(listener, services));
        Ok(Standalone { address: bound, live_logs, _accepting: accepting, _sweeping: sweeping })
    }

    /// Has the page show the live logs of the worker in this process; the first ones stay.
    pub fn show_live_logs(&self, logs: ServedLogs) {
        self.live_logs.get_or_init(|| logs);
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
