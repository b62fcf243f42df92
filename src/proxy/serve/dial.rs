//! Connections to the outside, by the addresses that are a task's to ask for.
//!
//! A name is resolved once, and what it leads to is looked at before it is connected to: so a name that leads elsewhere
//! the next time gains nothing. The root URL's own origin is the operator's word, wherever it is.
//!
//! Names are looked up one at a time for each task, on threads of which there is one for each of many tasks: a task whose
//! names take long waits for itself.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use images::registry::{Reach, reach};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower_service::Service;

use super::bounds::OUTSIDE_SOCKET_BYTES;

/// How long a name may take to be resolved, and each of its addresses to be connected to.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// There is nobody to ask for.
    #[error("find a host in {0}")]
    NoHost(Uri),
    /// It has no address for tasks.
    #[error("connect to {host}: {why}, which tasks may not reach")]
    Refused {
        /// Where to.
        host: String,
        /// What its address is.
        why: &'static str,
    },
    /// It cannot be found or reached.
    #[error("connect to {host}")]
    Unreachable {
        /// Where to.
        host: String,
        /// What was in the way.
        source: io::Error,
    },
}

impl Origin {
    /// Of a URL that has a scheme and a host.
    ///
    /// # Errors
    ///
    /// [`DialError::NoHost`]
    pub(super) fn of(url: &Uri) -> Result<Origin, DialError> {
        Origin::find(url).ok_or_else(|| DialError::NoHost(url.clone()))
    }

    fn find(url: &Uri) -> Option<Origin> {
        let scheme = url.scheme_str()?.to_ascii_lowercase();
        let host = url.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Origin { scheme, host, port: port(url)? })
    }

    /// Whether it is spoken to by TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }
}

/// Where a server listens, if nothing else is said of it.
pub(super) fn port(url: &Uri) -> Option<u16> {
    let usual = match url.scheme_str()?.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some(url.port_u16().unwrap_or(usual))
}

/// Makes connections for one task.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    /// Where no address is refused.
    root: Origin,
    /// For one name at a time.
    lookups: Arc<Semaphore>,
}

impl Dialler {
    pub(super) fn new(root: Origin) -> Dialler {
        Dialler { root, lookups: Arc::new(Semaphore::new(1)) }
    }

    async fn dial(self, origin: Origin) -> Result<TcpStream, DialError> {
        let is_root = origin == self.root;
        let Origin { host, port, .. } = origin;
        let unreachable = |source| DialError::Unreachable { host: host.clone(), source };
        let found = in_time(self.addresses(host.trim_matches(['[', ']']), port)).await;
        let mut failure = unreachable(io::ErrorKind::NotFound.into());
        for address in found.map_err(unreachable)? {
            if let Some(why) = forbidden(address).filter(|_| !is_root) {
                failure = DialError::Refused { host: host.clone(), why };
                continue;
            }
            match in_time(connect(address)).await {
                Ok(stream) => {
                    // What is sent is waited for; without it, it is merely slower.
                    stream.set_nodelay(true).ok();
                    return Ok(stream);
                }
                Err(source) => failure = unreachable(source),
            }
        }
        Err(failure)
    }

    /// Where a name leads. The look-up has its place until it ends, whether or not anybody still waits for it.
    async fn addresses(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let name = name.to_owned();
        let looked_up = spawn_blocking(move || {
            let found = (name.as_str(), port).to_socket_addrs();
            drop(place);
            found.map(|addresses| addresses.take(ADDRESSES).collect())
        });
        looked_up.await.map_err(io::Error::other)?
    }
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, DialError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let own = self.clone();
        Box::pin(async move { own.dial(Origin::of(&url)?).await.map(TokioIo::new) })
    }
}

/// Connects, with bounds on what the kernel holds of what is sent and received.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Before the connection is made: its window is told at once.
    socket.set_recv_buffer_size(OUTSIDE_SOCKET_BYTES)?;
    socket.set_send_buffer_size(OUTSIDE_SOCKET_BYTES)?;
    socket.connect(address).await
}

/// What is wrong with an address, for a task.
fn forbidden(address: SocketAddr) -> Option<&'static str> {
    match reach(address.ip()) {
        Reach::Public => None,
        Reach::Private => Some("it has a private address"),
        Reach::Here(why) | Reach::Special(why) => Some(why),
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::sockopt::{socket_recv_buffer_size, socket_send_buffer_size};

    use super::*;

    #[tokio::test]
    async fn an_address_of_this_host_is_for_the_root_url_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Uri = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        let mut root = Dialler::new(Origin::of(&url).unwrap());
        let connected = root.call(url.clone()).await.unwrap().into_inner();
        // The kernel's bounds are there; it doubles them.
        let held = [socket_recv_buffer_size(&connected), socket_send_buffer_size(&connected)];
        assert_eq!(held.map(Result::unwrap), [2 * OUTSIDE_SOCKET_BYTES as usize; 2]);
        let mut other = Dialler::new(Origin::of(&"http://127.0.0.1:1".parse().unwrap()).unwrap());
        let name: Uri = url.to_string().replace("127.0.0.1", "localhost").parse().unwrap();
        let metadata = Uri::from_static("https://169.254.169.254/latest");
        let private = Uri::from_static("https://10.0.0.1/");
        for refused in [url, name.clone(), metadata, private] {
            assert!(matches!(other.call(refused).await, Err(DialError::Refused { .. })));
        }
        // Another name for it, or another scheme, is another origin.
        assert!(matches!(root.call(name).await, Err(DialError::Refused { .. })));
    }
}
