//! Who is connected, and for how long.
//!
//! Anybody may connect to the address that is known, and so can take all of its places: those who say nothing give theirs to
//! newcomers, but those who ask slowly do not. The worker in this process has an address with places of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::reply::{Reply, full};
use super::{RootUrl, Services, cors, exchange, page};
use crate::live_log::Reading;
use crate::patience::Patient;
use crate::timestamp::Timestamp;

/// Connections of one address at a time. A further one takes the place of that which has said nothing for the longest, or
/// waits until one ends.
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

/// A connection on which perhaps nothing was asked yet.
struct Silent {
    has_asked: Arc<AtomicBool>,
    connection: AbortHandle,
}

/// Serves whoever connects, for ever. All connections end with this future.
pub(super) async fn accept(listener: TcpListener, services: Arc<Services>) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    let mut silent: VecDeque<Silent> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        silent.retain(|it| !it.has_asked.load(Ordering::Relaxed) && !it.connection.is_finished());
        if places.available_permits() == 0
            && let Some(longest) = silent.pop_front()
        {
            longest.connection.abort();
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let has_asked = Arc::new(AtomicBool::new(false));
        let (services, asks) = (Arc::clone(&services), Arc::clone(&has_asked));
        let connection = connections.spawn(async move {
            serve(stream, services, &asks).await;
            drop(place);
        });
        silent.push_back(Silent { has_asked, connection });
    }
}

/// Answers the requests of one connection. What goes wrong with it is its peer's to notice.
async fn serve(stream: TcpStream, services: Arc<Services>, has_asked: &AtomicBool) {
    // Replies are small, and each is waited for.
    stream.set_nodelay(true).ok();
    let (sends, sent) = watch::channel(None);
    let service = service_fn(|request| async {
        has_asked.store(true, Ordering::Relaxed);
        let reply = answer(&services, request).await;
        // What was sent before has been sent: requests are answered one after the other.
        sends.send_replace(reply.extensions().get::<Reading>().cloned());
        Ok::<_, Infallible>(reply)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SILENCE);
    server.max_headers(HEADERS).max_buf_size(BUFFER_BYTES);
    let served = server.serve_connection(TokioIo::new(Patient::new(stream, SILENCE)), service);
    tokio::select! {
        ended = served => drop(ended),
        () = overdue(sent) => {}
    }
}

/// Waits until the log that a connection is being sent has been over for too long.
async fn overdue(mut sent: watch::Receiver<Option<Reading>>) {
    loop {
        let reading = sent.borrow_and_update().clone();
        let overdue = async {
            match reading {
                Some(reading) => reading.overdue().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = overdue => return,
            changed = sent.changed() => match changed {
                Ok(()) => {}
                Err(_) => pending().await,
            },
        }
    }
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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::live_log::ServedLogs;
    use crate::task_log::spool::Spool;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn s_a_reader_of_a_log_that_is_over_is_cut_unless_it_asks_for_something_else() {
        let (_directory, spool) = Spool::temporary(1 << 20);
        let reading = ServedLogs::reading_of(&spool.reader());
        let (sends, sent) = watch::channel(None);
        let mut cut = Box::pin(overdue(sent));
        sends.send_replace(Some(reading.clone()));
        // As long as a task lasts.
        assert!(timeout(24 * 60 * MINUTE, &mut cut).await.is_err());
        assert!(spool.end().is_none());
        assert!(timeout(9 * MINUTE, &mut cut).await.is_err());
        sends.send_replace(None);
        assert!(timeout(60 * MINUTE, &mut cut).await.is_err());
        sends.send_replace(Some(reading));
        assert!(timeout(11 * MINUTE, &mut cut).await.is_ok());
    }
}
