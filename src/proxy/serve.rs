//! The process: takes tasks over from the worker and serves them until the worker closes its end of the socket.
//!
//! ```text
//!   orders ──► doors ──► door ──► accept ──► connections ──► forward ──► outside
//!                          └ tasks: everything that goes on for one task ends with its door
//! ```
//!
//! One thread, but for names that are looked up and certificates that are read. Bounds are kept for each task, so that it
//! gets what it needs whatever the others do, and for all of them together ([`places`], [`kept`], [`dial`]): [`bounds`] says
//! what the sum is, and that the container's limits allow it.

mod bounds;
mod client;
mod connections;
mod dial;
mod door;
mod forward;
mod hall;
mod identity;
mod kept;
mod label;
mod outside;
mod places;
mod signature;
mod steady;
mod target;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Response, StatusCode, Uri};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::UnixStream;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinError;

use self::bounds::KEPT_BYTES;
pub(super) use self::bounds::MEMORY_BYTES;
use self::dial::Origin;
use self::door::{Door, Task};
use self::places::AllPlaces;
pub(super) use self::signature::check;
use super::messages::{Order, Orders, Report, send_report};
use crate::text::chain;

/// A body on its way, in either direction.
type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Threads for what cannot be waited for otherwise: one for each task that looks up a name at the moment.
const THREADS: usize = 32;

/// Why the process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else than the worker has started it.
    #[error(
        "take tasks over from a worker: this command is the worker's own; a task has the proxy with `features: {{taskclusterProxy: true}}`"
    )]
    NotForPeople(#[source] io::Error),
    /// It could be traced, or leave a dump.
    #[error("keep others from looking into the process")]
    Dumpable(#[source] io::Error),
    /// There is no event loop.
    #[error("start")]
    Start(#[source] io::Error),
    /// The socket failed, or what came is no order.
    #[error("hear from the worker")]
    Worker(#[source] io::Error),
    /// The first order is not about a deployment that there could be.
    #[error("call Taskcluster at {0:?}: set rootUrl to http://HOST or https://HOST")]
    RootUrl(String),
    /// An order is out of turn.
    #[error("do what the worker wants: {0}; are both of the same build?")]
    Order(&'static str),
}

/// What all tasks have in common.
struct Server {
    /// Without a slash at its end.
    root_url: String,
    /// Where no address is refused.
    root: Origin,
    /// How servers prove who they are; read when it is first needed.
    tls: OnceCell<Arc<ClientConfig>>,
    places: AllPlaces,
    /// See [`KEPT_BYTES`].
    kept: Arc<Semaphore>,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error("prepare TLS")]
    Tls(#[from] rustls::Error),
    #[error("read the certificates that this host trusts")]
    Panicked(#[from] JoinError),
}

/// The whole process, from its first code to the worker's end. `control` is its end of the socket.
///
/// # Errors
///
/// [`ServeError`]
pub fn run(control: OwnedFd) -> Result<(), ServeError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| ServeError::Dumpable(errno.into()))?;
    runtime::heap::keep_small();
    let mut threads = tokio::runtime::Builder::new_current_thread();
    let runtime = threads.enable_all().max_blocking_threads(THREADS).build().map_err(ServeError::Start)?;
    let ended = runtime.block_on(async {
        let stream = StdUnixStream::from(control);
        stream.set_nonblocking(true).map_err(ServeError::Worker)?;
        attend(&UnixStream::from_std(stream).map_err(ServeError::Worker)?).await
    });
    // A name that is still being looked up must not keep the process.
    runtime.shutdown_background();
    ended
}

/// Carries out orders until there are no more.
pub(super) async fn attend(control: &UnixStream) -> Result<(), ServeError> {
    let mut orders = Orders::default();
    let server = match orders.next(control).await.map_err(ServeError::Worker)? {
        Some((Order::Open { root_url }, _)) => Arc::new(Server::new(&root_url)?),
        Some(_) => return Err(ServeError::Order("the first order has to name the deployment")),
        None => return Ok(()),
    };
    let report = async |report| send_report(control, &report).await.map_err(ServeError::Worker);
    report(Report::Ready).await?;
    let mut doors: HashMap<u64, Door> = HashMap::new();
    while let Some((order, listener)) = orders.next(control).await.map_err(ServeError::Worker)? {
        match order {
            Order::Open { .. } => return Err(ServeError::Order("the deployment is known already")),
            Order::Begin { task, address, scopes, credentials } => {
                let listener = listener.ok_or(ServeError::Order("a task came without its listener"))?;
                let whose = Task { address, scopes, credentials: credentials.into() };
                match Door::open(&server, TcpListener::from(listener), whose) {
                    Ok(door) => {
                        doors.insert(task, door);
                        report(Report::Begun { task }).await?;
                    }
                    Err(error) => report(Report::Failed { task, why: chain(&error) }).await?,
                }
            }
            Order::Renew { task, credentials } => {
                // It may have ended meanwhile, or not have begun.
                if let Some(door) = doors.get(&task) {
                    door.renew(&credentials.into());
                }
                report(Report::Renewed { task }).await?;
            }
            Order::End { task } => {
                if let Some(door) = doors.remove(&task) {
                    door.close().await;
                }
                report(Report::Ended { task }).await?;
            }
            Order::Ping => report(Report::Alive).await?,
        }
    }
    Ok(())
}

impl Server {
    fn new(root_url: &str) -> Result<Server, ServeError> {
        let unknown = || ServeError::RootUrl(root_url.to_owned());
        let root = root_url.parse::<Uri>().ok().and_then(|url| Origin::of(&url).ok()).ok_or_else(unknown)?;
        Ok(Server {
            root_url: root_url.trim_end_matches('/').to_owned(),
            root,
            tls: OnceCell::new(),
            places: AllPlaces::new(),
            kept: Arc::new(Semaphore::new(KEPT_BYTES)),
        })
    }

    /// Whom to believe.
    async fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let read = || async { Ok(Arc::new(tokio::task::spawn_blocking(tls).await??)) };
        self.tls.get_or_try_init(read).await.cloned()
    }
}

fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    // Those of the host's that can be read; the worker has put them where `SSL_CERT_FILE` says.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    // The provider is passed by hand: two in one program would leave no default.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// A body that is there already.
fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A response of the proxy's own.
fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
