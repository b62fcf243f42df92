//! One call: who makes it, with what, and what is answered.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode, Uri};
use serde_json::{Map, Value};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::clients::{AuthenticationError, Caller};
use super::hawk::{HawkError, Signed};
use super::paging::{self, Parameters};
use super::params::Params;
use super::reply::{Code, Refusal, Reply, fault, json_reply};
use super::routes::{self, Needs};
use super::{Services, methods};
use crate::document::finding::Findings;
use crate::document::reader::{Object, Place};
use crate::scopes::ScopeExpression;
use crate::text::excerpt;
use crate::timestamp::Timestamp;

/// Bytes of a payload that anybody may send with any call.
const SMALL_BYTES: usize = 32 << 10;
/// Bytes of a payload that holds a task or its scopes, as the real services take them, from callers who have signed.
const LARGE_BYTES: usize = 10 << 20;
/// Bytes of such payloads at a time. Read, one takes up to 16 times as much memory.
pub(super) const LARGE_BYTES_AT_ONCE: usize = 3 * LARGE_BYTES;
/// How long a payload may take to come, the wait for room included.
const PAYLOAD_TIME: Duration = Duration::from_secs(60);

/// A call, its payload read and its caller known.
pub(super) struct Exchange<'a> {
    pub(super) services: &'a Services,
    pub(super) params: Params,
    /// What follows the `?` in the call's URL.
    pub(super) query: String,
    /// The header `Range`, for methods that send bytes.
    pub(super) range: Option<String>,
    /// The present.
    pub(super) now: Timestamp,
    /// Where the caller reaches this server: `http://HOST:PORT`.
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
pub(super) async fn answer(services: &Services, request: Request<Incoming>) -> Reply {
    let now = services.queue.now();
    let (head, body) = request.into_parts();
    let Some((route, params)) = routes::find(&head.method, head.uri.path()) else {
        let (method, path) = (excerpt(head.method.as_str()), excerpt(head.uri.path()));
        let refusal =
            Refusal::new(Code::ResourceNotFound, format!("there is no method {method} {path} here"));
        return refusal.reply("none", Value::Object(Map::new()), Value::Null, now);
    };
    let described = params.to_json();
    // Who calls is known before anything is read of what they send.
    let content_type = text(&head.headers, &header::CONTENT_TYPE).unwrap_or_default();
    let host = text(&head.headers, &header::HOST).unwrap_or_default();
    let signed = (head.method.as_str(), resource(&head.uri));
    let authorization = text(&head.headers, &header::AUTHORIZATION);
    let (caller, origin) = authenticate(services, authorization, host, signed);
    let has_signed = caller.as_ref().is_ok_and(|caller| caller.client_id().is_some());
    let most = if has_signed && route.takes_much() { LARGE_BYTES } else { SMALL_BYTES };
    let received = match timeout(PAYLOAD_TIME, receive(services, body, most)).await {
        Ok(received) => received,
        Err(_) => Err(malformed("the payload takes too long to come".to_owned())),
    };
    let read = received.and_then(|it| Payload::read(content_type, &it.bytes).map(|payload| (it, payload)));
    let (received, payload) = match read {
        Ok(read) => read,
        Err(refusal) => return refusal.reply(route.name, described, Value::Null, now),
    };
    let caller = caller.and_then(|caller| caller.sent(content_type, &received.bytes));
    let query = head.uri.query().unwrap_or_default().to_owned();
    let range = text(&head.headers, &header::RANGE).map(str::to_owned);
    let exchange = Exchange { services, params, query, range, now, origin, caller, payload };
    match exchange.carry_out(route).await {
        Ok(reply) => reply,
        Err(refusal) => {
            let shown = if route.takes_a_secret() { Value::Null } else { exchange.payload.json };
            refusal.reply(route.name, described, shown, now)
        }
    }
}

impl Exchange<'_> {
    async fn carry_out(&self, route: &routes::Route) -> Result<Reply, Refusal> {
        let scope = |scope: &&str| ScopeExpression::Scope(self.params.fill(scope));
        match route.needs {
            Needs::Scope(only) => self.require(&scope(&only))?,
            Needs::Scopes(all) => self.require(&ScopeExpression::AllOf(all.iter().map(scope).collect()))?,
            Needs::Nothing | Needs::OfMethod => {}
        }
        self.params.check()?;
        let takes = if route.is_list() { Parameters::OfList } else { Parameters::None };
        paging::check(&self.query, takes)?;
        methods::call(route.api, self).await
    }

    /// Refuses callers without these scopes.
    pub(super) fn require(&self, required: &ScopeExpression) -> Result<(), Refusal> {
        let caller = self.caller()?;
        let Some(missing) = caller.lacks(required) else { return Ok(()) };
        let shown = serde_json::to_string(&missing).unwrap_or_default();
        let message = match caller.client_id() {
            Some(client_id) => format!("the client {client_id} lacks the scopes {shown}"),
            None => format!("this needs credentials with the scopes {shown}"),
        };
        Err(Refusal::new(Code::InsufficientScopes, message))
    }

    /// Who calls.
    pub(super) fn caller(&self) -> Result<&Caller, Refusal> {
        let refused = |error: &AuthenticationError| {
            let code = match error {
                AuthenticationError::Clients => Code::InternalServerError,
                AuthenticationError::Hawk(_)
                | AuthenticationError::Certificate(_)
                | AuthenticationError::Unknown(_)
                | AuthenticationError::Ext(_)
                | AuthenticationError::SelfIssued
                | AuthenticationError::Issuer { .. }
                | AuthenticationError::Authorized(_) => Code::AuthenticationFailed,
            };
            Refusal::new(code, error.to_string())
        };
        self.caller.as_ref().map_err(refused)
    }

    /// The payload of a method that takes one.
    pub(super) fn payload(&self) -> Result<&Value, Refusal> {
        if !self.payload.is_json {
            return Err(malformed("the payload must be JSON, of type application/json".to_owned()));
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
    fn read(content_type: &str, bytes: &[u8]) -> Result<Payload, Refusal> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let is_json = kind.eq_ignore_ascii_case("application/json");
        if !is_json || bytes.is_empty() {
            return Ok(Payload { json: Value::Object(Map::new()), is_json });
        }
        let json: Value = serde_json::from_slice(bytes)
            .map_err(|error| malformed(format!("the payload is no JSON: {error}")))?;
        if json.is_object() || json.is_array() {
            Ok(Payload { json, is_json })
        } else {
            Err(malformed("the payload must be an object or an array".to_owned()))
        }
    }
}

