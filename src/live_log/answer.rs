//! From a request to its reply.

use std::convert::Infallible;
use std::io;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::body::{End, LogBody, Place};
use super::offers::{Found, Offers};
use super::range::{Wanted, content_range};
use crate::artifact::LOG_TYPE;
use crate::task_log::reader::LogReader;

/// What is sent.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The log that a request is for, or the reply to a request for anything else.
pub(super) fn find<B>(request: &Request<B>, offers: &Offers) -> Result<Found, Reply> {
    let Some(secret) = request.uri().path().strip_prefix("/log/") else {
        return Err(text(StatusCode::NOT_FOUND, "Not found"));
    };
    match *request.method() {
        Method::GET | Method::HEAD => {
            // The original's words.
            offers.find(secret).ok_or_else(|| text(StatusCode::UNAUTHORIZED, "Access denied"))
        }
        // A page of another origin asks first whether it may send a range.
        Method::OPTIONS => {
            let mut reply = text(StatusCode::NO_CONTENT, "");
            set(&mut reply, header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD");
            set(&mut reply, header::ACCESS_CONTROL_ALLOW_HEADERS, "Range");
            Err(reply)
        }
        _ => {
            let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
            set(&mut reply, header::ALLOW, "GET, HEAD, OPTIONS");
            Err(reply)
        }
    }
}

/// The log, or the part of it that is asked for. Waits until that part begins.
pub(super) async fn send(mut log: LogReader, wanted: Wanted, place: Place) -> Reply {
    let now = log.progress();
    let (first, last) = match wanted {
        Wanted::Whole => (0, None),
        Wanted::From { first, last } => (first, last),
        Wanted::Last(count) => (now.bytes.saturating_sub(count), None),
    };
    let progress = if wanted == Wanted::Whole { now } else { log.wait(first).await };
    let length = progress.ended.then_some(progress.bytes);
    if wanted != Wanted::Whole && first >= progress.bytes {
        let mut reply = text(StatusCode::RANGE_NOT_SATISFIABLE, "The log has no such part");
        set(&mut reply, header::CONTENT_RANGE, &format!("bytes */{}", progress.bytes));
        return reply;
    }
    let wanted_end = last.map(|last| last.saturating_add(1));
    let end = match (wanted_end, length) {
        (Some(end), _) if end <= progress.bytes => End::Known(end),
        (_, Some(length)) => End::Known(length),
        (Some(end), None) => End::AtMost(end),
        (None, None) => End::Log,
    };
    let mut reply = Response::new(LogBody::new(log, first, end, place).boxed_unsync());
    describe(&mut reply);
    if wanted != Wanted::Whole {
        *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
        let known = match end {
            End::Known(end) | End::AtMost(end) => Some(end),
            End::Log => None,
        };
        set(&mut reply, header::CONTENT_RANGE, &content_range(first, known, length));
    }
    reply
}

/// A reply of the worker's own.
pub(super) fn text(status: StatusCode, text: &'static str) -> Reply {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    let mut reply = Response::new(body.map_err(|never: Infallible| match never {}).boxed_unsync());
    *reply.status_mut() = status;
    describe(&mut reply);
    reply
}

/// What all replies have in common: pages of any origin may read them, nobody keeps them, and what a task has printed is
/// text, whatever it looks like.
fn describe(reply: &mut Reply) {
    set(reply, header::CONTENT_TYPE, LOG_TYPE);
    set(reply, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(reply, header::ACCESS_CONTROL_EXPOSE_HEADERS, "Transfer-Encoding");
    set(reply, header::ACCEPT_RANGES, "bytes");
    set(reply, header::CACHE_CONTROL, "no-store");
    set(reply, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
}

fn set(reply: &mut Reply, name: HeaderName, value: &str) {
    // All values are made of letters and digits here.
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}
