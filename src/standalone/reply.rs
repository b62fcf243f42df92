//! What is answered.

use std::convert::Infallible;
use std::io;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::queue::QueueError;
use crate::text::chain;
use crate::timestamp::Timestamp;

/// What is sent.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The services' words for what is wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Code {
    MalformedPayload,
    InvalidRequestArguments,
    InputValidationError,
    InputError,
    AuthenticationFailed,
    InsufficientScopes,
    ResourceNotFound,
    RequestConflict,
    ResourceExpired,
    InputTooLarge,
    InternalServerError,
}

/// Why a call is not carried out.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Code {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Code::MalformedPayload
            | Code::InvalidRequestArguments
            | Code::InputValidationError
            | Code::InputError => StatusCode::BAD_REQUEST,
            Code::AuthenticationFailed => StatusCode::UNAUTHORIZED,
            Code::InsufficientScopes => StatusCode::FORBIDDEN,
            Code::ResourceNotFound => StatusCode::NOT_FOUND,
            Code::RequestConflict => StatusCode::CONFLICT,
            Code::ResourceExpired => StatusCode::GONE,
            Code::InputTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    /// The reply to a call of a method with these parameters and this payload. Its message ends in lines about the call,
    /// by which clients tell a service's refusal from a front end's.
    pub(super) fn reply(&self, method: &str, params: Value, payload: Value, now: Timestamp) -> Reply {
        let (code, status) = (self.code, self.code.status());
        let about = [
            format!("* method:     {method}"),
            format!("* errorCode:  {code:?}"),
            format!("* statusCode: {}", status.as_u16()),
            format!("* time:       {now}"),
        ];
        let message = format!("{}\n\n---\n\n{}", self.message, about.join("\n"));
        let info = json!({ "method": method, "params": params, "payload": payload, "time": now });
        let body = json!({ "code": code, "message": message, "requestInfo": info });
        let mut reply = json_reply(status, &body);
        if self.code == Code::AuthenticationFailed {
            set(&mut reply, header::WWW_AUTHENTICATE, "hawk");
        }
        reply
    }
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Refusal {
        let code = match &error {
            QueueError::NotFound { .. } => Code::ResourceNotFound,
            QueueError::Conflict { .. } => Code::RequestConflict,
            QueueError::Invalid { .. } | QueueError::NoContent { .. } => Code::InputError,
            QueueError::Unauthenticated { .. } => Code::AuthenticationFailed,
            QueueError::Unauthorized { .. } => Code::InsufficientScopes,
            QueueError::Foreign { .. } | QueueError::Unreachable { .. } | QueueError::Internal { .. } => {
                Code::InternalServerError
            }
        };
        Refusal::new(code, format!("failed to {}", chain(&error)))
    }
}

/// A fault of this host's.
pub(super) fn fault(doing: &str, error: &dyn std::error::Error) -> Refusal {
    Refusal::new(Code::InternalServerError, format!("failed to {doing}: {}", chain(error)))
}

/// A reply with a body of JSON.
pub(super) fn json_reply(status: StatusCode, body: &impl Serialize) -> Reply {
    // Strings and numbers of our own: there is nothing that JSON cannot hold.
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let mut reply = full(status, bytes);
    set(&mut reply, header::CONTENT_TYPE, "application/json; charset=utf-8");
    set(&mut reply, header::CACHE_CONTROL, "no-store no-cache must-revalidate");
    reply
}

/// A reply with a body that is there already.
pub(super) fn full(status: StatusCode, bytes: Vec<u8>) -> Reply {
    let body = Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {});
    let mut reply = Response::new(body.boxed_unsync());
    *reply.status_mut() = status;
    set(&mut reply, HeaderName::from_static("x-content-type-options"), "nosniff");
    reply
}

/// Sets a header to a value of ours; what cannot be a header's value is left out.
pub(super) fn set(reply: &mut Reply, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}
