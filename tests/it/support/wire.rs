//! The way to a server, which misbehaves where a test says so, and remembers what went over it.
//!
//! ```text
//!   worker ──► wire ──► server          fault          the server      the caller
//!                                       Status(503)    hears nothing   gets that status and nothing else
//!                                       Refusal(400)   hears nothing   gets that status and a reason, as services give it
//!                                       Page           hears nothing   gets a page (200)
//!                                       Reset          hears nothing   loses the connection
//!                                       LostReply      acts            loses the connection
//!                                       Late(time)     acts            gets the reply so much later
//!                                       Held           acts            gets the reply when the test lets it go
//!                                       Cut(bytes)     acts            gets so much of the reply, and loses the connection
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::OriginalDst;
use rustix::net::sockopt::set_socket_linger;
use serde::Serialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::answering_server::refusal;

/// More than anything takes that a test waits for.
const LIMIT: Duration = Duration::from_secs(120);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// How one request is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status, and the server does not hear of it.
    Status(u16),
    /// It is answered with this status and a reason, and the server does not hear of it.
    Refusal(u16),
    /// It is answered with a page for people, and the server does not hear of it.
    Page,
    /// Its connection is reset, and the server does not hear of it.
    Reset,
    /// The server acts, and the connection is reset in place of the reply.
    LostReply,
    /// The server acts, and the reply comes so much later.
    Late(Duration),
    /// The server acts, and the reply comes after [`Wire::let_go`].
    Held,
    /// The server acts, and the connection is closed after so many bytes of the reply's body, or a piece more.
    Cut(usize),
}

/// A request that went over the wire, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Exchange {
    /// `METHOD /path`
    pub request: String,
    /// JSON, or null.
    pub payload: Value,
    pub status: u16,
    /// JSON, or null.
    pub reply: Value,
}

/// See the module's head.
pub struct Wire {
    server: Server,
    state: Mutex<State>,
    changed: Condvar,
    held: watch::Sender<bool>,
}

/// Where the wire leads.
enum Server {
    /// To this one.
    At(SocketAddr),
    /// To whichever was called before the firewall led the connection here. Calls come from an address of the wire's own, by
    /// which the firewall knows them, and nothing is remembered, as much goes over it.
    AsCalled { from: Ipv4Addr },
}

#[derive(Default)]
struct State {
    /// Part of `METHOD /path`, what becomes of such requests, and of how many.
    faults: VecDeque<(String, Fault, usize)>,
    asked: Vec<String>,
    exchanges: Vec<Exchange>,
    /// How many faults there were of each kind.
    failed: BTreeMap<String, usize>,
}

impl Wire {
    pub fn to(server: SocketAddr) -> Arc<Wire> {
        Arc::new(Wire::new(Server::At(server)))
    }

    /// A wire to wherever a connection was going before a firewall led it here; the firewall has to leave alone what comes
    /// from `from`. It remembers nothing.
    pub fn as_called(from: Ipv4Addr) -> Arc<Wire> {
        Arc::new(Wire::new(Server::AsCalled { from }))
    }

    fn new(server: Server) -> Wire {
        let held = watch::Sender::new(true);
        Wire { server, state: Mutex::default(), changed: Condvar::new(), held }
    }

    fn remembers(&self) -> bool {
        matches!(self.server, Server::At(_))
    }

    /// The next `times` requests whose `METHOD /path` holds `part` are treated so.
    pub fn fail(&self, part: &str, fault: Fault, times: usize) {
        let mut state = self.lock();
        state.faults.retain(|(_, _, times)| *times > 0);
        state.faults.push_back((part.to_owned(), fault, times));
    }

    /// No request is treated so any more.
    pub fn fail_no_more(&self) {
        self.lock().faults.clear();
    }

    /// How many requests were treated in each of these ways.
    pub fn failed(&self) -> BTreeMap<String, usize> {
        self.lock().failed.clone()
    }

    /// Lets all replies go that are held, and those that would be.
    pub fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// Waits until so many requests have come whose `METHOD /path` holds `part`.
    pub fn await_asked(&self, part: &str, times: usize) {
        let count = |state: &State| state.asked.iter().filter(|asked| asked.contains(part)).count();
        let waited = self.changed.wait_timeout_while(self.lock(), LIMIT, |state| count(state) < times);
        let (state, limit) = waited.unwrap();
        assert!(!limit.timed_out(), "waited {LIMIT:?} for {part:?}; so far: {:#?}", state.asked);
    }

    /// How many requests have come whose `METHOD /path` holds `part`.
    pub fn asked(&self, part: &str) -> usize {
        self.lock().asked.iter().filter(|asked| asked.contains(part)).count()
    }

    /// Waits until a call has been answered whose `METHOD /path` holds `part`; gives the first one.
    pub fn await_exchange(&self, part: &str) -> Exchange {
        let find = |state: &State| state.exchanges.iter().find(|it| it.request.contains(part)).cloned();
        let waited = self.changed.wait_timeout_while(self.lock(), LIMIT, |state| find(state).is_none());
        let state = waited.unwrap().0;
        find(&state).unwrap_or_else(|| panic!("waited {LIMIT:?} for {part:?}; so far: {:#?}", state.asked))
    }

