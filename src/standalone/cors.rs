//! What pages of other origins may do with this server: as with Taskcluster's services, call it.
//!
//! A page acts in nobody's name but by credentials that somebody has given to it: there are no cookies, and what everybody
//! may do needs none. So all origins are alike, and the page of this server itself is no page of an API.

use hyper::header;
use hyper::{Method, StatusCode};

use super::reply::{Reply, full, set};
use super::routes;

/// Seconds for which a browser need not ask again.
const MAX_AGE: &str = "900";
const METHODS: &str = "OPTIONS,GET,HEAD,POST,PUT,DELETE,TRACE,CONNECT";
const HEADERS: &str = "X-Requested-With,Content-Type,Authorization,Accept,Origin,Cache-Control";

/// Whether pages of other origins may call what is there.
pub(super) fn is_for_all_origins(path: &str) -> bool {
    path.starts_with("/api/") || path.starts_with("/storage/")
}

/// Answers a browser that asks what it may do. What a path can really be asked for is among it, as for anybody who looks.
pub(super) fn preflight(path: &str) -> Reply {
    let storage = [Method::GET, Method::PUT];
    let verbs = if path.starts_with("/storage/") { storage.to_vec() } else { routes::verbs(path) };
    if verbs.is_empty() {
        return full(StatusCode::NOT_FOUND, b"Not found\n".to_vec());
    }
    let names: Vec<&str> = verbs.iter().map(Method::as_str).collect();
    let names = names.join(",");
    let mut reply = full(StatusCode::OK, names.clone().into_bytes());
    set(&mut reply, header::ALLOW, &names);
    reply
}

/// Lets pages of other origins read a reply.
pub(super) fn allow(reply: &mut Reply) {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
    ] {
        set(reply, name, value);
    }
}
