//! The connection to the outside that belongs to one of a task's: it ends with that, and no other one can get it.
//!
//! It is kept for the next request to the same place. So what a task can have of descriptors and memory is told by the
//! number of its own connections, and no task is ever sent what another one has asked for.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::Body;
use super::bounds::BUFFER_BYTES;
use super::dial::{DialError, Origin};
use super::hall::Hall;

/// How long a connection is kept for another request: services close theirs sooner or later, unasked.
const IDLE: Duration = Duration::from_secs(4);
/// How long a connection may take to be ready for the next request, when the response before has been taken.
const TURN: Duration = Duration::from_millis(100);
/// How long a connection may take to be made, whatever addresses and handshakes that takes.
const CONNECT_TIME: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The URL has no origin.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The address, or the handshake.
    #[error("connect")]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    /// It took too long.
    #[error("connect within {} s", CONNECT_TIME.as_secs())]
    Late,
    /// HTTP could not begin.
    #[error("begin")]
    Begin(#[from] hyper::Error),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutsideError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It was lost on the way.
    #[error("send the request")]
    Send(#[from] hyper::Error),
}

/// Whether a connection that is there already may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It may have been closed by the other end without our knowing: only for what can be sent again.
    Old,
    /// One that is made for this.
    New,
}

/// See the module's head.
pub(super) struct Outside {
    hall: Arc<Hall>,
    connected: Option<Connected>,
}

struct Connected {
    origin: Origin,
    sender: SendRequest<Body>,
    used: Instant,
    driving: AbortHandle,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Outside {
    pub(super) fn new(hall: Arc<Hall>) -> Outside {
        Outside { hall, connected: None }
    }

    /// Connects to where `url` leads, unless that is done; whether it was.
    pub(super) async fn connect(&mut self, url: &Uri, line: Line) -> Result<Line, ConnectError> {
        let origin = Origin::of(url)?;
        if let Some(mut connected) = self.connected.take().filter(|it| {
            line == Line::Old && it.origin == origin && it.used.elapsed() < IDLE && !it.sender.is_closed()
        }) && matches!(timeout(TURN, connected.sender.ready()).await, Ok(Ok(())))
        {
            self.connected = Some(connected);
            return Ok(Line::Old);
        }
        let made = timeout(CONNECT_TIME, self.make(url, origin)).await.map_err(|_| ConnectError::Late)??;
        self.connected = Some(made);
        Ok(Line::New)
    }

    /// Sends a request whose URI is a path over the connection that was made for it.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, OutsideError> {
        let not_connected = || ConnectError::Connect(io::Error::from(io::ErrorKind::NotConnected).into());
        let connected = self.connected.as_mut().ok_or_else(not_connected)?;
        let sent = connected.sender.send_request(request).await;
        connected.used = Instant::now();
        if sent.is_err() {
            self.connected = None;
        }
        Ok(sent?)
    }

    async fn make(&self, url: &Uri, origin: Origin) -> Result<Connected, ConnectError> {
        let mut dialler = self.hall.dialler.clone();
        if !origin.is_encrypted() {
            let stream = dialler.call(url.clone()).await?;
            return self.begin(stream, origin).await;
        }
        let tls = self.hall.server.tls().await.map_err(|error| ConnectError::Connect(error.into()))?;
        let stream = HttpsConnector::from((dialler, tls)).call(url.clone()).await;
        self.begin(stream.map_err(ConnectError::Connect)?, origin).await
    }

    async fn begin<S>(&self, stream: S, origin: Origin) -> Result<Connected, ConnectError>
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        let mut client = http1::Builder::new();
        let (sender, connection) = client.max_buf_size(BUFFER_BYTES).handshake(stream).await?;
        // What goes wrong with it comes back with the request.
        let driving = self.hall.tasks.spawn(async { drop(connection.await) });
        Ok(Connected { origin, sender, used: Instant::now(), driving })
    }
}
