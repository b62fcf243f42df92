//! Who is connected, and for how long.
//!
//! ```text
//!   accepted ─► asking ─► reading ─► the log has ended
//!                 │          └ takes nothing of what there is for minutes, or goes on for minutes after its end: cut
//!                 └ says nothing in time, or too many others ask: cut, the one that has asked longest first
//! ```
//!
//! Whoever wants to keep others out has to have more connections than these ask within the time of one request. Readers
//! stay as long as the task runs, and of a log that does not grow nothing can be taken: so those of one log, who all have
//! its secret, have a bound of their own and leave places for those of others.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::SetOnce;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::answer::{self, Reply};
use super::range::Wanted;
use super::served::{Reading, ServedLogs};
use super::tls::Tls;
use crate::patience::Patient;

/// What all strangers together can take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections that have not said yet what they want.
    pub(super) asking: usize,
    /// Connections that are sent a log.
    pub(super) reading: usize,
    /// Those among them that are sent the same one.
    pub(super) reading_one: usize,
    /// Until a connection has said what it wants, its handshake included.
    pub(super) asking_time: Duration,
    /// How long a reader may take nothing.
    pub(super) idle_time: Duration,
    /// How long a reader may go on when the log has ended.
    pub(super) rest_time: Duration,
}

/// The limits in force.
pub(super) const LIMITS: Limits = Limits {
    asking: 64,
    reading: 256,
    reading_one: 64,
    asking_time: Duration::from_secs(10),
    idle_time: Duration::from_secs(300),
    rest_time: Duration::from_secs(600),
};

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What the kernel may hold of a log for one reader.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// What hyper may hold of a request, and of a reply beside the piece that is being sent.
const BUFFER_BYTES: usize = 16 << 10;

/// Header lines of a request.
const HEADERS: usize = 64;

/// Until connections are accepted again after that has failed: most often there are no descriptors, and no sooner will be.
const PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
struct Shared {
    logs: ServedLogs,
    tls: Option<Arc<Tls>>,
    limits: Limits,
}

/// A connection that may not have said yet what it wants.
struct Asking {
    /// What it is being sent, once that is known.
    log: Arc<SetOnce<Reading>>,
    connection: AbortHandle,
}

/// Serves whoever connects, for ever. All connections end with this future.
pub(super) async fn accept(listener: TcpListener, tls: Option<Arc<Tls>>, logs: ServedLogs, limits: Limits) {
    let shared = Arc::new(Shared { logs, tls, limits });
    let mut connections = JoinSet::new();
    let mut asking: VecDeque<Asking> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        asking.retain(|it| !it.log.initialized() && !it.connection.is_finished());
        if asking.len() >= limits.asking
            && let Some(longest) = asking.pop_front()
        {
            longest.connection.abort();
        }
        let log = Arc::new(SetOnce::new());
        let connection = connections.spawn(connection(stream, Arc::clone(&shared), Arc::clone(&log)));
        asking.push_back(Asking { log, connection });
    }
}

/// One connection, to its end.
async fn connection(stream: TcpStream, shared: Arc<Shared>, log: Arc<SetOnce<Reading>>) {
    if settle(&stream).is_err() {
        return;
    }
    let stream = Patient::new(stream, shared.limits.idle_time);
    let bounded = bounds(&log, shared.limits);
    let served = async {
        match &shared.tls {
            None => serve(stream, &shared, &log).await,
            Some(tls) => {
                if let Ok(stream) = tls.acceptor().await.accept(stream).await {
                    serve(stream, &shared, &log).await;
                }
            }
        }
    };
    tokio::select! {
        () = served => {}
        () = bounded => {}
    }
}

fn settle(stream: &TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER_BYTES)
}

/// Ends when a connection has had its time.
async fn bounds(log: &SetOnce<Reading>, limits: Limits) {
    if let Ok(reading) = timeout(limits.asking_time, log.wait()).await {
        reading.clone().overdue().await;
    }
}

/// Answers one request. What goes wrong with a connection is its peer's to notice.
async fn serve<S>(stream: S, shared: &Shared, log: &SetOnce<Reading>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(reply(&request, shared, log).await) });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(shared.limits.asking_time).keep_alive(false);
    server.max_headers(HEADERS).max_buf_size(BUFFER_BYTES);
    drop(server.serve_connection(TokioIo::new(stream), service).await);
}

async fn reply<B>(request: &Request<B>, shared: &Shared, asking: &SetOnce<Reading>) -> Reply {
    let found = match answer::find(request, &shared.logs.offers) {
        Ok(found) => found,
        Err(reply) => return reply,
    };
    let (log, place) = match shared.logs.take(found) {
        Ok(taken) => taken,
        Err(reply) => return reply,
    };
    // It is set once: a connection is for one request.
    if asking.set(shared.logs.reading(&log)).is_err() {
        return answer::text(StatusCode::BAD_REQUEST, "One request for each connection");
    }
    let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
    answer::send(log, Wanted::parse(range), place).await
}
