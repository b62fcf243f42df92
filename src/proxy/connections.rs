//! Who is connected, what they ask for, and what is answered without asking anybody.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::signature::Signer;
use super::target::{self, Target};
use super::{Body, Door, credentials, forward, label};
use crate::patience::Patient;
use crate::text::chain;

/// Connections of one task at a time; further ones wait until one of these ends.
const MOST: usize = 256;
/// How long the head of a request may take, from the connection's beginning or the response before; how long a short body
/// may take, and a response may wait for the task to take a byte.
const SILENCE: Duration = Duration::from_secs(90);
/// Header lines of a request.
const HEADERS: usize = 100;
/// What hyper may hold of a request's head.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a URL that is to be signed.
const URL_BYTES: usize = 64 << 10;
/// Until connections are accepted again after that has failed: most often there are no descriptors, and no sooner will be.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves whoever connects, for ever. All connections end with this future.
pub(super) async fn accept(listener: TcpListener, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let door = Arc::clone(&door);
        connections.spawn(async move {
            serve(stream, door).await;
            drop(place);
        });
    }
}

/// Answers the requests of one connection. What goes wrong with it is the task's to notice.
async fn serve(stream: TcpStream, door: Arc<Door>) {
    stream.set_nodelay(true).ok();
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(&door, request).await) });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SILENCE);
    // As the original: whoever has nothing more to say may still hear.
    server.max_headers(HEADERS).max_buf_size(BUFFER_BYTES).half_close(true);
    drop(server.serve_connection(TokioIo::new(Patient::new(stream, SILENCE)), service).await);
}

async fn answer(door: &Door, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path_and_query().map(|path| path.as_str().to_owned());
    let target = match path {
        // A tunnel has no path.
        None => Target::Nothing("CONNECT is not for this proxy".to_owned()),
        Some(path) => target::of(&door.root_url, &path),
    };
    let (mut response, endpoint) = match target {
        Target::Bewit => (bewit(door, request).await, None),
        Target::Credentials => (renew(door, request).await, None),
        Target::Nothing(why) => (text(StatusCode::NOT_FOUND, why), None),
        Target::Url(url) => (forward::send(door, request, &url).await, Some(url)),
    };
    let credentials = door.credentials.borrow().clone();
    label::put(response.headers_mut(), &credentials, &door.scopes, endpoint.as_deref());
    response
}

/// The URL in the body, signed.
async fn bewit(door: &Door, request: Request<Incoming>) -> Response<Body> {
    let Ok(url) = short(request, URL_BYTES).await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, format!("A URL has at most {URL_BYTES} bytes"));
    };
    let credentials = door.credentials.borrow().clone();
    let signer = Signer { credentials: &credentials, scopes: &door.scopes };
    let signed = signer.bewit(String::from_utf8_lossy(&url).trim()).map_err(|error| chain(&error));
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

/// Takes other credentials.
async fn renew(door: &Door, request: Request<Incoming>) -> Response<Body> {
    if *request.method() != Method::PUT {
        return text(StatusCode::METHOD_NOT_ALLOWED, String::new());
    }
    let status = match short(request, credentials::BYTES).await {
        Ok(body) => credentials::read(&body).map(|given| door.credentials.send_replace(given)),
        Err(()) => Err(StatusCode::BAD_REQUEST),
    };
    text(status.err().unwrap_or(StatusCode::OK), String::new())
}

/// A body of so many bytes at most.
async fn short(request: Request<Incoming>, most: usize) -> Result<Vec<u8>, ()> {
    let read = timeout(SILENCE, Limited::new(request.into_body(), most).collect()).await;
    let collected = read.map_err(drop)?.map_err(drop)?;
    Ok(collected.to_bytes().to_vec())
}

/// A response of the proxy's own.
pub(super) fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}
