//! One call: who makes it, with what, and what is answered.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap};
use hyper::{Request, StatusCode, Uri, body};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::clients::{AuthenticationError, Caller};
use super::hawk::Signed;
use super::reply::{Code, Refusal, Reply, json_reply};
use super::routes::{self, Needs, Params};
use super::{Services, methods};
use crate::document::finding::Findings;
use crate::document::reader::{Object, Place};
use crate::scopes::ScopeExpression;
use crate::timestamp::Timestamp;

/// Bytes of a call's payload.
const PAYLOAD_BYTES: usize = 10 << 20;
/// How long one may take to come.
const PAYLOAD_TIME: Duration = Duration::from_secs(60);

/// A call, its payload read and its caller known.
pub(super) struct Exchange<'a> {
    pub(super) services: &'a Services,
    pub(super) params: Params,
    /// The present.
    pub(super) now: Timestamp,
    /// Where the caller has reached this server: `http://HOST:PORT`.
    pub(super) origin: String,
    caller: Result<Caller, AuthenticationError>,
    payload: Payload,
}

/// What came with a call.
struct Payload {
    json: Value,
    is_json: bool,
}

/// Answers a call.
pub(super) async fn answer(services: &Services, request: Request<body::Incoming>) -> Reply {
    let now = services.queue.now();
    let (head, body) = request.into_parts();
    let Some((route, params)) = routes::find(&head.method, head.uri.path()) else {
        let refusal = Refusal::new(Code::ResourceNotFound, "there is no such method here");
        return refusal.reply("none", Value::Object(Map::new()), Value::Null, now);
    };
    let described = params.to_json();
    let bytes = match collect(body).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal.reply(route.name, described, Value::Null, now),
    };
    let content_type = text(&head.headers, &header::CONTENT_TYPE).unwrap_or_default();
    let payload = match Payload::read(content_type, &bytes) {
        Ok(payload) => payload,
        Err(refusal) => return refusal.reply(route.name, described, Value::Null, now),
    };
    let shown = payload.json.clone();
    let host = text(&head.headers, &header::HOST).unwrap_or_default();
    let signed = (head.method.as_str(), resource(&head.uri), content_type, &bytes[..]);
    let caller = authenticate(services, text(&head.headers, &header::AUTHORIZATION), host, signed);
    let exchange = Exchange { services, params, now, origin: format!("http://{host}"), caller, payload };
    match exchange.carry_out(route).await {
        Ok(reply) => reply,
        Err(refusal) => refusal.reply(route.name, described, shown, now),
    }
}

impl Exchange<'_> {
    async fn carry_out(&self, route: &routes::Route) -> Result<Reply, Refusal> {
        if let Needs::Scope(scope) = route.needs {
            self.require(&ScopeExpression::Scope(self.params.fill(scope)))?;
        }
        self.params.check()?;
        methods::call(route.api, self).await
    }

    /// Refuses callers without these scopes.
    pub(super) fn require(&self, required: &ScopeExpression) -> Result<(), Refusal> {
        let caller = self.caller()?;
        let Some(missing) = caller.lacks(required) else { return Ok(()) };
        let shown = serde_json::to_string(&missing).unwrap_or_default();
        let message = match &caller.client_id {
            Some(client_id) => format!("the client {client_id} lacks the scopes {shown}"),
            None => format!("this needs credentials with the scopes {shown}"),
        };
        Err(Refusal::new(Code::InsufficientScopes, message))
    }

    /// Who calls.
    pub(super) fn caller(&self) -> Result<&Caller, Refusal> {
        let refused =
            |error: &AuthenticationError| Refusal::new(Code::AuthenticationFailed, error.to_string());
        self.caller.as_ref().map_err(refused)
    }

    /// The payload of a method that takes one.
    pub(super) fn payload(&self) -> Result<&Value, Refusal> {
        if !self.payload.is_json {
            let message = "the payload must be JSON, of type application/json";
            return Err(Refusal::new(Code::MalformedPayload, message));
        }
        Ok(&self.payload.json)
    }

    /// What `read` reads of the payload; everything that is wrong with it is told at once.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Object<'_>, &mut Findings) -> Option<T>,
    ) -> Result<T, Refusal> {
        let payload = self.payload()?;
        let mut findings = Findings::default();
        let value =
            Place::root(payload, "").object(&mut findings).and_then(|object| read(&object, &mut findings));
        value.filter(|_| !findings.has_errors()).ok_or_else(|| invalid(findings))
    }
}

/// What is wrong with a payload.
pub(super) fn invalid(findings: Findings) -> Refusal {
    let lines: Vec<String> = findings.into_list().iter().map(ToString::to_string).collect();
    Refusal::new(Code::InputValidationError, format!("the payload is invalid: {}", lines.join("; ")))
}

impl Payload {
    fn read(content_type: &str, bytes: &Bytes) -> Result<Payload, Refusal> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let is_json = kind.eq_ignore_ascii_case("application/json");
        if !is_json || bytes.is_empty() {
            return Ok(Payload { json: Value::Object(Map::new()), is_json });
        }
        let malformed =
            |why: &str| Refusal::new(Code::MalformedPayload, format!("the payload is no JSON: {why}"));
        let json: Value = serde_json::from_slice(bytes).map_err(|error| malformed(&error.to_string()))?;
        if json.is_object() || json.is_array() {
            Ok(Payload { json, is_json })
        } else {
            Err(malformed("it must be an object or an array"))
        }
    }
}

async fn collect(body: body::Incoming) -> Result<Bytes, Refusal> {
    match timeout(PAYLOAD_TIME, Limited::new(body, PAYLOAD_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("a payload has at most {PAYLOAD_BYTES} bytes");
            Err(Refusal::new(Code::InputTooLarge, message))
        }
        Ok(Err(error)) => Err(Refusal::new(Code::MalformedPayload, format!("the payload is cut: {error}"))),
        Err(_) => Err(Refusal::new(Code::MalformedPayload, "the payload takes too long to come")),
    }
}

fn authenticate(
    services: &Services,
    authorization: Option<&str>,
    host: &str,
    (method, resource, content_type, body): (&str, &str, &str, &[u8]),
) -> Result<Caller, AuthenticationError> {
    let (host, port) = match host.parse::<hyper::http::uri::Authority>() {
        Ok(authority) => (authority.host().to_owned(), authority.port_u16().unwrap_or(80)),
        Err(_) => (host.to_owned(), 80),
    };
    let signed = Signed { method, resource, host: &host, port, content_type, body };
    services.clients.authenticate(authorization, &signed, services.queue.now())
}

/// Path and query.
fn resource(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str)
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// What was asked for.
pub(super) fn ok(body: &impl serde::Serialize) -> Result<Reply, Refusal> {
    Ok(json_reply(StatusCode::OK, body))
}

/// It is done, and there is nothing to say.
pub(super) fn done() -> Result<Reply, Refusal> {
    Ok(super::reply::full(StatusCode::NO_CONTENT, Vec::new()))
}
