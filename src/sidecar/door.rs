//! The worker's own requests to a container beside a task's.
//!
//! They are made on the loopback of that container's network namespace, so that they pass no link: whoever may listen to the
//! task's end of it, as root in a task may, hears nothing of them. What they carry can be for the sidecar alone. And the
//! link may be gone: it goes with the task's namespace, before the last request of a feature.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::background::Background;
use crate::net::namespace;

/// Bytes of an answer's head.
const HEAD_BYTES: usize = 64 << 10;

/// A way to one port of a sidecar. It keeps the sidecar's network namespace.
#[derive(Clone, Debug)]
pub struct Door {
    namespace: Arc<OwnedFd>,
    address: SocketAddrV4,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Call {
    /// How.
    pub method: Method,
    /// For what.
    pub path: &'static str,
    /// Its type and what it says, if it says anything.
    pub content: Option<(&'static str, String)>,
    /// How long all of it may take.
    pub limit: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddrV4,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What came is no answer.
    #[error("hear an answer from {address}")]
    Answer {
        /// Where.
        address: SocketAddrV4,
        /// What is wrong.
        source: hyper::Error,
    },
    /// It cannot be written down.
    #[error("write a request to {address}")]
    Request {
        /// Where.
        address: SocketAddrV4,
        /// What is wrong.
        source: hyper::http::Error,
    },
    /// None in time.
    #[error("hear an answer from {address}: there was none in {} s", limit.as_secs())]
    TooSlow {
        /// Where.
        address: SocketAddrV4,
        /// How long it could take.
        limit: Duration,
    },
}

impl Door {
    pub(super) fn new(namespace: OwnedFd, port: u16) -> Door {
        Door { namespace: Arc::new(namespace), address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port) }
    }

    /// Makes a request once, and gives the status of its answer; the rest of that is nobody's.
    ///
    /// # Errors
    ///
    /// [`CallError`]
    pub async fn call(&self, call: Call) -> Result<u16, CallError> {
        let (address, limit) = (self.address, call.limit);
        let answered = timeout(limit, self.ask(call)).await;
        answered.unwrap_or(Err(CallError::TooSlow { address, limit }))
    }

    async fn ask(&self, Call { method, path, content, .. }: Call) -> Result<u16, CallError> {
        let address = self.address;
        let answer = |source| CallError::Answer { address, source };
        let mut request = Request::builder().method(method).uri(path).header(HOST, address.ip().to_string());
        let mut body = Bytes::new();
        if let Some((kind, text)) = content {
            request = request.header(CONTENT_TYPE, kind);
            body = text.into();
        }
        let request =
            request.body(Full::new(body)).map_err(|source| CallError::Request { address, source })?;
        let stream = self.connect().await.map_err(|source| CallError::Connect { address, source })?;
        let mut client = http1::Builder::new();
        client.max_buf_size(HEAD_BYTES);
        let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(answer)?;
        // Its errors reach whoever waits for the answer.
        let _driving = Background::start(async { drop(connection.await) });
        Ok(sender.send_request(request).await.map_err(answer)?.status().as_u16())
    }

    async fn connect(&self) -> io::Result<tokio::net::TcpStream> {
        let namespace = Arc::clone(&self.namespace);
        let socket = spawn_blocking(move || namespace::tcp_socket_in(namespace.as_fd())).await??;
        socket.set_nonblocking(true)?;
        TcpSocket::from_std_stream(socket).connect(self.address.into()).await
    }
}
