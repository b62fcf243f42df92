//! Who is connected, what they ask for, and what is answered without asking anybody.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::bounds::{BUFFER_BYTES, URL_BYTES};
use super::client::{AFTER_END, Client};
use super::hall::Hall;
use super::outside::Outside;
use super::target::{self, Target};
use super::{Body, forward, text};
use crate::patience::Patient;
use crate::text::chain;

/// How long the head of a request may take, from the connection's beginning or the response before; how long a short body
/// may take, and a response may wait for the task to take a byte.
const SILENCE: Duration = Duration::from_secs(90);
/// Header lines of a request.
const HEADERS: usize = 100;
/// Until connections are accepted again after that has failed: most often there are no descriptors, and no sooner will be.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the task, for ever.
pub(super) async fn accept(listener: TcpListener, hall: Arc<Hall>) {
    loop {
        let place = hall.places.take().await;
        let stream = visitor(&listener, &hall).await;
        let own = Arc::clone(&hall);
        hall.tasks.spawn(async move {
            serve(stream, &own).await;
            drop(place);
        });
    }
}

/// The next connection of the task's. Binding a socket to a link does not keep the host's own processes away: what is sent
/// to a link's address from here counts as come by that link. They have other addresses than the task.
async fn visitor(listener: &TcpListener, hall: &Hall) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if peer.ip() == IpAddr::V4(hall.address) => return stream,
            Ok((_stranger, _)) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Answers the requests of one connection. What goes wrong with it is the task's to notice.
async fn serve(stream: TcpStream, hall: &Arc<Hall>) {
    stream.set_nodelay(true).ok();
    let client = Client::of(stream);
    let watched = client.clone();
    // Requests of one connection come one after the other.
    let outside = Mutex::new(Outside::new(Arc::clone(hall)));
    let service = service_fn(|request| async {
        let mut outside = outside.lock().await;
        Ok::<_, Infallible>(tokio::select! {
            biased;
            answer = answer(hall, &mut outside, request) => answer,
            () = watched.overdue() => late(hall),
        })
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SILENCE);
    // As the original: whoever has nothing more to say may still hear.
    server.max_headers(HEADERS).max_buf_size(BUFFER_BYTES).half_close(true);
    let served = server.serve_connection(TokioIo::new(Patient::new(client, SILENCE)), service);
    tokio::select! {
        ended = served => drop(ended),
        // Nobody would hear the answer: what is under way for it ends here.
        () = watched.gone() => {}
    }
}

async fn answer(hall: &Hall, outside: &mut Outside, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path_and_query().map(|path| path.as_str().to_owned());
    let target = match path {
        Some(path) if *request.method() != Method::CONNECT => target::of(&hall.server.root_url, &path),
        // A tunnel has no path.
        Some(_) | None => Target::Tunnel,
    };
    let (mut response, endpoint) = match target {
        Target::Bewit => (bewit(hall, request).await, None),
        Target::Credentials => (refuse_credentials(request.method()), None),
        Target::Tunnel => {
            (text(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not for this proxy".to_owned()), None)
        }
        Target::Nothing(why) => (text(StatusCode::NOT_FOUND, why), None),
        Target::Url(url) => (forward::send(hall, outside, request, &url).await, Some(url)),
    };
    hall.identity().label.put(response.headers_mut(), endpoint.as_deref());
    response
}

/// For who waits on a connection that is closed on the task's side.
fn late(hall: &Hall) -> Response<Body> {
    let why = format!(
        "Failed during proxy request: failed to have an answer within {} s from the task's closing its side of the connection",
        AFTER_END.as_secs()
    );
    let mut response = text(StatusCode::GATEWAY_TIMEOUT, why);
    hall.identity().label.put(response.headers_mut(), None);
    response
}

/// The URL in the body, signed.
async fn bewit(hall: &Hall, request: Request<Incoming>) -> Response<Body> {
    let Ok(url) = short(request, URL_BYTES).await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, format!("A URL has at most {URL_BYTES} bytes"));
    };
    let identity = hall.identity();
    let signed = match identity.signer() {
        Ok(signer) => signer.bewit(String::from_utf8_lossy(&url).trim()).map_err(|error| chain(&error)),
        Err(error) => Err(chain(&*error)),
    };
    let located = signed.and_then(|url| {
        let location = HeaderValue::from_str(&url).map_err(|error| chain(&error))?;
        let mut response = text(StatusCode::SEE_OTHER, url);
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    });
    located.unwrap_or_else(|error| {
        text(StatusCode::INTERNAL_SERVER_ERROR, format!("Error creating bewit url: failed to {error}"))
    })
}

/// The original's worker renewed credentials that way, and so could the task; here they come from the worker alone.
fn refuse_credentials(method: &Method) -> Response<Body> {
    match *method {
        Method::PUT => text(StatusCode::FORBIDDEN, "The credentials of a task are the worker's".to_owned()),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, String::new()),
    }
}

/// A body of so many bytes at most.
async fn short(request: Request<Incoming>, most: usize) -> Result<Vec<u8>, ()> {
    let read = timeout(SILENCE, Limited::new(request.into_body(), most).collect()).await;
    let collected = read.map_err(drop)?.map_err(drop)?;
    Ok(collected.to_bytes().to_vec())
}