/// The bytes of a payload, and their room among those of all.
struct Received<'a> {
    bytes: Vec<u8>,
    _room: Option<SemaphorePermit<'a>>,
}

/// Reads a payload. A large one waits until there is room for it, which is kept until the call is answered.
async fn receive(services: &Services, mut body: Incoming, most: usize) -> Result<Received<'_>, Refusal> {
    let length = usize::try_from(body.size_hint().upper().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let room = match u32::try_from(length.min(most)) {
        Ok(bytes) if length > SMALL_BYTES && most > SMALL_BYTES => {
            let room = services.large_payloads.acquire_many(bytes).await;
            Some(room.map_err(|error| fault("make room for a payload", &error))?)
        }
        Ok(_) | Err(_) => None,
    };
    let (mut bytes, mut came) = (Vec::new(), 0);
    // Whoever sends more hears of it once they are ready to listen; what there is too much of is not kept.
    while let Some(frame) = body.frame().await
        && came <= most + LARGE_BYTES
    {
        let frame = frame.map_err(|error| malformed(format!("the payload is cut: {error}")))?;
        let Some(more) = frame.data_ref() else { continue };
        came += more.len();
        if came <= most {
            bytes.extend_from_slice(more);
        } else {
            bytes = Vec::new();
        }
    }
    if came > most {
        let message = format!("the payload of this call has at most {most} bytes from this caller");
        return Err(Refusal::new(Code::InputTooLarge, message));
    }
    Ok(Received { bytes, _room: room })
}

fn malformed(message: String) -> Refusal {
    Refusal::new(Code::MalformedPayload, message)
}

/// Who calls, and where they reach this server. Behind a reverse proxy that is its root URL, whatever the proxy says in
/// headers; but who is on this host, as this server's own worker, may leave the proxy out.
fn authenticate(
    services: &Services,
    authorization: Option<&str>,
    host: &str,
    (method, resource): (&str, &str),
) -> (Result<Caller, AuthenticationError>, String) {
    let verify = |host: &str, port| {
        let signed = Signed { method, resource, host, port };
        services.clients.authenticate(authorization, &signed, services.queue.now())
    };
    // Some clients sign for an IPv6 address without the brackets that it has in a URL.
    let authenticate = |host: &str, port| match (verify(host, port), bare(host)) {
        (Err(AuthenticationError::Hawk(HawkError::Mac)), Some(address)) => verify(address, port),
        (caller, _) => caller,
    };
    let here = format!("http://{host}");
    let (host, port) = match host.parse::<Authority>() {
        Ok(authority) => (authority.host().to_owned(), authority.port_u16().unwrap_or(80)),
        Err(_) => (host.to_owned(), 80),
    };
    let Some(root_url) = &services.root_url else { return (authenticate(&host, port), here) };
    match authenticate(root_url.host(), root_url.port()) {
        Err(AuthenticationError::Hawk(HawkError::Mac))
            if services.addresses.iter().any(|listens| is_here(*listens, &host, port)) =>
        {
            (authenticate(&host, port), here)
        }
        caller => (caller, root_url.to_string()),
    }
}

/// An IPv6 address that stands in brackets.
fn bare(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

/// Whether a host and port name the address at which a server listens, and no other name for it.
fn is_here(listens: SocketAddr, host: &str, port: u16) -> bool {
    let address: Option<IpAddr> = bare(host).unwrap_or(host).parse().ok();
    port == listens.port() && address.is_some_and(|ip| ip.is_loopback() || ip == listens.ip())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_host_stand_for_its_root_url() {
        let listens: SocketAddr = "192.0.2.1:8239".parse().unwrap();
        for (host, port, expected) in [
            ("127.0.0.1", 8239, true),
            ("[::1]", 8239, true),
            ("192.0.2.1", 8239, true),
            ("192.0.2.2", 8239, false),
            ("127.0.0.1", 80, false),
            ("localhost", 8239, false),
            ("evil.example.com", 8239, false),
            ("", 8239, false),
        ] {
            assert_eq!(is_here(listens, host, port), expected, "{host}:{port}");
        }
    }
}
