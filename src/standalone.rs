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
//! services' own methods is in `page_methods` and `disk_use`.
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
mod disk_use;
mod exchange;
mod faults;
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
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::clients::Clients;
use self::clients_file::ClientsFile;
use self::disk_use::DiskUse;
use self::storage::Storage;
use crate::background::Background;
use crate::event::Events;
use crate::queue::{Credentials, EmbeddedQueue};
use crate::task::run::Worker;

pub use self::clients::Client;
pub use self::root_url::{RootUrl, RootUrlError};

/// How long a request for tasks is held where there are none.
pub const LONG_POLL: Duration = Duration::from_secs(20);

/// What the name of a worker is, and that of its group.
pub const WORKER_NAME: &str = params::WORD;

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
pub struct Standalone {
    address: SocketAddr,
    own_address: SocketAddr,
    worker: Arc<OnceLock<Arc<Worker>>>,
    _accepting: [Background; 2],
    _sweeping: Background,
    _telling: Background,
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
    /// Where they listen: for everybody, and for this process's own worker.
    addresses: [SocketAddr; 2],
    root_url: Option<RootUrl>,
    storage: Storage,
    /// The one in this process, once there is one.
    worker: Arc<OnceLock<Arc<Worker>>>,
    disk_use: DiskUse,
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
        let (listener, address) = listen(address).await?;
        let (own_listener, own_address) = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        clients.push(Client { credentials: root.clone(), scopes: vec!["*".to_owned()] });
        let worker = Arc::default();
        let services = Services {
            queue,
            clients: Clients { fixed: clients, file: further_clients.as_deref().map(ClientsFile::of) },
            root,
            addresses: [address, own_address],
            root_url,
            storage,
            worker: Arc::clone(&worker),
            disk_use: DiskUse::default(),
            large_payloads: Semaphore::new(exchange::LARGE_BYTES_AT_ONCE),
            long_poll: settings.long_poll,
            since: Instant::now(),
        };
        let services = Arc::new(services);
        let telling = Background::start(faults::tell(services.queue.faults(), settings.events.clone()));
        let sweeping = Background::start(sweep::keep_swept(Arc::clone(&services), settings.events));
        let accepting = [listener, own_listener]
            .map(|listener| Background::start(connections::accept(listener, Arc::clone(&services))));
        Ok(Standalone {
            address,
            own_address,
            worker,
            _accepting: accepting,
            _sweeping: sweeping,
            _telling: telling,
        })
    }

    /// Has the page show what the worker in this process has: live logs, what takes room on its disk, and what it would say of a
    /// task. The first one stays.
    pub fn show(&self, worker: &Arc<Worker>) {
        self.worker.get_or_init(|| Arc::clone(worker));
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the worker in this process calls it: on loopback, with places for connections of its own, so that strangers do
    /// not take these. It is told nobody and asks for the same credentials; but any user of this host can find its port.
    #[must_use]
    pub fn own_address(&self) -> SocketAddr {
        self.own_address
    }
}

/// Whether a queue takes a name for a worker or for its group: [`WORKER_NAME`].
#[must_use]
pub fn is_worker_name(text: &str) -> bool {
    params::is_word(text)
}

/// A listener, and where it listens.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StandaloneError> {
    let failed = |source| StandaloneError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
