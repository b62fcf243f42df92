//! Who is connected, and for how long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::reply::{Reply, full};
use super::{RootUrl, Services, cors, exchange, page};
use crate::patience::Patient;
use crate::timestamp::Timestamp;

/// Connections at a time; further ones wait until one of these ends.
const MOST: usize = 512;
/// How long the head of a request may take, from the connection's beginning or the reply before; and how long a reply may
/// wait for its peer to take a byte. What comes after a head has times of its own, and a caller may wait for a task for
/// [`LONG_POLL`](super::LONG_POLL).
const SILENCE: Duration = Duration::from_secs(90);
/// Header lines of a request.
const HEADERS: usize = 64;
/// What hyper may hold of a request's head.
const BUFFER_BYTES: usize = 64 << 10;
/// Until connections are accepted again after that has failed: most often there are no descriptors, and no sooner will be.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves whoever connects, for ever. All connections end with this future.
pub(super) async fn accept(listener: TcpListener, services: Arc<Services>) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let services = Arc::clone(&services);
        connections.spawn(async move {
            serve(stream, services).await;
            drop(place);
        });
    }
}

/// Answers the requests of one connection. What goes wrong with it is its peer's to notice.
async fn serve(stream: TcpStream, services: Arc<Services>) {
    // Replies are small, and each is waited for.
    stream.set_nodelay(true).ok();
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(&services, request).await) });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SILENCE);
    server.max_headers(HEADERS).max_buf_size(BUFFER_BYTES);
    drop(server.serve_connection(TokioIo::new(Patient::new(stream, SILENCE)), service).await);
}

async fn answer(services: &Services, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    let is_for_all_origins = cors::is_for_all_origins(path);
    let own_origin = services.root_url.as_ref().map(RootUrl::as_str);
    let mut reply = if is_for_all_origins && *request.method() == Method::OPTIONS {
        cors::preflight(path)
    } else if page::is_file(path) {
        page::answer(&request)
    } else if path.starts_with("/page/") && page::is_foreign(request.headers(), own_origin) {
        full(StatusCode::FORBIDDEN, b"Pages of other origins may not call this\n".to_vec())
    } else if path.starts_with("/api/") || path.starts_with("/page/") {
        exchange::answer(services, request).await
    } else if path.starts_with("/storage/") {
        services.storage.answer(request, services.queue.now()).await
    } else {
        full(StatusCode::NOT_FOUND, b"Not found\n".to_vec())
    };
    if is_for_all_origins {
        cors::allow(&mut reply);
    }
    // By the clock that claims and signatures go by, which callers reckon with.
    if let Some(date) = date(services.queue.now()) {
        reply.headers_mut().insert(header::DATE, date);
    }
    reply
}

/// A time as a header has it.
fn date(now: Timestamp) -> Option<HeaderValue> {
    let time = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?;
    HeaderValue::from_str(&time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}
