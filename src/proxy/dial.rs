//! Connections to the outside, by the addresses that are a task's to ask for.
//!
//! A name is resolved once, and what it leads to is looked at before it is connected to: so a name that leads elsewhere
//! the next time gains nothing. The root URL's own origin is the operator's word, wherever it is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use images::registry::{Reach, reach};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tower_service::Service;

/// How long a name may take to be resolved, and each of its addresses to be connected to.
const TIMEOUT: Duration = Duration::from_secs(20);

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
    pub(super) fn of(url: &Uri) -> Option<Origin> {
        let scheme = url.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = url.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Origin { scheme, host, port: url.port_u16().unwrap_or(default) })
    }
}

/// Makes connections for tasks.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    /// Where no address is refused.
    root: Origin,
}

impl Dialler {
    pub(super) fn new(root: Origin) -> Dialler {
        Dialler { root }
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
        let root = self.root.clone();
        Box::pin(async move {
            let origin = Origin::of(&url).ok_or(DialError::NoHost(url))?;
            let is_root = origin == root;
            dial(origin, is_root).await.map(TokioIo::new)
        })
    }
}

async fn dial(Origin { host, port, .. }: Origin, is_root: bool) -> Result<TcpStream, DialError> {
    let name = host.trim_matches(['[', ']']);
    let mut failure = DialError::Unreachable { host: host.clone(), source: io::ErrorKind::NotFound.into() };
    let found = in_time(lookup_host((name, port))).await;
    let found = found.map_err(|source| DialError::Unreachable { host: host.clone(), source })?;
    for address in found {
        if let Some(why) = forbidden(address).filter(|_| !is_root) {
            failure = DialError::Refused { host: host.clone(), why };
            continue;
        }
        match in_time(TcpStream::connect(address)).await {
            Ok(stream) => {
                // What is sent is waited for; without it, it is merely slower.
                stream.set_nodelay(true).ok();
                return Ok(stream);
            }
            Err(source) => failure = DialError::Unreachable { host: host.clone(), source },
        }
    }
    Err(failure)
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

    use super::*;

    #[tokio::test]
    async fn an_address_of_this_host_is_for_the_root_url_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Uri = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        let mut root = Dialler::new(Origin::of(&url).unwrap());
        assert!(root.call(url.clone()).await.is_ok());
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