    /// What went over the wire so far: calls of the API, in the order of their replies.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().exchanges.clone()
    }

    /// Writes that down where the variable `EXCHANGES` says so, for `tests/check-api`.
    pub fn record(&self) {
        let Some(directory) = std::env::var_os("EXCHANGES") else { return };
        let file = tempfile::NamedTempFile::new_in(directory).unwrap();
        serde_json::to_writer(&file, &self.exchanges()).unwrap();
        file.keep().unwrap();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Carries what comes, for ever.
    pub async fn carry(self: Arc<Wire>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let wire = Arc::clone(&self);
            connections.spawn(async move {
                let twin: Arc<OwnedFd> = Arc::new(stream.as_fd().try_clone_to_owned().unwrap());
                let server = wire.server_of(&twin);
                let service = service_fn(|request| wire.answer(request, server, &twin));
                // A connection that is reset on purpose is an error here.
                drop(
                    server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                );
            });
            while connections.try_join_next().is_some() {}
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        server: SocketAddr,
        connection: &Arc<OwnedFd>,
    ) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
        let reset = || {
            // With no time to linger closing a connection resets it.
            set_socket_linger(connection, Some(Duration::ZERO)).unwrap();
            Err(io::Error::from(io::ErrorKind::ConnectionReset).into())
        };
        match self.take_fault(&request) {
            Some(Fault::Status(status)) => {
                Ok(Response::builder().status(status).body(full(Bytes::new())).unwrap())
            }
            Some(Fault::Refusal(status)) => {
                let (status, body) = refusal(status, "not so");
                Ok(Response::builder().status(status).body(full(body.to_string().into())).unwrap())
            }
            Some(Fault::Page) => Ok(Response::new(full("<html>Back soon</html>".into()))),
            Some(Fault::Reset) => reset(),
            Some(Fault::LostReply) => {
                self.pass_on(request, server).await?;
                reset()
            }
            Some(Fault::Late(time)) => {
                let reply = self.pass_on(request, server).await?;
                tokio::time::sleep(time).await;
                Ok(reply)
            }
            Some(Fault::Held) => {
                let reply = self.pass_on(request, server).await?;
                self.held.subscribe().wait_for(|held| !held).await.unwrap();
                Ok(reply)
            }
            Some(Fault::Cut(bytes)) => {
                let (head, body) = self.pass_on(request, server).await?.into_parts();
                let cut = CutBody { body, left: bytes };
                Ok(Response::from_parts(head, cut.boxed_unsync()))
            }
            None => self.pass_on(request, server).await,
        }
    }

    fn take_fault(&self, request: &Request<Incoming>) -> Option<Fault> {
        let asked = name(request);
        let mut state = self.lock();
        let place = state.faults.iter().position(|(part, _, times)| asked.contains(part) && *times > 0);
        if self.remembers() {
            state.asked.push(asked);
        }
        self.changed.notify_all();
        let (_, fault, times) = state.faults.get_mut(place?)?;
        *times -= 1;
        let fault = *fault;
        *state.failed.entry(format!("{fault:?}")).or_default() += 1;
        Some(fault)
    }

    async fn pass_on(
        &self,
        request: Request<Incoming>,
        server: SocketAddr,
    ) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
        let is_call = request.uri().path().starts_with("/api/");
        let asked = name(&request);
        let (head, body) = request.into_parts();
        let (payload, body) = if is_call { whole(body).await? } else { (Value::Null, boxed(body)) };
        let stream = self.connect(server).await?;
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // What goes wrong with it comes back with the request.
        tokio::spawn(async move { drop(connection.await) });
        let (head, body) = sender.send_request(Request::from_parts(head, body)).await?.into_parts();
        if !is_call {
            return Ok(Response::from_parts(head, boxed(body)));
        }
        let (reply, body) = whole(body).await?;
        if self.remembers() {
            let exchange = Exchange { request: asked, payload, status: head.status.as_u16(), reply };
            self.lock().exchanges.push(exchange);
            self.changed.notify_all();
        }
        Ok(Response::from_parts(head, body))
    }

    /// Where requests of a connection go.
    fn server_of(&self, connection: &OwnedFd) -> SocketAddr {
        match self.server {
            Server::At(server) => server,
            Server::AsCalled { .. } => {
                let called = getsockopt(connection, OriginalDst).unwrap();
                let address = Ipv4Addr::from(u32::from_be(called.sin_addr.s_addr));
                SocketAddr::from((address, u16::from_be(called.sin_port)))
            }
        }
    }

    async fn connect(&self, server: SocketAddr) -> io::Result<TcpStream> {
        let Server::AsCalled { from } = self.server else { return TcpStream::connect(server).await };
        let socket = TcpSocket::new_v4()?;
        // Of the connections that have been, many are remembered by the kernel for a while, and ports are few.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let stream = socket.connect(server).await?;
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        Ok(stream)
    }
}

/// A body that ends before its end.
struct CutBody {
    body: Body,
    left: usize,
}

impl hyper::body::Body for CutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err("cut".into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        self.left = self.left.saturating_sub(bytes);
        Poll::Ready(frame)
    }
}

fn name(request: &Request<Incoming>) -> String {
    format!("{} {}", request.method(), request.uri())
}

/// All of a body: as JSON, or null, and to be sent on.
async fn whole(body: Incoming) -> Result<(Value, Body), hyper::Error> {
    let bytes = body.collect().await?.to_bytes();
    Ok((serde_json::from_slice(&bytes).unwrap_or_default(), full(bytes)))
}

fn boxed(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
