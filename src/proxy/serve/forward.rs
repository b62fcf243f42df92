//! One request on its way to a service, and the response on its way back.
//!
//! Both bodies are passed on as they come. So that a request can be sent again when a service is at fault or cannot be
//! reached, its body is read before and kept, as far as there is room ([`super::kept`]); one that is larger is sent once.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Body as _, Bytes, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri, http};
use tokio::time::{Instant, sleep, timeout};

use super::dial::DialError;
use super::hall::Hall;
use super::outside::{ConnectError, Line, Outside, OutsideError};
use super::signature::SignError;
use super::steady::{self, BodyError, steady};
use super::{Body, text, whole};
use crate::text::chain;

/// Between two attempts: the first wait, which becomes half as long again each time, and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// How long a request is sent again.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long a service may take to begin its response, from the last piece of the request on.
const ANSWER_TIME: Duration = Duration::from_secs(5 * 60);

/// What is about one connection only, and not passed on.
const OF_THE_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Why a service has not answered.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Nobody(#[from] Arc<SignError>),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("put together the request")]
    Head(#[from] http::Error),
    #[error(transparent)]
    Header(#[from] header::InvalidHeaderValue),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Outside(#[from] OutsideError),
    #[error("have an answer within {} s", ANSWER_TIME.as_secs())]
    Unanswered,
    #[error("make sense of the answer: it has the status {0}, which is none")]
    Nonsense(StatusCode),
}

/// The body of a request.
enum Payload {
    /// All of it, to be sent as often as needed; its bytes count as long as they are anywhere.
    Kept(Vec<Bytes>),
    /// To be sent once, after which there is nothing.
    Passing(Option<Body>),
}

/// Sends a request to `url` in the task's name; gives what is to be answered.
pub(super) async fn send(
    hall: &Hall,
    outside: &mut Outside,
    request: Request<Incoming>,
    url: &str,
) -> Response<Body> {
    let Ok(url) = url.parse::<Uri>() else {
        return text(StatusCode::BAD_REQUEST, format!("Failed during proxy request: {url:?} is no URL"));
    };
    let (mut head, body) = request.into_parts();
    strip(&mut head.headers);
    // This end has asked for the body by now, and the other one is not asked whether it wants it.
    for name in [header::HOST, header::EXPECT] {
        head.headers.remove(name);
    }
    let has_body = !body.is_end_stream();
    let mut payload = match Payload::read(hall, body).await {
        Ok(payload) => payload,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("Failed to read the request: {error}")),
    };
    if let (Payload::Kept(pieces), true) = (&payload, has_body) {
        // One that came in pieces of unknown number goes on with its length, as with the original.
        let length: usize = pieces.iter().map(Bytes::len).sum();
        head.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    head.uri = url;
    match attempts(hall, outside, &head, &mut payload).await {
        Ok(response) => passed_on(response),
        Err(error) => failed(&error),
    }
}

/// Sends a request until it is answered otherwise than by a service at fault, or nobody is patient any more.
async fn attempts(
    hall: &Hall,
    outside: &mut Outside,
    head: &http::request::Parts,
    payload: &mut Payload,
) -> Result<Response<Incoming>, SendError> {
    let began = Instant::now();
    let [mut wait, longest] = WAITS;
    let mut allowed = if payload.can_be_repeated() { Line::Old } else { Line::New };
    loop {
        let line = outside.connect(&head.uri, allowed).await;
        let is_old = matches!(line, Ok(Line::Old));
        let attempt = match line {
            Ok(_) => attempt(hall, outside, head, payload).await,
            Err(error) => Err(error.into()),
        };
        let is_last = payload.is_gone() || began.elapsed() + wait > PATIENCE;
        match attempt {
            Ok(response) if is_last || !response.status().is_server_error() => return Ok(response),
            Err(error) if is_last || is_final(&error) => return Err(error),
            // The other end has closed it, most likely: that says nothing of the service.
            Err(SendError::Outside(OutsideError::Send(_))) if is_old => {
                allowed = Line::New;
                continue;
            }
            Ok(_) | Err(_) => {}
        }
        sleep(wait).await;
        wait = longest.min(wait + wait / 2);
    }
}

/// One attempt, signed with whatever credentials are the present ones.
async fn attempt(
    hall: &Hall,
    outside: &mut Outside,
    head: &http::request::Parts,
    payload: &mut Payload,
) -> Result<Response<Incoming>, SendError> {
    let signed = hall.identity().signer()?.header(&head.method, &head.uri)?;
    let authorization = HeaderValue::from_str(&signed)?;
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    // A name and a password before it are no part of where it is.
    let host = authority.rsplit('@').next().unwrap_or_default();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let (body, progress) = watched(payload.next());
    let mut request = Request::builder().method(&head.method).uri(path).body(body)?;
    *request.headers_mut() = head.headers.clone();
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(host)?);
    request.headers_mut().insert(header::AUTHORIZATION, authorization);
    let mut answered = pin!(outside.send(request));
    let mut seen = progress.load(Ordering::Relaxed);
    let response = loop {
        if let Ok(answered) = timeout(ANSWER_TIME, &mut answered).await {
            break answered?;
        }
        let now = progress.load(Ordering::Relaxed);
        if now == seen {
            return Err(SendError::Unanswered);
        }
        seen = now;
    };
    // A service that speaks another protocol from now on, unasked, would speak it to the task.
    match response.status() {
        status if status.is_informational() => Err(SendError::Nonsense(status)),
        _ => Ok(response),
    }
}

impl Payload {
    /// Reads a body as far as it can be kept.
    async fn read(hall: &Hall, mut body: Incoming) -> Result<Payload, BodyError> {
        let mut kept = Vec::new();
        while let Some(frame) = steady::next(&mut body, steady::OF_A_TASK).await? {
            // Trailers are not passed on.
            let Ok(bytes) = frame.into_data() else { continue };
            match hall.room.keep(&bytes) {
                Some(copy) => kept.push(copy),
                None => {
                    kept.push(bytes);
                    return Ok(Payload::Passing(Some(passing(kept, body))));
                }
            }
        }
        Ok(Payload::Kept(kept))
    }

    fn next(&mut self) -> Body {
        match self {
            Payload::Kept(pieces) if pieces.is_empty() => whole(Bytes::new()),
            Payload::Kept(pieces) => in_pieces(pieces.clone()),
            Payload::Passing(body) => body.take().unwrap_or_else(|| whole(Bytes::new())),
        }
    }

    fn can_be_repeated(&self) -> bool {
        matches!(self, Payload::Kept(_))
    }

    fn is_gone(&self) -> bool {
        matches!(self, Payload::Passing(None))
    }
}

fn in_pieces(pieces: Vec<Bytes>) -> Body {
    StreamBody::new(stream::iter(pieces).map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
}

/// What was read of a body, and the rest as it comes.
fn passing(read: Vec<Bytes>, rest: Incoming) -> Body {
    let read = stream::iter(read).map(|piece| Ok(Frame::data(piece)));
    let rest = BodyStream::new(steady(rest, steady::OF_A_TASK));
    StreamBody::new(read.chain(rest)).boxed_unsync()
}

/// A body, and the number of its pieces that have gone.
fn watched(body: Body) -> (Body, Arc<AtomicU64>) {
    let gone = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&gone);
    let body = body.map_frame(move |frame| {
        count.fetch_add(1, Ordering::Relaxed);
        frame
    });
    (body.boxed_unsync(), gone)
}

fn passed_on(response: Response<Incoming>) -> Response<Body> {
    let mut response = response.map(|body| match body.is_end_stream() {
        true => whole(Bytes::new()),
        false => steady(body, steady::OF_A_SERVICE),
    });
    strip(response.headers_mut());
    response
}

/// Removes what is about a connection: the usual, and what the header `Connection` names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_THE_CONNECTION.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Whether another attempt would end the same way.
fn is_final(error: &SendError) -> bool {
    match error {
        SendError::Nobody(_)
        | SendError::Sign(_)
        | SendError::Head(_)
        | SendError::Header(_)
        | SendError::Nonsense(_) => true,
        SendError::Connect(error) => is_refused(error),
        SendError::Outside(error) => is_nonsense(error),
        SendError::Unanswered => false,
    }
}

/// Whether there was an answer, but none that could be read: it is no HTTP, or its head is longer than any should be.
fn is_nonsense(error: &OutsideError) -> bool {
    matches!(error, OutsideError::Send(error) if error.is_parse())
}

/// Whether no connection was made because its address is not for tasks.
fn is_refused(error: &ConnectError) -> bool {
    let dial = match error {
        ConnectError::Dial(error) => Some(error),
        ConnectError::Connect(error) => error.downcast_ref(),
        ConnectError::Late | ConnectError::Begin(_) => None,
    };
    matches!(dial, Some(DialError::Refused { .. }))
}

fn failed(error: &SendError) -> Response<Body> {
    let status = match error {
        SendError::Connect(error) if is_refused(error) => StatusCode::FORBIDDEN,
        SendError::Outside(error) if is_nonsense(error) => StatusCode::BAD_GATEWAY,
        SendError::Nonsense(_) => StatusCode::BAD_GATEWAY,
        SendError::Nobody(_)
        | SendError::Sign(_)
        | SendError::Head(_)
        | SendError::Header(_)
        | SendError::Connect(_)
        | SendError::Outside(_)
        | SendError::Unanswered => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, format!("Failed during proxy request: failed to {}", chain(error)))
}
