//! Connections to where an artifact is said to be: whoever made it may have said so, and does not lead the worker to this
//! host's or its neighbours' own services.
//!
//! A name is resolved once, and what it leads to is looked at before it is connected to.

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

use crate::queue::Custody;

/// How long a name may take to be resolved, and each of its addresses to be connected to.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// It is no URL with a host.
    #[error("find a host in the URL")]
    NoHost,
    /// It has no address for artifacts of others.
    #[error("connect to {host}: {why}, where a task may not lead")]
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

/// Makes connections by somebody's word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialler(pub(super) Custody);

impl Dialler {
    async fn dial(self, url: Uri) -> Result<TcpStream, DialError> {
        let host = url.host().filter(|host| !host.is_empty()).ok_or(DialError::NoHost)?.to_owned();
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
        let unreachable = |source| DialError::Unreachable { host: host.clone(), source };
        let found = in_time(lookup_host((host.trim_matches(['[', ']']), port))).await.map_err(unreachable)?;
        let mut failure = unreachable(io::ErrorKind::NotFound.into());
        for address in found.take(ADDRESSES) {
            if let Some(why) = forbidden(address).filter(|_| self.0 == Custody::Stranger) {
                failure = DialError::Refused { host: host.clone(), why };
                continue;
            }
            match in_time(TcpStream::connect(address)).await {
                Ok(stream) => return Ok(stream),
                Err(source) => failure = unreachable(source),
            }
        }
        Err(failure)
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
        let dialler = *self;
        Box::pin(async move { dialler.dial(url).await.map(TokioIo::new) })
    }
}

/// What is wrong with an address, by a stranger's word.
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
    async fn s20_a_strangers_word_leads_to_no_address_of_this_host_or_its_neighbours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = |host: &str| format!("http://{host}:{port}/x").parse::<Uri>().unwrap();
        assert!(Dialler(Custody::Deployment).call(url("127.0.0.1")).await.is_ok());
        for host in [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "169.254.169.254",
            "10.0.0.1",
            "0.0.0.0",
            "[::ffff:127.0.0.1]",
        ] {
            let refused = Dialler(Custody::Stranger).call(url(host)).await;
            assert!(matches!(refused, Err(DialError::Refused { .. })), "{host}: {refused:?}");
        }
    }
}
