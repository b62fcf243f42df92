//! One request on its way to a service, and the response on its way back.
//!
//! Both bodies are passed on as they come. So that a request can be sent again when a service is at fault or cannot be
//! reached, its body is read before and kept, as far as the task's share of memory goes; one that is larger is sent once.

use std::error::Error;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri, http};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout};

use super::connections::text;
use super::dial::DialError;
use super::signature::{SignError, Signer};
use super::{Body, Door};
use crate::text::chain;

/// Between two attempts: the first wait, which becomes half as long again each time, and the longest.
const WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// How long a request is sent again.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long a service may take to begin its response.
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
    Sign(#[from] SignError),
    #[error("put together the request")]
    Head(#[from] http::Error),
    #[error(transparent)]
    Header(#[from] header::InvalidHeaderValue),
    #[error("send the request")]
    Sent(#[from] hyper_util::client::legacy::Error),
    #[error("have an answer within {} s", ANSWER_TIME.as_secs())]
    Unanswered,
}

/// The body of a request.
enum Payload {
    /// All of it, to be sent as often as needed; its bytes count as long as it is here.
    Kept { bytes: Bytes, _places: Option<OwnedSemaphorePermit> },
    /// To be sent once, after which there is nothing.
    Passing(Option<Body>),
}

/// Sends a request to `url` in the task's name; gives what is to be answered.
pub(super) async fn send(door: &Door, request: Request<Incoming>, url: &str) -> Response<Body> {
    let Ok(url) = url.parse::<Uri>() else {
        return text(StatusCode::BAD_REQUEST, format!("Failed during proxy request: {url:?} is no URL"));
    };
    let (mut head, body) = request.into_parts();
    strip(&mut head.headers);
    // This end has asked for the body by now, and the other one is not asked whether it wants it.
    for name in [header::HOST, header::EXPECT] {
        head.headers.remove(name);
    }
    let mut payload = match Payload::read(door, body).await {
        Ok(payload) => payload,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("Failed to read the request: {error}")),
    };
    head.uri = url;
    let began = Instant::now();
    let [mut wait, longest] = WAITS;
    loop {
        let attempt = attempt(door, &head, &mut payload).await;
        let is_last = payload.is_gone() || began.elapsed() + wait > PATIENCE;
        match attempt {
            Ok(response) if is_last || !response.status().is_server_error() => return passed_on(response),
            Err(error) if is_last || is_final(&error) => return failed(&error),
            Ok(_) | Err(_) => {}
        }
        sleep(wait).await;
        wait = longest.min(wait + wait / 2);
    }
}

/// One attempt, signed with whatever credentials are the present ones.
async fn attempt(
    door: &Door,
    head: &http::request::Parts,
    payload: &mut Payload,
) -> Result<Response<Incoming>, SendError> {
    let credentials = door.credentials.borrow().clone();
    let signer = Signer { credentials: &credentials, scopes: &door.scopes };
    let authorization = HeaderValue::from_str(&signer.header(&head.method, &head.uri)?)?;
    let mut request = Request::builder().method(&head.method).uri(&head.uri).body(payload.next())?;
    *request.headers_mut() = head.headers.clone();
    request.headers_mut().insert(header::AUTHORIZATION, authorization);
    match timeout(ANSWER_TIME, door.outside.request(request)).await {
        Ok(answered) => Ok(answered?),
        Err(_) => Err(SendError::Unanswered),
    }
}

impl Payload {
    /// Reads a body as far as it can be kept.
    async fn read(door: &Door, mut body: Incoming) -> Result<Payload, hyper::Error> {
        let (mut kept, mut places) = (Vec::new(), None::<OwnedSemaphorePermit>);
        while let Some(frame) = body.frame().await.transpose()? {
            // Trailers are not passed on.
            let Ok(bytes) = frame.into_data() else { continue };
            let place = u32::try_from(bytes.len()).ok();
            let place = place.and_then(|bytes| door.kept.clone().try_acquire_many_owned(bytes).ok());
            kept.extend_from_slice(&bytes);
            match (place, &mut places) {
                (Some(place), Some(places)) => places.merge(place),
                (Some(place), places) => *places = Some(place),
                (None, _) => return Ok(Payload::Passing(Some(passing(kept, body)))),
            }
        }
        Ok(Payload::Kept { bytes: kept.into(), _places: places })
    }

    fn next(&mut self) -> Body {
        match self {
            Payload::Kept { bytes, .. } => whole(bytes.clone()),
            Payload::Passing(body) => body.take().unwrap_or_else(|| whole(Bytes::new())),
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self, Payload::Passing(None))
    }
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// What was read of a body, and the rest as it comes.
fn passing(read: Vec<u8>, rest: Incoming) -> Body {
    let read = stream::iter([Ok(Frame::data(Bytes::from(read)))]);
    let rest = BodyStream::new(rest).map(|frame| frame.map_err(Into::into));
    StreamBody::new(read.chain(rest)).boxed_unsync()
}

fn passed_on(response: Response<Incoming>) -> Response<Body> {
    let mut response = response.map(|body| body.map_err(Into::into).boxed_unsync());
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
        SendError::Sign(_) | SendError::Head(_) | SendError::Header(_) => true,
        SendError::Sent(error) => is_refused(error),
        SendError::Unanswered => false,
    }
}

/// Whether no connection was made because its address is not for tasks.
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(DialError::Refused { .. })) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn failed(error: &SendError) -> Response<Body> {
    let status = match error {
        SendError::Sent(error) if is_refused(error) => StatusCode::FORBIDDEN,
        SendError::Sign(_)
        | SendError::Head(_)
        | SendError::Header(_)
        | SendError::Sent(_)
        | SendError::Unanswered => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, format!("Failed during proxy request: failed to {}", chain(error)))
}
